/* RMS and layer norm on vectors of the including file's ISA. */
#include <math.h>

static inline float sum_of_squares(const float *x, int32_t n) {
    vf sums = {0}, others = {0}; /* two independent sums hide the latency of the addition */
    int32_t i = 0;
    for (; i + 2 * VL <= n; i += 2 * VL) {
        const vf a = vf_load(x + i), b = vf_load(x + i + VL);
        sums += a * a;
        others += b * b;
    }
    if (i + VL <= n) {
        const vf a = vf_load(x + i);
        sums += a * a;
        i += VL;
    }
    float sum = vf_sum(sums + others);
    for (; i < n; i++)
        sum += x[i] * x[i];
    return sum;
}

static inline void scale_values(const float *x, const float *weight, float scale, int32_t n, float *y) {
    int32_t i = 0;
    for (; i + VL <= n; i += VL)
        vf_store(y + i, vf_load(x + i) * scale * vf_load(weight + i));
    for (; i < n; i++)
        y[i] = x[i] * scale * weight[i];
}

static void rms_norm_vector(const float *x, const float *weight, float epsilon, int32_t n, float *y) {
    scale_values(x, weight, 1.0f / sqrtf(sum_of_squares(x, n) / (float)n + epsilon), n, y);
}

/* Heads are short, so the latency of the sum and of the square root dominates: several heads run side by side. */
static void rms_norm_heads_vector(const float *weight, float epsilon, int32_t heads, int32_t d, float *x) {
    enum { SOME = 4 };
    for (int32_t h = 0; h < heads; h += SOME, x += SOME * d) {
        const int32_t here = heads - h < SOME ? heads - h : SOME;
        float scale[SOME] = {0};
        for (int32_t i = 0; i < here; i++)
            scale[i] = sum_of_squares(x + i * d, d);
        for (int32_t i = 0; i < SOME; i++)
            scale[i] = 1.0f / sqrtf(scale[i] / (float)d + epsilon);
        for (int32_t i = 0; i < here; i++)
            scale_values(x + i * d, weight, scale[i], d, x + i * d);
    }
}

static void layer_norm_vector(const float *x, const float *weight, const float *bias, float epsilon, int32_t n,
                              float *y) {
    vf sums = {0}, squares = {0};
    int32_t i = 0;
    for (; i + VL <= n; i += VL)
        sums += vf_load(x + i);
    float sum = vf_sum(sums);
    for (; i < n; i++)
        sum += x[i];
    const float mean = sum / (float)n;
    for (i = 0; i + VL <= n; i += VL) {
        const vf a = vf_load(x + i) - mean;
        squares += a * a;
    }
    sum = vf_sum(squares);
    for (; i < n; i++)
        sum += (x[i] - mean) * (x[i] - mean);
    const float scale = 1.0f / sqrtf(sum / (float)n + epsilon);
    for (i = 0; i + VL <= n; i += VL)
        vf_store(y + i, (vf_load(x + i) - mean) * scale * vf_load(weight + i) + vf_load(bias + i));
    for (; i < n; i++)
        y[i] = (x[i] - mean) * scale * weight[i] + bias[i];
}

static void channel_sums_vector(const float *x, int32_t pixels, int32_t channels, float *sums, float *squares) {
    int32_t i = 0;
    for (; i + VL <= channels; i += VL) {
        vf a = {0}, b = {0};
        for (int32_t p = 0; p < pixels; p++) {
            const vf v = vf_load(x + (size_t)p * (size_t)channels + i);
            a += v;
            b += v * v;
        }
        vf_store(sums + i, a);
        vf_store(squares + i, b);
    }
    for (; i < channels; i++) {
        float a = 0, b = 0;
        for (int32_t p = 0; p < pixels; p++) {
            const float v = x[(size_t)p * (size_t)channels + (size_t)i];
            a += v;
            b += v * v;
        }
        sums[i] = a;
        squares[i] = b;
    }
}
