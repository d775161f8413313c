/*
 * Matrix products with AVX2. vpmaddubsw multiplies uint8 by int8 and adds pairs with saturation to int16, so it is
 * given |w| (128 for -128) and the activation with w's sign: 2 * 128 * 127 fits because activations stay within 127.
 */
#define VL 8
#include "../vector.h"
#include "matmul_kernels.h"

#include <immintrin.h>

enum { NV = 2, CHANNELS = NV * VL, FLOAT_ROWS = 6, QUANT_ROWS = 4, OFFSET = 0 };

static inline vf vf_fma(vf a, vf b, vf c) { return (vf)_mm256_fmadd_ps((__m256)a, (__m256)b, (__m256)c); }

static inline vf vf_from_half(const uint16_t *p) {
    return (vf)_mm256_cvtph_ps(_mm_loadu_si128((const __m128i *)(const void *)p));
}

static inline vf vf_all(float x) { return (vf)_mm256_set1_ps(x); }
static inline vi vi_max(vi a, vi b) { return (vi)_mm256_max_epi32((__m256i)a, (__m256i)b); }

static inline void store_bytes(uint8_t *to, vf v) {
    const __m256 most = _mm256_set1_ps(127.0f), least = _mm256_set1_ps(-127.0f);
    const __m256i q = _mm256_cvtps_epi32(_mm256_max_ps(_mm256_min_ps((__m256)v, most), least));
    const __m128i words = _mm_packs_epi32(_mm256_castsi256_si128(q), _mm256_extracti128_si256(q, 1));
    _mm_storel_epi64((__m128i *)(void *)to, _mm_packs_epi16(words, words));
}

typedef struct {
    float d[CHANNELS];
    int8_t w[8][CHANNELS][4];
} block_q8;

static inline void finish_block(block_q8 *block) { (void)block; }

static inline __attribute__((always_inline)) void quant_tile(const int rows, const block_q8 *blocks, int32_t count,
                                                             const uint8_t *q, size_t q_stride, float *sum) {
    const __m256i ones = _mm256_set1_epi16(1);
    for (int32_t b = 0; b < count; b++) {
        const block_q8 *block = &blocks[b];
        __m256i dot[QUANT_ROWS][NV];
        for (int r = 0; r < rows; r++)
            for (int v = 0; v < NV; v++)
                dot[r][v] = _mm256_setzero_si256();
#pragma GCC unroll 8
        for (int g = 0; g < 8; g++)
            for (int v = 0; v < NV; v++) {
                const __m256i w = _mm256_load_si256((const __m256i *)(const void *)block->w[g][v * VL]);
                const __m256i size = _mm256_abs_epi8(w);
                for (int r = 0; r < rows; r++) {
                    int32_t four;
                    memcpy(&four, q + (size_t)r * q_stride + (size_t)b * GENIE_BLOCK + 4 * g, sizeof four);
                    const __m256i x = _mm256_sign_epi8(_mm256_set1_epi32(four), w);
                    const __m256i pairs = _mm256_maddubs_epi16(size, x);
                    dot[r][v] = _mm256_add_epi32(dot[r][v], _mm256_madd_epi16(pairs, ones));
                }
            }
        /* The totals stay in memory: with the integer sums they would not fit in 16 registers. */
        for (int v = 0; v < NV; v++) {
            const __m256 d = _mm256_load_ps(block->d + v * VL);
            for (int r = 0; r < rows; r++) {
                float *to = sum + r * CHANNELS + v * VL;
                _mm256_store_ps(to, _mm256_fmadd_ps(_mm256_cvtepi32_ps(dot[r][v]), d, _mm256_load_ps(to)));
            }
        }
    }
}

#include "matmul_vector.h"

const struct genie_matmul_kernels genie_matmul_avx2 = VECTOR_MATMUL_KERNELS;
