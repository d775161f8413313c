/* Attention sublayers: inside a frame, over the window, and both at once; with operands in float or in bf16. */
#include "pass.h"

#include <math.h>
#include <string.h>

enum { QUERY_CHUNK = 66 }; /* a multiple of the tile of every ISA */

/* Subtracted from a head's scores per frame of distance. */
static float slope_of(const pass *c, int32_t head) {
    const float *slopes = c->stack->own.vector[GENIE_SLOT_TEMPORAL_BIAS];
    return slopes == NULL ? 0 : slopes[head];
}

/* The biases of spatial attention, from the given query of a head on; NULL if there are none. */
static const float *bias_of(const pass *c, int32_t head, int32_t query) {
    const size_t P = (size_t)c->stack->params.token_count;
    return c->stack->bias_HPP == NULL ? NULL : c->stack->bias_HPP + ((size_t)head * P + (size_t)query) * P;
}

/*
 * If each thread has its own rows, an item is a head, with the thread's queries. Otherwise the items are pairs of a
 * head and a chunk of queries, which divide evenly even among many threads.
 */
typedef struct {
    int32_t begin, end, chunks;
} queries;

typedef struct {
    int32_t head, first, count;
} query_span;

static queries queries_of(const pass *c) {
    const int32_t heads = c->stack->params.head_count;
    queries all = {0, heads, 1};
    if (!c->by_row) {
        all.chunks = (c->rows + QUERY_CHUNK - 1) / QUERY_CHUNK;
        genie_share(heads * all.chunks, c->thread, c->threads, &all.begin, &all.end);
    }
    return all;
}

static query_span span_of(const pass *c, const queries *all, int32_t item) {
    if (c->by_row)
        return (query_span){item, c->begin, c->end - c->begin};
    const int32_t first = item % all->chunks * QUERY_CHUNK, left = c->rows - first;
    return (query_span){item / all->chunks, first, left < QUERY_CHUNK ? left : QUERY_CHUNK};
}

static void normed_heads(const pass *c, const float *weight, const float *bias, float *x_HD) {
    const genie_stack_params *p = &c->stack->params;
    const genie_kernels *kernels = c->stack->kernels;
    const float epsilon = p->qk_norm_epsilon > 0 ? p->qk_norm_epsilon : p->norm_epsilon;
    const int32_t H = p->head_count, D = p->key_length;
    if (bias == NULL)
        kernels->rms_norm_heads(weight, epsilon, H, D, x_HD);
    for (int32_t h = 0; bias != NULL && h < H; h++)
        kernels->layer_norm(x_HD + h * D, weight, bias, epsilon, D, x_HD + h * D);
}

/* Norms every head of one row of queries or keys in place, if the stack has such a norm. */
static void norm_query(const pass *c, const genie_weights *w, float *q) {
    if (c->stack->params.qk_norm != GENIE_NORM_NONE)
        normed_heads(c, w->vector[GENIE_SLOT_Q_NORM], w->vector[GENIE_SLOT_Q_NORM_BIAS], q);
}

static void norm_key(const pass *c, const genie_weights *w, float *k) {
    if (c->stack->params.qk_norm != GENIE_NORM_NONE)
        normed_heads(c, w->vector[GENIE_SLOT_K_NORM], w->vector[GENIE_SLOT_K_NORM_BIAS], k);
}

static void temporal_rows(const pass *c, const genie_weights *w, const genie_cache *cache) {
    const genie_stack_params *p = &c->stack->params;
    genie_state *s = c->state;
    const int32_t HD = p->head_count * p->key_length, D = p->key_length, T = p->context_length;
    const float scale = 1.0f / sqrtf((float)D);
    for (int32_t i = c->begin; i < c->end; i++) {
        const size_t window = genie_token_of(c, i) * (size_t)T * (size_t)HD, own = (size_t)s->length * (size_t)HD;
        float *q = s->q + (size_t)i * (size_t)HD, *past_k = (float *)cache->k + window;
        float *past_v = (float *)cache->v + window;
        if (c->position != NULL) {
            memcpy(past_k + own, s->k + (size_t)i * (size_t)HD, (size_t)HD * sizeof(float));
            memcpy(past_v + own, s->v + (size_t)i * (size_t)HD, (size_t)HD * sizeof(float));
        }
        norm_key(c, w, past_k + own);
        if (c->keep_only)
            continue;
        if (s->length == 0) { /* a single key: the result is its value */
            memcpy(s->att + (size_t)i * (size_t)HD, past_v, (size_t)HD * sizeof(float));
            continue;
        }
        norm_query(c, w, q);
        for (int32_t h = 0; h < p->head_count; h++)
            c->stack->kernels->attention_one(q + h * D, past_k + h * D, past_v + h * D, HD, s->length + 1, D, scale,
                                             slope_of(c, h), s->att + (size_t)i * (size_t)HD + (size_t)(h * D));
    }
}

/* Adds one frame's key and value of a head to a narrow window, as number t. */
static void keep_bf16(const uint16_t *k, const uint16_t *v, int32_t panel, int32_t t, int32_t D, uint16_t *kp,
                      uint16_t *vp) {
    uint16_t *keys = kp + (size_t)(t / panel * panel) * (size_t)D + t % panel * 2;
    for (int32_t d = 0; d < D; d += 2)
        memcpy(keys + d * panel, k + d, 2 * sizeof *keys);
    uint16_t *pairs = vp + (size_t)(t / 2) * (size_t)D * 2;
    for (int32_t d = 0; d < D; d++)
        pairs[2 * d + t % 2] = v[d];
    for (int32_t d = 0; d < D && t % 2 == 0; d++)
        pairs[2 * d + 1] = 0;
}

/* As temporal_rows, for a narrow stack. Its window takes a frame only when the frame is committed. */
static void temporal_rows_bf16(const pass *c, const genie_weights *w, const genie_cache *cache) {
    const genie_stack_params *p = &c->stack->params;
    const genie_kernels *kernels = c->stack->kernels;
    genie_state *s = c->state;
    const int32_t HD = p->head_count * p->key_length, D = p->key_length, panel = genie_past_panel(p->context_length);
    const size_t slots = (size_t)genie_past_slots(p->context_length);
    const float *slopes = c->stack->own.vector[GENIE_SLOT_TEMPORAL_BIAS];
    const float scale = 1.0f / sqrtf((float)D);
    for (int32_t i = c->begin; i < c->end; i++) {
        const size_t row = (size_t)i * (size_t)HD, token = genie_token_of(c, i) * (size_t)HD;
        uint16_t *q16 = s->q16 + row, *k16 = s->own16 + 2 * row, *v16 = k16 + HD;
        norm_key(c, w, s->k + row);
        kernels->to_bf16(s->k + row, HD, k16);
        kernels->to_bf16(s->v + row, HD, v16);
        uint16_t *kp = (uint16_t *)cache->k + token * slots, *vp = (uint16_t *)cache->v + token * slots;
        const size_t window = slots * (size_t)D;
        if (s->length == 0 && !c->keep_only) {
            memcpy(s->att + row, s->v + row, (size_t)HD * sizeof(float)); /* a single key: the result is its value */
        } else if (!c->keep_only) {
            norm_query(c, w, s->q + row);
            kernels->to_bf16(s->q + row, HD, q16);
            kernels->attention_past_bf16(q16, k16, v16, kp, vp, window, panel, s->length, p->head_count, D, scale,
                                         slopes, s->att + row);
        }
        for (int32_t h = 0; c->commit && h < p->head_count; h++)
            keep_bf16(k16 + h * D, v16 + h * D, panel, s->length, D, kp + (size_t)h * window, vp + (size_t)h * window);
    }
}

/* Spatial attention of a narrow stack, with operands in bf16. */
static void spatial_attention_bf16(pass *c, const genie_weights *w) {
    enum { HALF_PANEL = GENIE_KEY_PANEL / 2 };
    const genie_stack_params *p = &c->stack->params;
    const genie_kernels *kernels = c->stack->kernels;
    genie_state *s = c->state;
    const int32_t H = p->head_count, D = p->key_length, HD = H * D, P = p->token_count;
    const size_t head_keys = (size_t)genie_round_up(P, GENIE_KEY_PANEL) * (size_t)D;
    const float scale = 1.0f / sqrtf((float)D);
    c->buffer ^= 1; /* other threads may still read the last one */
    uint16_t *k16 = s->k16[c->buffer], *v16 = s->v16[c->buffer];
    for (int32_t i = c->begin; i < c->end; i++) {
        const size_t row = (size_t)i * (size_t)HD;
        norm_key(c, w, s->k + row);
        if (i % 2 == 0)
            kernels->values_bf16(s->v + row, i + 1 < c->end ? s->v + row + HD : NULL, HD, v16 + row);
    }
    for (int32_t i = c->begin, n; i < c->end; i += n) {
        n = HALF_PANEL - i % HALF_PANEL;
        n = n < c->end - i ? n : c->end - i;
        for (int32_t h = 0; h < H; h++)
            kernels->keys_bf16(s->k + (size_t)i * (size_t)HD + (size_t)(h * D), HD, n, i % GENIE_KEY_PANEL, D,
                               k16 + (size_t)h * head_keys + (size_t)(i / GENIE_KEY_PANEL * GENIE_KEY_PANEL * D));
    }
    if (c->last_mixing && c->stack->bias_HPP == NULL)
        genie_keep_masked(c); /* all tokens are keys, but only these are queries */
    for (int32_t i = c->begin; i < c->end; i++) {
        float *q = s->q + genie_token_of(c, i) * (size_t)HD;
        norm_query(c, w, q);
        kernels->to_bf16(q, HD, s->q16 + (size_t)i * (size_t)HD);
    }
    genie_pool_barrier(c->pool);
    const queries all = queries_of(c);
    for (int32_t item = all.begin; item < all.end; item++) {
        const query_span span = span_of(c, &all, item);
        const size_t at = (size_t)span.first * (size_t)HD + (size_t)(span.head * D);
        kernels->attention_bf16(s->q16 + at, HD, span.count, k16 + (size_t)span.head * head_keys,
                                v16 + 2 * span.head * D, HD, P, D, scale, bias_of(c, span.head, span.first), P,
                                s->att + at, HD);
    }
    genie_phase(c);
}

/* Attention of the frame's tokens over `keys` keys, in panels in kt; for spatial and space-time sublayers. */
static void wide_attention(const pass *c, const genie_weights *w, int biased, float *kt, int32_t most_keys,
                           int32_t first_key, const float *v, int32_t keys) {
    const genie_stack_params *p = &c->stack->params;
    genie_state *s = c->state;
    const int32_t HD = p->head_count * p->key_length, D = p->key_length, P = p->token_count;
    const size_t head_keys = (size_t)genie_round_up(most_keys, GENIE_KEY_PANEL) * (size_t)D;
    const float scale = 1.0f / sqrtf((float)D);
    for (int32_t i = c->begin; i < c->end; i++) {
        float *k = s->k + (size_t)i * (size_t)HD;
        norm_query(c, w, s->q + (size_t)i * (size_t)HD);
        norm_key(c, w, k);
        const int32_t j = first_key + i;
        for (int32_t h = 0; h < p->head_count; h++) {
            float *panel = kt + (size_t)h * head_keys + (size_t)(j / GENIE_KEY_PANEL * GENIE_KEY_PANEL) * (size_t)D;
            for (int32_t d = 0; d < D; d++)
                panel[d * GENIE_KEY_PANEL + j % GENIE_KEY_PANEL] = k[h * D + d];
        }
    }
    genie_pool_barrier(c->pool);
    const queries all = queries_of(c);
    for (int32_t item = all.begin; item < all.end; item++) {
        const query_span span = span_of(c, &all, item);
        const size_t at = (size_t)span.first * (size_t)HD + (size_t)(span.head * D);
        c->stack->kernels->attention(s->q + at, HD, span.count, kt + (size_t)span.head * head_keys, v + span.head * D,
                                     HD, keys, D, scale, biased ? bias_of(c, span.head, span.first) : NULL, P,
                                     s->att + at, HD);
    }
    genie_pool_barrier(c->pool);
}

void genie_attend(pass *c, const genie_weights *w, const genie_cache *cache) {
    const genie_stack_params *p = &c->stack->params;
    genie_state *s = c->state;
    const int32_t E = p->embedding_length, HD = p->head_count * p->key_length, T = p->context_length, rows = c->rows;
    genie_activations a = genie_room(c, s->activations, E);
    const float *x = genie_sublayer_input(c, w, w->matrix[GENIE_SLOT_Q], a);
    const int32_t kind = w->sublayer->kind, raw = w->sublayer->kv_input == GENIE_KV_INPUT_RESIDUAL;
    const float *kv = raw ? c->x_PE : x;
    const genie_activations b = raw ? genie_room(c, s->raw, E) : a;
    if (raw)
        genie_quantize(c, w->matrix[GENIE_SLOT_K], kv, E, b);
    genie_phase(c);
    float *k = s->k, *v = s->v;
    const int narrow = c->stack->narrow;
    int32_t stride = HD;
    if (kind == GENIE_SUBLAYER_TEMPORAL && !narrow && c->position == NULL) { /* straight into the window */
        k = (float *)cache->k + (size_t)s->length * (size_t)HD;
        v = (float *)cache->v + (size_t)s->length * (size_t)HD;
        stride = T * HD;
    } else if (kind == GENIE_SUBLAYER_SPACETIME) {
        v = (float *)cache->v + (size_t)s->length * (size_t)p->token_count * (size_t)HD;
    }
    const int unasked = c->keep_only || (kind == GENIE_SUBLAYER_TEMPORAL && s->length == 0);
    if (!unasked)
        genie_product(c, w->matrix[GENIE_SLOT_Q], a, x, E, s->q, HD, 0);
    genie_product(c, w->matrix[GENIE_SLOT_K], b, kv, E, k, stride, 0);
    genie_product(c, w->matrix[GENIE_SLOT_V], b, kv, E, v, stride, 0);
    genie_phase(c);
    if (kind == GENIE_SUBLAYER_TEMPORAL && narrow)
        temporal_rows_bf16(c, w, cache);
    else if (kind == GENIE_SUBLAYER_TEMPORAL)
        temporal_rows(c, w, cache);
    else if (kind == GENIE_SUBLAYER_SPATIAL && narrow)
        spatial_attention_bf16(c, w);
    else if (kind == GENIE_SUBLAYER_SPATIAL)
        wide_attention(c, w, 1, s->kt, rows, 0, v, rows);
    else
        wide_attention(c, w, 0, cache->k, rows * T, s->length * rows, cache->v, (s->length + 1) * rows);
    if (c->keep_only)
        return;
    if (s->looked_PT != NULL && s->length > 0 && kind != GENIE_SUBLAYER_SPATIAL && c->output_PO != NULL)
        genie_look(c, w, cache);
    a = genie_room(c, s->activations, HD);
    genie_quantize(c, w->matrix[GENIE_SLOT_OUT], s->att, HD, a);
    genie_phase(c);
    genie_product(c, w->matrix[GENIE_SLOT_OUT], a, s->att, HD, c->x_PE, E, 1);
    genie_phase(c);
    genie_sublayer_end(c, w);
}
