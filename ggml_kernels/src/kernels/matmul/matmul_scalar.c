/*
 * The specification of the matrix products, and the fallback. Panels hold CHANNELS rows. Multiplications and additions
 * happen in the order written here (this file is compiled without contraction into FMA).
 */
#include "matmul_kernels.h"
#include "../../base/half.h"

#include <string.h>

enum { CHANNELS = 4 };

/* Panel of a quantized type: for each block of columns the scales and the weights of all channels, as int8. */
typedef struct {
    float d[CHANNELS];
    int8_t w[CHANNELS][GENIE_BLOCK];
} block_q8;

typedef struct {
    uint16_t d[CHANNELS];
    uint8_t w[CHANNELS][GENIE_BLOCK / 2]; /* as in the file: element j low, element j + 16 high */
} block_q4;

static size_t round_to_line(size_t bytes) { return (bytes + 63) / 64 * 64; }

static void store_row(const genie_panel_product *p, int32_t m, const float *sum, float scale) {
    float *y = p->y + (size_t)m * p->y_stride;
    for (int32_t c = 0; c < p->channels; c++) {
        const float value = sum[c] * scale + p->bias[c];
        y[c] = p->accumulate ? y[c] + value : value;
    }
}

/* ---- float ---- */

static size_t panel_bytes_f32(int32_t columns) { return round_to_line((size_t)columns * CHANNELS * sizeof(float)); }

static void pack_f32(const uint8_t *w, size_t row_bytes, int32_t channels, int32_t columns, uint8_t *panel) {
    memset(panel, 0, panel_bytes_f32(columns));
    for (int32_t c = 0; c < channels; c++)
        for (int32_t k = 0; k < columns; k++)
            memcpy(panel + ((size_t)k * CHANNELS + (size_t)c) * sizeof(float),
                   w + (size_t)c * row_bytes + (size_t)k * sizeof(float), sizeof(float));
}

static size_t panel_bytes_f16(int32_t columns) { return round_to_line((size_t)columns * CHANNELS * sizeof(uint16_t)); }

static void pack_f16(const uint8_t *w, size_t row_bytes, int32_t channels, int32_t columns, uint8_t *panel) {
    memset(panel, 0, panel_bytes_f16(columns));
    for (int32_t c = 0; c < channels; c++)
        for (int32_t k = 0; k < columns; k++)
            memcpy(panel + ((size_t)k * CHANNELS + (size_t)c) * sizeof(uint16_t),
                   w + (size_t)c * row_bytes + (size_t)k * sizeof(uint16_t), sizeof(uint16_t));
}

enum {
    FLOAT_CHUNK = 256, /* columns per partial sum: adding partial sums loses less than one long sum */
    ROWS = 16          /* rows of x that share one unpacking */
};

/* sum[r] += x[r] w over one chunk. Each of the sums runs over the columns in order. */
static void add_chunk(const float *x, size_t x_stride, int32_t rows, const float *w, int32_t columns,
                      float sum[][CHANNELS]) {
    for (int32_t r = 0; r < rows; r++) {
        float part[CHANNELS] = {0};
        for (int32_t k = 0; k < columns; k++)
            for (int32_t c = 0; c < CHANNELS; c++)
                part[c] += x[(size_t)r * x_stride + (size_t)k] * w[(size_t)k * CHANNELS + (size_t)c];
        for (int32_t c = 0; c < CHANNELS; c++)
            sum[r][c] += part[c];
    }
}

static void run_float(const genie_panel_product *p, int half) {
    const float *panel = (const float *)(const void *)p->panel;
    const uint16_t *panel_half = (const uint16_t *)(const void *)p->panel;
    float scratch[FLOAT_CHUNK * CHANNELS];
    for (int32_t begin = 0; begin < p->m; begin += ROWS) {
        const int32_t rows = p->m - begin < ROWS ? p->m - begin : ROWS;
        const float *x = p->x + (size_t)begin * p->x_stride;
        float sum[ROWS][CHANNELS] = {{0}};
        for (int32_t k = 0; k < p->columns; k += FLOAT_CHUNK) {
            const int32_t columns = p->columns - k < FLOAT_CHUNK ? p->columns - k : FLOAT_CHUNK;
            const size_t at = (size_t)k * CHANNELS;
            for (int32_t i = 0; half && i < columns * CHANNELS; i++)
                scratch[i] = genie_half_to_float(panel_half[at + (size_t)i]);
            add_chunk(x + k, p->x_stride, rows, half ? scratch : panel + at, columns, sum);
        }
        for (int32_t r = 0; r < rows; r++)
            store_row(p, begin + r, sum[r], 1.0f);
    }
}

static void run_f32(const genie_panel_product *p) { run_float(p, 0); }
static void run_f16(const genie_panel_product *p) { run_float(p, 1); }

/* ---- quantized ---- */

static size_t panel_bytes_q8(int32_t columns) {
    return round_to_line((size_t)(columns / GENIE_BLOCK) * sizeof(block_q8));
}

static void pack_q8(const uint8_t *w, size_t row_bytes, int32_t channels, int32_t columns, uint8_t *panel) {
    memset(panel, 0, panel_bytes_q8(columns));
    block_q8 *blocks = (block_q8 *)(void *)panel;
    for (int32_t c = 0; c < channels; c++)
        for (int32_t b = 0; b < columns / GENIE_BLOCK; b++) {
            const uint8_t *from = w + (size_t)c * row_bytes + (size_t)b * GENIE_Q8_0_BYTES;
            blocks[b].d[c] = genie_half_load(from);
            memcpy(blocks[b].w[c], from + 2, GENIE_BLOCK);
        }
}

static size_t panel_bytes_q4(int32_t columns) {
    return round_to_line((size_t)(columns / GENIE_BLOCK) * sizeof(block_q4));
}

static void pack_q4(const uint8_t *w, size_t row_bytes, int32_t channels, int32_t columns, uint8_t *panel) {
    memset(panel, 0, panel_bytes_q4(columns));
    block_q4 *blocks = (block_q4 *)(void *)panel;
    for (int32_t c = 0; c < channels; c++)
        for (int32_t b = 0; b < columns / GENIE_BLOCK; b++) {
            const uint8_t *from = w + (size_t)c * row_bytes + (size_t)b * GENIE_Q4_0_BYTES;
            memcpy(&blocks[b].d[c], from, 2);
            memcpy(blocks[b].w[c], from + 2, GENIE_BLOCK / 2);
        }
}

static void quantize_row(const float *x, int32_t columns, int32_t padded, uint8_t *q, float *scale) {
    /* The bits of absolute values, compared as integers, order like floats, with NaN above all. */
    uint32_t top_bits = 0;
    for (int32_t k = 0; k < columns; k++) {
        uint32_t bits;
        memcpy(&bits, &x[k], sizeof bits);
        bits &= 0x7FFFFFFFu;
        top_bits = bits > top_bits ? bits : top_bits;
    }
    float top;
    memcpy(&top, &top_bits, sizeof top);
    const int zero = top < GENIE_SMALLEST_ROW;
    const float inverse = zero ? 0.0f : 127.0f / top;
    for (int32_t k = 0; k < columns; k++) {
        float v = x[k] * inverse;
        v = v < 127.0f ? v : 127.0f;
        v = v > -127.0f ? v : -127.0f;
        q[k] = (uint8_t)(int8_t)((v + GENIE_ROUNDER) - GENIE_ROUNDER);
    }
    memset(q + columns, 0, (size_t)(padded - columns));
    *scale = zero ? 0.0f : top / 127.0f;
}

/* One block of columns: sum[c] += float(q . w[c]) * d[c]; the integer sum is exact. */
static void add_block(const int8_t *q, const block_q8 *block, float *sum) {
    for (int32_t c = 0; c < CHANNELS; c++) {
        int32_t dot = 0;
        for (int32_t k = 0; k < GENIE_BLOCK; k++)
            dot += q[k] * block->w[c][k];
        sum[c] += (float)dot * block->d[c];
    }
}

static void unpack_block(const block_q4 *from, block_q8 *to) {
    for (int32_t c = 0; c < CHANNELS; c++) {
        to->d[c] = genie_half_to_float(from->d[c]);
        for (int32_t k = 0; k < GENIE_BLOCK / 2; k++) {
            to->w[c][k] = (int8_t)((from->w[c][k] & 15) - 8);
            to->w[c][k + GENIE_BLOCK / 2] = (int8_t)((from->w[c][k] >> 4) - 8);
        }
    }
}

static void run_quantized(const genie_panel_product *p, int four_bit) {
    const block_q8 *blocks = (const block_q8 *)(const void *)p->panel;
    const block_q4 *blocks_q4 = (const block_q4 *)(const void *)p->panel;
    for (int32_t begin = 0; begin < p->m; begin += ROWS) {
        const int32_t rows = p->m - begin < ROWS ? p->m - begin : ROWS;
        const int8_t *q = (const int8_t *)p->q + (size_t)begin * p->q_stride;
        float sum[ROWS][CHANNELS] = {{0}};
        for (int32_t b = 0; b < p->columns / GENIE_BLOCK; b++) {
            block_q8 unpacked;
            if (four_bit)
                unpack_block(&blocks_q4[b], &unpacked);
            const block_q8 *block = four_bit ? &unpacked : &blocks[b];
            for (int32_t r = 0; r < rows; r++)
                add_block(q + (size_t)r * p->q_stride + (size_t)b * GENIE_BLOCK, block, sum[r]);
        }
        for (int32_t r = 0; r < rows; r++)
            store_row(p, begin + r, sum[r], p->scale[begin + r]);
    }
}

static void run_q8(const genie_panel_product *p) { run_quantized(p, 0); }
static void run_q4(const genie_panel_product *p) { run_quantized(p, 1); }

const struct genie_matmul_kernels genie_matmul_scalar = {
    .f32 = {CHANNELS, panel_bytes_f32, pack_f32, run_f32},
    .f16 = {CHANNELS, panel_bytes_f16, pack_f16, run_f16},
    .q4_0 = {CHANNELS, panel_bytes_q4, pack_q4, run_q4},
    .q8_0 = {CHANNELS, panel_bytes_q8, pack_q8, run_q8},
    .quantize_row = quantize_row,
};
