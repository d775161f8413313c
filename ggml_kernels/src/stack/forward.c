/*
 * Running a stack: one parallel region per frame, barriers between its phases. Every thread walks the same list of
 * sublayers and does its share of each: rows (tokens) for norms, activations and temporal attention, panels of output
 * channels for matrices, heads x query chunks for attention inside a frame. No sum is ever split across threads.
 */
#include "pass.h"

#include <string.h>

void genie_quantize_rows(const pass *c, const genie_matrix *w, const float *x, int32_t columns, genie_activations a,
                         int32_t thread, int32_t threads) {
    if (genie_matrix_quantized(w))
        genie_activations_quantize(c->stack->kernels, x, columns, c->rows, columns, a, thread, threads);
}

void genie_norm_rows(const pass *c, int32_t kind, const float *weight, const float *bias, float *y_PE, int32_t thread,
                     int32_t threads) {
    const genie_stack_params *p = &c->stack->params;
    const int32_t E = p->embedding_length, n = genie_norm_length(p);
    int32_t begin, end;
    genie_share(c->rows, thread, threads, &begin, &end);
    for (int32_t i = begin; i < end; i++) {
        const float *row = c->x_PE + (size_t)i * (size_t)E;
        float *y = y_PE + (size_t)i * (size_t)E;
        for (int32_t e = n; e < E; e++)
            y[e] = 0;
        if (kind == GENIE_NORM_LAYER)
            c->stack->kernels->layer_norm(row, weight, bias, p->norm_epsilon, n, y);
        else
            c->stack->kernels->rms_norm(row, weight, p->norm_epsilon, n, y);
    }
}

/* The norm of a sublayer; with FiLM the frame's action picks the row of its weights. */
static void sublayer_norm(const pass *c, const genie_weights *w, float *y_PE, int32_t thread, int32_t threads) {
    const genie_stack_params *p = &c->stack->params;
    const int32_t row = p->conditioning != GENIE_CONDITIONING_FILM ? 0 : c->action < 0 ? p->action_count : c->action;
    const size_t at = (size_t)row * (size_t)p->embedding_length;
    const float *bias = w->vector[GENIE_SLOT_NORM_BIAS];
    genie_norm_rows(c, p->norm, w->vector[GENIE_SLOT_NORM] + at, bias == NULL ? NULL : bias + at, y_PE, thread,
                    threads);
}

const float *genie_sublayer_input(const pass *c, const genie_weights *w, const genie_matrix *matrix,
                                  genie_activations a, int32_t thread, int32_t threads) {
    const genie_stack_params *p = &c->stack->params;
    const int normed = !p->post_norm && w->vector[GENIE_SLOT_NORM] != NULL;
    const float *x = normed ? c->y_PE : c->x_PE;
    if (normed)
        sublayer_norm(c, w, c->y_PE, thread, threads);
    genie_quantize_rows(c, matrix, x, p->embedding_length, a, thread, threads);
    return x;
}

void genie_sublayer_end(const pass *c, const genie_weights *w, int32_t thread, int32_t threads) {
    if (c->stack->params.post_norm && w->vector[GENIE_SLOT_NORM] != NULL)
        sublayer_norm(c, w, c->x_PE, thread, threads);
}

static void feed_forward(const pass *c, const genie_weights *w, int32_t thread, int32_t threads) {
    const genie_stack_params *p = &c->stack->params;
    genie_state *s = c->state;
    const int32_t E = p->embedding_length, F = p->feed_forward_length, rows = c->rows;
    genie_activations a = genie_activations_place(s->activations, rows, E);
    const float *x = genie_sublayer_input(c, w, w->matrix[GENIE_SLOT_UP], a, thread, threads);
    genie_pool_barrier(c->pool);
    genie_matrix_run(w->matrix[GENIE_SLOT_UP], a, x, E, rows, s->up, F, 0, thread, threads);
    if (w->matrix[GENIE_SLOT_GATE] != NULL)
        genie_matrix_run(w->matrix[GENIE_SLOT_GATE], a, x, E, rows, s->gate, F, 0, thread, threads);
    genie_pool_barrier(c->pool);
    int32_t begin, end;
    genie_share(rows, thread, threads, &begin, &end);
    for (int32_t i = begin; i < end; i++)
        c->stack->kernels->ffn_activation(p->ffn, s->gate + (size_t)i * (size_t)F, s->up + (size_t)i * (size_t)F, F);
    a = genie_activations_place(s->activations, rows, F);
    genie_quantize_rows(c, w->matrix[GENIE_SLOT_DOWN], s->up, F, a, thread, threads);
    genie_pool_barrier(c->pool);
    genie_matrix_run(w->matrix[GENIE_SLOT_DOWN], a, s->up, F, rows, c->x_PE, E, 1, thread, threads);
    genie_pool_barrier(c->pool);
    genie_sublayer_end(c, w, thread, threads);
}

/* The first sublayer from which on no token sees another of its frame. */
static int32_t first_apart(const genie_stack_params *p) {
    int32_t i = p->block_count * p->sublayer_count;
    for (; i > 0; i--) {
        const int32_t kind = p->sublayers[(i - 1) % p->sublayer_count];
        if (kind != GENIE_SUBLAYER_TEMPORAL && kind != GENIE_SUBLAYER_FFN)
            break;
    }
    return i;
}

void genie_keep_masked(pass *c, int32_t thread, int32_t threads) {
    if (!c->masked_only || c->position != NULL || c->state->masked == c->rows)
        return;
    const size_t E = (size_t)c->stack->params.embedding_length;
    int32_t begin, end;
    genie_share(c->state->masked, thread, threads, &begin, &end);
    genie_pool_barrier(c->pool); /* rows may come from other threads' shares */
    for (int32_t i = begin; i < end; i++)
        memcpy(c->y_PE + (size_t)i * E, c->x_PE + (size_t)c->state->masked_P[i] * E, E * sizeof(float));
    genie_pool_barrier(c->pool);
    float *moved = c->y_PE;
    c->y_PE = c->x_PE;
    c->x_PE = moved;
    c->rows = c->state->masked;
    c->position = c->state->masked_P;
}

/* The final norm and the head, or the residual stream as it is. */
static void output(const pass *c, int32_t thread, int32_t threads) {
    const genie_stack_params *p = &c->stack->params;
    const genie_weights *own = &c->stack->own;
    const int32_t E = p->embedding_length, O = p->output_length;
    const genie_activations a = genie_activations_place(c->state->activations, c->rows, E);
    const float *x = p->output_norm == GENIE_NORM_NONE ? c->x_PE : c->y_PE;
    if (p->output_norm != GENIE_NORM_NONE)
        genie_norm_rows(c, p->output_norm, own->vector[GENIE_SLOT_OUTPUT_NORM],
                        own->vector[GENIE_SLOT_OUTPUT_NORM_BIAS], c->y_PE, thread, threads);
    if (O == 0) {
        int32_t begin, end;
        genie_share(c->rows, thread, threads, &begin, &end);
        const size_t from = (size_t)begin * (size_t)E, count = (size_t)(end - begin) * (size_t)E;
        if (count > 0)
            memcpy(c->output_PO + from, x + from, count * sizeof(float));
        return;
    }
    const int first = p->first_frame == GENIE_FIRST_OUTPUT && c->state->length == 0;
    const genie_matrix *head = own->matrix[first ? GENIE_SLOT_OUTPUT_FIRST : GENIE_SLOT_OUTPUT];
    genie_quantize_rows(c, head, x, E, a, thread, threads);
    genie_pool_barrier(c->pool);
    genie_matrix_run(head, a, x, E, c->rows, c->output_PO, O, 0, thread, threads);
}

static void run_pass(void *context, int32_t thread, int32_t threads) {
    pass own = *(const pass *)context, *c = &own;
    const genie_stack_params *p = &c->stack->params;
    genie_state *s = c->state;
    c->x_PE = s->x_PE;
    c->y_PE = s->y_PE;
    c->rows = p->token_count;
    c->position = NULL;
    int32_t sublayers = p->block_count * p->sublayer_count;
    while (c->output_PO == NULL && sublayers > 0 && s->cache[sublayers - 1].k == NULL)
        sublayers--; /* a frame that is to be remembered only: what comes after the last window is for the head */
    if (c->output_PO == NULL && sublayers == 0)
        return;
    const int32_t apart = first_apart(p);
    genie_embed(c, thread, threads); /* rows, as the first norm: no barrier */
    for (int32_t i = 0; i < sublayers; i++) {
        const int32_t kind = p->sublayers[i % p->sublayer_count];
        c->parting = i == apart - 1;
        c->remembering = c->output_PO == NULL && i == sublayers - 1 && kind == GENIE_SUBLAYER_TEMPORAL;
        if (i == apart)
            genie_keep_masked(c, thread, threads);
        if (kind == GENIE_SUBLAYER_PEG)
            genie_peg(c->stack, s, c->pool, &c->stack->sublayer[i], &s->cache[i], thread, threads);
        else if (kind == GENIE_SUBLAYER_FFN)
            feed_forward(c, &c->stack->sublayer[i], thread, threads);
        else
            genie_attend(c, kind, &c->stack->sublayer[i], &s->cache[i], thread, threads);
    }
    if (apart == sublayers)
        genie_keep_masked(c, thread, threads);
    if (c->output_PO != NULL)
        output(c, thread, threads);
    if (c->sampler != NULL) {
        genie_pool_barrier(c->pool);
        genie_sample(c->stack->kernels, c->pool, c->sampler, c->step, c->seed, c->frame, s, c->position != NULL,
                     c->sampled_P, thread, threads);
    }
}

static genie_status check(const genie_stack *stack, const genie_state *state, const genie_pool *pool,
                          const int32_t *ids_P, const float *features_PN, int32_t action) {
    if (stack == NULL || state == NULL || pool == NULL || state->stack != stack)
        return GENIE_ERROR_ARGUMENT;
    const genie_stack_params *p = &stack->params;
    if (state->length >= p->context_length)
        return GENIE_ERROR_STATE;
    if ((p->input_length > 0 ? features_PN == NULL : ids_P == NULL) || action < -1 || action >= p->action_count)
        return GENIE_ERROR_ARGUMENT;
    const int32_t ids = p->factor_count == 1 ? p->input_rows : genie_mask_id(p) + 1;
    for (int32_t i = 0; p->input_length == 0 && i < p->token_count; i++)
        if (ids_P[i] < 0 || ids_P[i] >= ids)
            return GENIE_ERROR_ARGUMENT;
    return GENIE_OK;
}

genie_status genie_stack_forward(const genie_stack *stack, genie_state *state, genie_pool *pool, const int32_t *ids_P,
                                 const float *features_PN, int32_t action, int32_t commit, float *output_PO) {
    const genie_status status = check(stack, state, pool, ids_P, features_PN, action);
    if (status != GENIE_OK)
        return status;
    pass c = {.stack = stack,
              .state = state,
              .pool = pool,
              .ids_P = ids_P,
              .features_PN = features_PN,
              .action = action,
              .commit = commit,
              .output_PO = output_PO};
    genie_pool_run(pool, run_pass, &c);
    if (commit)
        state->length++;
    return GENIE_OK;
}

genie_status genie_maskgit_step(const genie_stack *stack, genie_state *state, genie_pool *pool,
                                const genie_sampler *sampler, int32_t step, uint64_t seed, uint32_t frame,
                                int32_t action, int32_t *ids_P, float *logits_PO) {
    const genie_status status = check(stack, state, pool, ids_P, NULL, action);
    if (status != GENIE_OK)
        return status;
    const genie_stack_params *p = &stack->params;
    if (!genie_sampler_ok(p, sampler, step))
        return GENIE_ERROR_ARGUMENT;
    genie_find_masked(state, ids_P);
    if (state->masked == 0 && logits_PO == NULL)
        return GENIE_OK;
    pass c = {.stack = stack,
              .state = state,
              .pool = pool,
              .ids_P = ids_P,
              .action = action,
              .output_PO = state->logits_PO,
              .sampler = sampler,
              .step = step,
              .seed = seed,
              .frame = frame,
              .sampled_P = ids_P,
              .masked_only = logits_PO == NULL};
    genie_pool_run(pool, run_pass, &c);
    if (logits_PO != NULL)
        memcpy(logits_PO, state->logits_PO, (size_t)p->token_count * (size_t)p->output_length * sizeof(float));
    return GENIE_OK;
}
