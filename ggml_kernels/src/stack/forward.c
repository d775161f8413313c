/*
 * Running a stack: one parallel region per frame, barriers between its phases. Every thread walks the same list of
 * sublayers and does its share of each: rows (tokens) for norms, activations and temporal attention, panels of output
 * channels for matrices, heads x query chunks for attention inside a frame. No sum is ever split across threads.
 */
#include "stack.h"

#include <math.h>
#include <string.h>

enum { QUERY_CHUNK = 66 }; /* a multiple of the tile of every ISA */

typedef struct {
    const genie_stack *stack;
    genie_state *state;
    genie_pool *pool;
    const int32_t *ids_P;
    const float *features_PN;
    int32_t action;
    int32_t commit;
    float *output_PO;             /* NULL: no head */
    const genie_sampler *sampler; /* NULL: no sampling */
    int32_t step;
    uint64_t seed;
    uint32_t frame;
    int32_t *sampled_P;
} pass;

/* Quantize this thread's rows of the input of `w`, unless w is a float matrix and reads x itself. */
static void quantize_rows(const pass *c, const genie_matrix *w, const float *x, int32_t columns, genie_activations a,
                          int32_t thread, int32_t threads) {
    if (genie_matrix_quantized(w))
        genie_activations_quantize(c->stack->kernels, x, columns, c->stack->params.token_count, columns, a, thread,
                                   threads);
}

/* Norm this thread's rows of the residual stream into y_PE, or in place. */
static void norm_rows(const pass *c, int32_t kind, const float *weight, const float *bias, float *y_PE, int32_t thread,
                      int32_t threads) {
    const genie_stack_params *p = &c->stack->params;
    const int32_t E = p->embedding_length, n = genie_norm_length(p);
    int32_t begin, end;
    genie_share(p->token_count, thread, threads, &begin, &end);
    for (int32_t i = begin; i < end; i++) {
        const float *row = c->state->x_PE + (size_t)i * (size_t)E;
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
    norm_rows(c, p->norm, w->vector[GENIE_SLOT_NORM] + at, bias == NULL ? NULL : bias + at, y_PE, thread, threads);
}

/* What a sublayer reads, its rows of this thread normed where it has a norm and that comes first, and quantized for
 * `matrix`; the caller puts the barrier. */
static const float *sublayer_input(const pass *c, const genie_weights *w, const genie_matrix *matrix,
                                   genie_activations a, int32_t thread, int32_t threads) {
    const genie_stack_params *p = &c->stack->params;
    const int normed = !p->post_norm && w->vector[GENIE_SLOT_NORM] != NULL;
    const float *x = normed ? c->state->y_PE : c->state->x_PE;
    if (normed)
        sublayer_norm(c, w, c->state->y_PE, thread, threads);
    quantize_rows(c, matrix, x, p->embedding_length, a, thread, threads);
    return x;
}

/* After a sublayer was added to x and a barrier. The next reader of these rows is this thread, or waits for one. */
static void sublayer_end(const pass *c, const genie_weights *w, int32_t thread, int32_t threads) {
    if (c->stack->params.post_norm && w->vector[GENIE_SLOT_NORM] != NULL)
        sublayer_norm(c, w, c->state->x_PE, thread, threads);
}

/* Mean 0 and variance 1 of this thread's rows of features. */
static const float *standardise(const pass *c, int32_t thread, int32_t threads) {
    const int32_t N = c->stack->params.input_length;
    int32_t begin, end;
    genie_share(c->stack->params.token_count, thread, threads, &begin, &end);
    for (int32_t i = begin; i < end; i++) {
        const float *x = c->features_PN + (size_t)i * (size_t)N;
        float *y = c->state->features_PN + (size_t)i * (size_t)N, sum = 0, squares = 0;
        for (int32_t n = 0; n < N; n++)
            sum += x[n];
        const float mean = sum / (float)N;
        for (int32_t n = 0; n < N; n++)
            squares += (x[n] - mean) * (x[n] - mean);
        const float scale = 1.0f / sqrtf(squares / (float)N + c->stack->params.norm_epsilon);
        for (int32_t n = 0; n < N; n++)
            y[n] = (x[n] - mean) * scale;
    }
    return c->state->features_PN;
}

/* x_PE from features, norms included. */
static void embed_features(const pass *c, int32_t thread, int32_t threads) {
    const genie_stack_params *p = &c->stack->params;
    const genie_weights *w = &c->stack->own;
    const int32_t E = p->embedding_length, P = p->token_count, N = p->input_length;
    const int first = p->first_frame == GENIE_FIRST_INPUT && c->state->length == 0;
    const genie_matrix *matrix = w->matrix[first ? GENIE_SLOT_INPUT_FIRST : GENIE_SLOT_INPUT];
    const genie_activations a = genie_activations_place(c->state->activations, P, N);
    const float *features = p->input_norm ? standardise(c, thread, threads) : c->features_PN;
    quantize_rows(c, matrix, features, N, a, thread, threads);
    genie_pool_barrier(c->pool);
    genie_matrix_run(matrix, a, features, N, P, c->state->x_PE, E, 0, thread, threads);
    genie_pool_barrier(c->pool);
    if (p->input_norm)
        norm_rows(c, GENIE_NORM_LAYER, w->vector[first ? GENIE_SLOT_INPUT_FIRST_NORM : GENIE_SLOT_INPUT_NORM],
                  w->vector[first ? GENIE_SLOT_INPUT_FIRST_NORM_BIAS : GENIE_SLOT_INPUT_NORM_BIAS], c->state->x_PE,
                  thread, threads);
}

/* The embedding of a token: the mask's own row, or the sum over its digits, the least significant first. */
static void token_row(const genie_stack_params *p, const float *rows, int32_t id, float *x_E) {
    const int32_t E = p->embedding_length;
    const size_t bytes = (size_t)E * sizeof(float);
    if (p->factor_count == 1 || id == genie_mask_id(p)) {
        const int32_t row = p->factor_count == 1 ? id : p->output_length;
        memcpy(x_E, rows + (size_t)row * (size_t)E, bytes);
        return;
    }
    const int32_t size = genie_factor_size(p);
    for (int32_t k = 0; k < p->factor_count; k++, id /= size) {
        const float *row = rows + (size_t)(k * size + id % size) * (size_t)E;
        if (k == 0)
            memcpy(x_E, row, bytes);
        else
            for (int32_t e = 0; e < E; e++)
                x_E[e] += row[e];
    }
}

static void embed(const pass *c, int32_t thread, int32_t threads) {
    const genie_stack_params *p = &c->stack->params;
    const genie_weights *w = &c->stack->own;
    const int32_t E = p->embedding_length, P = p->token_count, N = p->input_length;
    const int separate = p->position == GENIE_POSITION_SEPARATE, joint = p->position == GENIE_POSITION_JOINT;
    float *x = c->state->x_PE;
    if (N > 0)
        embed_features(c, thread, threads);
    const size_t frame = (size_t)c->state->length * (size_t)E;
    const float *time = separate ? w->vector[GENIE_SLOT_POS_TIME] + frame : NULL;
    const float *places = separate ? w->vector[GENIE_SLOT_POS_SPACE]
                          : joint  ? w->vector[GENIE_SLOT_POS] + frame * (size_t)P
                                   : NULL;
    const float *actions = w->vector[GENIE_SLOT_ACTION_EMBD];
    const float *action = c->action >= 0 && actions != NULL ? actions + (size_t)c->action * (size_t)E : NULL;
    int32_t begin, end;
    genie_share(P, thread, threads, &begin, &end);
    for (int32_t i = begin; i < end; i++) {
        float *row = x + (size_t)i * (size_t)E;
        const float *space = places == NULL ? NULL : places + (size_t)i * (size_t)E;
        if (N == 0)
            token_row(p, w->vector[GENIE_SLOT_TOKEN_EMBD], c->ids_P[i], row);
        for (int32_t e = 0; e < E; e++) {
            if (action != NULL)
                row[e] += action[e];
            if (space != NULL)
                row[e] += space[e];
            if (time != NULL)
                row[e] += time[e];
        }
    }
}

/* What a frame of distance takes off the scores of a head. */
static float slope_of(const pass *c, int32_t head) {
    const float *slopes = c->stack->own.vector[GENIE_SLOT_TEMPORAL_BIAS];
    return slopes == NULL ? 0 : slopes[head];
}

/* The biases of spatial attention's scores, from a query of a head on; NULL where there are none. */
static const float *bias_of(const pass *c, int32_t head, int32_t query) {
    const size_t P = (size_t)c->stack->params.token_count;
    return c->stack->bias_HPP == NULL ? NULL : c->stack->bias_HPP + ((size_t)head * P + (size_t)query) * P;
}

static void head_norm(const pass *c, const float *weight, const float *bias, float *x_D) {
    const genie_stack_params *p = &c->stack->params;
    const float epsilon = p->qk_norm_epsilon > 0 ? p->qk_norm_epsilon : p->norm_epsilon;
    if (bias != NULL)
        c->stack->kernels->layer_norm(x_D, weight, bias, epsilon, p->key_length, x_D);
    else
        c->stack->kernels->rms_norm(x_D, weight, epsilon, p->key_length, x_D);
}

/* The norm of every head of one row of queries and of keys, in place, where the stack has it. */
static void head_norms(const pass *c, const genie_weights *w, float *q, float *k) {
    const genie_stack_params *p = &c->stack->params;
    for (int32_t h = 0; p->qk_norm && h < p->head_count; h++) {
        const size_t at = (size_t)h * (size_t)p->key_length;
        head_norm(c, w->vector[GENIE_SLOT_Q_NORM], w->vector[GENIE_SLOT_Q_NORM_BIAS], q + at);
        head_norm(c, w->vector[GENIE_SLOT_K_NORM], w->vector[GENIE_SLOT_K_NORM_BIAS], k + at);
    }
}

static void temporal_rows(const pass *c, const genie_weights *w, const genie_cache *cache, int32_t thread,
                          int32_t threads) {
    const genie_stack_params *p = &c->stack->params;
    genie_state *s = c->state;
    const int32_t HD = p->head_count * p->key_length, D = p->key_length, T = p->context_length;
    const float scale = 1.0f / sqrtf((float)D);
    int32_t begin, end;
    genie_share(p->token_count, thread, threads, &begin, &end);
    for (int32_t i = begin; i < end; i++) {
        float *q = s->q + (size_t)i * (size_t)HD;
        float *past_k = (float *)cache->k + (size_t)i * (size_t)T * (size_t)HD;
        const float *past_v = (const float *)cache->v + (size_t)i * (size_t)T * (size_t)HD;
        head_norms(c, w, q, past_k + (size_t)s->length * (size_t)HD);
        for (int32_t h = 0; h < p->head_count; h++)
            c->stack->kernels->attention_one(q + h * D, past_k + h * D, past_v + h * D, HD, s->length + 1, D, scale,
                                             slope_of(c, h), s->att + (size_t)i * (size_t)HD + (size_t)(h * D));
    }
}

/* One frame's key and value of a head join a narrow window as number t. */
static void keep_bf16(const uint16_t *k, const uint16_t *v, int32_t t, int32_t D, uint16_t *kp, uint16_t *vp) {
    uint16_t *panel = kp + (size_t)(t / GENIE_PAST_PANEL * GENIE_PAST_PANEL) * (size_t)D;
    uint16_t *values = vp + (size_t)(t / 2) * (size_t)D * 2 + t % 2;
    for (int32_t d = 0; d < D; d += 2)
        memcpy(panel + (d / 2 * GENIE_PAST_PANEL + t % GENIE_PAST_PANEL) * 2, k + d, 2 * sizeof *panel);
    for (int32_t d = 0; d < D; d++)
        values[2 * d] = v[d];
}

/* The same in a narrow stack, whose window takes in a frame only when it is committed. */
static void temporal_rows_bf16(const pass *c, const genie_weights *w, const genie_cache *cache, int32_t thread,
                               int32_t threads) {
    const genie_stack_params *p = &c->stack->params;
    const genie_kernels *kernels = c->stack->kernels;
    genie_state *s = c->state;
    const int32_t HD = p->head_count * p->key_length, D = p->key_length;
    const size_t slots = (size_t)genie_past_slots(p->context_length);
    const float scale = 1.0f / sqrtf((float)D);
    int32_t begin, end;
    genie_share(p->token_count, thread, threads, &begin, &end);
    for (int32_t i = begin; i < end; i++) {
        const size_t row = (size_t)i * (size_t)HD;
        uint16_t *q16 = s->q16 + row, *k16 = s->k16 + row, *v16 = s->v16 + row;
        head_norms(c, w, s->q + row, s->k + row);
        kernels->to_bf16(s->q + row, HD, q16);
        kernels->to_bf16(s->k + row, HD, k16);
        kernels->to_bf16(s->v + row, HD, v16);
        for (int32_t h = 0; h < HD; h += D) {
            const size_t window = (row + (size_t)h) * slots;
            uint16_t *kp = (uint16_t *)cache->k + window, *vp = (uint16_t *)cache->v + window;
            kernels->attention_past_bf16(q16 + h, k16 + h, v16 + h, kp, vp, s->length, D, scale, slope_of(c, h / D),
                                         s->att + row + h);
            if (c->commit)
                keep_bf16(k16 + h, v16 + h, s->length, D, kp, vp);
        }
    }
}

/* Spatial attention of a narrow stack. Threads take pairs of rows, since the values of two share their words. */
static void spatial_attention_bf16(const pass *c, const genie_weights *w, int32_t thread, int32_t threads) {
    const genie_stack_params *p = &c->stack->params;
    const genie_kernels *kernels = c->stack->kernels;
    genie_state *s = c->state;
    const int32_t HD = p->head_count * p->key_length, D = p->key_length, P = p->token_count;
    const size_t head_keys = (size_t)genie_round_up(P, GENIE_KEY_PANEL) * (size_t)D;
    const float scale = 1.0f / sqrtf((float)D);
    int32_t begin, end;
    genie_share((P + 1) / 2, thread, threads, &begin, &end);
    for (int32_t i = 2 * begin; i < 2 * end && i < P; i++) {
        const size_t row = (size_t)i * (size_t)HD;
        head_norms(c, w, s->q + row, s->k + row);
        kernels->to_bf16(s->q + row, HD, s->q16 + row);
        uint16_t *rounded = s->rounded + row;
        kernels->to_bf16(s->k + row, HD, rounded);
        for (int32_t h = 0; h < p->head_count; h++) {
            uint16_t *panel = s->k16 + (size_t)h * head_keys + (size_t)(i / GENIE_KEY_PANEL * GENIE_KEY_PANEL * D);
            for (int32_t d = 0; d < D; d += 2)
                memcpy(panel + (d / 2 * GENIE_KEY_PANEL + i % GENIE_KEY_PANEL) * 2, rounded + h * D + d,
                       2 * sizeof *panel);
        }
        kernels->to_bf16(s->v + row, HD, rounded);
        uint16_t *pair = s->v16 + (size_t)(i / 2) * (size_t)HD * 2 + i % 2;
        for (int32_t e = 0; e < HD; e++)
            pair[2 * e] = rounded[e];
    }
    genie_pool_barrier(c->pool);
    const int32_t chunks = (P + QUERY_CHUNK - 1) / QUERY_CHUNK;
    genie_share(p->head_count * chunks, thread, threads, &begin, &end);
    for (int32_t item = begin; item < end; item++) {
        const int32_t h = item / chunks, first = item % chunks * QUERY_CHUNK;
        const int32_t n = P - first < QUERY_CHUNK ? P - first : QUERY_CHUNK;
        const size_t at = (size_t)first * (size_t)HD + (size_t)(h * D);
        kernels->attention_bf16(s->q16 + at, HD, n, s->k16 + (size_t)h * head_keys, s->v16 + 2 * h * D, HD, P, D, scale,
                                bias_of(c, h, first), P, s->att + at, HD);
    }
    genie_pool_barrier(c->pool);
}

/* Attention of the frame's tokens over `keys` keys kept in panels in kt; spatial and space-time alike. */
static void wide_attention(const pass *c, const genie_weights *w, int biased, float *kt, int32_t most_keys,
                           int32_t first_key, const float *v, int32_t keys, int32_t thread, int32_t threads) {
    const genie_stack_params *p = &c->stack->params;
    genie_state *s = c->state;
    const int32_t HD = p->head_count * p->key_length, D = p->key_length, P = p->token_count;
    const size_t head_keys = (size_t)genie_round_up(most_keys, GENIE_KEY_PANEL) * (size_t)D;
    const float scale = 1.0f / sqrtf((float)D);
    int32_t begin, end;
    genie_share(P, thread, threads, &begin, &end);
    for (int32_t i = begin; i < end; i++) {
        float *k = s->k + (size_t)i * (size_t)HD;
        head_norms(c, w, s->q + (size_t)i * (size_t)HD, k);
        const int32_t j = first_key + i;
        for (int32_t h = 0; h < p->head_count; h++) {
            float *panel = kt + (size_t)h * head_keys + (size_t)(j / GENIE_KEY_PANEL * GENIE_KEY_PANEL) * (size_t)D;
            for (int32_t d = 0; d < D; d++)
                panel[d * GENIE_KEY_PANEL + j % GENIE_KEY_PANEL] = k[h * D + d];
        }
    }
    genie_pool_barrier(c->pool);
    const int32_t chunks = (P + QUERY_CHUNK - 1) / QUERY_CHUNK;
    genie_share(p->head_count * chunks, thread, threads, &begin, &end);
    for (int32_t item = begin; item < end; item++) {
        const int32_t h = item / chunks, first = item % chunks * QUERY_CHUNK;
        const int32_t n = P - first < QUERY_CHUNK ? P - first : QUERY_CHUNK;
        const size_t at = (size_t)first * (size_t)HD + (size_t)(h * D);
        c->stack->kernels->attention(s->q + at, HD, n, kt + (size_t)h * head_keys, v + h * D, HD, keys, D, scale,
                                     biased ? bias_of(c, h, first) : NULL, P, s->att + at, HD);
    }
    genie_pool_barrier(c->pool);
}

static void attention(const pass *c, int32_t kind, const genie_weights *w, const genie_cache *cache, int32_t thread,
                      int32_t threads) {
    const genie_stack_params *p = &c->stack->params;
    genie_state *s = c->state;
    const int32_t E = p->embedding_length, HD = p->head_count * p->key_length, P = p->token_count,
                  T = p->context_length;
    genie_activations a = genie_activations_place(s->activations, P, E);
    const float *x = sublayer_input(c, w, w->matrix[GENIE_SLOT_Q], a, thread, threads);
    const float *kv = p->raw_kv ? s->x_PE : x;
    const genie_activations b = p->raw_kv ? genie_activations_place(s->raw, P, E) : a;
    if (p->raw_kv)
        quantize_rows(c, w->matrix[GENIE_SLOT_K], kv, E, b, thread, threads);
    genie_pool_barrier(c->pool);
    float *k = s->k, *v = s->v;
    const int narrow = c->stack->narrow;
    int32_t stride = HD;
    if (kind == GENIE_SUBLAYER_TEMPORAL && !narrow) { /* straight into the window, one slot per position */
        k = (float *)cache->k + (size_t)s->length * (size_t)HD;
        v = (float *)cache->v + (size_t)s->length * (size_t)HD;
        stride = T * HD;
    } else if (kind == GENIE_SUBLAYER_SPACETIME) {
        v = (float *)cache->v + (size_t)s->length * (size_t)P * (size_t)HD;
    }
    genie_matrix_run(w->matrix[GENIE_SLOT_Q], a, x, E, P, s->q, HD, 0, thread, threads);
    genie_matrix_run(w->matrix[GENIE_SLOT_K], b, kv, E, P, k, stride, 0, thread, threads);
    genie_matrix_run(w->matrix[GENIE_SLOT_V], b, kv, E, P, v, stride, 0, thread, threads);
    genie_pool_barrier(c->pool);
    if (kind == GENIE_SUBLAYER_TEMPORAL && narrow)
        temporal_rows_bf16(c, w, cache, thread, threads);
    else if (kind == GENIE_SUBLAYER_TEMPORAL)
        temporal_rows(c, w, cache, thread, threads);
    else if (kind == GENIE_SUBLAYER_SPATIAL && narrow)
        spatial_attention_bf16(c, w, thread, threads);
    else if (kind == GENIE_SUBLAYER_SPATIAL)
        wide_attention(c, w, 1, s->kt, P, 0, v, P, thread, threads);
    else
        wide_attention(c, w, 0, cache->k, P * T, s->length * P, cache->v, (s->length + 1) * P, thread, threads);
    /* Temporal attention and quantization share rows alike, so no barrier is needed between them. */
    a = genie_activations_place(s->activations, P, HD);
    quantize_rows(c, w->matrix[GENIE_SLOT_OUT], s->att, HD, a, thread, threads);
    genie_pool_barrier(c->pool);
    genie_matrix_run(w->matrix[GENIE_SLOT_OUT], a, s->att, HD, P, s->x_PE, E, 1, thread, threads);
    genie_pool_barrier(c->pool);
    sublayer_end(c, w, thread, threads);
}

static void feed_forward(const pass *c, const genie_weights *w, int32_t thread, int32_t threads) {
    const genie_stack_params *p = &c->stack->params;
    genie_state *s = c->state;
    const int32_t E = p->embedding_length, F = p->feed_forward_length, P = p->token_count;
    genie_activations a = genie_activations_place(s->activations, P, E);
    const float *x = sublayer_input(c, w, w->matrix[GENIE_SLOT_UP], a, thread, threads);
    genie_pool_barrier(c->pool);
    genie_matrix_run(w->matrix[GENIE_SLOT_UP], a, x, E, P, s->up, F, 0, thread, threads);
    if (w->matrix[GENIE_SLOT_GATE] != NULL)
        genie_matrix_run(w->matrix[GENIE_SLOT_GATE], a, x, E, P, s->gate, F, 0, thread, threads);
    genie_pool_barrier(c->pool);
    int32_t begin, end;
    genie_share(P, thread, threads, &begin, &end);
    for (int32_t i = begin; i < end; i++)
        c->stack->kernels->ffn_activation(p->ffn, s->gate + (size_t)i * (size_t)F, s->up + (size_t)i * (size_t)F, F);
    a = genie_activations_place(s->activations, P, F);
    quantize_rows(c, w->matrix[GENIE_SLOT_DOWN], s->up, F, a, thread, threads);
    genie_pool_barrier(c->pool);
    genie_matrix_run(w->matrix[GENIE_SLOT_DOWN], a, s->up, F, P, s->x_PE, E, 1, thread, threads);
    genie_pool_barrier(c->pool);
    sublayer_end(c, w, thread, threads);
}

static void run_pass(void *context, int32_t thread, int32_t threads) {
    const pass *c = context;
    const genie_stack_params *p = &c->stack->params;
    int32_t sublayers = p->block_count * p->sublayer_count;
    while (c->output_PO == NULL && sublayers > 0 && c->state->cache[sublayers - 1].k == NULL)
        sublayers--; /* a frame that is to be remembered only: what comes after the last window is for the head */
    if (c->output_PO == NULL && sublayers == 0)
        return;
    embed(c, thread, threads); /* rows, as the first norm: no barrier */
    for (int32_t i = 0; i < sublayers; i++) {
        const int32_t kind = p->sublayers[i % p->sublayer_count];
        if (kind == GENIE_SUBLAYER_PEG)
            genie_peg(c->stack, c->state, c->pool, &c->stack->sublayer[i], &c->state->cache[i], thread, threads);
        else if (kind == GENIE_SUBLAYER_FFN)
            feed_forward(c, &c->stack->sublayer[i], thread, threads);
        else
            attention(c, kind, &c->stack->sublayer[i], &c->state->cache[i], thread, threads);
    }
    if (c->output_PO == NULL)
        return;
    const genie_weights *own = &c->stack->own;
    const int32_t E = p->embedding_length, P = p->token_count, O = p->output_length;
    const genie_activations a = genie_activations_place(c->state->activations, P, E);
    const float *x = p->output_norm == GENIE_NORM_NONE ? c->state->x_PE : c->state->y_PE;
    if (p->output_norm != GENIE_NORM_NONE)
        norm_rows(c, p->output_norm, own->vector[GENIE_SLOT_OUTPUT_NORM], own->vector[GENIE_SLOT_OUTPUT_NORM_BIAS],
                  c->state->y_PE, thread, threads);
    if (O == 0) {
        int32_t begin, end;
        genie_share(P, thread, threads, &begin, &end);
        const size_t from = (size_t)begin * (size_t)E, count = (size_t)(end - begin) * (size_t)E;
        if (count > 0)
            memcpy(c->output_PO + from, x + from, count * sizeof(float));
        return;
    }
    const int first = p->first_frame == GENIE_FIRST_OUTPUT && c->state->length == 0;
    const genie_matrix *head = own->matrix[first ? GENIE_SLOT_OUTPUT_FIRST : GENIE_SLOT_OUTPUT];
    quantize_rows(c, head, x, E, a, thread, threads);
    genie_pool_barrier(c->pool);
    genie_matrix_run(head, a, x, E, P, c->output_PO, O, 0, thread, threads);
    if (c->sampler != NULL) {
        genie_pool_barrier(c->pool);
        genie_sample(c->stack->kernels, c->pool, c->sampler, c->step, c->seed, c->frame, c->state, c->sampled_P, thread,
                     threads);
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
              .sampled_P = ids_P};
    genie_pool_run(pool, run_pass, &c);
    if (logits_PO != NULL)
        memcpy(logits_PO, state->logits_PO, (size_t)p->token_count * (size_t)p->output_length * sizeof(float));
    return GENIE_OK;
}
