/*
 * Matrix products with AVX-VNNI: vpdpbusd on 256 bits, for CPUs that have it without AVX-512 (Intel since Alder Lake).
 * It multiplies uint8 by int8. For Q8_0 the activations are the unsigned operand: they are stored + 128, and every
 * block's int32 sums start at -128 times the sum of its weights. For Q4_0 the nibbles are unsigned already, and the
 * sums start at -8 times the sum of the block's activations.
 *
 * There are 16 registers, and twelve independent sums (3 rows x 4 vectors of channels) are more than the eight that
 * hide the latency of two units. Three activations and one vector of weights fill the other four.
 */
#define VL 8
#include "../vector.h"
#include "matmul_kernels.h"
#define RUN_Q4 run_q4_nibbles
#define FINISH_ROW note_sums

#include <immintrin.h>

#include "../dpbusd.h"

enum { NV = 4, CHANNELS = NV * VL, FLOAT_ROWS = 3, QUANT_ROWS = 3, OFFSET = 128 };

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
    const __m128i bytes = _mm_xor_si128(_mm_packs_epi16(words, words), _mm_set1_epi8((char)OFFSET));
    _mm_storel_epi64((__m128i *)(void *)to, bytes);
}

typedef struct {
    int32_t start[CHANNELS]; /* -128 * sum(w) */
    float d[CHANNELS];
    int8_t w[8][CHANNELS][4];
} block_q8;

static inline __m256i load(const void *from) { return _mm256_load_si256((const __m256i *)from); }

static inline void finish_block(block_q8 *block) {
    for (int v = 0; v < NV; v++) {
        __m256i sum = _mm256_setzero_si256();
        for (int g = 0; g < 8; g++)
            sum = dpbusd(sum, _mm256_set1_epi8(1), load(block->w[g][v * VL]));
        _mm256_store_si256((__m256i *)(void *)(block->start + v * VL),
                           _mm256_sub_epi32(_mm256_setzero_si256(), _mm256_slli_epi32(sum, 7)));
    }
}

/* Notes for each block: -8 times the sum of its activations (without the offset). */
static inline void note_sums(uint8_t *q, int32_t padded) {
    for (int32_t b = 0; b < padded / GENIE_BLOCK; b++) {
        const __m256i x = _mm256_loadu_si256((const __m256i *)(const void *)(q + (size_t)b * GENIE_BLOCK));
        const __m256i sums = _mm256_sad_epu8(x, _mm256_setzero_si256());
        const __m128i halves = _mm_add_epi64(_mm256_castsi256_si128(sums), _mm256_extracti128_si256(sums, 1));
        const int32_t sum = _mm_cvtsi128_si32(halves) + _mm_extract_epi32(halves, 2) - OFFSET * GENIE_BLOCK;
        const int32_t note = -8 * sum;
        memcpy(q + padded + (size_t)b * GENIE_NOTE_BYTES, &note, sizeof note);
    }
}

/* The totals stay in memory: with the integer sums they would not fit in 16 registers. */
static inline __attribute__((always_inline)) void add_totals(const int rows, __m256i dot[QUANT_ROWS][NV],
                                                             const float *d, float *sum) {
    for (int v = 0; v < NV; v++) {
        const __m256 by = _mm256_load_ps(d + v * VL);
        for (int r = 0; r < rows; r++) {
            float *to = sum + r * CHANNELS + v * VL;
            _mm256_store_ps(to, _mm256_fmadd_ps(_mm256_cvtepi32_ps(dot[r][v]), by, _mm256_load_ps(to)));
        }
    }
}

static inline __attribute__((always_inline)) void quant_tile(const int rows, const block_q8 *blocks, int32_t count,
                                                             const uint8_t *q, size_t q_stride, float *sum) {
    for (int32_t b = 0; b < count; b++) {
        const block_q8 *block = &blocks[b];
        __m256i dot[QUANT_ROWS][NV];
        for (int r = 0; r < rows; r++)
            for (int v = 0; v < NV; v++)
                dot[r][v] = load(block->start + v * VL);
#pragma GCC unroll 8
        for (int g = 0; g < 8; g++) {
            __m256i x[QUANT_ROWS];
            for (int r = 0; r < rows; r++) {
                int32_t four;
                memcpy(&four, q + (size_t)r * q_stride + (size_t)b * GENIE_BLOCK + 4 * g, sizeof four);
                x[r] = _mm256_set1_epi32(four);
                KEEP_IN_REGISTER(x[r]);
            }
            for (int v = 0; v < NV; v++) {
                __m256i w = load(block->w[g][v * VL]);
                if (rows > 1)
                    KEEP_IN_REGISTER(w);
                for (int r = 0; r < rows; r++) {
                    dot[r][v] = dpbusd(dot[r][v], x[r], w);
                    KEEP_IN_REGISTER(dot[r][v]); /* otherwise gcc keeps sums in memory */
                }
            }
        }
        add_totals(rows, dot, block->d, sum);
    }
}

#include "matmul_vector.h"

enum { FEW_ROWS = 2 };

/*
 * As quant_tile, for so few rows that unpacking a panel does not pay: nibbles are cut while they are multiplied, and
 * the activations are the signed operand.
 */
static inline __attribute__((always_inline)) void nibble_tile(const int rows, const block_q4 *blocks, int32_t count,
                                                              const uint8_t *q, const uint8_t *notes, size_t q_stride,
                                                              float *sum) {
    const __m256i low = _mm256_set1_epi8(15);
    for (int32_t b = 0; b < count; b++) {
        __m256i dot[QUANT_ROWS][NV];
        int32_t four[FEW_ROWS][8];
        float d[CHANNELS] __attribute__((aligned(32)));
        for (int r = 0; r < rows; r++) {
            int32_t note;
            memcpy(&note, notes + (size_t)r * q_stride + (size_t)b * GENIE_NOTE_BYTES, sizeof note);
            for (int v = 0; v < NV; v++)
                dot[r][v] = _mm256_set1_epi32(note);
            const uint8_t *from = q + (size_t)r * q_stride + (size_t)b * GENIE_BLOCK;
            const __m256i row = _mm256_loadu_si256((const __m256i *)(const void *)from);
            _mm256_storeu_si256((__m256i *)(void *)four[r], _mm256_xor_si256(row, _mm256_set1_epi8((char)OFFSET)));
        }
#pragma GCC unroll 4
        for (int g = 0; g < 4; g++) {
            __m256i x[FEW_ROWS][2];
            for (int r = 0; r < rows; r++) {
                x[r][0] = _mm256_set1_epi32(four[r][g]);
                x[r][1] = _mm256_set1_epi32(four[r][g + 4]);
            }
            for (int v = 0; v < NV; v++) {
                const __m256i pair = _mm256_loadu_si256((const __m256i *)(const void *)blocks[b].w[g][v * VL]);
                const __m256i first = _mm256_and_si256(pair, low);
                const __m256i second = _mm256_and_si256(_mm256_srli_epi32(pair, 4), low);
                for (int r = 0; r < rows; r++) {
                    dot[r][v] = dpbusd(dot[r][v], first, x[r][0]);
                    dot[r][v] = dpbusd(dot[r][v], second, x[r][1]);
                    KEEP_IN_REGISTER(dot[r][v]);
                }
            }
        }
        for (int v = 0; v < NV; v++)
            vf_store(d + v * VL, vf_from_half(blocks[b].d + v * VL));
        add_totals(rows, dot, d, sum);
    }
}

static void run_q4_nibbles(const genie_panel_product *p) {
    if (p->m > FEW_ROWS) {
        run_q4(p);
        return;
    }
    float sum[FEW_ROWS * CHANNELS] __attribute__((aligned(64))) = {0};
    WITH_CONSTANT_ROWS(p->m, FEW_ROWS, nibble_tile, (const block_q4 *)(const void *)p->panel, p->columns / GENIE_BLOCK,
                       p->q, p->q + p->columns, p->q_stride, sum)
    store_rows(p, 0, p->m, sum, p->scale);
}

const struct genie_matmul_kernels genie_matmul_avxvnni = VECTOR_MATMUL_KERNELS;
