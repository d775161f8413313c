/* Attention: the specification. Two passes over the scores: the maximum, then the weighted sum. */
#include "../../base/maths.h"

#include <math.h>

static void attention_scalar(const float *q, int32_t q_stride, int32_t n_q, const float *kt, const float *v,
                             int32_t v_stride, int32_t n_k, int32_t d, float scale, const float *bias,
                             int32_t bias_stride, float *y, int32_t y_stride) {
    for (int32_t i = 0; i < n_q; i++) {
        const float *qi = q + (size_t)i * (size_t)q_stride;
        float *yi = y + (size_t)i * (size_t)y_stride;
        float top = -INFINITY, total = 0;
        for (int pass = 0; pass < 2; pass++) {
            if (pass == 1)
                for (int32_t c = 0; c < d; c++)
                    yi[c] = 0;
            for (int32_t j = 0; j < n_k; j++) {
                const float *k = kt + (size_t)(j / GENIE_KEY_PANEL * GENIE_KEY_PANEL) * (size_t)d + j % GENIE_KEY_PANEL;
                float score = 0;
                for (int32_t c = 0; c < d; c++)
                    score += qi[c] * k[c * GENIE_KEY_PANEL];
                score *= scale;
                if (bias != NULL)
                    score += bias[(size_t)i * (size_t)bias_stride + (size_t)j];
                if (pass == 0) {
                    top = score > top ? score : top;
                } else {
                    const float p = genie_expf(score - top);
                    total += p;
                    for (int32_t c = 0; c < d; c++)
                        yi[c] += p * v[(size_t)j * (size_t)v_stride + (size_t)c];
                }
            }
        }
        for (int32_t c = 0; c < d; c++)
            yi[c] /= total;
    }
}

static void attention_one_scalar(const float *q, const float *k, const float *v, int32_t kv_stride, int32_t n_k,
                                 int32_t d, float scale, float slope, float *y) {
    float p[GENIE_MAX_CONTEXT], top = -INFINITY, total = 0;
    for (int32_t j = 0; j < n_k; j++) {
        p[j] = 0;
        for (int32_t c = 0; c < d; c++)
            p[j] += q[c] * k[(size_t)j * (size_t)kv_stride + (size_t)c];
        p[j] = p[j] * scale - slope * (float)(n_k - 1 - j);
        top = p[j] > top ? p[j] : top;
    }
    for (int32_t c = 0; c < d; c++)
        y[c] = 0;
    for (int32_t j = 0; j < n_k; j++) {
        p[j] = genie_expf(p[j] - top);
        total += p[j];
        for (int32_t c = 0; c < d; c++)
            y[c] += p[j] * v[(size_t)j * (size_t)kv_stride + (size_t)c];
    }
    for (int32_t c = 0; c < d; c++)
        y[c] /= total;
}
