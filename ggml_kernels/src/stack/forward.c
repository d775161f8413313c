/*
 * Runs a stack: one parallel region per frame. Every thread walks the same list of sublayers. If there are enough rows
 * (tokens) for all threads, each thread does everything for its own rows and waits for others only around attention
 * within the frame. Otherwise row-by-row work is shared by rows and products by output channels, with barriers between.
 * No sum is ever split across threads, so both ways give the same bytes.
 */
#include "../base/error.h"
#include "pass.h"

#include <string.h>

/* The index from which on no sublayer lets a token see others of its frame. */
static int32_t first_apart(const genie_stack_params *p) {
    int32_t i = p->block_count * p->sublayer_count;
    for (; i > 0; i--) {
        const int32_t kind = genie_sublayer_at(p, i - 1)->kind;
        if (kind != GENIE_SUBLAYER_TEMPORAL && kind != GENIE_SUBLAYER_FFN)
            break;
    }
    return i;
}

/* The final rows, after the output norm if there is one. */
static const float *final_rows(const pass *c) {
    const genie_stack_params *p = &c->stack->params;
    const genie_weights *own = &c->stack->own;
    if (p->output_norm == GENIE_NORM_NONE)
        return c->x_PE;
    genie_norm_rows(c, p->output_norm, own->vector[GENIE_SLOT_OUTPUT_NORM], own->vector[GENIE_SLOT_OUTPUT_NORM_BIAS],
                    c->y_PE);
    return c->y_PE;
}

static const genie_matrix *head_of(const pass *c) {
    const int first = c->stack->params.first_frame == GENIE_FIRST_FRAME_OUTPUT && c->state->length == 0;
    return c->stack->own.matrix[first ? GENIE_SLOT_OUTPUT_FIRST : GENIE_SLOT_OUTPUT];
}

/* The final norm, and the head if there is one. */
static void output(const pass *c) {
    const int32_t E = c->stack->params.embedding_length, O = c->stack->params.output_length;
    const float *x = final_rows(c);
    if (O == 0) {
        const size_t from = (size_t)c->begin * (size_t)E;
        if (c->end > c->begin)
            memcpy(c->output_PO + from, x + from, (size_t)(c->end - c->begin) * (size_t)E * sizeof(float));
        return;
    }
    const genie_activations a = genie_room(c, c->state->activations, E);
    genie_quantize(c, head_of(c), x, E, a);
    genie_phase(c);
    genie_product(c, head_of(c), a, x, E, c->output_PO, O, 0);
}

/* The head and sampling together, if the caller does not want the logits: those of a few rows at a time stay in the
 * cache. */
static void sample_own_rows(const pass *c) {
    enum { ROWS = 12 };
    const int32_t E = c->stack->params.embedding_length, O = c->stack->params.output_length;
    const genie_activations a = genie_room(c, c->state->activations, E);
    const float *x = final_rows(c);
    float *logits = c->output_PO + (size_t)c->begin * (size_t)O;
    genie_quantize(c, head_of(c), x, E, a);
    for (int32_t first = c->begin; first < c->end; first += ROWS) {
        const int32_t end = c->end - first < ROWS ? c->end : first + ROWS;
        genie_matrix_run(head_of(c), genie_activations_row(a, E, first - c->begin), x + (size_t)first * (size_t)E, E,
                         end - first, logits, O, 0, 0, 1);
        genie_sample_rows(c->stack->kernels, c->sampler, c->step, c->seed, c->frame, c->state, first - c->offset,
                          end - c->offset, c->begin, logits, 0, c->sampled_P);
    }
}

/* The last part of a MaskGIT step. */
static void sample(const pass *c) {
    if (c->by_row && c->masked_only) {
        sample_own_rows(c);
    } else {
        const size_t O = (size_t)c->stack->params.output_length;
        int32_t begin, end;
        output(c);
        genie_pool_barrier(c->pool);
        genie_share(c->state->masked, c->thread, c->threads, &begin, &end);
        const int packed = c->position != NULL;
        genie_sample_rows(c->stack->kernels, c->sampler, c->step, c->seed, c->frame, c->state, begin, end, begin,
                          c->output_PO + (packed ? (size_t)begin * O : 0), !packed, c->sampled_P);
    }
    genie_pool_barrier(c->pool);
    if (c->thread == 0)
        genie_fill_best(c->sampler, c->step, c->state, c->sampled_P);
}

static void run_pass(void *context, int32_t thread, int32_t threads) {
    pass own = *(const pass *)context, *c = &own;
    const genie_stack_params *p = &c->stack->params;
    genie_state *s = c->state;
    c->thread = thread;
    c->threads = threads;
    c->x_PE = s->x_PE;
    c->y_PE = s->y_PE;
    c->position = NULL;
    genie_share_rows(c, p->token_count);
    int32_t sublayers = p->block_count * p->sublayer_count;
    while (c->output_PO == NULL && sublayers > 0 && s->cache[sublayers - 1].k == NULL)
        sublayers--; /* the frame is only kept in the window: sublayers after the last cache serve the head */
    if (c->output_PO == NULL && sublayers == 0)
        return;
    const int32_t apart = first_apart(p);
    genie_embed(c);
    for (int32_t i = 0; i < sublayers; i++) {
        const int32_t kind = genie_sublayer_at(p, i)->kind;
        c->last_mixing = i == apart - 1;
        c->keep_only = c->output_PO == NULL && i == sublayers - 1 && kind == GENIE_SUBLAYER_TEMPORAL;
        if (i == apart)
            genie_keep_masked(c);
        if (kind == GENIE_SUBLAYER_PEG)
            genie_peg(c, &c->stack->sublayer[i], &s->cache[i]);
        else if (kind == GENIE_SUBLAYER_FFN)
            genie_feed_forward(c, &c->stack->sublayer[i]);
        else
            genie_attend(c, &c->stack->sublayer[i], &s->cache[i]);
    }
    if (apart == sublayers)
        genie_keep_masked(c);
    if (c->sampler != NULL)
        sample(c);
    else if (c->output_PO != NULL)
        output(c);
}

static void run(pass *c) {
    if (c->state->looked_PT != NULL && c->output_PO != NULL)
        genie_look_begin(c->state);
    genie_pool_run(c->pool, run_pass, c);
}

static genie_status check(const genie_stack *stack, const genie_state *state, const genie_pool *pool,
                          const int32_t *ids_P, const float *features_PN, int32_t action) {
    if (stack == NULL || state == NULL || pool == NULL || state->stack != stack)
        return genie_fail(GENIE_ERROR_ARGUMENT, "a pointer is NULL, or the state is of another stack");
    const genie_stack_params *p = &stack->params;
    if (state->length >= p->context_length)
        return genie_fail(GENIE_ERROR_STATE, "the window is full");
    if (p->input_length > 0 ? features_PN == NULL : ids_P == NULL)
        return genie_fail(GENIE_ERROR_ARGUMENT, "there is no input");
    if (action < -1 || action >= p->action_count)
        return genie_fail(GENIE_ERROR_ARGUMENT, "action must be in -1..action_count - 1");
    const int32_t ids = p->factor_count == 1 ? p->input_rows : genie_mask_id(p) + 1;
    for (int32_t i = 0; p->input_length == 0 && i < p->token_count; i++)
        if (ids_P[i] < 0 || ids_P[i] >= ids)
            return genie_fail(GENIE_ERROR_ARGUMENT, "an id is out of range");
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
    run(&c);
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
    const char *fault = genie_sampler_fault(p, sampler, step);
    if (fault != NULL)
        return genie_fail(GENIE_ERROR_ARGUMENT, fault);
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
    run(&c);
    if (logits_PO != NULL)
        memcpy(logits_PO, state->logits_PO, (size_t)p->token_count * (size_t)p->output_length * sizeof(float));
    return GENIE_OK;
}
