/*
 * Matrix products with AVX-512 VNNI. vpdpbusd multiplies uint8 by int8, so activations are stored + 128 and every
 * block's int32 sums start at -128 times the sum of its weights.
 */
#define VL 16
#include "../vector.h"
#include "matmul_kernels.h"
#define RUN_Q8 run_q8_whole
#define RUN_Q4 run_q4_whole

#include <immintrin.h>

enum { NV = 2, CHANNELS = NV * VL, FLOAT_ROWS = 6, QUANT_ROWS = 6, OFFSET = 128 };

static inline vf vf_fma(vf a, vf b, vf c) { return (vf)_mm512_fmadd_ps((__m512)a, (__m512)b, (__m512)c); }

static inline vf vf_from_half(const uint16_t *p) {
    return (vf)_mm512_cvtph_ps(_mm256_loadu_si256((const __m256i *)(const void *)p));
}

static inline vf vf_all(float x) { return (vf)_mm512_set1_ps(x); }
static inline vi vi_max(vi a, vi b) { return (vi)_mm512_max_epi32((__m512i)a, (__m512i)b); }

/* Only values from rows that are not finite can exceed 127. */
static inline void store_bytes(uint8_t *to, vf v) {
    const __m128i q = _mm512_cvtsepi32_epi8(_mm512_cvtps_epi32((__m512)v));
    _mm_storeu_si128((__m128i *)(void *)to, _mm_xor_si128(q, _mm_set1_epi8((char)OFFSET)));
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

/* total[r][v] = fma(float(exact integer dot of a block), d, total[r][v]), over the blocks in order. */
static inline __attribute__((always_inline)) void add_blocks(const int rows, const block_q8 *blocks, int32_t count,
                                                             const uint8_t *q, size_t q_stride,
                                                             __m512 total[QUANT_ROWS][NV]) {
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
}

static inline __attribute__((always_inline)) void quant_tile(const int rows, const block_q8 *blocks, int32_t count,
                                                             const uint8_t *q, size_t q_stride, float *sum) {
    __m512 total[QUANT_ROWS][NV];
    for (int r = 0; r < rows; r++)
        for (int v = 0; v < NV; v++)
            total[r][v] = _mm512_load_ps(sum + r * CHANNELS + v * VL);
    add_blocks(rows, blocks, count, q, q_stride, total);
    for (int r = 0; r < rows; r++)
        for (int v = 0; v < NV; v++)
            _mm512_store_ps(sum + r * CHANNELS + v * VL, total[r][v]);
}

/* y = total * scale + bias (+ y) for rows from `first` on, straight from the registers. */
static inline __attribute__((always_inline)) void store_tile(const int rows, const genie_panel_product *p,
                                                             int32_t first, __m512 total[QUANT_ROWS][NV]) {
    for (int v = 0; v < NV; v++) {
        const int32_t left = p->channels - v * VL;
        const __mmask16 there = left >= VL ? (__mmask16)0xFFFF : left <= 0 ? 0 : (__mmask16)((1u << left) - 1);
        const __m512 bias = _mm512_loadu_ps(p->bias + v * VL);
        for (int r = 0; r < rows; r++) {
            float *y = p->y + (size_t)(first + r) * p->y_stride + v * VL;
            __m512 value = _mm512_fmadd_ps(total[r][v], _mm512_set1_ps(p->scale[first + r]), bias);
            if (p->accumulate)
                value = _mm512_add_ps(_mm512_maskz_loadu_ps(there, y), value);
            _mm512_mask_storeu_ps(y, there, value);
        }
    }
}

/* All blocks of a row at once, so that the sums stay in registers. */
static inline __attribute__((always_inline)) void whole_tile(const int rows, const genie_panel_product *p,
                                                             const block_q8 *blocks, int32_t first) {
    __m512 total[QUANT_ROWS][NV];
    for (int r = 0; r < rows; r++)
        for (int v = 0; v < NV; v++)
            total[r][v] = _mm512_setzero_ps();
    add_blocks(rows, blocks, p->columns / GENIE_BLOCK, p->q + (size_t)first * p->q_stride, p->q_stride, total);
    store_tile(rows, p, first, total);
}

#include "matmul_vector.h"

static void whole_rows(const genie_panel_product *p, const block_q8 *blocks) {
    for (int32_t first = 0; first < p->m; first += QUANT_ROWS) {
        const int32_t left = p->m - first;
        WITH_CONSTANT_ROWS(left < QUANT_ROWS ? left : QUANT_ROWS, QUANT_ROWS, whole_tile, p, blocks, first)
    }
}

static void run_q8_whole(const genie_panel_product *p) { whole_rows(p, (const block_q8 *)(const void *)p->panel); }

/*
 * For a few rows, unpacking does not pay. Here nibbles are the unsigned operand and activations the signed one. The
 * nibbles' offset of 8 is removed by adding -8 times the sum of a block's activations.
 */
static inline __attribute__((always_inline)) void nibble_tile(const int rows, const genie_panel_product *p,
                                                              int32_t first) {
    const block_q4 *blocks = (const block_q4 *)(const void *)p->panel;
    const __m512i low = _mm512_set1_epi8(15);
    __m512 total[QUANT_ROWS][NV];
    for (int r = 0; r < rows; r++)
        for (int v = 0; v < NV; v++)
            total[r][v] = _mm512_setzero_ps();
    for (int32_t b = 0; b < p->columns / GENIE_BLOCK; b++) {
        __m512i dot[QUANT_ROWS][NV];
        int32_t x[QUANT_ROWS][8];
        for (int r = 0; r < rows; r++) {
            const uint8_t *q = p->q + (size_t)(first + r) * p->q_stride + (size_t)b * GENIE_BLOCK;
            const __m256i row = _mm256_loadu_si256((const __m256i *)(const void *)q);
            const __m256i sums = _mm256_sad_epu8(row, _mm256_setzero_si256()); /* of x + 128 */
            const __m128i halves = _mm_add_epi64(_mm256_castsi256_si128(sums), _mm256_extracti128_si256(sums, 1));
            const int32_t sum = _mm_cvtsi128_si32(halves) + _mm_extract_epi32(halves, 2) - 128 * GENIE_BLOCK;
            _mm256_storeu_si256((__m256i *)(void *)x[r], _mm256_xor_si256(row, _mm256_set1_epi8((char)OFFSET)));
            for (int v = 0; v < NV; v++)
                dot[r][v] = _mm512_set1_epi32(-8 * sum);
        }
#pragma GCC unroll 4
        for (int g = 0; g < 4; g++)
            for (int v = 0; v < NV; v++) {
                const __m512i pair = _mm512_loadu_si512(blocks[b].w[g][v * VL]);
                const __m512i first_half = _mm512_and_si512(pair, low);
                const __m512i second_half = _mm512_and_si512(_mm512_srli_epi32(pair, 4), low);
                for (int r = 0; r < rows; r++) {
                    dot[r][v] = _mm512_dpbusd_epi32(dot[r][v], first_half, _mm512_set1_epi32(x[r][g]));
                    dot[r][v] = _mm512_dpbusd_epi32(dot[r][v], second_half, _mm512_set1_epi32(x[r][g + 4]));
                }
            }
        for (int v = 0; v < NV; v++) {
            const __m512 d = (__m512)vf_from_half(blocks[b].d + v * VL);
            for (int r = 0; r < rows; r++)
                total[r][v] = _mm512_fmadd_ps(_mm512_cvtepi32_ps(dot[r][v]), d, total[r][v]);
        }
    }
    store_tile(rows, p, first, total);
}

static void run_q4_whole(const genie_panel_product *p) {
    enum { FEW = 4 };
    if (p->m <= FEW) {
        WITH_CONSTANT_ROWS(p->m, FEW, nibble_tile, p, 0)
    } else if (p->columns / GENIE_BLOCK <= QUANT_CHUNK) {
        block_q8 scratch[QUANT_CHUNK] __attribute__((aligned(64)));
        unpack_q4((const block_q4 *)(const void *)p->panel, p->columns / GENIE_BLOCK, scratch);
        whole_rows(p, scratch);
    } else {
        run_q4(p);
    }
}

const struct genie_matmul_kernels genie_matmul_avx512vnni = VECTOR_MATMUL_KERNELS;
