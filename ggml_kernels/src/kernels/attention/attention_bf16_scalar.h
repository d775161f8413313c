/* Attention with bf16 operands: the specification. Products of bf16 are exact in float; sums are float. */
#include "../../base/maths.h"

#include <math.h>
#include <string.h>

static void to_bf16_scalar(const float *x, int32_t n, uint16_t *y) {
    for (int32_t i = 0; i < n; i++) {
        uint32_t bits;
        memcpy(&bits, &x[i], sizeof bits);
        if ((bits & 0x7FFFFFFFu) > 0x7F800000u)
            y[i] = (uint16_t)(bits >> 16 | 0x40); /* a NaN stays a NaN */
        else if ((bits & 0x7F800000u) == 0)
            y[i] = (uint16_t)(bits >> 16 & 0x8000); /* subnormals count as zero, as in the hardware's instruction */
        else
            y[i] = (uint16_t)((bits + 0x7FFF + (bits >> 16 & 1)) >> 16);
    }
}

static float from_bf16(uint16_t half) {
    const uint32_t bits = (uint32_t)half << 16;
    float x;
    memcpy(&x, &bits, sizeof x);
    return x;
}

static void attention_bf16_scalar(const uint16_t *q, int32_t q_stride, int32_t n_q, const uint16_t *kp,
                                  const uint16_t *vp, int32_t v_stride, int32_t n_k, int32_t d, float scale,
                                  const float *bias, int32_t bias_stride, float *y, int32_t y_stride) {
    for (int32_t i = 0; i < n_q; i++) {
        float *yi = y + (size_t)i * (size_t)y_stride;
        float top = -INFINITY, total = 0;
        for (int pass = 0; pass < 2; pass++) {
            for (int32_t c = 0; pass == 1 && c < d; c++)
                yi[c] = 0;
            for (int32_t j = 0; j < n_k; j++) {
                const uint16_t *k = kp + (size_t)(j / GENIE_KEY_PANEL * GENIE_KEY_PANEL) * (size_t)d;
                float score = 0;
                for (int32_t c = 0; c < d; c++)
                    score += from_bf16(q[(size_t)i * (size_t)q_stride + (size_t)c]) *
                             from_bf16(k[(c / 2 * GENIE_KEY_PANEL + j % GENIE_KEY_PANEL) * 2 + c % 2]);
                score *= scale;
                if (bias != NULL)
                    score += bias[(size_t)i * (size_t)bias_stride + (size_t)j];
                if (pass == 0) {
                    top = score > top ? score : top;
                    continue;
                }
                const float term = genie_expf(score - top);
                uint16_t rounded;
                to_bf16_scalar(&term, 1, &rounded);
                total += term;
                for (int32_t c = 0; c < d; c++)
                    yi[c] += from_bf16(rounded) *
                             from_bf16(vp[((size_t)(j / 2) * (size_t)v_stride + (size_t)c) * 2 + (size_t)(j % 2)]);
            }
        }
        for (int32_t c = 0; c < d; c++)
            yi[c] /= total;
    }
}

static void keys_bf16_scalar(const float *k, int32_t k_stride, int32_t n, int32_t first, int32_t d, uint16_t *panel) {
    for (int32_t i = 0; i < n; i++)
        for (int32_t c = 0; c < d; c++)
            to_bf16_scalar(k + (size_t)i * (size_t)k_stride + (size_t)c, 1,
                           panel + (c / 2 * GENIE_KEY_PANEL + first + i) * 2 + c % 2);
}

static void values_bf16_scalar(const float *even, const float *odd, int32_t n, uint16_t *pairs) {
    for (int32_t c = 0; c < n; c++) {
        to_bf16_scalar(even + c, 1, pairs + 2 * c);
        pairs[2 * c + 1] = 0;
        if (odd != NULL)
            to_bf16_scalar(odd + c, 1, pairs + 2 * c + 1);
    }
}

static void past_head_scalar(const uint16_t *q, const uint16_t *k, const uint16_t *v, const uint16_t *kp,
                             const uint16_t *vp, int32_t panel, int32_t past, int32_t d, float scale, float slope,
                             float *y) {
    float p[GENIE_MAX_CONTEXT + 1], top = -INFINITY, total = 0;
    for (int32_t j = 0; j <= past; j++) {
        const uint16_t *keys = kp + (size_t)(j / panel * panel) * (size_t)d;
        p[j] = 0;
        for (int32_t c = 0; c < d; c++)
            p[j] += from_bf16(q[c]) * from_bf16(j == past ? k[c] : keys[(c / 2 * panel + j % panel) * 2 + c % 2]);
        p[j] = p[j] * scale - slope * (float)(past - j);
        top = p[j] > top ? p[j] : top;
    }
    for (int32_t c = 0; c < d; c++)
        y[c] = 0;
    for (int32_t j = 0; j <= past; j++) {
        p[j] = genie_expf(p[j] - top);
        total += p[j];
        uint16_t rounded;
        to_bf16_scalar(&p[j], 1, &rounded);
        const uint16_t *value = vp + (size_t)(j / 2) * (size_t)d * 2 + j % 2;
        for (int32_t c = 0; c < d; c++)
            y[c] += j == past ? p[j] * from_bf16(v[c]) : from_bf16(rounded) * from_bf16(value[2 * c]);
    }
    for (int32_t c = 0; c < d; c++)
        y[c] /= total;
}

static void attention_past_bf16_scalar(const uint16_t *q, const uint16_t *k, const uint16_t *v, const uint16_t *kp,
                                       const uint16_t *vp, size_t window, int32_t panel, int32_t past, int32_t heads,
                                       int32_t d, float scale, const float *slopes, float *y) {
    for (int32_t h = 0; h < heads; h++)
        past_head_scalar(q + h * d, k + h * d, v + h * d, kp + (size_t)h * window, vp + (size_t)h * window, panel, past,
                         d, scale, slopes == NULL ? 0 : slopes[h], y + h * d);
}
