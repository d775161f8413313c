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

static void rms_norm_heads_scalar(const float *weight, float epsilon, int32_t heads, int32_t d, float *x) {
    for (int32_t h = 0; h < heads; h++)
        rms_norm_scalar(x + h * d, weight, epsilon, d, x + h * d);
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

static void channel_sums_scalar(const float *x, int32_t pixels, int32_t channels, float *sums, float *squares) {
    for (int32_t i = 0; i < channels; i++)
        sums[i] = squares[i] = 0;
    for (int32_t p = 0; p < pixels; p++, x += channels)
        for (int32_t i = 0; i < channels; i++) {
            sums[i] += x[i];
            squares[i] += x[i] * x[i];
        }
}
