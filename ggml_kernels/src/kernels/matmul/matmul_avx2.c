/*
 * Matrix products with AVX2. vpmaddubsw multiplies uint8 by int8 and adds pairs with saturation to int16. Weights are
 * therefore cut into planes of four bits: w = 16 (high - 8) + low, with high and low in 0..15 (Q4_0 is one plane, n -
 * 8). Activations stay within 127, so a lane's eight sums of a block are at most 8 * 2 * 15 * 127 = 30480 and fit in
 * int16. One vpmaddwd per plane and block widens them. The sums start at what the offset 8 subtracts (note_pairs).
 * A panel of Q8_0 is cut into planes once for many rows. For a few rows that does not pay: quant_tile multiplies int8
 * as they are, |w| (128 for -128) by the activation with w's sign.
 */
#define VL 8
#include "../vector.h"
#include "matmul_kernels.h"
#define RUN_Q8 run_q8_planes
#define RUN_Q4 run_q4_plane
#define FINISH_ROW note_pairs

#include <immintrin.h>

enum { NV = 2, CHANNELS = NV * VL, FLOAT_ROWS = 6, QUANT_ROWS = 4, PLANE_ROWS = 6, OFFSET = 0 };

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

/* Notes for each block, as two int16: -8 times the sum of columns 0, 1 and of columns 2, 3 of all groups of four. */
static inline void note_pairs(uint8_t *q, int32_t padded) {
    for (int32_t b = 0; b < padded / GENIE_BLOCK; b++) {
        const __m256i x = _mm256_loadu_si256((const __m256i *)(const void *)(q + (size_t)b * GENIE_BLOCK));
        const __m256i pairs = _mm256_maddubs_epi16(_mm256_set1_epi8(8), x);
        __m128i sum = _mm_add_epi16(_mm256_castsi256_si128(pairs), _mm256_extracti128_si256(pairs, 1));
        sum = _mm_add_epi16(sum, _mm_unpackhi_epi64(sum, sum));
        sum = _mm_add_epi16(sum, _mm_srli_epi64(sum, 32));
        const int32_t note = _mm_cvtsi128_si32(_mm_sub_epi16(_mm_setzero_si128(), sum));
        memcpy(q + padded + (size_t)b * GENIE_NOTE_BYTES, &note, sizeof note);
    }
}

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

/* ---- planes ---- */

enum { PLANE_CHUNK = 16, FEW_ROWS = 8 }; /* blocks cut at once; with so few rows none are cut */

/* Blocks of Q8_0 and of Q4_0 in planes, the high one last: [vector][group of 4 columns][plane][8 channels x 4]. */
typedef struct {
    float d[CHANNELS];
    uint8_t w[NV][8][2][4 * VL];
} block_planes;

typedef struct {
    float d[CHANNELS];
    uint8_t w[NV][8][1][4 * VL];
} block_plane;

static inline __m256i load(const void *from) { return _mm256_load_si256((const __m256i *)from); }

/* sum[rows][VL] = fma(float(exact integer dot of a block), d, sum) for vector v of the panel, over the blocks in order.
 */
static inline __attribute__((always_inline)) void plane_tile(const int rows, const int planes, const float *d,
                                                             const uint8_t *w, size_t block_bytes, int32_t count,
                                                             const uint8_t *q, const uint8_t *notes, size_t q_stride,
                                                             float *sum) {
    for (int32_t b = 0; b < count; b++) {
        __m256i dot[PLANE_ROWS][2];
        for (int r = 0; r < rows; r++) {
            int32_t note;
            memcpy(&note, notes + (size_t)r * q_stride + (size_t)b * GENIE_NOTE_BYTES, sizeof note);
            dot[r][0] = _mm256_setzero_si256();
            dot[r][planes - 1] = _mm256_set1_epi32(note);
        }
#pragma GCC unroll 8
        for (int g = 0; g < 8; g++) {
            __m256i plane[2];
            for (int i = 0; i < planes; i++) {
                plane[i] = load(w + (g * planes + i) * 4 * VL);
                KEEP_IN_REGISTER(plane[i]);
            }
            for (int r = 0; r < rows; r++) {
                int32_t four;
                memcpy(&four, q + (size_t)r * q_stride + (size_t)b * GENIE_BLOCK + 4 * g, sizeof four);
                const __m256i x = _mm256_set1_epi32(four);
                for (int i = 0; i < planes; i++) {
                    dot[r][i] = _mm256_add_epi16(dot[r][i], _mm256_maddubs_epi16(plane[i], x));
                    KEEP_IN_REGISTER(dot[r][i]); /* otherwise gcc adds the eight as a tree, and spills */
                }
            }
        }
        /* The totals stay in memory: with the integer sums they would not fit in 16 registers. */
        for (int r = 0; r < rows; r++) {
            __m256i all = _mm256_madd_epi16(dot[r][0], _mm256_set1_epi16(1));
            if (planes == 2)
                all = _mm256_add_epi32(all, _mm256_madd_epi16(dot[r][1], _mm256_set1_epi16(16)));
            float *to = sum + r * CHANNELS;
            _mm256_store_ps(to, _mm256_fmadd_ps(_mm256_cvtepi32_ps(all), _mm256_load_ps(d), _mm256_load_ps(to)));
        }
        d = (const float *)(const void *)((const uint8_t *)d + block_bytes);
        w += block_bytes;
    }
}

/* Cuts `count` blocks of a panel into planes. */
typedef void cut_blocks(const uint8_t *panel, int32_t first, int32_t count, uint8_t *to);

static inline __attribute__((always_inline)) void plane_rows(const genie_panel_product *p, const int planes,
                                                             const size_t block_bytes, cut_blocks *cut) {
    uint8_t scratch[PLANE_CHUNK * sizeof(block_planes)] __attribute__((aligned(64)));
    const int32_t all = p->columns / GENIE_BLOCK;
    for (int32_t first = 0; first < p->m; first += GROUP) {
        const int32_t rows = p->m - first < GROUP ? p->m - first : GROUP;
        float sum[GROUP * CHANNELS] __attribute__((aligned(64)));
        memset(sum, 0, (size_t)rows * CHANNELS * sizeof *sum);
        for (int32_t b = 0; b < all; b += PLANE_CHUNK) {
            const int32_t count = all - b < PLANE_CHUNK ? all - b : PLANE_CHUNK;
            if (first == 0 || all > PLANE_CHUNK)
                cut(p->panel, b, count, scratch);
            for (int32_t r = 0; r < rows; r += PLANE_ROWS) {
                const uint8_t *row = p->q + (size_t)(first + r) * p->q_stride;
                const uint8_t *q = row + (size_t)b * GENIE_BLOCK, *notes = row + p->columns + b * GENIE_NOTE_BYTES;
                for (int v = 0; v < NV; v++) {
                    const float *d = (const float *)(const void *)scratch + v * VL;
                    const uint8_t *w = scratch + CHANNELS * sizeof(float) + (size_t)(v * 8 * planes * 4 * VL);
                    float *to = sum + r * CHANNELS + v * VL;
                    WITH_CONSTANT_ROWS(rows - r, PLANE_ROWS, plane_tile, planes, d, w, block_bytes, count, q, notes,
                                       p->q_stride, to)
                }
            }
        }
        store_rows(p, first, rows, sum, p->scale + first);
    }
}

static void cut_q8(const uint8_t *panel, int32_t first, int32_t count, uint8_t *to) {
    const block_q8 *from = (const block_q8 *)(const void *)panel + first;
    block_planes *block = (block_planes *)(void *)to;
    const __m256i low = _mm256_set1_epi8(15), eight = _mm256_set1_epi8(8);
    for (int32_t b = 0; b < count; b++) {
        memcpy(block[b].d, from[b].d, sizeof block[b].d);
        for (int v = 0; v < NV; v++)
            for (int g = 0; g < 8; g++) {
                const __m256i w = load(from[b].w[g][v * VL]);
                const __m256i high = _mm256_xor_si256(_mm256_and_si256(_mm256_srli_epi16(w, 4), low), eight);
                _mm256_store_si256((__m256i *)(void *)block[b].w[v][g][0], _mm256_and_si256(w, low));
                _mm256_store_si256((__m256i *)(void *)block[b].w[v][g][1], high);
            }
    }
}

static void cut_q4(const uint8_t *panel, int32_t first, int32_t count, uint8_t *to) {
    const block_q4 *from = (const block_q4 *)(const void *)panel + first;
    block_plane *block = (block_plane *)(void *)to;
    const __m256i low = _mm256_set1_epi8(15);
    for (int32_t b = 0; b < count; b++)
        for (int v = 0; v < NV; v++) {
            vf_store(block[b].d + v * VL, vf_from_half(from[b].d + v * VL));
            for (int g = 0; g < 4; g++) {
                const __m256i pair = _mm256_loadu_si256((const __m256i *)(const void *)from[b].w[g][v * VL]);
                const __m256i high = _mm256_and_si256(_mm256_srli_epi16(pair, 4), low);
                _mm256_store_si256((__m256i *)(void *)block[b].w[v][g][0], _mm256_and_si256(pair, low));
                _mm256_store_si256((__m256i *)(void *)block[b].w[v][g + 4][0], high);
            }
        }
}

static void run_q8_planes(const genie_panel_product *p) {
    if (p->m > FEW_ROWS) {
        plane_rows(p, 2, sizeof(block_planes), cut_q8);
        return;
    }
    float sum[FEW_ROWS * CHANNELS] __attribute__((aligned(64))) = {0};
    quant_rows((const block_q8 *)(const void *)p->panel, p->columns / GENIE_BLOCK, p->q, p->q_stride, p->m, sum);
    store_rows(p, 0, p->m, sum, p->scale);
}

static void run_q4_plane(const genie_panel_product *p) { plane_rows(p, 1, sizeof(block_plane), cut_q4); }

const struct genie_matmul_kernels genie_matmul_avx2 = VECTOR_MATMUL_KERNELS;
