/*
 * Attention with bf16 products (vdpbf16ps: two products per lane), for the AVX-512 BF16 table. Sums, maxima and
 * exponentials stay in float; attention_bf16_scalar.h is the specification.
 */
#include <immintrin.h>

static inline __m512bh bf16_pairs(const uint16_t *p) { return (__m512bh)_mm512_loadu_si512((const void *)p); }

/* Eight pairs in the lower half, zeros in the upper. */
static inline __m512bh bf16_half(const uint16_t *p) {
    return (__m512bh)_mm512_zextsi256_si512(_mm256_loadu_si256((const __m256i *)(const void *)p));
}

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

/* Row i's word j becomes row j's word i. */
static inline void transpose_words(__m512i r[16]) {
    __m512i t[16];
    for (int i = 0; i < 16; i += 2) {
        t[i] = _mm512_unpacklo_epi32(r[i], r[i + 1]);
        t[i + 1] = _mm512_unpackhi_epi32(r[i], r[i + 1]);
    }
    for (int i = 0; i < 16; i += 4)
        for (int j = 0; j < 2; j++) {
            r[i + 2 * j] = _mm512_unpacklo_epi64(t[i + j], t[i + j + 2]);
            r[i + 2 * j + 1] = _mm512_unpackhi_epi64(t[i + j], t[i + j + 2]);
        }
    for (int i = 0; i < 4; i++) { /* r[4 g + i] has words i, 4 + i, 8 + i, 12 + i of rows 4 g to 4 g + 3 */
        const __m512i even[2] = {_mm512_shuffle_i32x4(r[i], r[4 + i], 0x88),
                                 _mm512_shuffle_i32x4(r[8 + i], r[12 + i], 0x88)};
        const __m512i odd[2] = {_mm512_shuffle_i32x4(r[i], r[4 + i], 0xDD),
                                _mm512_shuffle_i32x4(r[8 + i], r[12 + i], 0xDD)};
        t[i] = _mm512_shuffle_i32x4(even[0], even[1], 0x88);
        t[4 + i] = _mm512_shuffle_i32x4(odd[0], odd[1], 0x88);
        t[8 + i] = _mm512_shuffle_i32x4(even[0], even[1], 0xDD);
        t[12 + i] = _mm512_shuffle_i32x4(odd[0], odd[1], 0xDD);
    }
    memcpy(r, t, sizeof t);
}

static void keys_bf16_avx512(const float *k, int32_t k_stride, int32_t n, int32_t first, int32_t d, uint16_t *panel) {
    for (int32_t c = 0; c < d; c += 32) {
        const int32_t pairs = d - c < 32 ? 8 : 16;
        __m512i words[16];
        for (int32_t i = 0; i < 16; i++) {
            const float *row = k + (size_t)(i < n ? i : 0) * (size_t)k_stride + (size_t)c;
            const __m512 low = _mm512_loadu_ps(row);
            const __m512 high = pairs == 16 ? _mm512_loadu_ps(row + 16) : _mm512_setzero_ps();
            words[i] = (__m512i)_mm512_cvtne2ps_pbh(high, low);
        }
        transpose_words(words);
        const __mmask16 there = (__mmask16)((1u << n) - 1);
        for (int32_t i = 0; i < pairs; i++)
            _mm512_mask_storeu_epi32(panel + ((c / 2 + i) * GENIE_KEY_PANEL + first) * 2, there, words[i]);
    }
}

static void values_bf16_avx512(const float *even, const float *odd, int32_t n, uint16_t *pairs) {
    /* Words 0, 16, 1, 17 ... */
    const __m512i turns =
        _mm512_set_epi32(0x1F000F, 0x1E000E, 0x1D000D, 0x1C000C, 0x1B000B, 0x1A000A, 0x190009, 0x180008, 0x170007,
                         0x160006, 0x150005, 0x140004, 0x130003, 0x120002, 0x110001, 0x100000);
    for (int32_t c = 0; c < n; c += 16) {
        const __m512 high = odd == NULL ? _mm512_setzero_ps() : _mm512_loadu_ps(odd + c);
        const __m512i both = (__m512i)_mm512_cvtne2ps_pbh(high, _mm512_loadu_ps(even + c));
        _mm512_storeu_si512((void *)(pairs + 2 * c), _mm512_permutexvar_epi16(turns, both));
    }
}

static inline __mmask16 lanes_there(int32_t n) {
    return n >= 16 ? (__mmask16)0xFFFF : n <= 0 ? 0 : (__mmask16)((1u << n) - 1);
}

/* Dot products with n keys and, lane by lane, the largest of each row. */
static inline void bf16_scores(const uint16_t *const q[ROWS], const uint16_t *kp, int32_t n, int32_t d,
                               float scores[ROWS][TILE], __m512 tops[ROWS]) {
    for (int r = 0; r < ROWS; r++)
        tops[r] = _mm512_set1_ps(-INFINITY);
    for (int32_t j = 0; j < n; j += GENIE_KEY_PANEL) {
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
        const __mmask16 there[2] = {lanes_there(n - j), lanes_there(n - j - 16)};
        for (int r = 0; r < ROWS; r++)
            for (int i = 0; i < 2; i++) {
                _mm512_storeu_ps(&scores[r][j + 16 * i], sum[r][i]);
                tops[r] = _mm512_mask_max_ps(tops[r], there[i], tops[r], sum[r][i]);
            }
    }
}

/* y[r][0 .. 16 * vectors) += p[r] v over `pairs` pairs of keys. */
static inline __attribute__((always_inline)) void bf16_columns(const int vectors, uint16_t p[ROWS][TILE],
                                                               const uint16_t *vp, int32_t v_stride, int32_t pairs,
                                                               float *const y[ROWS]) {
    __m512 sum[ROWS][2];
    for (int r = 0; r < ROWS; r++) {
        for (int i = 0; i < vectors; i++)
            sum[r][i] = _mm512_loadu_ps(y[r] + 16 * i);
        if (vectors == 1)
            sum[r][1] = _mm512_setzero_ps();
    }
    if (vectors == 1) {
        int32_t j = 0;
        for (; j + 1 < pairs; j += 2) {
            __m512bh value[2];
            for (int i = 0; i < 2; i++) {
                value[i] = bf16_pairs(vp + (size_t)(j + i) * (size_t)v_stride * 2);
                KEEP_IN_REGISTER(value[i]);
            }
#pragma GCC unroll 8
            for (int r = 0; r < ROWS; r++)
                for (int i = 0; i < 2; i++)
                    sum[r][i] = _mm512_dpbf16_ps(sum[r][i], value[i], bf16_pair_of_all(&p[r][2 * j + 2 * i]));
        }
        if (j < pairs) {
            const __m512bh value = bf16_pairs(vp + (size_t)j * (size_t)v_stride * 2);
            for (int r = 0; r < ROWS; r++)
                sum[r][0] = _mm512_dpbf16_ps(sum[r][0], value, bf16_pair_of_all(&p[r][2 * j]));
        }
        for (int r = 0; r < ROWS; r++)
            sum[r][0] = _mm512_add_ps(sum[r][0], sum[r][1]);
    } else
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

/*
 * 2^x for x <= 0, to 3e-6, which is far finer than the bf16 it is rounded to. A polynomial in the fractional part of x;
 * scalef itself takes the floor of x. No bounds are needed, because it underflows to zero.
 */
static inline __m512 exp2_avx512(__m512 x) {
    const __m512 r = _mm512_reduce_ps(x, _MM_FROUND_TO_NEG_INF | _MM_FROUND_NO_EXC);
    __m512 p = _mm512_set1_ps(1.353416789e-02f);
    p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(5.201146066e-02f));
    p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(2.414427569e-01f));
    p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(6.930038345e-01f));
    p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(1.000002593e+00f));
    return _mm512_scalef_ps(p, x);
}

#define LOG2_E 1.44269504088896341f

/* p = bf16(2^(scale * score - top)), then zeros from n on to a whole panel. Returns the sum of the unrounded values. */
static inline float bf16_terms(const float *scores, int32_t n, float scale, float top, uint16_t *p) {
    const __m512 by = _mm512_set1_ps(scale), off = _mm512_set1_ps(top);
    __m512 sums[2] = {_mm512_setzero_ps(), _mm512_setzero_ps()};
    for (int32_t k = 0; k < n; k += GENIE_KEY_PANEL) {
        __m512 e[2];
        for (int i = 0; i < 2; i++)
            e[i] = exp2_avx512(_mm512_fmsub_ps(_mm512_loadu_ps(scores + k + 16 * i), by, off));
        if (n - k < GENIE_KEY_PANEL)
            for (int i = 0; i < 2; i++)
                e[i] = _mm512_maskz_mov_ps(lanes_there(n - k - 16 * i), e[i]);
        for (int i = 0; i < 2; i++)
            sums[i] = _mm512_add_ps(sums[i], e[i]);
        _mm512_storeu_si512((void *)(p + k), (__m512i)_mm512_cvtne2ps_pbh(e[1], e[0]));
    }
    return _mm512_reduce_add_ps(_mm512_add_ps(sums[0], sums[1]));
}

/* scores = scale * scores + bias * log2 e; returns, lane by lane, the largest of n. */
static inline __m512 bf16_bias(const float *bias, int32_t n, float scale, float *scores) {
    __m512 tops = _mm512_set1_ps(-INFINITY);
    for (int32_t k = 0; k < n; k += 16) {
        const __mmask16 there = lanes_there(n - k);
        const __m512 more = _mm512_mul_ps(_mm512_maskz_loadu_ps(there, bias + k), _mm512_set1_ps(LOG2_E));
        const __m512 score = _mm512_fmadd_ps(_mm512_loadu_ps(scores + k), _mm512_set1_ps(scale), more);
        _mm512_storeu_ps(scores + k, score);
        tops = _mm512_mask_max_ps(tops, there, tops, score);
    }
    return tops;
}

static void attention_bf16_avx512(const uint16_t *q, int32_t q_stride, int32_t n_q, const uint16_t *kp,
                                  const uint16_t *vp, int32_t v_stride, int32_t n_k, int32_t d, float scale,
                                  const float *bias, int32_t bias_stride, float *y, int32_t y_stride) {
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
            float by = scale * LOG2_E, shrink[ROWS];
            __m512 tops[ROWS];
            bf16_scores(q_R, kp + (size_t)j * (size_t)d, n, d, scores, tops);
            if (bias != NULL) {
                for (int32_t r = 0; r < rows; r++)
                    tops[r] = bf16_bias(bias + (size_t)(i + r) * (size_t)bias_stride + (size_t)j, n, by, scores[r]);
                by = 1;
            }
            for (int32_t r = 0; r < ROWS; r++) {
                const float here = _mm512_reduce_max_ps(tops[r]) * by, old = top[r];
                top[r] = here > old ? here : old;
                shrink[r] = j == 0 || top[r] == old ? 1.0f : exp2f(old - top[r]);
            }
            for (int32_t r = 0; r < ROWS; r++) {
                total[r] = total[r] * shrink[r] + bf16_terms(scores[r], n, by, top[r], p[r]);
                for (int32_t c = 0; c < d && shrink[r] != 1.0f; c++)
                    sums[r][c] *= shrink[r];
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

/* Dot products with 16 keys, one per lane. Four independent sums hide the latency of the instruction. */
static inline __m512 bf16_past_scores(const uint16_t *q, const uint16_t *kp, int32_t d) {
    __m512 sum[4] = {_mm512_setzero_ps(), _mm512_setzero_ps(), _mm512_setzero_ps(), _mm512_setzero_ps()};
    for (int32_t c = 0; c < d; c += 8)
        for (int i = 0; i < 4; i++)
            sum[i] = _mm512_dpbf16_ps(sum[i], bf16_pairs(kp + (size_t)(c + 2 * i) * GENIE_PAST_PANEL),
                                      bf16_pair_of_all(q + c + 2 * i));
    return _mm512_add_ps(_mm512_add_ps(sum[0], sum[1]), _mm512_add_ps(sum[2], sum[3]));
}

/* y[0 .. 16 * vectors) = share * (p v over the past + p_own v_own). The last pair may hold only one value. */
static inline __attribute__((always_inline)) void bf16_past_columns(const int vectors, const uint16_t *p,
                                                                    const uint16_t *vp, int32_t past, int32_t d,
                                                                    __m512 p_own, const uint16_t *v_own, __m512 share,
                                                                    float *y) {
    __m512 sum[4];
    for (int i = 0; i < vectors; i++)
        sum[i] = _mm512_mul_ps(bf16_widen(v_own + 16 * i), p_own);
    for (int32_t j = 0; j + 1 < past; j += 2) {
        const __m512bh both = bf16_pair_of_all(p + j);
        for (int i = 0; i < vectors; i++)
            sum[i] = _mm512_dpbf16_ps(sum[i], bf16_pairs(vp + (size_t)j * (size_t)d + 32 * i), both);
    }
    if (past % 2 != 0) {
        const __m512bh both = bf16_pair_of_all(p + past - 1);
        for (int i = 0; i < vectors; i++) {
            const __m512i pair = (__m512i)bf16_pairs(vp + (size_t)(past - 1) * (size_t)d + 32 * i);
            const __m512i one = _mm512_maskz_mov_epi16(0x55555555, pair);
            sum[i] = _mm512_dpbf16_ps(sum[i], (__m512bh)one, both);
        }
    }
    for (int i = 0; i < vectors; i++)
        _mm512_storeu_ps(y + 16 * i, _mm512_mul_ps(sum[i], share));
}

static inline __attribute__((always_inline)) void past_head(const uint16_t *q, const uint16_t *k, const uint16_t *v,
                                                            const uint16_t *kp, const uint16_t *vp, int32_t past,
                                                            int32_t d, float scale, float slope, float *y) {
    float scores[GENIE_MAX_CONTEXT]; /* whole vectors: the limit is a multiple of 16 */
    uint16_t p[GENIE_MAX_CONTEXT];
    __m512 own = _mm512_setzero_ps(), tops = _mm512_set1_ps(-INFINITY), terms = _mm512_setzero_ps();
    for (int32_t c = 0; c < d; c += 16)
        own = _mm512_dpbf16_ps(own, bf16_half(q + c), bf16_half(k + c));
    const __m512 by = _mm512_set1_ps(scale * LOG2_E), off = _mm512_set1_ps(slope * LOG2_E);
    const __m512 near = _mm512_set_ps(15, 14, 13, 12, 11, 10, 9, 8, 7, 6, 5, 4, 3, 2, 1, 0);
    /* In the last panel the own key takes the lane after the past's. Lanes after it get no weight. */
    const int32_t last = past / GENIE_PAST_PANEL * GENIE_PAST_PANEL, lane = past - last;
    for (int32_t j = 0; j <= last; j += GENIE_PAST_PANEL) {
        const __m512 away = _mm512_add_ps(near, _mm512_set1_ps((float)(j - past)));
        __m512 sums = bf16_past_scores(q, kp + (size_t)j * (size_t)d, d);
        if (j == last)
            sums = _mm512_mask_mov_ps(sums, (__mmask16)(1 << lane), _mm512_set1_ps(_mm512_reduce_add_ps(own)));
        __m512 score = _mm512_fmadd_ps(sums, by, _mm512_mul_ps(away, off));
        if (j == last)
            score = _mm512_mask_mov_ps(_mm512_set1_ps(-1e30f), lanes_there(lane + 1), score);
        tops = _mm512_max_ps(tops, score);
        _mm512_storeu_ps(scores + j, score);
    }
    const __m512 top = _mm512_set1_ps(_mm512_reduce_max_ps(tops));
    __m512 e = _mm512_setzero_ps();
    for (int32_t j = 0; j <= last; j += GENIE_PAST_PANEL) {
        e = exp2_avx512(_mm512_sub_ps(_mm512_loadu_ps(scores + j), top));
        terms = _mm512_add_ps(terms, e);
        const __m256bh half = _mm512_cvtneps_pbh(e);
        memcpy(p + j, &half, sizeof half);
    }
    const __m512 own_term = _mm512_permutexvar_ps(_mm512_set1_epi32(lane), e);
    const __m512 share = _mm512_set1_ps(1.0f / _mm512_reduce_add_ps(terms));
    int32_t c = 0;
    for (; c + 64 <= d; c += 64)
        bf16_past_columns(4, p, vp + 2 * c, past, d, own_term, v + c, share, y + c);
    for (; c + 32 <= d; c += 32)
        bf16_past_columns(2, p, vp + 2 * c, past, d, own_term, v + c, share, y + c);
    if (c < d)
        bf16_past_columns(1, p, vp + 2 * c, past, d, own_term, v + c, share, y + c);
}

static inline __attribute__((always_inline)) void past_heads(const uint16_t *q, const uint16_t *k, const uint16_t *v,
                                                             const uint16_t *kp, const uint16_t *vp, size_t window,
                                                             int32_t past, int32_t heads, int32_t d, float scale,
                                                             const float *slopes, float *y) {
    for (int32_t h = 0; h < heads; h++)
        past_head(q + h * d, k + h * d, v + h * d, kp + (size_t)h * window, vp + (size_t)h * window, past, d, scale,
                  slopes == NULL ? 0 : slopes[h], y + h * d);
}

/*
 * Four heads of a window of four frames side by side: head h has lanes 4 h to 4 h + 3, one per frame. Its lane `past`
 * is the own key; lanes after that get no weight.
 */
static inline __attribute__((always_inline)) void
short_past_heads(const uint16_t *q, const uint16_t *k, const uint16_t *v, const uint16_t *kp, const uint16_t *vp,
                 size_t window, int32_t past, int32_t heads, int32_t d, float scale, const float *slopes, float *y) {
    enum { S = GENIE_SHORT_PAST };
    const __m512i group = _mm512_set_epi32(3, 3, 3, 3, 2, 2, 2, 2, 1, 1, 1, 1, 0, 0, 0, 0);
    const __m512 frame = _mm512_set_ps(3, 2, 1, 0, 3, 2, 1, 0, 3, 2, 1, 0, 3, 2, 1, 0);
    const __mmask16 own = (__mmask16)(0x1111 << past), there = (__mmask16)(0x1111 * ((2 << past) - 1));
    const __m512 away = _mm512_mul_ps(_mm512_sub_ps(frame, _mm512_set1_ps((float)past)), _mm512_set1_ps(LOG2_E));
    __m512 sum[S];
    for (int32_t h = 0; h < S; h++) {
        sum[h] = _mm512_setzero_ps();
        for (int32_t c = 0; c < d && h < heads; c += 8) { /* four pairs of each frame */
            const __m512i at = _mm512_add_epi32(group, _mm512_set1_epi32(c % 16 / 2));
            const __m512i query = _mm512_permutexvar_epi32(at, (__m512i)bf16_half(q + h * d + c / 16 * 16));
            const __m512i key = (__m512i)bf16_half(k + h * d + c / 16 * 16);
            const __m512i keys = (__m512i)bf16_pairs(kp + (size_t)h * window + (size_t)(c * S));
            sum[h] =
                _mm512_dpbf16_ps(sum[h], (__m512bh)_mm512_mask_permutexvar_epi32(keys, own, at, key), (__m512bh)query);
        }
    }
    /* Each lane group holds the sums of every fourth pair. Add a head's four groups into one group per head. */
    const __m512 ab =
        _mm512_add_ps(_mm512_shuffle_f32x4(sum[0], sum[1], 0x44), _mm512_shuffle_f32x4(sum[0], sum[1], 0xEE));
    const __m512 cd =
        _mm512_add_ps(_mm512_shuffle_f32x4(sum[2], sum[3], 0x44), _mm512_shuffle_f32x4(sum[2], sum[3], 0xEE));
    __m512 score = _mm512_add_ps(_mm512_shuffle_f32x4(ab, cd, 0x88), _mm512_shuffle_f32x4(ab, cd, 0xDD));
    score = _mm512_mul_ps(score, _mm512_set1_ps(scale * LOG2_E));
    if (slopes != NULL) {
        const __m512 few = _mm512_maskz_loadu_ps((__mmask16)((1 << (heads < S ? heads : S)) - 1), slopes);
        score = _mm512_fmadd_ps(_mm512_permutexvar_ps(group, few), away, score);
    }
    score = _mm512_mask_mov_ps(_mm512_set1_ps(-1e30f), there, score);
    __m512 top = _mm512_max_ps(score, _mm512_permute_ps(score, 0xB1));
    top = _mm512_max_ps(top, _mm512_permute_ps(top, 0x4E));
    const __m512 e = exp2_avx512(_mm512_sub_ps(score, top));
    __m512 total = _mm512_add_ps(e, _mm512_permute_ps(e, 0xB1));
    total = _mm512_add_ps(total, _mm512_permute_ps(total, 0x4E));
    const __m512 share = _mm512_div_ps(_mm512_set1_ps(1), total);
    const __mmask16 before = (__mmask16)(0x1111 * ((1 << past) - 1));
    const __m512i p = _mm512_zextsi256_si512((__m256i)_mm512_cvtneps_pbh(_mm512_maskz_mov_ps(before, e)));
    for (int32_t h = 0; h < S && h < heads; h++) {
        const __m512 p_own = _mm512_permutexvar_ps(_mm512_set1_epi32(S * h + past), e);
        const __m512 share_h = _mm512_permutexvar_ps(_mm512_set1_epi32(S * h), share);
        for (int32_t c = 0; c < d; c += 16) {
            __m512 out = _mm512_mul_ps(bf16_widen(v + h * d + c), p_own);
            for (int32_t j = 0; j < past; j += 2) {
                const __m512i pair = (__m512i)bf16_pairs(vp + (size_t)h * window + (size_t)(j * d + 2 * c));
                const __mmask32 known = j + 1 < past ? 0xFFFFFFFF : 0x55555555;
                out = _mm512_dpbf16_ps(out, (__m512bh)_mm512_maskz_mov_epi16(known, pair),
                                       (__m512bh)_mm512_permutexvar_epi32(_mm512_set1_epi32(2 * h + j / 2), p));
            }
            _mm512_storeu_ps(y + h * d + c, _mm512_mul_ps(out, share_h));
        }
    }
}

static inline __attribute__((always_inline)) void short_past(const uint16_t *q, const uint16_t *k, const uint16_t *v,
                                                             const uint16_t *kp, const uint16_t *vp, size_t window,
                                                             int32_t past, int32_t heads, int32_t d, float scale,
                                                             const float *slopes, float *y) {
    for (int32_t h = 0; h < heads; h += GENIE_SHORT_PAST)
        short_past_heads(q + h * d, k + h * d, v + h * d, kp + (size_t)h * window, vp + (size_t)h * window, window,
                         past, heads - h, d, scale, slopes == NULL ? NULL : slopes + h, y + h * d);
}

static void attention_past_bf16_avx512(const uint16_t *q, const uint16_t *k, const uint16_t *v, const uint16_t *kp,
                                       const uint16_t *vp, size_t window, int32_t panel, int32_t past, int32_t heads,
                                       int32_t d, float scale, const float *slopes, float *y) {
    /* A constant d lets the compiler unroll these short loops. */
    if (panel == GENIE_SHORT_PAST && d == 16)
        short_past(q, k, v, kp, vp, window, past, heads, 16, scale, slopes, y);
    else if (panel == GENIE_SHORT_PAST)
        short_past(q, k, v, kp, vp, window, past, heads, d, scale, slopes, y);
    else if (d == 16)
        past_heads(q, k, v, kp, vp, window, past, heads, 16, scale, slopes, y);
    else if (d == 32)
        past_heads(q, k, v, kp, vp, window, past, heads, 32, scale, slopes, y);
    else if (d == 64)
        past_heads(q, k, v, kp, vp, window, past, heads, 64, scale, slopes, y);
    else
        past_heads(q, k, v, kp, vp, window, past, heads, d, scale, slopes, y);
}
