/*
 * Matrix products with WebAssembly's 128-bit vectors. i32x4.dot_i16x8 multiplies pairs of int16 and adds them, so int8
 * weights and activations are widened as they are loaded: two columns of four channels by two values of a row.
 * Engines have 16 registers and multiply and add apart. Eight sums (2 rows x 4 vectors of channels) leave room for
 * that; twelve were a third slower in V8.
 */
#define VL 4
#include "../vector.h"
#include "matmul_kernels.h"

#include <wasm_simd128.h>

#define DEPTH 2

enum { NV = 4, CHANNELS = NV * VL, FLOAT_ROWS = 2, QUANT_ROWS = 2, OFFSET = 0 };

static inline vf vf_fma(vf a, vf b, vf c) { return a * b + c; } /* there is no fused one: rounded twice */

static inline vf vf_from_half(const uint16_t *p) {
    /* Exact, with subnormal halves; weights are finite, so the exponent of infinity does not occur. */
    const v128_t h = wasm_u32x4_load16x4(p);
    const v128_t bits = wasm_i32x4_shl(wasm_v128_and(h, wasm_i32x4_splat(0x7FFF)), 13);
    const v128_t sign = wasm_i32x4_shl(wasm_v128_and(h, wasm_i32x4_splat(0x8000)), 16);
    return (vf)wasm_v128_or(wasm_f32x4_mul(bits, wasm_f32x4_splat(0x1p112f)), sign);
}

static inline vf vf_all(float x) { return (vf)wasm_f32x4_splat(x); }
static inline vi vi_max(vi a, vi b) { return (vi)wasm_i32x4_max((v128_t)a, (v128_t)b); }

static inline void store_bytes(uint8_t *to, vf v) {
    const v128_t most = wasm_f32x4_splat(127.0f), least = wasm_f32x4_splat(-127.0f);
    const v128_t within = wasm_f32x4_pmax(wasm_f32x4_pmin((v128_t)v, most), least);
    const v128_t words = wasm_i32x4_trunc_sat_f32x4(wasm_f32x4_nearest(within));
    const v128_t halves = wasm_i16x8_narrow_i32x4(words, words);
    wasm_v128_store32_lane(to, wasm_i8x16_narrow_i16x8(halves, halves), 0);
}

typedef struct {
    float d[CHANNELS];
    int8_t w[16][CHANNELS][DEPTH];
} block_q8;

static inline void finish_block(block_q8 *block) { (void)block; }

static inline __attribute__((always_inline)) void quant_tile(const int rows, const block_q8 *blocks, int32_t count,
                                                             const uint8_t *q, size_t q_stride, float *sum) {
    for (int32_t b = 0; b < count; b++) {
        const block_q8 *block = &blocks[b];
        int16_t x[QUANT_ROWS][GENIE_BLOCK] __attribute__((aligned(16)));
        v128_t dot[QUANT_ROWS][NV];
        for (int r = 0; r < rows; r++) {
            const uint8_t *from = q + (size_t)r * q_stride + (size_t)b * GENIE_BLOCK;
            for (int i = 0; i < 4; i++)
                wasm_v128_store(x[r] + 8 * i, wasm_i16x8_load8x8(from + 8 * i));
            for (int v = 0; v < NV; v++)
                dot[r][v] = wasm_i32x4_splat(0);
        }
#pragma clang loop unroll(disable)
        for (int g = 0; g < 16; g++) {
            __asm__ volatile("" ::: "memory"); /* otherwise loads move out of the loop, and the engine spills them */
            v128_t pair[QUANT_ROWS];
            for (int r = 0; r < rows; r++)
                pair[r] = wasm_v128_load32_splat(x[r] + 2 * g);
            for (int v = 0; v < NV; v++) {
                const v128_t w = wasm_i16x8_load8x8(block->w[g][v * VL]);
                for (int r = 0; r < rows; r++)
                    dot[r][v] = wasm_i32x4_add(dot[r][v], wasm_i32x4_dot_i16x8(w, pair[r]));
            }
        }
        for (int v = 0; v < NV; v++) {
            const vf d = vf_load(block->d + v * VL);
            for (int r = 0; r < rows; r++) {
                float *to = sum + r * CHANNELS + v * VL;
                vf_store(to, vf_fma((vf)wasm_f32x4_convert_i32x4(dot[r][v]), d, vf_load(to)));
            }
        }
    }
}

#include "matmul_vector.h"

const struct genie_matmul_kernels genie_matmul_simd128 = VECTOR_MATMUL_KERNELS;
