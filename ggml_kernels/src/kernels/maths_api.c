/* The functions of maths.h for tests, which hold them to exact values. */
#include "../base/maths.h"

#include "../base/error.h"
#include "genie_bench.h"

genie_status genie_maths(int32_t function, const double *x, int32_t n, double *y) {
    if (x == NULL || y == NULL || n < 0 || function < 0 || function >= GENIE_MATHS_COUNT)
        return genie_fail(GENIE_ERROR_ARGUMENT, "a pointer is NULL, or function or n is out of range");
    for (int32_t i = 0; i < n; i++)
        y[i] = function == GENIE_MATHS_EXP     ? genie_exp(x[i])
               : function == GENIE_MATHS_LOG   ? genie_log(x[i])
               : function == GENIE_MATHS_COS   ? genie_cos(x[i])
               : function == GENIE_MATHS_EXPF  ? (double)genie_expf((float)x[i])
               : function == GENIE_MATHS_TANHF ? (double)genie_tanhf((float)x[i])
                                               : (double)genie_erff((float)x[i]);
    return GENIE_OK;
}
