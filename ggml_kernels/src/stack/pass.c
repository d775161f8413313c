/* Shared by the sublayers of a pass: which rows a thread has, products, norms. */
#include "pass.h"

#include "../base/assert.h"

#include <string.h>

enum { OWN_ROWS = 32 }; /* per thread; with fewer, it would read all weights for too little work */

void genie_share_rows(pass *c, int32_t rows) {
    c->rows = rows;
    c->by_row = rows >= OWN_ROWS * c->threads;
    int32_t begin, end, all_begin, all_end;
    genie_share((rows + 1) / 2, c->thread, c->threads, &begin, &end); /* in pairs: values of two rows share words */
    genie_share((c->stack->params.token_count + 1) / 2, c->thread, c->threads, &all_begin, &all_end);
    c->offset = c->by_row ? 2 * (all_begin - begin) : 0;
    c->end = (2 * end < rows ? 2 * end : rows) + c->offset;
    c->begin = 2 * begin + c->offset < c->end ? 2 * begin + c->offset : c->end; /* none, after an odd last row */
    GENIE_ASSERT(c->begin >= 0 && c->begin <= c->end && c->end <= c->stack->params.token_count + 1);
}

genie_activations genie_room(const pass *c, void *storage, int32_t columns) {
    uint8_t *rows = storage;
    if (!c->by_row)
        return genie_activations_place(rows, c->rows, columns);
    return genie_activations_place(rows + (size_t)c->begin * c->state->activation_row, c->end - c->begin, columns);
}

void genie_quantize(const pass *c, const genie_matrix *w, const float *x, int32_t columns, genie_activations a) {
    if (genie_matrix_quantized(w))
        genie_activations_quantize(c->stack->kernels, x + (size_t)c->begin * (size_t)columns, columns,
                                   c->end - c->begin, columns,
                                   c->by_row ? a : genie_activations_row(a, columns, c->begin), 0, 1);
}

void genie_product(const pass *c, const genie_matrix *w, genie_activations a, const float *x, int32_t columns, float *y,
                   int32_t y_stride, int accumulate) {
    GENIE_ASSERT(w != NULL && y != NULL && y_stride > 0);
    if (c->by_row)
        genie_matrix_run(w, a, x + (size_t)c->begin * (size_t)columns, columns, c->end - c->begin,
                         y + (size_t)c->begin * (size_t)y_stride, y_stride, accumulate, 0, 1);
    else
        genie_matrix_run(w, a, x, columns, c->rows, y, y_stride, accumulate, c->thread, c->threads);
}

static void norm_row(const pass *c, int32_t kind, const float *weight, const float *bias, const float *x, float *y) {
    const genie_stack_params *p = &c->stack->params;
    const int32_t n = genie_norm_length(p);
    for (int32_t e = n; e < p->embedding_length; e++)
        y[e] = 0;
    if (kind == GENIE_NORM_LAYERNORM)
        c->stack->kernels->layer_norm(x, weight, bias, p->norm_epsilon, n, y);
    else
        c->stack->kernels->rms_norm(x, weight, p->norm_epsilon, n, y);
}

void genie_norm_rows(const pass *c, int32_t kind, const float *weight, const float *bias, float *y_PE) {
    const size_t E = (size_t)c->stack->params.embedding_length;
    for (int32_t i = c->begin; i < c->end; i++)
        norm_row(c, kind, weight, bias, c->x_PE + (size_t)i * E, y_PE + (size_t)i * E);
}

/* Where the weights of a sublayer's norm begin. With FiLM, the frame's action picks the row. */
static size_t norm_at(const pass *c) {
    const genie_stack_params *p = &c->stack->params;
    const int32_t row = p->conditioning != GENIE_CONDITIONING_FILM ? 0 : c->action < 0 ? p->action_count : c->action;
    return (size_t)row * (size_t)p->embedding_length;
}

static void sublayer_norm(const pass *c, const genie_weights *w, float *y_PE) {
    const float *bias = w->vector[GENIE_SLOT_NORM_BIAS];
    genie_norm_rows(c, w->sublayer->norm, w->vector[GENIE_SLOT_NORM] + norm_at(c),
                    bias == NULL ? NULL : bias + norm_at(c), y_PE);
}

const float *genie_sublayer_input(const pass *c, const genie_weights *w, const genie_matrix *matrix,
                                  genie_activations a) {
    const int32_t E = c->stack->params.embedding_length;
    if (w->sublayer->norm == GENIE_NORM_NONE || w->sublayer->norm_position == GENIE_NORM_POSITION_POST) {
        genie_quantize(c, matrix, c->x_PE, E, a);
        return c->x_PE;
    }
    if (!genie_matrix_quantized(matrix)) {
        sublayer_norm(c, w, c->y_PE);
        return c->y_PE;
    }
    /* Norm and quantize a few rows at a time, while they are in the cache. The normed rows are not kept. */
    enum { FEW = 8 };
    const float *weight = w->vector[GENIE_SLOT_NORM] + norm_at(c), *bias = w->vector[GENIE_SLOT_NORM_BIAS];
    float *y = c->y_PE + (size_t)c->begin * (size_t)E;
    for (int32_t i = c->begin; i < c->end; i += FEW) {
        const int32_t n = c->end - i < FEW ? c->end - i : FEW;
        for (int32_t j = 0; j < n; j++)
            norm_row(c, w->sublayer->norm, weight, bias == NULL ? NULL : bias + norm_at(c),
                     c->x_PE + (size_t)(i + j) * (size_t)E, y + (size_t)j * (size_t)E);
        genie_activations_quantize(c->stack->kernels, y, E, n, E,
                                   genie_activations_row(a, E, c->by_row ? i - c->begin : i), 0, 1);
    }
    return c->y_PE; /* a quantized matrix does not read it */
}

void genie_sublayer_end(const pass *c, const genie_weights *w) {
    if (w->sublayer->norm != GENIE_NORM_NONE && w->sublayer->norm_position == GENIE_NORM_POSITION_POST)
        sublayer_norm(c, w, c->x_PE);
}

void genie_keep_masked(pass *c) {
    const genie_state *s = c->state;
    if (!c->masked_only || c->position != NULL || s->masked == c->rows)
        return;
    const size_t E = (size_t)c->stack->params.embedding_length;
    genie_share_rows(c, s->masked);
    genie_pool_barrier(c->pool); /* rows may come from another thread's former share */
    c->position = s->masked_P;
    for (int32_t i = c->begin; i < c->end; i++)
        memcpy(c->y_PE + (size_t)i * E, c->x_PE + genie_token_of(c, i) * E, E * sizeof(float));
    genie_pool_barrier(c->pool);
    float *moved = c->y_PE;
    c->y_PE = c->x_PE;
    c->x_PE = moved;
}
