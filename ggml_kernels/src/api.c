/* The small public functions that belong to no folder: status texts and the vector quantizers. */
#include "base/error.h"
#include "base/maths.h"
#include "kernels/kernels.h"

#include <math.h>
#include <string.h>

uint32_t genie_abi_version(void) { return GENIE_ABI_VERSION; }

const char *genie_status_text(int32_t status) {
    switch (status) {
    case GENIE_OK:
        return "ok";
    case GENIE_ERROR_ARGUMENT:
        return "an argument is out of range";
    case GENIE_ERROR_MEMORY:
        return "out of memory";
    case GENIE_ERROR_THREAD:
        return "a thread could not be started";
    case GENIE_ERROR_ISA:
        return "unknown instruction set, or this CPU does not have it";
    case GENIE_ERROR_STATE:
        return "the window is full or a weight is missing";
    case GENIE_ERROR_FINITE:
        return "a weight is infinite or not a number";
    default:
        return "unknown status";
    }
}

genie_status genie_vq_nearest(const char *isa, const float *codebook_VL, int32_t codes, int32_t length,
                              const float *z_ML, int32_t count, int32_t *ids_M) {
    const genie_kernels *kernels = genie_kernels_find(isa);
    if (kernels == NULL)
        return genie_fail(GENIE_ERROR_ISA, "unknown instruction set, or this CPU does not have it");
    if (codebook_VL == NULL || z_ML == NULL || ids_M == NULL || codes < 1 || length < 1 || count < 0)
        return genie_fail(GENIE_ERROR_ARGUMENT, "a pointer is NULL, or codes, length or count is out of range");
    for (int32_t m = 0; m < count; m++)
        ids_M[m] = kernels->nearest(codebook_VL, codes, length, z_ML + (size_t)m * (size_t)length);
    return GENIE_OK;
}

genie_status genie_fsq_nearest(int32_t bins, int32_t length, const float *z_ML, int32_t count, int32_t *ids_M) {
    if (z_ML == NULL || ids_M == NULL || bins < 2 || length < 1 || count < 0)
        return genie_fail(GENIE_ERROR_ARGUMENT, "a pointer is NULL, or bins, length or count is out of range");
    int64_t codes = 1;
    for (int32_t j = 0; j < length; j++)
        if ((codes *= bins) > 1 << 24)
            return genie_fail(GENIE_ERROR_ARGUMENT, "bins^length must be <= 2^24");
    for (int32_t m = 0; m < count; m++) {
        int32_t id = 0;
        for (int32_t j = length; j-- > 0;) {
            const float z = z_ML[(size_t)m * (size_t)length + (size_t)j];
            const float digit = rintf(0.5f * (genie_tanhf(z) + 1.0f) * (float)(bins - 1));
            id = id * bins + (digit > 0 ? (int32_t)digit : 0); /* NaN becomes 0 */
        }
        ids_M[m] = id;
    }
    return GENIE_OK;
}

genie_status genie_vq_lookup(const float *codebook_VL, int32_t codes, int32_t length, const int32_t *ids_M,
                             int32_t count, float *z_ML) {
    if (codebook_VL == NULL || z_ML == NULL || ids_M == NULL || codes < 1 || length < 1 || count < 0)
        return genie_fail(GENIE_ERROR_ARGUMENT, "a pointer is NULL, or codes, length or count is out of range");
    for (int32_t m = 0; m < count; m++) {
        if (ids_M[m] < 0 || ids_M[m] >= codes)
            return genie_fail(GENIE_ERROR_ARGUMENT, "an id is out of range");
        memcpy(z_ML + (size_t)m * (size_t)length, codebook_VL + (size_t)ids_M[m] * (size_t)length,
               (size_t)length * sizeof(float));
    }
    return GENIE_OK;
}
