/*
 * Matrix products with AVX-512 VNNI. vpdpbusd multiplies uint8 by int8, so activations are stored + 128 and every
 * block's int32 sums start at -128 times the sum of its weights.
 */
#define VL 16
#include "../vector.h"
#include "matmul_kernels.h"

#include <immintrin.h>

enum { NV = 2, CHANNELS = NV * VL, FLOAT_ROWS = 6, QUANT_ROWS = 6, OFFSET = 128 };

static inline vf vf_fma(vf a, vf b, vf c) { return (vf)_mm512_fmadd_ps((__m512)a, (__m512)b, (__m512)c); }

static inline vf vf_from_half(const uint16_t *p) {
    return (vf)_mm512_cvtph_ps(_mm256_loadu_si256((const __m256i *)(const void *)p));
}

static inline vf vf_all(float x) { return (vf)_mm512_set1_ps(x); }
static inline vi vi_max(vi a, vi b) { return (vi)_mm512_max_epi32((__m512i)a, (__m512i)b); }

static inline void store_bytes(uint8_t *to, vf v) {
    const __m512 most = _mm512_set1_ps(127.0f), least = _mm512_set1_ps(-127.0f);
    const __m512i q = _mm512_cvtps_epi32(_mm512_max_ps(_mm512_min_ps((__m512)v, most), least));
    _mm_storeu_si128((__m128i *)(void *)to, _mm512_cvtepi32_epi8(_mm512_add_epi32(q, _mm512_set1_epi32(OFFSET))));
}

typedef struct {
    int32_t start[CHANNELS]; /* -128 * sum(w) */
    float d[CHANNELS];
    int8_t w[8][CHANNELS][4];
} block_q8;

static inline void finish_block(block_q8 *block) {
    for (int v = 0; v < NV; v++) {
        __m512i sum = _mm512_setzero_si512();
        for (int g = 0; g < 8; g++)
            sum = _mm512_dpbusd_epi32(sum, _mm512_set1_epi8(1), _mm512_load_si512(block->w[g][v * VL]));
        _mm512_store_si512(block->start + v * VL, _mm512_sub_epi32(_mm512_setzero_si512(), _mm512_slli_epi32(sum, 7)));
    }
}

static inline __attribute__((always_inline)) void quant_tile(const int rows, const block_q8 *blocks, int32_t count,
                                                             const uint8_t *q, size_t q_stride, float *sum) {
    __m512 total[QUANT_ROWS][NV];
    for (int r = 0; r < rows; r++)
        for (int v = 0; v < NV; v++)
            total[r][v] = _mm512_load_ps(sum + r * CHANNELS + v * VL);
    for (int32_t b = 0; b < count; b++) {
        const block_q8 *block = &blocks[b];
        __m512i dot[QUANT_ROWS][NV];
        for (int v = 0; v < NV; v++) {
            const __m512i start = _mm512_load_si512(block->start + v * VL);
            for (int r = 0; r < rows; r++)
                dot[r][v] = start;
        }
#pragma GCC unroll 8
        for (int g = 0; g < 8; g++) {
            __m512i w[NV];
            for (int v = 0; v < NV; v++) {
                w[v] = _mm512_load_si512(block->w[g][v * VL]);
                KEEP_IN_REGISTER(w[v]);
            }
            for (int r = 0; r < rows; r++) {
                int32_t four;
                memcpy(&four, q + (size_t)r * q_stride + (size_t)b * GENIE_BLOCK + 4 * g, sizeof four);
                const __m512i x = _mm512_set1_epi32(four);
                for (int v = 0; v < NV; v++)
                    dot[r][v] = _mm512_dpbusd_epi32(dot[r][v], x, w[v]);
            }
        }
        for (int v = 0; v < NV; v++) {
            const __m512 d = _mm512_load_ps(block->d + v * VL);
            for (int r = 0; r < rows; r++)
                total[r][v] = _mm512_fmadd_ps(_mm512_cvtepi32_ps(dot[r][v]), d, total[r][v]);
        }
    }
    for (int r = 0; r < rows; r++)
        for (int v = 0; v < NV; v++)
            _mm512_store_ps(sum + r * CHANNELS + v * VL, total[r][v]);
}

#include "matmul_vector.h"

const struct genie_matmul_kernels genie_matmul_avx512vnni = VECTOR_MATMUL_KERNELS;
