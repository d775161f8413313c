/* The window of past frames, and the scratch of one pass. One allocation, laid out twice: to measure it, then to
 * place it. */
#include "../base/error.h"
#include "stack.h"

#include <string.h>

typedef struct {
    char *base; /* NULL while measuring */
    size_t used;
    int overflow;
} arena;

static void *arena_take(arena *a, size_t count, size_t size) {
    size_t bytes;
    if (!genie_mul(count, size, &bytes) || bytes > SIZE_MAX / 4 - a->used) {
        a->overflow = 1;
        return NULL;
    }
    void *place = a->base == NULL ? NULL : a->base + a->used;
    a->used += (bytes + 63) / 64 * 64;
    return place;
}

static int32_t max_i32(int32_t a, int32_t b) { return a > b ? a : b; }

static void lay_out(genie_state *state, arena *a) {
    const genie_stack_params *p = &state->stack->params;
    const size_t P = (size_t)p->token_count, T = (size_t)p->context_length, E = (size_t)p->embedding_length;
    const size_t HD = (size_t)p->head_count * (size_t)p->key_length, F = (size_t)p->feed_forward_length;
    const size_t O = (size_t)p->output_length, f = sizeof(float);
    const size_t panelled = (size_t)genie_round_up((int32_t)P, GENIE_KEY_PANEL), half = sizeof(uint16_t);
    const int narrow = state->stack->narrow;
    const int32_t count = p->block_count * p->sublayer_count;
    state->cache = arena_take(a, (size_t)count, sizeof *state->cache);
    for (int32_t i = 0; i < count; i++) {
        genie_cache cache = {NULL, NULL};
        const int32_t kind = genie_sublayer_at(p, i)->kind;
        if (kind == GENIE_SUBLAYER_TEMPORAL) {
            const size_t slots = narrow ? (size_t)genie_past_slots(p->context_length) : T;
            cache.k = arena_take(a, P * slots * HD, narrow ? half : f);
            cache.v = arena_take(a, P * slots * HD, narrow ? half : f);
        } else if (kind == GENIE_SUBLAYER_SPACETIME) {
            cache.k = arena_take(a, (size_t)genie_round_up((int32_t)(P * T), GENIE_KEY_PANEL) * HD, f);
            cache.v = arena_take(a, P * T * HD, f);
        } else if (kind == GENIE_SUBLAYER_PEG) {
            cache.k = arena_take(a, T * P * E, f);
        }
        if (a->base != NULL)
            state->cache[i] = cache;
    }
    const size_t R = P + P % 2; /* rows are packed in pairs, so packed rows may end one beyond an odd P */
    state->x_PE = arena_take(a, R * E, f);
    state->y_PE = arena_take(a, R * E, f);
    state->features_PN = arena_take(a, p->input_norm == GENIE_INPUT_NORM_DUAL ? R * (size_t)p->input_length : 0, f);
    state->q = arena_take(a, R * HD, f);
    state->k = arena_take(a, R * HD, f);
    state->v = arena_take(a, R * HD, f);
    state->att = arena_take(a, R * HD, f);
    state->kt = arena_take(a, narrow ? 0 : panelled * HD, f);
    state->q16 = arena_take(a, narrow ? R * HD : 0, half);
    for (int i = 0; i < 2; i++) {
        state->k16[i] = arena_take(a, narrow ? panelled * HD : 0, half);
        state->v16[i] = arena_take(a, narrow ? panelled * HD : 0, half);
    }
    state->own16 = arena_take(a, narrow ? 2 * R * HD : 0, half);
    state->up = arena_take(a, R * F, f);
    state->gate = arena_take(a, R * F, f);
    int32_t most_experts = 0, most_used = 0, raw = 0; /* over all sublayers */
    for (int32_t i = 0; i < p->sublayer_count; i++) {
        const genie_sublayer *sublayer = &p->sublayers[i];
        const int ffn = sublayer->kind == GENIE_SUBLAYER_FFN;
        most_experts = max_i32(most_experts, ffn ? sublayer->expert_count : 0);
        most_used = max_i32(most_used, ffn ? sublayer->expert_used_count : 0);
        raw |= !ffn && sublayer->kv_input == GENIE_KV_INPUT_RESIDUAL;
    }
    const size_t X = (size_t)most_experts, K = (size_t)most_used, each = sizeof(int32_t);
    state->router_PX = arena_take(a, R * X, f);
    state->share_PK = arena_take(a, R * K, f);
    state->routed_PE = arena_take(a, X > 0 ? R * E : 0, f);
    state->expert_KPE = arena_take(a, K * R * E, f);
    state->expert_PK = arena_take(a, R * K, each);
    state->place_PK = arena_take(a, R * K, each);
    state->token_KP = arena_take(a, R * K, each);
    state->logits_PO = arena_take(a, R * O, f);
    state->terms_PO = arena_take(a, R * O, f);
    state->sums_PS = arena_take(a, R * (size_t)genie_stretches((int32_t)O), sizeof(double));
    state->quality_P = arena_take(a, P, sizeof(double));
    state->candidates_P = arena_take(a, P, sizeof(genie_candidate));
    state->chosen_P = arena_take(a, P, sizeof(int32_t));
    state->masked_P = arena_take(a, P, sizeof(int32_t));
    const int32_t widest = max_i32(max_i32((int32_t)E, (int32_t)HD), max_i32((int32_t)F, p->input_length));
    const size_t row = genie_activations_bytes(1, widest);
    state->activation_row = row > SIZE_MAX - 63 ? row : (row + 63) / 64 * 64;
    state->activations = arena_take(a, R, state->activation_row);
    state->raw = arena_take(a, raw ? R : 0, state->activation_row);
}

genie_status genie_state_create(const genie_stack *stack, genie_state **state) {
    if (stack == NULL || state == NULL)
        return genie_fail(GENIE_ERROR_ARGUMENT, "a pointer is NULL");
    *state = NULL;
    if (!stack->sealed)
        return genie_fail(GENIE_ERROR_STATE, "the stack is not sealed");
    genie_state measured = {.stack = stack};
    arena a = {NULL, 0, 0};
    lay_out(&measured, &a);
    if (a.overflow)
        return genie_fail(GENIE_ERROR_MEMORY, "out of memory");
    genie_state *s = genie_alloc(sizeof *s);
    if (s == NULL)
        return genie_fail(GENIE_ERROR_MEMORY, "out of memory");
    memset(s, 0, sizeof *s);
    s->stack = stack;
    s->bytes = a.used;
    s->block = genie_alloc_zeroed(a.used); /* padding keys must be finite */
    if (s->block == NULL) {
        genie_release(s);
        return genie_fail(GENIE_ERROR_MEMORY, "out of memory");
    }
    a = (arena){s->block, 0, 0};
    lay_out(s, &a);
    *state = s;
    return GENIE_OK;
}

genie_status genie_stack_need(const genie_stack *stack, size_t *seal_bytes, size_t *state_bytes) {
    if (stack == NULL || seal_bytes == NULL || state_bytes == NULL)
        return genie_fail(GENIE_ERROR_ARGUMENT, "a pointer is NULL");
    if (!genie_bias_bytes(&stack->params, seal_bytes))
        return genie_fail(GENIE_ERROR_MEMORY, "out of memory");
    /* Whether attention will be narrow is known only with the weights, so take the larger size. */
    *state_bytes = 0;
    for (int narrow = 0; narrow < 2; narrow++) {
        genie_stack assumed = *stack;
        assumed.narrow = narrow;
        genie_state measured = {.stack = &assumed};
        arena a = {NULL, 0, 0};
        lay_out(&measured, &a);
        if (a.overflow)
            return genie_fail(GENIE_ERROR_MEMORY, "out of memory");
        *state_bytes = a.used > *state_bytes ? a.used : *state_bytes;
    }
    return GENIE_OK;
}

void genie_state_free(genie_state *state) {
    if (state == NULL)
        return;
    genie_release(state->block);
    genie_release(state);
}

size_t genie_state_bytes(const genie_state *state) { return state->bytes; }

int32_t genie_state_length(const genie_state *state) { return state->length; }

genie_status genie_state_truncate(genie_state *state, int32_t length) {
    if (state == NULL || length < 0 || length > state->length)
        return genie_fail(GENIE_ERROR_ARGUMENT, "length must be in 0..the frames in the window");
    state->length = length;
    return GENIE_OK;
}

genie_status genie_state_watch(genie_state *state, float *looked_PT) {
    if (state == NULL)
        return genie_fail(GENIE_ERROR_ARGUMENT, "a pointer is NULL");
    state->looked_PT = looked_PT;
    return GENIE_OK;
}

genie_status genie_state_copy(genie_state *to, const genie_state *from) {
    if (to == NULL || from == NULL || to->stack != from->stack)
        return genie_fail(GENIE_ERROR_ARGUMENT, "both states must be of the same stack");
    if (to == from)
        return GENIE_OK;
    const genie_stack_params *p = &to->stack->params;
    const size_t P = (size_t)p->token_count, T = (size_t)p->context_length;
    const size_t HD = (size_t)p->head_count * (size_t)p->key_length;
    for (int32_t i = 0; i < p->block_count * p->sublayer_count; i++) {
        const int32_t kind = genie_sublayer_at(p, i)->kind;
        if (from->cache[i].k == NULL)
            continue;
        if (kind == GENIE_SUBLAYER_PEG) {
            memcpy(to->cache[i].k, from->cache[i].k, T * P * (size_t)p->embedding_length * sizeof(float));
            continue;
        }
        const int spacetime = kind == GENIE_SUBLAYER_SPACETIME, narrow = to->stack->narrow && !spacetime;
        const size_t slots = narrow ? (size_t)genie_past_slots(p->context_length) : T;
        const size_t keys = spacetime ? (size_t)genie_round_up((int32_t)(P * T), GENIE_KEY_PANEL) : P * slots;
        const size_t each = narrow ? sizeof(uint16_t) : sizeof(float);
        memcpy(to->cache[i].k, from->cache[i].k, keys * HD * each);
        memcpy(to->cache[i].v, from->cache[i].v, P * slots * HD * each);
    }
    to->length = from->length;
    return GENIE_OK;
}
