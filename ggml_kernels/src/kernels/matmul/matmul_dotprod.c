/*
 * Matrix products with FEAT_DotProd. sdot adds four int8 products to each int32 lane. One operand can be any quarter of
 * a register, used for all lanes, so 16 activations of a row are loaded at once and nothing is broadcast.
 */
#include "matmul_arm.h"

enum { NV = 2, CHANNELS = NV * VL, FLOAT_ROWS = 6, QUANT_ROWS = 6 };

typedef struct {
    float d[CHANNELS];
    int8_t w[8][CHANNELS][4];
} block_q8;

static inline void finish_block(block_q8 *block) { (void)block; }

/* dot[r][v] += the products with group G of 4 columns. G must be a constant: it is part of the instruction. */
#define ADD_GROUP(G)                                                                                                   \
    for (int v = 0; v < NV; v++) {                                                                                     \
        int8x16_t w = vld1q_s8(block->w[4 * half + G][v * VL]);                                                        \
        KEEP_IN_REGISTER(w);                                                                                           \
        for (int r = 0; r < rows; r++)                                                                                 \
            dot[r][v] = vdotq_laneq_s32(dot[r][v], w, x[r], G);                                                        \
    }

static inline __attribute__((always_inline)) void quant_tile(const int rows, const block_q8 *blocks, int32_t count,
                                                             const uint8_t *q, size_t q_stride, float *sum) {
    float32x4_t total[QUANT_ROWS][NV];
    for (int r = 0; r < rows; r++)
        for (int v = 0; v < NV; v++)
            total[r][v] = vld1q_f32(sum + r * CHANNELS + v * VL);
    for (int32_t b = 0; b < count; b++) {
        const block_q8 *block = &blocks[b];
        int32x4_t dot[QUANT_ROWS][NV];
        for (int r = 0; r < rows; r++)
            for (int v = 0; v < NV; v++)
                dot[r][v] = vdupq_n_s32(0);
#pragma GCC unroll 2
        for (int half = 0; half < 2; half++) {
            int8x16_t x[QUANT_ROWS];
            for (int r = 0; r < rows; r++)
                x[r] = vld1q_s8((const int8_t *)q + (size_t)r * q_stride + (size_t)b * GENIE_BLOCK + 16 * half);
            ADD_GROUP(0)
            ADD_GROUP(1)
            ADD_GROUP(2)
            ADD_GROUP(3)
        }
        for (int v = 0; v < NV; v++) {
            const float32x4_t d = vld1q_f32(block->d + v * VL);
            for (int r = 0; r < rows; r++)
                total[r][v] = vfmaq_f32(total[r][v], vcvtq_f32_s32(dot[r][v]), d);
        }
    }
    for (int r = 0; r < rows; r++)
        for (int v = 0; v < NV; v++)
            vst1q_f32(sum + r * CHANNELS + v * VL, total[r][v]);
}

#include "matmul_vector.h"

const struct genie_matmul_kernels genie_matmul_dotprod = VECTOR_MATMUL_KERNELS;
