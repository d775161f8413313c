/* RMS and layer norm: the specification. */
#include <math.h>

static void rms_norm_scalar(const float *x, const float *weight, float epsilon, int32_t n, float *y) {
    float sum = 0;
    for (int32_t i = 0; i < n; i++)
        sum += x[i] * x[i];
    const float scale = 1.0f / sqrtf(sum / (float)n + epsilon);
    for (int32_t i = 0; i < n; i++)
        y[i] = x[i] * scale * weight[i];
}

static void layer_norm_scalar(const float *x, const float *weight, const float *bias, float epsilon, int32_t n,
                              float *y) {
    float sum = 0, squares = 0;
    for (int32_t i = 0; i < n; i++)
        sum += x[i];
    const float mean = sum / (float)n;
    for (int32_t i = 0; i < n; i++)
        squares += (x[i] - mean) * (x[i] - mean);
    const float scale = 1.0f / sqrtf(squares / (float)n + epsilon);
    for (int32_t i = 0; i < n; i++)
        y[i] = (x[i] - mean) * scale * weight[i] + bias[i];
}
