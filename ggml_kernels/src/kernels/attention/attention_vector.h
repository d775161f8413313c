/*
 * Attention on vectors of the including file's ISA: tiles of ROWS queries by TILE keys with a running maximum, so that
 * the scores stay in L1 and the scratch does not grow with the number of keys.
 */
#include "../../base/maths.h"

#include <math.h>

#ifdef __wasm__
enum { ROWS = 4, TILE = 256 }; /* engines have 16 registers, and multiply and add apart */
#else
enum { ROWS = 6, TILE = 256 };
#endif

/* scores[r][j] for one tile of keys, whole panels; 2 vectors x ROWS sums fill the registers of every ISA. */
static inline void attention_scores(const float *const q[ROWS], const float *kt, int32_t padded, int32_t d, float scale,
                                    float scores[ROWS][TILE]) {
    for (int32_t j = 0; j < padded; j += 2 * VL) {
        const float *k = kt + (size_t)(j / GENIE_KEY_PANEL * GENIE_KEY_PANEL) * (size_t)d + j % GENIE_KEY_PANEL;
        vf sum[ROWS][2] = {{{0}}};
        for (int32_t c = 0; c < d; c++) {
            vf k0 = vf_load(k + (size_t)c * GENIE_KEY_PANEL), k1 = vf_load(k + (size_t)c * GENIE_KEY_PANEL + VL);
            KEEP_IN_REGISTER(k0);
            KEEP_IN_REGISTER(k1);
#pragma GCC unroll 8
            for (int r = 0; r < ROWS; r++) {
                sum[r][0] += k0 * q[r][c];
                sum[r][1] += k1 * q[r][c];
            }
        }
        for (int r = 0; r < ROWS; r++) {
            vf_store(&scores[r][j], sum[r][0] * scale);
            vf_store(&scores[r][j + VL], sum[r][1] * scale);
        }
    }
}

/* scores[k] += factor * bias[k] */
static inline void attention_bias(const float *bias, int32_t n, float factor, float *scores) {
    int32_t k = 0;
    for (; k + VL <= n; k += VL)
        vf_store(scores + k, vf_load(scores + k) + vf_load(bias + k) * factor);
    for (; k < n; k++)
        scores[k] += bias[k] * factor;
}

/* y[r] += p[r] v for `vectors` vectors of channels. */
static inline __attribute__((always_inline)) void attention_columns(const int vectors, float p[ROWS][TILE],
                                                                    const float *v, int32_t v_stride, int32_t n,
                                                                    float *const y[ROWS]) {
    vf sum[ROWS][2];
    for (int r = 0; r < ROWS; r++)
        for (int i = 0; i < vectors; i++)
            sum[r][i] = vf_load(y[r] + i * VL);
    for (int32_t j = 0; j < n; j++) {
        vf value[2];
        for (int i = 0; i < vectors; i++) {
            value[i] = vf_load(v + (size_t)j * (size_t)v_stride + i * VL);
            KEEP_IN_REGISTER(value[i]);
        }
#pragma GCC unroll 8
        for (int r = 0; r < ROWS; r++)
            for (int i = 0; i < vectors; i++)
                sum[r][i] += value[i] * p[r][j];
    }
    for (int r = 0; r < ROWS; r++)
        for (int i = 0; i < vectors; i++)
            vf_store(y[r] + i * VL, sum[r][i]);
}

static inline void attention_values(float p[ROWS][TILE], const float *v, int32_t v_stride, int32_t n, int32_t d,
                                    float y[ROWS][GENIE_MAX_KEY_LENGTH]) {
    int32_t c = 0;
    for (; c + VL <= d;) {
        float *to[ROWS];
        for (int r = 0; r < ROWS; r++)
            to[r] = &y[r][c];
        if (c + 2 * VL <= d) {
            attention_columns(2, p, v + c, v_stride, n, to);
            c += 2 * VL;
        } else {
            attention_columns(1, p, v + c, v_stride, n, to);
            c += VL;
        }
    }
    for (; c < d; c++)
        for (int32_t r = 0; r < ROWS; r++)
            for (int32_t j = 0; j < n; j++)
                y[r][c] += p[r][j] * v[(size_t)j * (size_t)v_stride + (size_t)c];
}

/*
 * Turns scores into e^(score - top), after raising top to this tile's largest score. Updates *total. Returns the factor
 * for the sums so far. Terms from n to `padded` are not read later; in *total, what vf_exp makes of -inf is negligible
 * beside 1.
 */
static inline float attention_softmax(float *scores, int32_t n, int32_t padded, float *top, float *total) {
    for (int32_t k = n; k < padded; k++)
        scores[k] = -INFINITY;
    vf tops = vf_load(scores), terms = {0};
    for (int32_t k = VL; k < padded; k += VL) {
        const vf a = vf_load(scores + k);
        tops = vf_larger(a, tops);
    }
    const float tile_top = vf_max(tops), old = *top;
    *top = tile_top > old ? tile_top : old;
    for (int32_t k = 0; k < padded; k += VL) {
        const vf e = vf_exp(vf_load(scores + k) - *top);
        vf_store(scores + k, e);
        terms += e;
    }
    const float shrink = *top > old ? genie_expf(old - *top) : 1.0f; /* 0 at the first tile */
    *total = *total * shrink + vf_sum(terms);
    return shrink;
}

static void attention_vector(const float *q, int32_t q_stride, int32_t n_q, const float *kt, const float *v,
                             int32_t v_stride, int32_t n_k, int32_t d, float scale, const float *bias,
                             int32_t bias_stride, float *y, int32_t y_stride) {
    float scores[ROWS][TILE], sums[ROWS][GENIE_MAX_KEY_LENGTH];
    for (int32_t i = 0; i < n_q; i += ROWS) {
        const int32_t rows = n_q - i < ROWS ? n_q - i : ROWS;
        const float *q_R[ROWS];
        float top[ROWS], total[ROWS];
        for (int32_t r = 0; r < ROWS; r++) {
            q_R[r] = q + (size_t)(i + (r < rows ? r : 0)) * (size_t)q_stride;
            top[r] = -INFINITY;
            total[r] = 0;
            memset(sums[r], 0, (size_t)d * sizeof(float));
        }
        for (int32_t j = 0; j < n_k; j += TILE) {
            const int32_t n = n_k - j < TILE ? n_k - j : TILE;
            const int32_t padded = (n + GENIE_KEY_PANEL - 1) / GENIE_KEY_PANEL * GENIE_KEY_PANEL;
            attention_scores(q_R, kt + (size_t)j * (size_t)d, padded, d, scale, scores);
            for (int32_t r = 0; bias != NULL && r < rows; r++)
                attention_bias(bias + (size_t)(i + r) * (size_t)bias_stride + (size_t)j, n, 1.0f, scores[r]);
            for (int32_t r = 0; r < rows; r++) {
                const float shrink = attention_softmax(scores[r], n, padded, &top[r], &total[r]);
                for (int32_t c = 0; c < d && j > 0 && shrink != 1.0f; c++)
                    sums[r][c] *= shrink;
            }
            attention_values(scores, v + (size_t)j * (size_t)v_stride, v_stride, n, d, sums);
        }
        for (int32_t r = 0; r < rows; r++) {
            for (int32_t c = 0; c < d; c++)
                y[(size_t)(i + r) * (size_t)y_stride + (size_t)c] = sums[r][c] / total[r];
        }
    }
}

static inline float dot_vector(const float *a, const float *b, int32_t n) {
    vf sums = {0};
    int32_t i = 0;
    for (; i + VL <= n; i += VL)
        sums += vf_load(a + i) * vf_load(b + i);
    float sum = vf_sum(sums);
    for (; i < n; i++)
        sum += a[i] * b[i];
    return sum;
}

static void attention_one_vector(const float *q, const float *k, const float *v, int32_t kv_stride, int32_t n_k,
                                 int32_t d, float scale, float slope, float *y) {
    float p[GENIE_MAX_CONTEXT], total = 0;
    p[0] = 0;
    for (int32_t j = 0; j < n_k; j++)
        p[j] = dot_vector(q, k + (size_t)j * (size_t)kv_stride, d) * scale - slope * (float)(n_k - 1 - j);
    softmax_terms_vector(p, n_k, 1.0f, p, NULL);
    for (int32_t j = 0; j < n_k; j++)
        total += p[j];
    const float share = 1.0f / total;
    int32_t c = 0;
    for (; c + VL <= d; c += VL) {
        vf sum = {0};
        for (int32_t j = 0; j < n_k; j++)
            sum += vf_load(v + (size_t)j * (size_t)kv_stride + (size_t)c) * p[j];
        vf_store(y + c, sum * share);
    }
    for (; c < d; c++) {
        float sum = 0;
        for (int32_t j = 0; j < n_k; j++)
            sum += p[j] * v[(size_t)j * (size_t)kv_stride + (size_t)c];
        y[c] = sum * share;
    }
}
