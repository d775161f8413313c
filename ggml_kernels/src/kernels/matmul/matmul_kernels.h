/*
 * What one ISA provides for a matrix product. Weights are cut into panels of 4 to 32 output channels, in the order in
 * which the ISA's kernel reads them. A kernel multiplies one panel by any number of rows of x.
 */
#ifndef GENIE_MATMUL_KERNELS_H
#define GENIE_MATMUL_KERNELS_H

#include "genie.h"

enum { GENIE_BLOCK = 32, GENIE_Q8_0_BYTES = 34, GENIE_Q4_0_BYTES = 18, GENIE_NOTE_BYTES = 4 };

/* One panel, or a span of its columns, times m rows of x: y[m, channels] = x w^T + bias (+ y). */
typedef struct {
    const uint8_t *panel; /* 64-byte aligned */
    const float *bias;    /* of every channel of the panel, padding included */
    int32_t channels;     /* real channels; the rest is padding and must not reach y */
    int32_t columns;
    int32_t m;
    const uint8_t *q; /* quantized types: rows of q_stride bytes, ... */
    size_t q_stride;
    const float *scale; /* ... and the scale of each row */
    const float *x;     /* float types */
    size_t x_stride;
    float *y;
    size_t y_stride;
    int accumulate;
} genie_panel_product;

/* One weight type. A panel's size is a multiple of 64 bytes. */
struct genie_matmul_format {
    int32_t panel_channels;
    size_t (*panel_bytes)(int32_t columns);
    /* w: the first of `channels` rows in file format, row_bytes apart and of any alignment; padding becomes zero. */
    void (*pack)(const uint8_t *w, size_t row_bytes, int32_t channels, int32_t columns, uint8_t *panel);
    void (*run)(const genie_panel_product *product);
};

struct genie_matmul_kernels {
    struct genie_matmul_format f32, f16, q4_0, q8_0;
    /*
     * Quantizes one span of a row. q = round(x * 127 / max|x|), ties to even, and zeros up to `padded` columns; *scale
     * = max|x| / 127. Spans whose largest value is below GENIE_SMALLEST_ROW count as all zero: 127 / max|x| would
     * overflow. A span with a NaN gets the scale NaN, so that it shows in the result. From q + padded on, the ISA has
     * GENIE_NOTE_BYTES per block to note what its product needs.
     */
    void (*quantize_row)(const float *x, int32_t columns, int32_t padded, uint8_t *q, float *scale);
};

#define GENIE_SMALLEST_ROW 1e-36f
/* Adding it to |v| < 2^22 rounds v to a whole number, ties to even, in the low bits of the sum. */
#define GENIE_ROUNDER 12582912.0f /* 1.5 * 2^23 */

extern const struct genie_matmul_kernels genie_matmul_scalar;
#if defined(__x86_64__) || defined(_M_X64)
extern const struct genie_matmul_kernels genie_matmul_avx2;
extern const struct genie_matmul_kernels genie_matmul_avxvnni;
extern const struct genie_matmul_kernels genie_matmul_avx512vnni;
#elif defined(__aarch64__)
extern const struct genie_matmul_kernels genie_matmul_neon;
extern const struct genie_matmul_kernels genie_matmul_dotprod;
extern const struct genie_matmul_kernels genie_matmul_i8mm;
#elif defined(__wasm_simd128__)
extern const struct genie_matmul_kernels genie_matmul_simd128;
#endif

#endif
