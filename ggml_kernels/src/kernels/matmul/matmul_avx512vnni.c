/*
 * AVX-512 VNNI: vpdpbusd takes u8 activations (q + 128) and s8 weights. The 128 is taken back by starting each block's
 * integer sum at -128 * sum(w), which was packed with the weights; the tile holds 6 rows x 32 channels in registers.
 */
#define VL 16
#include "matmul_kernels.h"
#include "../vector.h"
#include "matmul_float_vector.h"

#include <immintrin.h>

enum { CHANNELS = 32, MR = 6 };

static float quantize(const float *x, int32_t n, int32_t padded, uint8_t *q) {
    __m512 tops = _mm512_setzero_ps();
    for (int32_t i = 0; i < n; i += 16) {
        const __mmask16 some = n - i >= 16 ? 0xFFFF : (__mmask16)((1u << (n - i)) - 1);
        tops = _mm512_max_ps(tops, _mm512_abs_ps(_mm512_maskz_loadu_ps(some, x + i)));
    }
    const float top = _mm512_reduce_max_ps(tops);
    const __m512 inverse = _mm512_set1_ps(top > 0 ? 127.0f / top : 0);
    for (int32_t i = 0; i < padded; i += 16) {
        const int32_t left = n - i;
        const __mmask16 some = left >= 16 ? 0xFFFF : left <= 0 ? 0 : (__mmask16)((1u << left) - 1);
        __m512i v = _mm512_cvtps_epi32(_mm512_mul_ps(_mm512_maskz_loadu_ps(some, x + i), inverse));
        v = _mm512_max_epi32(_mm512_min_epi32(v, _mm512_set1_epi32(127)), _mm512_set1_epi32(-127));
        v = _mm512_add_epi32(v, _mm512_set1_epi32(128));
        _mm_storeu_si128((__m128i *)(q + i), _mm512_cvtepi32_epi8(v));
    }
    return top / 127.0f;
}

static inline __attribute__((always_inline)) void dot_q8_tile(const uint8_t *a, int64_t a_stride, const int rows,
                                                              const uint8_t *panel, int32_t blocks, float *acc) {
    __m512 sum[MR][2];
#pragma GCC unroll 6
    for (int r = 0; r < rows; r++) {
        sum[r][0] = _mm512_loadu_ps(acc + r * CHANNELS);
        sum[r][1] = _mm512_loadu_ps(acc + r * CHANNELS + 16);
    }
    for (int32_t b = 0; b < blocks; b++, panel += genie_q8_block_bytes(CHANNELS), a += GENIE_BLOCK) {
        const __m512i s0 = _mm512_loadu_si512(panel + CHANNELS * 4), s1 = _mm512_loadu_si512(panel + CHANNELS * 4 + 64);
        __m512i dot[MR][2];
#pragma GCC unroll 6
        for (int r = 0; r < rows; r++) {
            dot[r][0] = s0;
            dot[r][1] = s1;
        }
#pragma GCC unroll 8
        for (int g = 0; g < 8; g++) {
            __m512i w0 = _mm512_loadu_si512(panel + CHANNELS * 8 + g * CHANNELS * 4);
            __m512i w1 = _mm512_loadu_si512(panel + CHANNELS * 8 + g * CHANNELS * 4 + 64);
            /* Keeps the weights in registers: gcc would fold the load into each vpdpbusd and be bound by loads. */
            __asm__("" : "+v"(w0), "+v"(w1));
#pragma GCC unroll 6
            for (int r = 0; r < rows; r++) {
                int32_t four;
                memcpy(&four, a + r * a_stride + g * 4, sizeof four);
                const __m512i q = _mm512_set1_epi32(four);
                dot[r][0] = _mm512_dpbusd_epi32(dot[r][0], q, w0);
                dot[r][1] = _mm512_dpbusd_epi32(dot[r][1], q, w1);
            }
        }
        const __m512 d0 = _mm512_loadu_ps((const float *)(const void *)panel);
        const __m512 d1 = _mm512_loadu_ps((const float *)(const void *)panel + 16);
#pragma GCC unroll 6
        for (int r = 0; r < rows; r++) {
            sum[r][0] = _mm512_fmadd_ps(_mm512_cvtepi32_ps(dot[r][0]), d0, sum[r][0]);
            sum[r][1] = _mm512_fmadd_ps(_mm512_cvtepi32_ps(dot[r][1]), d1, sum[r][1]);
        }
    }
#pragma GCC unroll 6
    for (int r = 0; r < rows; r++) {
        _mm512_storeu_ps(acc + r * CHANNELS, sum[r][0]);
        _mm512_storeu_ps(acc + r * CHANNELS + 16, sum[r][1]);
    }
}

static void dot_q8(const uint8_t *a, int64_t a_stride, int32_t rows, const uint8_t *panel, int32_t blocks, float *acc) {
    for (; rows >= MR; rows -= MR, a += MR * a_stride, acc += MR * CHANNELS)
        dot_q8_tile(a, a_stride, MR, panel, blocks, acc);
    switch (rows) {
    case 5:
        dot_q8_tile(a, a_stride, 5, panel, blocks, acc);
        break;
    case 4:
        dot_q8_tile(a, a_stride, 4, panel, blocks, acc);
        break;
    case 3:
        dot_q8_tile(a, a_stride, 3, panel, blocks, acc);
        break;
    case 2:
        dot_q8_tile(a, a_stride, 2, panel, blocks, acc);
        break;
    case 1:
        dot_q8_tile(a, a_stride, 1, panel, blocks, acc);
        break;
    default:
        break;
    }
}

static void unpack_q4(const uint8_t *panel, int32_t blocks, uint8_t *out) {
    const __m512i mask = _mm512_set1_epi8(15), eight = _mm512_set1_epi8(8), ones = _mm512_set1_epi8(1);
    for (int32_t b = 0; b < blocks; b++) {
        memcpy(out, panel, CHANNELS * 4);
        const uint8_t *w = panel + CHANNELS * 4;
        uint8_t *low = out + CHANNELS * 8, *high = low + CHANNELS * 16;
        __m512i sum[2] = {_mm512_setzero_si512(), _mm512_setzero_si512()};
        for (int i = 0; i < CHANNELS * 16; i += 64) {
            const __m512i n = _mm512_loadu_si512(w + i);
            const __m512i l = _mm512_sub_epi8(_mm512_and_si512(n, mask), eight);
            const __m512i h = _mm512_sub_epi8(_mm512_and_si512(_mm512_srli_epi16(n, 4), mask), eight);
            _mm512_storeu_si512(low + i, l);
            _mm512_storeu_si512(high + i, h);
            const int half = i / 64 % 2;
            sum[half] = _mm512_dpbusd_epi32(_mm512_dpbusd_epi32(sum[half], ones, l), ones, h);
        }
        for (int half = 0; half < 2; half++) /* start = -128 * sum */
            _mm512_storeu_si512(out + CHANNELS * 4 + half * 64,
                                _mm512_sub_epi32(_mm512_setzero_si512(), _mm512_slli_epi32(sum[half], 7)));
        panel += genie_q4_block_bytes(CHANNELS);
        out += genie_q8_block_bytes(CHANNELS);
    }
}

static void halves(const uint16_t *half, int64_t n, float *out) {
    int64_t i = 0;
    for (; i + 16 <= n; i += 16)
        _mm512_storeu_ps(out + i, _mm512_cvtph_ps(_mm256_loadu_si256((const __m256i *)(half + i))));
    for (; i < n; i++)
        out[i] = _cvtsh_ss(half[i]);
}

const genie_matmul_kernels genie_matmul_avx512vnni = {CHANNELS, 128, quantize, dot_q8, unpack_q4, dot_float_vector,
                                                      halves};
