/*
 * The parts of the matrix products that are the same on every vector ISA, at VL lanes (see ../vector.h, included
 * before). The including file first defines:
 *
 *   NV                        vectors per panel: a panel has CHANNELS = NV * VL output channels
 *   FLOAT_ROWS, QUANT_ROWS    rows of x in the float and the int8 tile, at most 6
 *   vf vf_fma(vf a, vf b, vf c)            a * b + c, rounded once
 *   vf vf_from_half(const uint16_t *p)     VL halves
 *   vf vf_all(float x)                     x in every lane
 *   vi vi_max(vi a, vi b)
 *   void store_bytes(uint8_t *to, vf v)    v clamped to +-127, rounded to even, plus OFFSET; a NaN gives any byte,
 *                                          for the scale of its row is NaN too
 *   OFFSET                    added to the activations: 128 stores them as uint8, 0 as int8
 *   DEPTH                     columns of one channel that lie together in a panel: 4 unless defined; divides 16
 *   block_q8                  one block of columns of a panel; has float d[CHANNELS],
 *                             int8_t w[32 / DEPTH][CHANNELS][DEPTH]
 *   void finish_block(block_q8 *)          called when d and w are set
 *   void quant_tile(rows, ...)             the int8 tile, see QUANT_TILE below
 *   RUN_Q8, RUN_Q4                         optional: the ISA's own in place of run_q8 and run_q4
 *   void FINISH_ROW(uint8_t *q, int32_t padded)    optional: called when a row is quantized, to note what RUN_* need
 *
 * Sums over columns have the same order in every tile, so a row's result does not depend on its neighbours.
 */
#include "matmul_kernels.h"
#include "../../base/half.h"

#ifndef DEPTH
#define DEPTH 4
#endif
#define ALWAYS_INLINE static inline __attribute__((always_inline))

enum {
    FLOAT_CHUNK = 256, /* columns summed before they are added to the total; also bounds the scratch of F16 */
    QUANT_CHUNK = 32,  /* blocks of Q4_0 unpacked at once */
    GROUP = 96         /* rows of x that share one unpacking when a row is longer than a chunk */
};

typedef uint32_t vu __attribute__((vector_size(4 * VL)));

static size_t round_to_line(size_t bytes) { return (bytes + 63) / 64 * 64; }

/* y = sum * scale + bias (+ y) for the rows of one group. */
static void store_rows(const genie_panel_product *p, int32_t first, int32_t rows, const float *sum,
                       const float *scale) {
    vf bias[NV];
    for (int v = 0; v < NV; v++)
        bias[v] = vf_load(p->bias + v * VL);
    for (int32_t r = 0; r < rows; r++) {
        const vf by = vf_all(scale != NULL ? scale[r] : 1.0f);
        float *y = p->y + (size_t)(first + r) * p->y_stride;
        float padded[CHANNELS];
        float *to = y;
        if (p->channels < CHANNELS) {
            memset(padded, 0, sizeof padded);
            if (p->accumulate)
                memcpy(padded, y, (size_t)p->channels * sizeof *y);
            to = padded;
        }
        for (int v = 0; v < NV; v++) {
            const vf value = vf_fma(vf_load(sum + r * CHANNELS + v * VL), by, bias[v]);
            vf_store(to + v * VL, p->accumulate ? vf_load(to + v * VL) + value : value);
        }
        if (p->channels < CHANNELS)
            memcpy(y, padded, (size_t)p->channels * sizeof *y);
    }
}

/* ---- float: panels [columns][CHANNELS] ---- */

static size_t panel_bytes_f32(int32_t columns) { return round_to_line((size_t)columns * CHANNELS * sizeof(float)); }
static size_t panel_bytes_f16(int32_t columns) { return round_to_line((size_t)columns * CHANNELS * sizeof(uint16_t)); }

ALWAYS_INLINE void transpose(const uint8_t *w, size_t row_bytes, int32_t channels, int32_t columns, size_t size,
                             uint8_t *panel) {
    for (int32_t c = 0; c < channels; c++)
        for (int32_t k = 0; k < columns; k++)
            memcpy(panel + ((size_t)k * CHANNELS + (size_t)c) * size, w + (size_t)c * row_bytes + (size_t)k * size,
                   size);
}

static void pack_f32(const uint8_t *w, size_t row_bytes, int32_t channels, int32_t columns, uint8_t *panel) {
    memset(panel, 0, panel_bytes_f32(columns));
    transpose(w, row_bytes, channels, columns, sizeof(float), panel);
}

static void pack_f16(const uint8_t *w, size_t row_bytes, int32_t channels, int32_t columns, uint8_t *panel) {
    memset(panel, 0, panel_bytes_f16(columns));
    transpose(w, row_bytes, channels, columns, sizeof(uint16_t), panel);
}

/* sum[rows][CHANNELS] += x[rows][columns] w; `rows` is a constant, so that the tile lives in registers. */
ALWAYS_INLINE void float_tile(const int rows, const float *w, int32_t columns, const float *x, size_t x_stride,
                              float *sum) {
    vf tile[FLOAT_ROWS][NV];
    for (int r = 0; r < rows; r++)
        for (int v = 0; v < NV; v++)
            tile[r][v] = (vf){0};
    for (int32_t k = 0; k < columns; k++) {
        vf weight[NV];
        for (int v = 0; v < NV; v++) {
            weight[v] = vf_load(w + (size_t)k * CHANNELS + v * VL);
            KEEP_IN_REGISTER(weight[v]);
        }
#pragma GCC unroll 8
        for (int r = 0; r < rows; r++) {
            const vf value = vf_all(x[(size_t)r * x_stride + (size_t)k]);
            for (int v = 0; v < NV; v++)
                tile[r][v] = vf_fma(value, weight[v], tile[r][v]);
        }
    }
    for (int r = 0; r < rows; r++)
        for (int v = 0; v < NV; v++) {
            float *to = sum + r * CHANNELS + v * VL;
            vf_store(to, vf_load(to) + tile[r][v]);
        }
}

/* Calls tile(rows, ...), 1 <= rows <= most <= 6, with a constant number of rows. */
#define WITH_CONSTANT_ROWS(rows, most, tile, ...)                                                                      \
    switch (rows) {                                                                                                    \
    case 1:                                                                                                            \
        tile(1 < most ? 1 : most, __VA_ARGS__);                                                                        \
        break;                                                                                                         \
    case 2:                                                                                                            \
        tile(2 < most ? 2 : most, __VA_ARGS__);                                                                        \
        break;                                                                                                         \
    case 3:                                                                                                            \
        tile(3 < most ? 3 : most, __VA_ARGS__);                                                                        \
        break;                                                                                                         \
    case 4:                                                                                                            \
        tile(4 < most ? 4 : most, __VA_ARGS__);                                                                        \
        break;                                                                                                         \
    case 5:                                                                                                            \
        tile(5 < most ? 5 : most, __VA_ARGS__);                                                                        \
        break;                                                                                                         \
    default:                                                                                                           \
        tile(most, __VA_ARGS__);                                                                                       \
        break;                                                                                                         \
    }

static void float_rows(const float *w, int32_t columns, const float *x, size_t x_stride, int32_t rows, float *sum) {
    for (int32_t r = 0; r < rows; r += FLOAT_ROWS) {
        const int32_t left = rows - r;
        const float *x_r = x + (size_t)r * x_stride;
        float *sum_r = sum + r * CHANNELS;
        WITH_CONSTANT_ROWS(left < FLOAT_ROWS ? left : FLOAT_ROWS, FLOAT_ROWS, float_tile, w, columns, x_r, x_stride,
                           sum_r)
    }
}

static void run_f32(const genie_panel_product *p) {
    const float *panel = (const float *)(const void *)p->panel;
    for (int32_t first = 0; first < p->m; first += GROUP) {
        const int32_t rows = p->m - first < GROUP ? p->m - first : GROUP;
        float sum[GROUP * CHANNELS] __attribute__((aligned(64)));
        memset(sum, 0, (size_t)rows * CHANNELS * sizeof *sum);
        for (int32_t k = 0; k < p->columns; k += FLOAT_CHUNK) {
            const int32_t columns = p->columns - k < FLOAT_CHUNK ? p->columns - k : FLOAT_CHUNK;
            float_rows(panel + (size_t)k * CHANNELS, columns, p->x + (size_t)first * p->x_stride + k, p->x_stride, rows,
                       sum);
        }
        store_rows(p, first, rows, sum, NULL);
    }
}

static void run_f16(const genie_panel_product *p) {
    const uint16_t *panel = (const uint16_t *)(const void *)p->panel;
    float scratch[FLOAT_CHUNK * CHANNELS] __attribute__((aligned(64)));
    for (int32_t first = 0; first < p->m; first += GROUP) {
        const int32_t rows = p->m - first < GROUP ? p->m - first : GROUP;
        float sum[GROUP * CHANNELS] __attribute__((aligned(64)));
        memset(sum, 0, (size_t)rows * CHANNELS * sizeof *sum);
        for (int32_t k = 0; k < p->columns; k += FLOAT_CHUNK) {
            const int32_t columns = p->columns - k < FLOAT_CHUNK ? p->columns - k : FLOAT_CHUNK;
            if (first == 0 || p->columns > FLOAT_CHUNK)
                for (int32_t i = 0; i < columns * CHANNELS; i += VL)
                    vf_store(scratch + i, vf_from_half(panel + (size_t)k * CHANNELS + i));
            float_rows(scratch, columns, p->x + (size_t)first * p->x_stride + k, p->x_stride, rows, sum);
        }
        store_rows(p, first, rows, sum, NULL);
    }
}

/* ---- quantized: panels of block_q8, or of block_q4 that is unpacked to block_q8 ---- */

/* w[g][c]: the low nibbles are elements DEPTH g .. of channel c, the high ones those 16 further on, as in the file. */
typedef struct {
    uint16_t d[CHANNELS];
    uint8_t w[16 / DEPTH][CHANNELS][DEPTH];
} block_q4;

static size_t panel_bytes_q8(int32_t columns) {
    return round_to_line((size_t)(columns / GENIE_BLOCK) * sizeof(block_q8));
}
static size_t panel_bytes_q4(int32_t columns) {
    return round_to_line((size_t)(columns / GENIE_BLOCK) * sizeof(block_q4));
}

static void pack_q8(const uint8_t *w, size_t row_bytes, int32_t channels, int32_t columns, uint8_t *panel) {
    if (channels < CHANNELS) /* otherwise every byte is written below */
        memset(panel, 0, panel_bytes_q8(columns));
    block_q8 *blocks = (block_q8 *)(void *)panel;
    for (int32_t b = 0; b < columns / GENIE_BLOCK; b++) {
        for (int32_t c = 0; c < channels; c++) {
            const uint8_t *from = w + (size_t)c * row_bytes + (size_t)b * GENIE_Q8_0_BYTES;
            blocks[b].d[c] = genie_half_load(from);
            for (int g = 0; g < 32 / DEPTH; g++)
                memcpy(blocks[b].w[g][c], from + 2 + DEPTH * g, DEPTH);
        }
        finish_block(&blocks[b]);
    }
}

static void pack_q4(const uint8_t *w, size_t row_bytes, int32_t channels, int32_t columns, uint8_t *panel) {
    if (channels < CHANNELS)
        memset(panel, 0, panel_bytes_q4(columns));
    block_q4 *blocks = (block_q4 *)(void *)panel;
    for (int32_t b = 0; b < columns / GENIE_BLOCK; b++)
        for (int32_t c = 0; c < channels; c++) {
            const uint8_t *from = w + (size_t)c * row_bytes + (size_t)b * GENIE_Q4_0_BYTES;
            memcpy(&blocks[b].d[c], from, 2);
            for (int g = 0; g < 16 / DEPTH; g++)
                memcpy(blocks[b].w[g][c], from + 2 + DEPTH * g, DEPTH);
        }
}

static void quantize_row(const float *x, int32_t columns, int32_t padded, uint8_t *q, float *scale) {
    /* The bits of absolute values, compared as integers, order like floats, with NaN above all. */
    const vi magnitude = (vi){0} + 0x7FFFFFFF;
    vi tops = {0}, others = {0};
    float rest[VL] = {0};
    const int32_t whole = columns / VL * VL;
    int32_t k = 0;
    for (; k + 2 * VL <= whole; k += 2 * VL) {
        tops = vi_max(tops, (vi)vf_load(x + k) & magnitude);
        others = vi_max(others, (vi)vf_load(x + k + VL) & magnitude);
    }
    if (k < whole)
        tops = vi_max(tops, (vi)vf_load(x + k) & magnitude);
    if (whole < columns) {
        memcpy(rest, x + whole, (size_t)(columns - whole) * sizeof *rest);
        others = vi_max(others, (vi)vf_load(rest) & magnitude);
    }
    const int32_t top_bits = vi_top(vi_max(tops, others));
    float top;
    memcpy(&top, &top_bits, sizeof top);
    const int zero = top < GENIE_SMALLEST_ROW;
    const vf inverse = vf_all(zero ? 0.0f : 127.0f / top);
    for (k = 0; k < whole; k += VL)
        store_bytes(q + k, vf_load(x + k) * inverse);
    if (whole < padded)
        memset(q + whole, OFFSET, (size_t)(padded - whole));
    if (whole < columns)
        store_bytes(q + whole, vf_load(rest) * inverse); /* ends before `padded`, a multiple of 32 */
    *scale = zero ? 0.0f : top / 127.0f;
#ifdef FINISH_ROW
    FINISH_ROW(q, padded);
#endif
}

/* QUANT_TILE: sum[rows][CHANNELS] = fma(float(exact integer dot of a block), d, sum), over the blocks in order. */
static void quant_rows(const block_q8 *blocks, int32_t count, const uint8_t *q, size_t q_stride, int32_t rows,
                       float *sum) {
    for (int32_t r = 0; r < rows; r += QUANT_ROWS) {
        const int32_t left = rows - r;
        const uint8_t *q_r = q + (size_t)r * q_stride;
        float *sum_r = sum + r * CHANNELS;
        WITH_CONSTANT_ROWS(left < QUANT_ROWS ? left : QUANT_ROWS, QUANT_ROWS, quant_tile, blocks, count, q_r, q_stride,
                           sum_r)
    }
}

#ifndef RUN_Q8
#define RUN_Q8 run_q8
static void run_q8(const genie_panel_product *p) {
    const block_q8 *blocks = (const block_q8 *)(const void *)p->panel;
    for (int32_t first = 0; first < p->m; first += GROUP) {
        const int32_t rows = p->m - first < GROUP ? p->m - first : GROUP;
        float sum[GROUP * CHANNELS] __attribute__((aligned(64)));
        memset(sum, 0, (size_t)rows * CHANNELS * sizeof *sum);
        quant_rows(blocks, p->columns / GENIE_BLOCK, p->q + (size_t)first * p->q_stride, p->q_stride, rows, sum);
        store_rows(p, first, rows, sum, p->scale + first);
    }
}
#endif

/* Inline, so that an ISA with its own versions may leave these unused. */
static inline void unpack_q4(const block_q4 *from, int32_t blocks, block_q8 *to) {
    typedef uint8_t bytes __attribute__((vector_size(4 * VL)));
    enum { HALF = 16 * CHANNELS };
    for (int32_t b = 0; b < blocks; b++) {
        for (int v = 0; v < NV; v++)
            vf_store(to[b].d + v * VL, vf_from_half(from[b].d + v * VL));
        const uint8_t *nibbles = &from[b].w[0][0][0];
        int8_t *w = &to[b].w[0][0][0];
        for (int i = 0; i < HALF; i += 4 * VL) {
            bytes pair;
            memcpy(&pair, nibbles + i, sizeof pair);
            /* There is no shift of bytes: shift 32-bit lanes and mask off the neighbour's bits. */
            const bytes low = (pair & 15) - 8, high = (((bytes)((vu)pair >> 4)) & 15) - 8;
            memcpy(w + i, &low, sizeof low);
            memcpy(w + HALF + i, &high, sizeof high);
        }
        finish_block(&to[b]);
    }
}

static inline void run_q4(const genie_panel_product *p) {
    const block_q4 *blocks = (const block_q4 *)(const void *)p->panel;
    const int32_t all = p->columns / GENIE_BLOCK;
    block_q8 scratch[QUANT_CHUNK] __attribute__((aligned(64)));
    for (int32_t first = 0; first < p->m; first += GROUP) {
        const int32_t rows = p->m - first < GROUP ? p->m - first : GROUP;
        float sum[GROUP * CHANNELS] __attribute__((aligned(64)));
        memset(sum, 0, (size_t)rows * CHANNELS * sizeof *sum);
        for (int32_t b = 0; b < all; b += QUANT_CHUNK) {
            const int32_t count = all - b < QUANT_CHUNK ? all - b : QUANT_CHUNK;
            if (first == 0 || all > QUANT_CHUNK)
                unpack_q4(blocks + b, count, scratch);
            quant_rows(scratch, count, p->q + (size_t)first * p->q_stride + (size_t)b * GENIE_BLOCK, p->q_stride, rows,
                       sum);
        }
        store_rows(p, first, rows, sum, p->scale + first);
    }
}
#ifndef RUN_Q4
#define RUN_Q4 run_q4
#endif

#define VECTOR_MATMUL_KERNELS                                                                                          \
    {                                                                                                                  \
        .f32 = {CHANNELS, panel_bytes_f32, pack_f32, run_f32},                                                         \
        .f16 = {CHANNELS, panel_bytes_f16, pack_f16, run_f16},                                                         \
        .q4_0 = {CHANNELS, panel_bytes_q4, pack_q4, RUN_Q4},                                                           \
        .q8_0 = {CHANNELS, panel_bytes_q8, pack_q8, RUN_Q8},                                                           \
        .quantize_row = quantize_row,                                                                                  \
    }
