/*
 * Matrix products with the Advanced SIMD of every ARMv8-A. smull makes int16 products and smlal adds a second one to
 * each: 2 * 128 * 127 fits because activations stay within 127. sadalp adds their pairs to int32. 16 columns of one
 * channel lie together, so activations are read as they are, and none is broadcast.
 */
#include "matmul_arm.h"

#define DEPTH 16

enum { NV = 4, CHANNELS = NV * VL, FLOAT_ROWS = 4, QUANT_ROWS = 4 };

typedef struct {
    float d[CHANNELS];
    int8_t w[2][CHANNELS][DEPTH];
} block_q8;

static inline void finish_block(block_q8 *block) { (void)block; }

/* Four partial sums of 16 products. */
static inline int32x4_t add_dot(int32x4_t sum, int8x16_t w, int8x16_t x) {
    const int16x8_t low = vmull_s8(vget_low_s8(w), vget_low_s8(x));
    return vpadalq_s16(sum, vmlal_high_s8(low, w, x));
}

static inline __attribute__((always_inline)) void quant_tile(const int rows, const block_q8 *blocks, int32_t count,
                                                             const uint8_t *q, size_t q_stride, float *sum) {
    for (int32_t b = 0; b < count; b++) {
        const block_q8 *block = &blocks[b];
        int8x16_t x[QUANT_ROWS][2];
        for (int r = 0; r < rows; r++)
            for (int g = 0; g < 2; g++)
                x[r][g] =
                    vld1q_s8((const int8_t *)q + (size_t)r * q_stride + (size_t)b * GENIE_BLOCK + (size_t)g * DEPTH);
        for (int v = 0; v < NV; v++) {
            int32x4_t dot[QUANT_ROWS][VL];
#pragma GCC unroll 4
            for (int c = 0; c < VL; c++)
                for (int g = 0; g < 2; g++) {
                    int8x16_t w = vld1q_s8(block->w[g][v * VL + c]);
                    KEEP_IN_REGISTER(w);
                    for (int r = 0; r < rows; r++)
                        dot[r][c] = add_dot(g == 0 ? vdupq_n_s32(0) : dot[r][c], w, x[r][g]);
                }
            /* The totals stay in memory: activations and partial sums fill the registers. */
            const float32x4_t d = vld1q_f32(block->d + v * VL);
            for (int r = 0; r < rows; r++) {
                float *to = sum + r * CHANNELS + v * VL;
                const int32x4_t all = vpaddq_s32(vpaddq_s32(dot[r][0], dot[r][1]), vpaddq_s32(dot[r][2], dot[r][3]));
                vst1q_f32(to, vfmaq_f32(vld1q_f32(to), vcvtq_f32_s32(all), d));
            }
        }
    }
}

#include "matmul_vector.h"

const struct genie_matmul_kernels genie_matmul_neon = VECTOR_MATMUL_KERNELS;
