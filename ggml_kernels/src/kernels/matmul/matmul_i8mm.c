/*
 * Matrix products with FEAT_I8MM. smmla multiplies 2 rows by 2 channels over 8 columns and adds to a 2x2 tile of int32,
 * {row 0 channel 0, row 0 channel 1, row 1 channel 0, row 1 channel 1}. Totals are kept in such tiles too and are
 * stored as rows at the end. An odd last row is paired with itself.
 */
#include "matmul_arm.h"

#define DEPTH 8

enum { NV = 2, CHANNELS = NV * VL, FLOAT_ROWS = 6, QUANT_ROWS = 6, ROW_PAIRS = QUANT_ROWS / 2, PAIRS = CHANNELS / 2 };

typedef struct {
    float d[CHANNELS];
    int8_t w[4][CHANNELS][DEPTH];
} block_q8;

static inline void finish_block(block_q8 *block) { (void)block; }

static inline float32x4_t both(const float *first, const float *second) {
    return vcombine_f32(vld1_f32(first), vld1_f32(second));
}

/* Columns 8 `upper` .. 8 `upper` + 7 of two rows of 16. */
static inline int8x16_t pair(int8x16_t first, int8x16_t second, int upper) {
    const int64x2_t a = vreinterpretq_s64_s8(first), b = vreinterpretq_s64_s8(second);
    return vreinterpretq_s8_s64(upper ? vzip2q_s64(a, b) : vzip1q_s64(a, b));
}

static inline __attribute__((always_inline)) void quant_tile(const int rows, const block_q8 *blocks, int32_t count,
                                                             const uint8_t *q, size_t q_stride, float *sum) {
    const int row_pairs = (rows + 1) / 2;
    float32x4_t total[ROW_PAIRS][PAIRS];
    for (int r = 0; r < row_pairs; r++)
        for (int c = 0; c < PAIRS; c++) {
            const float *first = sum + 2 * r * CHANNELS + 2 * c;
            total[r][c] = both(first, 2 * r + 1 < rows ? first + CHANNELS : first);
        }
    for (int32_t b = 0; b < count; b++) {
        const block_q8 *block = &blocks[b];
        int32x4_t dot[ROW_PAIRS][PAIRS];
        for (int r = 0; r < row_pairs; r++)
            for (int c = 0; c < PAIRS; c++)
                dot[r][c] = vdupq_n_s32(0);
#pragma GCC unroll 2
        for (int half = 0; half < 2; half++) {
            int8x16_t x[ROW_PAIRS][2];
            for (int r = 0; r < row_pairs; r++) {
                const int8_t *first =
                    (const int8_t *)q + (size_t)(2 * r) * q_stride + (size_t)b * GENIE_BLOCK + 16 * half;
                const int8x16_t a = vld1q_s8(first), z = vld1q_s8(2 * r + 1 < rows ? first + q_stride : first);
                for (int upper = 0; upper < 2; upper++)
                    x[r][upper] = pair(a, z, upper);
            }
            for (int upper = 0; upper < 2; upper++)
                for (int c = 0; c < PAIRS; c++) {
                    int8x16_t w = vld1q_s8(block->w[2 * half + upper][2 * c]);
                    KEEP_IN_REGISTER(w);
                    for (int r = 0; r < row_pairs; r++)
                        dot[r][c] = vmmlaq_s32(dot[r][c], x[r][upper], w);
                }
        }
        for (int c = 0; c < PAIRS; c++) {
            const float32x4_t d = both(block->d + 2 * c, block->d + 2 * c);
            for (int r = 0; r < row_pairs; r++)
                total[r][c] = vfmaq_f32(total[r][c], vcvtq_f32_s32(dot[r][c]), d);
        }
    }
    for (int r = 0; r < row_pairs; r++)
        for (int c = 0; c < PAIRS; c++) {
            float *to = sum + 2 * r * CHANNELS + 2 * c;
            vst1_f32(to, vget_low_f32(total[r][c]));
            if (2 * r + 1 < rows)
                vst1_f32(to + CHANNELS, vget_high_f32(total[r][c]));
        }
}

#include "matmul_vector.h"

const struct genie_matmul_kernels genie_matmul_i8mm = VECTOR_MATMUL_KERNELS;
