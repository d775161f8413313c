/*
 * Attention with bf16 products (vdpbf16ps: two products per lane), for the AVX-512 BF16 table. Sums, maxima and
 * exponentials stay in float; attention_bf16_scalar.h is the specification.
 */
#include <immintrin.h>

static inline __m512bh bf16_pairs(const uint16_t *p) { return (__m512bh)_mm512_loadu_si512((const void *)p); }

static inline __m512bh bf16_pair_of_all(const uint16_t *p) {
    int32_t pair;
    memcpy(&pair, p, sizeof pair);
    return (__m512bh)_mm512_set1_epi32(pair);
}

static void to_bf16_avx512(const float *x, int32_t n, uint16_t *y) {
    int32_t i = 0;
    for (; i + 16 <= n; i += 16) {
        const __m256bh half = _mm512_cvtneps_pbh(_mm512_loadu_ps(x + i));
        memcpy(y + i, &half, sizeof half);
    }
    if (i < n) {
        const __mmask16 rest = (__mmask16)((1u << (n - i)) - 1);
        const __m256bh half = _mm512_cvtneps_pbh(_mm512_maskz_loadu_ps(rest, x + i));
        memcpy(y + i, &half, (size_t)(n - i) * sizeof *y);
    }
}

static inline void bf16_scores(const uint16_t *const q[ROWS], const uint16_t *kp, int32_t padded, int32_t d,
                               float scale, float scores[ROWS][TILE]) {
    for (int32_t j = 0; j < padded; j += GENIE_KEY_PANEL) {
        const uint16_t *k = kp + (size_t)j * (size_t)d;
        __m512 sum[ROWS][2];
        for (int r = 0; r < ROWS; r++)
            sum[r][0] = sum[r][1] = _mm512_setzero_ps();
        for (int32_t c = 0; c < d; c += 2, k += 2 * GENIE_KEY_PANEL) {
            __m512bh k0 = bf16_pairs(k), k1 = bf16_pairs(k + GENIE_KEY_PANEL);
            KEEP_IN_REGISTER(k0);
            KEEP_IN_REGISTER(k1);
#pragma GCC unroll 8
            for (int r = 0; r < ROWS; r++) {
                const __m512bh both = bf16_pair_of_all(q[r] + c);
                sum[r][0] = _mm512_dpbf16_ps(sum[r][0], k0, both);
                sum[r][1] = _mm512_dpbf16_ps(sum[r][1], k1, both);
            }
        }
        for (int r = 0; r < ROWS; r++)
            for (int i = 0; i < 2; i++)
                _mm512_storeu_ps(&scores[r][j + 16 * i], _mm512_mul_ps(sum[r][i], _mm512_set1_ps(scale)));
    }
}

/* y[r][0 .. 16 vectors) += p[r] v over `pairs` pairs of keys. */
static inline __attribute__((always_inline)) void bf16_columns(const int vectors, uint16_t p[ROWS][TILE],
                                                               const uint16_t *vp, int32_t v_stride, int32_t pairs,
                                                               float *const y[ROWS]) {
    __m512 sum[ROWS][2];
    for (int r = 0; r < ROWS; r++)
        for (int i = 0; i < vectors; i++)
            sum[r][i] = _mm512_loadu_ps(y[r] + 16 * i);
    for (int32_t j = 0; j < pairs; j++) {
        __m512bh value[2];
        for (int i = 0; i < vectors; i++) {
            value[i] = bf16_pairs(vp + (size_t)j * (size_t)v_stride * 2 + 32 * i);
            KEEP_IN_REGISTER(value[i]);
        }
#pragma GCC unroll 8
        for (int r = 0; r < ROWS; r++) {
            const __m512bh both = bf16_pair_of_all(&p[r][2 * j]);
            for (int i = 0; i < vectors; i++)
                sum[r][i] = _mm512_dpbf16_ps(sum[r][i], value[i], both);
        }
    }
    for (int r = 0; r < ROWS; r++)
        for (int i = 0; i < vectors; i++)
            _mm512_storeu_ps(y[r] + 16 * i, sum[r][i]);
}

static void attention_bf16_avx512(const uint16_t *q, int32_t q_stride, int32_t n_q, const uint16_t *kp,
                                  const uint16_t *vp, int32_t v_stride, int32_t n_k, int32_t d, float scale, float *y,
                                  int32_t y_stride) {
    float scores[ROWS][TILE], sums[ROWS][GENIE_MAX_KEY_LENGTH];
    uint16_t p[ROWS][TILE];
    for (int32_t i = 0; i < n_q; i += ROWS) {
        const int32_t rows = n_q - i < ROWS ? n_q - i : ROWS;
        const uint16_t *q_R[ROWS];
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
            bf16_scores(q_R, kp + (size_t)j * (size_t)d, padded, d, scale, scores);
            for (int32_t r = 0; r < ROWS; r++) {
                if (r < rows) {
                    const float shrink = attention_softmax(scores[r], n, padded, &top[r], &total[r]);
                    for (int32_t c = 0; c < d && j > 0 && shrink != 1.0f; c++)
                        sums[r][c] *= shrink;
                }
                to_bf16_avx512(scores[r], padded, p[r]);
            }
            for (int32_t c = 0; c < d;) {
                float *const to[ROWS] = {&sums[0][c], &sums[1][c], &sums[2][c], &sums[3][c], &sums[4][c], &sums[5][c]};
                const uint16_t *from = vp + ((size_t)(j / 2) * (size_t)v_stride + (size_t)c) * 2;
                if (c + 32 <= d)
                    bf16_columns(2, p, from, v_stride, (n + 1) / 2, to);
                else
                    bf16_columns(1, p, from, v_stride, (n + 1) / 2, to);
                c += c + 32 <= d ? 32 : 16;
            }
        }
        for (int32_t r = 0; r < rows; r++) {
            const float share = 1.0f / total[r];
            for (int32_t c = 0; c < d; c++)
                y[(size_t)(i + r) * (size_t)y_stride + (size_t)c] = sums[r][c] * share;
        }
    }
}

static inline __m512 bf16_widen(const uint16_t *p) {
    const __m256i half = _mm256_loadu_si256((const __m256i *)(const void *)p);
    return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(half), 16));
}

static void attention_one_bf16_avx512(const float *q, const uint16_t *k, const uint16_t *v, int32_t kv_stride,
                                      int32_t n_k, int32_t d, float scale, float *y) {
    uint16_t q16[GENIE_MAX_KEY_LENGTH];
    float p[GENIE_MAX_CONTEXT], total = 0;
    to_bf16_avx512(q, d, q16);
    p[0] = 0;
    for (int32_t j = 0; j < n_k; j++) {
        __m512 sum = _mm512_setzero_ps();
        for (int32_t c = 0; c < d; c += 32)
            sum = _mm512_dpbf16_ps(sum, bf16_pairs(q16 + c), bf16_pairs(k + (size_t)j * (size_t)kv_stride + c));
        p[j] = _mm512_reduce_add_ps(sum) * scale;
    }
    softmax_terms_vector(p, n_k, 1.0f, p);
    for (int32_t j = 0; j < n_k; j++)
        total += p[j];
    const __m512 share = _mm512_set1_ps(1.0f / total);
    for (int32_t c = 0; c < d; c += 32) {
        __m512 sum[2] = {_mm512_setzero_ps(), _mm512_setzero_ps()};
        for (int32_t j = 0; j < n_k; j++)
            for (int i = 0; i < 2; i++)
                sum[i] = _mm512_fmadd_ps(bf16_widen(v + (size_t)j * (size_t)kv_stride + c + 16 * i),
                                         _mm512_set1_ps(p[j]), sum[i]);
        for (int i = 0; i < 2; i++)
            _mm512_storeu_ps(y + c + 16 * i, _mm512_mul_ps(sum[i], share));
    }
}
