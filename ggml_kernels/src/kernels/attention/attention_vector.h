/*
 * Attention on vectors of the including file's ISA: tiles of ROWS queries by TILE keys with a running maximum, so that
 * the scores never leave L1 and no scratch grows with the number of keys.
 */
#include <math.h>

enum { ROWS = 4, TILE = 256 };

/* scores[r][j] for one tile of keys; kt points at the tile's first column. Columns run to a multiple of 2 VL. */
static inline void attention_scores(const float *q, int32_t q_stride, int32_t rows, const float *kt, int32_t kt_stride,
                                    int32_t columns, int32_t d, float scale, float scores[ROWS][TILE]) {
    for (int32_t j = 0; j < columns; j += VL) {
        vf sum[ROWS] = {{0}};
        for (int32_t c = 0; c < d; c++) {
            const vf k = vf_load(kt + (size_t)c * (size_t)kt_stride + (size_t)j);
            for (int32_t r = 0; r < ROWS; r++)
                sum[r] += k * q[(size_t)(r < rows ? r : 0) * (size_t)q_stride + (size_t)c];
        }
        for (int32_t r = 0; r < ROWS; r++)
            vf_store(&scores[r][j], sum[r] * scale);
    }
}

/* y[r] += p[r] v for one tile, d in steps of VL and a scalar tail. */
static inline void attention_values(float p[ROWS][TILE], int32_t rows, const float *v, int32_t v_stride, int32_t n,
                                    int32_t d, float y[ROWS][GENIE_MAX_KEY_LENGTH]) {
    int32_t c = 0;
    for (; c + VL <= d; c += VL) {
        vf sum[ROWS];
        for (int32_t r = 0; r < ROWS; r++)
            sum[r] = vf_load(&y[r][c]);
        for (int32_t j = 0; j < n; j++) {
            const vf value = vf_load(v + (size_t)j * (size_t)v_stride + (size_t)c);
            for (int32_t r = 0; r < ROWS; r++)
                sum[r] += value * p[r][j];
        }
        for (int32_t r = 0; r < ROWS; r++)
            vf_store(&y[r][c], sum[r]);
    }
    for (; c < d; c++)
        for (int32_t r = 0; r < rows; r++)
            for (int32_t j = 0; j < n; j++)
                y[r][c] += p[r][j] * v[(size_t)j * (size_t)v_stride + (size_t)c];
}

static void attention_vector(const float *q, int32_t q_stride, int32_t n_q, const float *kt, int32_t kt_stride,
                             const float *v, int32_t v_stride, int32_t n_k, int32_t d, float scale, float *y,
                             int32_t y_stride) {
    float scores[ROWS][TILE], sums[ROWS][GENIE_MAX_KEY_LENGTH];
    for (int32_t i = 0; i < n_q; i += ROWS) {
        const int32_t rows = n_q - i < ROWS ? n_q - i : ROWS;
        const float *qi = q + (size_t)i * (size_t)q_stride;
        float top[ROWS], total[ROWS];
        for (int32_t r = 0; r < ROWS; r++) {
            top[r] = -INFINITY;
            total[r] = 0;
            memset(sums[r], 0, (size_t)d * sizeof(float));
        }
        for (int32_t j = 0; j < n_k; j += TILE) {
            const int32_t n = n_k - j < TILE ? n_k - j : TILE, padded = (n + VL - 1) / VL * VL;
            attention_scores(qi, q_stride, rows, kt + j, kt_stride, padded, d, scale, scores);
            for (int32_t r = 0; r < ROWS; r++) {
                for (int32_t k = n; k < padded; k++)
                    scores[r][k] = -INFINITY;
                vf tops = vf_load(scores[r]), terms = {0};
                for (int32_t k = VL; k < padded; k += VL) {
                    const vf a = vf_load(&scores[r][k]);
                    tops = vf_select(a > tops, a, tops);
                }
                const float tile_top = vf_max(tops), new_top = tile_top > top[r] ? tile_top : top[r];
                for (int32_t k = 0; k < padded; k += VL) {
                    const vf e = vf_exp(vf_load(&scores[r][k]) - new_top);
                    vf_store(&scores[r][k], e);
                }
                for (int32_t k = n; k < padded; k++) /* vf_exp has a floor above zero */
                    scores[r][k] = 0;
                for (int32_t k = 0; k < padded; k += VL)
                    terms += vf_load(&scores[r][k]);
                if (new_top > top[r] && j > 0) {
                    const float shrink = expf(top[r] - new_top);
                    total[r] *= shrink;
                    for (int32_t c = 0; c < d; c++)
                        sums[r][c] *= shrink;
                }
                top[r] = new_top;
                total[r] += vf_sum(terms);
            }
            attention_values(scores, rows, v + (size_t)j * (size_t)v_stride, v_stride, n, d, sums);
        }
        for (int32_t r = 0; r < rows; r++)
            for (int32_t c = 0; c < d; c++)
                y[(size_t)(i + r) * (size_t)y_stride + (size_t)c] = sums[r][c] / total[r];
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
                                 int32_t d, float scale, float *y) {
    float p[GENIE_MAX_CONTEXT], total = 0;
    p[0] = 0;
    for (int32_t j = 0; j < n_k; j++)
        p[j] = dot_vector(q, k + (size_t)j * (size_t)kv_stride, d) * scale;
    softmax_terms_vector(p, n_k, 1.0f, p);
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
