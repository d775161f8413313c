/*
 * Runs a convolutional network: one parallel region per picture. A convolution is a matrix product over strips of
 * output pixels; the input rows of a strip are gathered when they are needed. Each thread has its own strips, so no
 * barrier is needed inside a product. A norm keeps its sums per row of pixels and adds them in order, so no result
 * depends on the number of threads.
 */
#include "../base/error.h"
#include "conv.h"

#include <math.h>
#include <string.h>

enum { SUM_PIXELS = 64 }; /* pixels summed in float before their sum is added in double */

typedef struct {
    const genie_conv *conv;
    genie_conv_state *state;
    genie_pool *pool;
    const float *x_HWC;
    float *y_HWC;
} pass;

/* What one product of a layer reads and writes. */
typedef struct {
    const genie_matrix *matrix;
    const float *x_HWC;
    int32_t height, width, channels;        /* of x */
    int32_t out_height, out_width, columns; /* pixels of the product; columns: channels, or 9 times as many */
    int32_t stride;
    int32_t deal; /* channels of a pixel after depth-to-space, or 0 */
    int accumulate;
    float *y;
    int32_t y_stride;
} product;

/* The 3 x 3 neighbourhood that output pixel (y, x) sees: row, column, channel; zeros beyond the edges. */
static void gather(const product *p, int32_t y, int32_t x, float *row_K) {
    const size_t C = (size_t)p->channels, line = (size_t)p->width * C;
    const int32_t top = y * p->stride - 1, left = x * p->stride - 1;
    for (int32_t ky = 0; ky < 3; ky++, row_K += 3 * C) {
        if (top + ky < 0 || top + ky >= p->height) {
            memset(row_K, 0, 3 * C * sizeof *row_K);
            continue;
        }
        const float *from = p->x_HWC + (size_t)(top + ky) * line;
        const int32_t first = left < 0 ? 1 : 0, last = left + 3 > p->width ? p->width - left : 3;
        if (first > 0)
            memset(row_K, 0, C * sizeof *row_K);
        memcpy(row_K + (size_t)first * C, from + (size_t)(left + first) * C,
               (size_t)(last - first) * C * sizeof *row_K);
        if (last < 3)
            memset(row_K + (size_t)last * C, 0, (size_t)(3 - last) * C * sizeof *row_K);
    }
}

/* Depth-to-space: the channels (y, x, c) of pixels [first, first + m) become 2 x 2 pixels. */
static void deal_out(const product *p, int32_t first, int32_t m, const float *rows_MR) {
    const size_t C = (size_t)p->deal;
    for (int32_t i = 0; i < m; i++) {
        const int32_t y = (first + i) / p->out_width, x = (first + i) % p->out_width;
        for (int32_t dy = 0; dy < 2; dy++) {
            const size_t at = ((size_t)(2 * y + dy) * 2 * (size_t)p->out_width + 2 * (size_t)x) * C;
            memcpy(p->y + at, rows_MR + ((size_t)i * 4 + 2 * (size_t)dy) * C, 2 * C * sizeof(float));
        }
    }
}

/* This thread's strips of a product. */
static void multiply(const pass *c, const product *p, int32_t thread, int32_t threads) {
    const genie_conv_strip *strip = &c->state->strip[thread];
    const genie_kernels *kernels = c->conv->kernels;
    const int32_t pixels = p->out_height * p->out_width, K = p->columns;
    const int32_t most = genie_conv_strip_rows(p->matrix, K);
    int32_t strips = (pixels + most - 1) / most, begin, end;
    strips = (strips + threads - 1) / threads * threads; /* the cut affects only the time */
    genie_share(strips, thread, threads, &begin, &end);
    const int quantized = genie_matrix_quantized(p->matrix), wide = K != p->channels;
    const genie_activations a = genie_activations_place(strip->activations_MK, most, K);
    for (int32_t s = begin; s < end; s++) {
        int32_t first, last;
        genie_share(pixels, s, strips, &first, &last);
        const int32_t m = last - first;
        if (m == 0)
            continue;
        const float *rows = wide ? strip->rows_MK : p->x_HWC + (size_t)first * (size_t)K;
        for (int32_t i = 0; i < m; i++) {
            float *gathered = strip->rows_MK + (quantized ? 0 : (size_t)i * (size_t)K);
            if (wide)
                gather(p, (first + i) / p->out_width, (first + i) % p->out_width, gathered);
            if (quantized)
                genie_activations_quantize(kernels, wide ? gathered : rows + (size_t)i * (size_t)K, K, 1, K,
                                           genie_activations_row(a, K, i), 0, 1);
        }
        float *y = p->deal > 0 ? strip->out_MR : p->y + (size_t)first * (size_t)p->y_stride;
        genie_matrix_run(p->matrix, a, rows, K, m, y, p->y_stride, p->accumulate, 0, 1);
        if (p->deal > 0)
            deal_out(p, first, m, y);
    }
}

/* Group norm with SiLU, x to y (which may be x); ends with a barrier. */
static void norm(const pass *c, const float *weight, const float *bias, int32_t height, int32_t width, int32_t channels,
                 const float *x_HWC, float *y_HWC, int32_t thread, int32_t threads) {
    const genie_kernels *kernels = c->conv->kernels;
    genie_conv_state *s = c->state;
    const size_t C = (size_t)channels, line = (size_t)width * C;
    int32_t begin, end;
    genie_share(height, thread, threads, &begin, &end);
    for (int32_t y = begin; y < end; y++) {
        double *sums = s->sums + (size_t)y * 2 * C;
        float *some = c->state->strip[thread].rows_MK; /* [2, C] */
        memset(sums, 0, 2 * C * sizeof *sums);
        for (int32_t x = 0; x < width; x += SUM_PIXELS) {
            const int32_t n = width - x < SUM_PIXELS ? width - x : SUM_PIXELS;
            kernels->channel_sums(x_HWC + (size_t)y * line + (size_t)x * C, n, channels, some, some + C);
            for (size_t i = 0; i < 2 * C; i++)
                sums[i] += (double)some[i];
        }
    }
    genie_pool_barrier(c->pool);
    const int32_t size = channels / c->conv->params.group_count;
    genie_share(c->conv->params.group_count, thread, threads, &begin, &end);
    for (int32_t g = begin; g < end; g++) {
        double sum = 0, squares = 0;
        for (int32_t y = 0; y < height; y++)
            for (int32_t i = g * size; i < (g + 1) * size; i++) {
                sum += s->sums[(size_t)y * 2 * C + (size_t)i];
                squares += s->sums[(size_t)y * 2 * C + C + (size_t)i];
            }
        const double count = (double)height * (double)width * (double)size, mean = sum / count;
        const double variance = squares / count - mean * mean;
        const double scale = 1 / sqrt((variance > 0 ? variance : 0) + (double)c->conv->params.norm_epsilon);
        for (int32_t i = g * size; i < (g + 1) * size; i++) {
            s->scale_C[i] = (float)(scale * (double)weight[i]);
            s->shift_C[i] = (float)((double)bias[i] - mean * scale * (double)weight[i]);
        }
    }
    genie_pool_barrier(c->pool);
    genie_share(height, thread, threads, &begin, &end);
    for (size_t at = (size_t)begin * line; at < (size_t)end * line; at += C)
        kernels->scaled_silu(x_HWC + at, s->scale_C, s->shift_C, channels, y_HWC + at);
    genie_pool_barrier(c->pool);
}

static product product_of(const genie_conv_step *s, int32_t slot, const float *x, float *y) {
    int32_t rows, columns;
    int is_matrix;
    genie_conv_slot_shape(s, slot, &rows, &columns, &is_matrix);
    const int second = slot == GENIE_CONV_SLOT_WEIGHT_2, down = s->kind == GENIE_CONV_DOWN;
    return (product){.matrix = s->matrix[slot],
                     .x_HWC = x,
                     .height = s->height,
                     .width = s->width,
                     .channels = second ? s->out_channels : s->channels,
                     .out_height = down ? s->out_height : s->height,
                     .out_width = down ? s->out_width : s->width,
                     .columns = columns,
                     .stride = down ? 2 : 1,
                     .deal = s->kind == GENIE_CONV_UP ? s->out_channels : 0,
                     .accumulate = second,
                     .y = y,
                     .y_stride = rows};
}

/* Every thread walks the list of layers; `at` is the output of the layers so far. */
static void run_pass(void *context, int32_t thread, int32_t threads) {
    const pass *c = context;
    float *at = c->state->picture[0], *free_1 = c->state->picture[1], *free_2 = c->state->picture[2];
    int32_t begin, end;
    const genie_conv_step *first = &c->conv->steps[0], *last = &c->conv->steps[c->conv->step_count - 1];
    const size_t line = (size_t)first->width * (size_t)first->channels;
    genie_share(first->height, thread, threads, &begin, &end);
    if (end > begin)
        memcpy(at + (size_t)begin * line, c->x_HWC + (size_t)begin * line, (size_t)(end - begin) * line * sizeof *at);
    genie_pool_barrier(c->pool);
    for (int32_t i = 0; i < c->conv->step_count; i++) {
        const genie_conv_step *s = &c->conv->steps[i];
        float *made = at;
        if (s->kind == GENIE_CONV_NORM) {
            norm(c, s->vector[GENIE_CONV_SLOT_NORM], s->vector[GENIE_CONV_SLOT_NORM_BIAS], s->height, s->width,
                 s->channels, at, at, thread, threads);
        } else if (s->kind == GENIE_CONV_RESIDUAL) {
            norm(c, s->vector[GENIE_CONV_SLOT_NORM], s->vector[GENIE_CONV_SLOT_NORM_BIAS], s->height, s->width,
                 s->channels, at, free_1, thread, threads);
            product p = product_of(s, GENIE_CONV_SLOT_WEIGHT, free_1, free_2);
            multiply(c, &p, thread, threads);
            genie_pool_barrier(c->pool);
            if (s->matrix[GENIE_CONV_SLOT_SHORTCUT] != NULL) {
                p = product_of(s, GENIE_CONV_SLOT_SHORTCUT, at, free_1);
                multiply(c, &p, thread, threads);
                made = free_1;
            } /* no barrier: the norm below has one before conv2 adds to it */
            norm(c, s->vector[GENIE_CONV_SLOT_NORM_2], s->vector[GENIE_CONV_SLOT_NORM_2_BIAS], s->height, s->width,
                 s->out_channels, free_2, free_2, thread, threads);
            p = product_of(s, GENIE_CONV_SLOT_WEIGHT_2, free_2, made);
            multiply(c, &p, thread, threads);
            genie_pool_barrier(c->pool);
        } else {
            const product p = product_of(s, GENIE_CONV_SLOT_WEIGHT, at, free_1);
            multiply(c, &p, thread, threads);
            made = free_1;
            genie_pool_barrier(c->pool);
        }
        if (made != at) {
            free_1 = at;
            at = made;
        }
    }
    const size_t out_line = (size_t)last->out_width * (size_t)last->out_channels;
    genie_share(last->out_height, thread, threads, &begin, &end);
    if (end > begin)
        memcpy(c->y_HWC + (size_t)begin * out_line, at + (size_t)begin * out_line,
               (size_t)(end - begin) * out_line * sizeof *at);
}

genie_status genie_conv_run(const genie_conv *conv, genie_conv_state *state, genie_pool *pool, const float *x_HWC,
                            float *y_HWC) {
    if (conv == NULL || state == NULL || pool == NULL || x_HWC == NULL || y_HWC == NULL || state->conv != conv ||
        genie_pool_threads(pool) > state->thread_count)
        return genie_fail(GENIE_ERROR_ARGUMENT,
                          "a pointer is NULL, the state is of another network, or the pool is too large");
    pass c = {.conv = conv, .state = state, .pool = pool, .x_HWC = x_HWC, .y_HWC = y_HWC};
    genie_pool_run(pool, run_pass, &c);
    return GENIE_OK;
}
