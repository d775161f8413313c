/* FFN activations and softmax terms: the specification. */
#include "../../base/maths.h"

#include <math.h>

static float gelu_scalar(float x) { return 0.5f * x * (1.0f + genie_erff(x * 0.70710678118654752f)); }

static void ffn_activation_scalar(int32_t kind, const float *gate, float *up, int32_t n) {
    for (int32_t i = 0; i < n; i++) {
        const float x = up[i];
        switch ((genie_ffn_kind)kind) {
        case GENIE_FFN_GELU:
            up[i] = gelu_scalar(x);
            break;
        case GENIE_FFN_GELU_TANH:
            up[i] = 0.5f * x * (1.0f + genie_tanhf(0.79788456080286536f * (x + 0.044715f * x * x * x)));
            break;
        case GENIE_FFN_RELU:
            up[i] = x > 0 ? x : 0;
            break;
        case GENIE_FFN_RELU2:
            up[i] = x > 0 ? x * x : 0;
            break;
        case GENIE_FFN_SWIGLU:
            up[i] = gate[i] / (1.0f + genie_expf(-gate[i])) * x;
            break;
        case GENIE_FFN_GEGLU:
            up[i] = gelu_scalar(gate[i]) * x;
            break;
        case GENIE_FFN_COUNT: /* not a kind: genie_stack_create refuses it */
            break;
        }
    }
}

static float softmax_terms_scalar(const float *x, int32_t n, float inverse_temperature, float *e, double *sums) {
    float top = x[0];
    for (int32_t i = 1; i < n; i++)
        top = x[i] > top ? x[i] : top;
    double sum = 0;
    for (int32_t i = 0; i < n; i++) {
        e[i] = genie_expf((x[i] - top) * inverse_temperature);
        sum = i % GENIE_SUM_STRETCH == 0 ? (double)e[i] : sum + (double)e[i];
        if (sums != NULL)
            sums[i / GENIE_SUM_STRETCH] = sum;
    }
    return top;
}

static void scaled_silu_scalar(const float *x, const float *scale, const float *shift, int32_t n, float *y) {
    for (int32_t i = 0; i < n; i++) {
        const float z = x[i] * scale[i] + shift[i];
        y[i] = z / (1.0f + genie_expf(-z));
    }
}
