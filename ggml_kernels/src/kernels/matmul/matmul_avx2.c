/*
 * AVX2: s8 activations. maddubs needs one unsigned operand, so |w| goes in with sign(a, w); activations stay within
 * +-127 and |-128| is 128 as u8, so the pair sums (at most 2 * 128 * 127) fit 16 bits and the result is exact.
 */
#define VL 8
#include "matmul_kernels.h"
#include "../vector.h"

#include "matmul_float_vector.h"

#include <immintrin.h>
#include <math.h>

enum { CHANNELS = 16, MR = 3 };

static float quantize(const float *x, int32_t n, int32_t padded, uint8_t *q) {
    const __m256 sign = _mm256_set1_ps(-0.0f);
    __m256 tops = _mm256_setzero_ps();
    int32_t i = 0;
    for (; i + 8 <= n; i += 8)
        tops = _mm256_max_ps(tops, _mm256_andnot_ps(sign, _mm256_loadu_ps(x + i)));
    float top = vf_max((vf)tops);
    for (; i < n; i++)
        top = fabsf(x[i]) > top ? fabsf(x[i]) : top;
    const float inverse = top > 0 ? 127.0f / top : 0;
    const __m256 factor = _mm256_set1_ps(inverse);
    const __m256i high = _mm256_set1_epi32(127), low = _mm256_set1_epi32(-127);
    for (i = 0; i + 8 <= n; i += 8) {
        __m256i v = _mm256_cvtps_epi32(_mm256_mul_ps(_mm256_loadu_ps(x + i), factor));
        v = _mm256_max_epi32(_mm256_min_epi32(v, high), low);
        const __m128i words = _mm_packs_epi32(_mm256_castsi256_si128(v), _mm256_extracti128_si256(v, 1));
        _mm_storel_epi64((__m128i *)(q + i), _mm_packs_epi16(words, words));
    }
    for (; i < padded; i++) {
        float value = i < n ? rintf(x[i] * inverse) : 0;
        value = value > 127 ? 127 : value < -127 ? -127 : value;
        q[i] = (uint8_t)(int8_t)value;
    }
    return top / 127.0f;
}

static inline __attribute__((always_inline)) void dot_q8_tile(const uint8_t *a, int64_t a_stride, int rows, const uint8_t *panel, int32_t blocks,
                               float *acc) {
    const __m256i ones = _mm256_set1_epi16(1);
    __m256 sum[MR][2];
    for (int r = 0; r < rows; r++)
        for (int v = 0; v < 2; v++)
            sum[r][v] = _mm256_loadu_ps(acc + r * CHANNELS + v * 8);
    for (int32_t b = 0; b < blocks; b++, panel += genie_q8_block_bytes(CHANNELS)) {
        __m256i dot[MR][2];
        for (int r = 0; r < rows; r++)
            dot[r][0] = dot[r][1] = _mm256_setzero_si256();
        for (int g = 0; g < 8; g++) {
            const uint8_t *at = panel + CHANNELS * 8 + g * CHANNELS * 4;
            const __m256i w0 = _mm256_loadu_si256((const __m256i *)at);
            const __m256i w1 = _mm256_loadu_si256((const __m256i *)(at + 32));
            const __m256i m0 = _mm256_abs_epi8(w0), m1 = _mm256_abs_epi8(w1);
            for (int r = 0; r < rows; r++) {
                int32_t four;
                memcpy(&four, a + r * a_stride + b * GENIE_BLOCK + g * 4, sizeof four);
                const __m256i q = _mm256_set1_epi32(four);
                const __m256i p0 = _mm256_maddubs_epi16(m0, _mm256_sign_epi8(q, w0));
                const __m256i p1 = _mm256_maddubs_epi16(m1, _mm256_sign_epi8(q, w1));
                dot[r][0] = _mm256_add_epi32(dot[r][0], _mm256_madd_epi16(p0, ones));
                dot[r][1] = _mm256_add_epi32(dot[r][1], _mm256_madd_epi16(p1, ones));
            }
        }
        for (int v = 0; v < 2; v++) {
            const __m256 scale = _mm256_loadu_ps((const float *)(const void *)panel + v * 8);
            for (int r = 0; r < rows; r++)
                sum[r][v] = _mm256_fmadd_ps(_mm256_cvtepi32_ps(dot[r][v]), scale, sum[r][v]);
        }
    }
    for (int r = 0; r < rows; r++)
        for (int v = 0; v < 2; v++)
            _mm256_storeu_ps(acc + r * CHANNELS + v * 8, sum[r][v]);
}

static void dot_q8(const uint8_t *a, int64_t a_stride, int32_t rows, const uint8_t *panel, int32_t blocks, float *acc) {
    int32_t r = 0;
    for (; r + MR <= rows; r += MR)
        dot_q8_tile(a + r * a_stride, a_stride, MR, panel, blocks, acc + r * CHANNELS);
    for (; r < rows; r++)
        dot_q8_tile(a + r * a_stride, a_stride, 1, panel, blocks, acc + r * CHANNELS);
}

static void unpack_q4(const uint8_t *panel, int32_t blocks, uint8_t *out) {
    const __m256i mask = _mm256_set1_epi8(15), eight = _mm256_set1_epi8(8);
    for (int32_t b = 0; b < blocks; b++) {
        memcpy(out, panel, CHANNELS * 4);
        const uint8_t *w = panel + CHANNELS * 4;
        uint8_t *low = out + CHANNELS * 8, *high = low + CHANNELS * 16;
        for (int i = 0; i < CHANNELS * 16; i += 32) {
            const __m256i n = _mm256_loadu_si256((const __m256i *)(w + i));
            const __m256i h = _mm256_and_si256(_mm256_srli_epi16(n, 4), mask);
            _mm256_storeu_si256((__m256i *)(low + i), _mm256_sub_epi8(_mm256_and_si256(n, mask), eight));
            _mm256_storeu_si256((__m256i *)(high + i), _mm256_sub_epi8(h, eight));
        }
        panel += genie_q4_block_bytes(CHANNELS);
        out += genie_q8_block_bytes(CHANNELS);
    }
}

static void halves(const uint16_t *half, int64_t n, float *out) {
    int64_t i = 0;
    for (; i + 8 <= n; i += 8)
        _mm256_storeu_ps(out + i, _mm256_cvtph_ps(_mm_loadu_si128((const __m128i *)(half + i))));
    for (; i < n; i++)
        out[i] = _cvtsh_ss(half[i]);
}

const genie_matmul_kernels genie_matmul_avx2 = {CHANNELS, 0, quantize, dot_q8, unpack_q4, dot_float_vector, halves};
