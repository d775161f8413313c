/* Building a stack: parameters checked, one tensor set at a time, then sealed. */
#include "stack.h"

#include <string.h>

enum { LIMIT = 1 << 24 };

static int in_range(int32_t value, int32_t low, int32_t high) { return value >= low && value <= high; }

/* Every factor has as many codes, and all ids stay numbers a float can tell apart. */
static int factors_ok(const genie_stack_params *p) {
    if (p->factor_count == 1)
        return 1;
    if (!in_range(p->factor_count, 2, 4) || p->input_length > 0 || p->output_length % p->factor_count != 0 ||
        p->output_length < p->factor_count || p->input_rows != p->output_length + 1)
        return 0;
    int64_t codes = 1;
    for (int32_t k = 0; k < p->factor_count; k++) {
        codes *= genie_factor_size(p);
        if (codes > LIMIT)
            return 0;
    }
    return 1;
}

static int params_ok(const genie_stack_params *p) {
    if (!in_range(p->block_count, 1, 512) || !in_range(p->embedding_length, 1, 16384) ||
        !in_range(p->head_count, 1, 512) || !in_range(p->key_length, 1, GENIE_MAX_KEY_LENGTH) ||
        !in_range(p->feed_forward_length, 1, 131072) || !in_range(p->token_count, 1, 1 << 20) ||
        !in_range(p->context_length, 1, GENIE_MAX_CONTEXT) || !in_range(p->output_length, 0, LIMIT) ||
        !in_range(p->action_count, 0, LIMIT) || !in_range(p->norm, 0, 1) || !in_range(p->ffn, 0, 4) ||
        !in_range(p->qk_norm, 0, 2) || !in_range(p->bias, 0, 1) || !in_range(p->sublayer_count, 1, 8) ||
        !in_range(p->post_norm, 0, 1) || !in_range(p->output_norm, 0, 2) || !in_range(p->conditioning, 0, 1) ||
        !in_range(p->norm_length, 0, p->embedding_length) || !in_range(p->position, 0, 2) ||
        !in_range(p->raw_kv, 0, 1) || (p->raw_kv && p->post_norm) || !in_range(p->spatial_bias, 0, 1) ||
        !in_range(p->temporal_bias, 0, 1) || !in_range(p->input_norm, 0, 1) || !in_range(p->first_frame, 0, 2) ||
        !in_range(p->grid_width, 0, p->token_count) || (p->grid_width > 0 && p->token_count % p->grid_width != 0) ||
        !(p->qk_norm_epsilon >= 0 && p->qk_norm_epsilon <= 0.1f))
        return 0;
    if ((p->input_norm && p->input_length == 0) || (p->spatial_bias && p->grid_width == 0) ||
        (p->first_frame == GENIE_FIRST_INPUT && p->input_length == 0) ||
        (p->first_frame == GENIE_FIRST_OUTPUT && p->output_length == 0))
        return 0;
    if ((p->input_length > 0) == (p->input_rows > 0) || !in_range(p->input_length, 0, LIMIT) ||
        !in_range(p->input_rows, 0, LIMIT))
        return 0;
    if (!in_range(p->unnormed, 0, 15) || !factors_ok(p))
        return 0;
    if (!in_range(p->expert_count, 0, GENIE_MAX_EXPERTS) ||
        !in_range(p->expert_used_count, p->expert_count > 0, p->expert_count))
        return 0;
    if ((int64_t)p->token_count * p->context_length > LIMIT || !(p->norm_epsilon > 0 && p->norm_epsilon <= 0.1f))
        return 0;
    for (int32_t i = 0; i < p->sublayer_count; i++) {
        if (!in_range(p->sublayers[i], 0, 4) || (p->sublayers[i] == GENIE_SUBLAYER_PEG && p->grid_width == 0))
            return 0;
    }
    return 1;
}

genie_status genie_stack_create(const char *isa, const genie_stack_params *params, genie_stack **stack) {
    if (params == NULL || stack == NULL || !params_ok(params))
        return GENIE_ERROR_ARGUMENT;
    *stack = NULL;
    const genie_kernels *kernels = genie_kernels_find(isa);
    if (kernels == NULL)
        return GENIE_ERROR_ISA;
    genie_stack *s = genie_alloc(sizeof *s);
    if (s == NULL)
        return GENIE_ERROR_MEMORY;
    memset(s, 0, sizeof *s);
    const size_t bytes = (size_t)params->block_count * (size_t)params->sublayer_count * sizeof *s->sublayer;
    s->sublayer = genie_alloc(bytes);
    if (s->sublayer == NULL) {
        genie_release(s);
        return GENIE_ERROR_MEMORY;
    }
    memset(s->sublayer, 0, bytes);
    s->params = *params;
    s->kernels = kernels;
    *stack = s;
    return GENIE_OK;
}

void genie_stack_free(genie_stack *stack) {
    if (stack == NULL)
        return;
    genie_arena_free(&stack->arena);
    genie_release(stack->sublayer);
    genie_release(stack);
}

const char *genie_stack_isa(const genie_stack *stack) { return stack->kernels->name; }

size_t genie_stack_bytes(const genie_stack *stack) { return stack->bytes; }

int32_t genie_bias_of(int32_t slot) {
    switch (slot) {
    case GENIE_SLOT_INPUT_BIAS:
        return GENIE_SLOT_INPUT;
    case GENIE_SLOT_OUTPUT_BIAS:
        return GENIE_SLOT_OUTPUT;
    case GENIE_SLOT_Q_BIAS:
        return GENIE_SLOT_Q;
    case GENIE_SLOT_K_BIAS:
        return GENIE_SLOT_K;
    case GENIE_SLOT_V_BIAS:
        return GENIE_SLOT_V;
    case GENIE_SLOT_OUT_BIAS:
        return GENIE_SLOT_OUT;
    case GENIE_SLOT_UP_BIAS:
        return GENIE_SLOT_UP;
    case GENIE_SLOT_GATE_BIAS:
        return GENIE_SLOT_GATE;
    case GENIE_SLOT_DOWN_BIAS:
        return GENIE_SLOT_DOWN;
    case GENIE_SLOT_INPUT_FIRST_BIAS:
        return GENIE_SLOT_INPUT_FIRST;
    case GENIE_SLOT_OUTPUT_FIRST_BIAS:
        return GENIE_SLOT_OUTPUT_FIRST;
    default:
        return -1;
    }
}

int genie_slot_shape(const genie_stack_params *p, int32_t kind, int32_t slot, int32_t *rows, int32_t *columns,
                     int *is_matrix) {
    const int32_t E = p->embedding_length, HD = p->head_count * p->key_length, F = p->feed_forward_length;
    const int layer_norm = p->norm == GENIE_NORM_LAYER, own = kind < 0, ffn = kind == GENIE_SUBLAYER_FFN;
    const int peg = kind == GENIE_SUBLAYER_PEG, normed = !own && !peg && (p->unnormed >> kind & 1) == 0,
              separate = p->position == GENIE_POSITION_SEPARATE, layer_qk = p->qk_norm == 2;
    const int input = own && p->input_length > 0, output = own && p->output_length > 0;
    const int first_input = input && p->first_frame == GENIE_FIRST_INPUT;
    const int first_output = output && p->first_frame == GENIE_FIRST_OUTPUT;
    const int32_t wide = 2 * p->grid_width - 1, high = p->grid_width > 0 ? 2 * (p->token_count / p->grid_width) - 1 : 0;
    const int film = p->conditioning == GENIE_CONDITIONING_FILM;
    const int32_t norms = film ? p->action_count + 1 : 1;
    const int32_t experts = p->expert_count > 0 ? p->expert_count : 1;
    const int attention = !own && !peg && !ffn, gated = p->ffn == GENIE_FFN_SWIGLU || p->ffn == GENIE_FFN_GEGLU;
    const struct {
        int32_t rows, columns;
        int is_matrix, here;
    } shape[GENIE_SLOT_COUNT] = {
        [GENIE_SLOT_INPUT] = {E, p->input_length, 1, input},
        [GENIE_SLOT_INPUT_BIAS] = {1, E, 0, input},
        [GENIE_SLOT_TOKEN_EMBD] = {p->input_rows, E, 0, own && p->input_rows > 0},
        [GENIE_SLOT_ACTION_EMBD] = {p->action_count, E, 0, own && p->action_count > 0 && !film},
        [GENIE_SLOT_POS_SPACE] = {p->token_count, E, 0, own && separate},
        [GENIE_SLOT_POS_TIME] = {p->context_length, E, 0, own && separate},
        [GENIE_SLOT_OUTPUT_NORM] = {1, E, 0, own && p->output_norm != GENIE_NORM_NONE},
        [GENIE_SLOT_OUTPUT_NORM_BIAS] = {1, E, 0, own && p->output_norm == GENIE_NORM_LAYER},
        [GENIE_SLOT_OUTPUT] = {p->output_length, E, 1, output},
        [GENIE_SLOT_OUTPUT_BIAS] = {1, p->output_length, 0, output},
        [GENIE_SLOT_NORM] = {norms, E, 0, normed},
        [GENIE_SLOT_NORM_BIAS] = {norms, E, 0, normed && layer_norm},
        [GENIE_SLOT_Q] = {HD, E, 1, attention},
        [GENIE_SLOT_K] = {HD, E, 1, attention},
        [GENIE_SLOT_V] = {HD, E, 1, attention},
        [GENIE_SLOT_OUT] = {E, HD, 1, attention},
        [GENIE_SLOT_Q_BIAS] = {1, HD, 0, attention && p->bias},
        [GENIE_SLOT_K_BIAS] = {1, HD, 0, attention && p->bias},
        [GENIE_SLOT_V_BIAS] = {1, HD, 0, attention && p->bias},
        [GENIE_SLOT_OUT_BIAS] = {1, E, 0, attention && p->bias},
        [GENIE_SLOT_Q_NORM] = {1, p->key_length, 0, attention && p->qk_norm},
        [GENIE_SLOT_K_NORM] = {1, p->key_length, 0, attention && p->qk_norm},
        [GENIE_SLOT_Q_NORM_BIAS] = {1, p->key_length, 0, attention && layer_qk},
        [GENIE_SLOT_K_NORM_BIAS] = {1, p->key_length, 0, attention && layer_qk},
        [GENIE_SLOT_UP] = {experts * F, E, 1, ffn},
        [GENIE_SLOT_GATE] = {experts * F, E, 1, ffn && gated},
        [GENIE_SLOT_DOWN] = {experts * E, F, 1, ffn},
        [GENIE_SLOT_UP_BIAS] = {experts, F, 0, ffn && p->bias},
        [GENIE_SLOT_GATE_BIAS] = {experts, F, 0, ffn && gated && p->bias},
        [GENIE_SLOT_DOWN_BIAS] = {experts, E, 0, ffn && p->bias},
        [GENIE_SLOT_ROUTER] = {p->expert_count, E, 1, ffn && p->expert_count > 0},
        [GENIE_SLOT_CONV] = {GENIE_PEG_TAPS, E, 0, peg},
        [GENIE_SLOT_CONV_BIAS] = {1, E, 0, peg},
        [GENIE_SLOT_POS] = {p->context_length * p->token_count, E, 0, own && p->position == GENIE_POSITION_JOINT},
        [GENIE_SLOT_SPATIAL_BIAS] = {p->head_count, wide * high, 0, own && p->spatial_bias},
        [GENIE_SLOT_TEMPORAL_BIAS] = {1, p->head_count, 0, own && p->temporal_bias},
        [GENIE_SLOT_INPUT_NORM] = {1, E, 0, input && p->input_norm},
        [GENIE_SLOT_INPUT_NORM_BIAS] = {1, E, 0, input && p->input_norm},
        [GENIE_SLOT_INPUT_FIRST] = {E, p->input_length, 1, first_input},
        [GENIE_SLOT_INPUT_FIRST_BIAS] = {1, E, 0, first_input},
        [GENIE_SLOT_INPUT_FIRST_NORM] = {1, E, 0, first_input && p->input_norm},
        [GENIE_SLOT_INPUT_FIRST_NORM_BIAS] = {1, E, 0, first_input && p->input_norm},
        [GENIE_SLOT_OUTPUT_FIRST] = {p->output_length, E, 1, first_output},
        [GENIE_SLOT_OUTPUT_FIRST_BIAS] = {1, p->output_length, 0, first_output},
    };
    if (slot < 0 || slot >= GENIE_SLOT_COUNT || !shape[slot].here)
        return 0;
    *rows = shape[slot].rows;
    *columns = shape[slot].columns;
    *is_matrix = shape[slot].is_matrix;
    return 1;
}

/* One tensor with the matrices of all experts, one below the other. */
static genie_status set_experts(genie_stack *stack, genie_pool *pool, genie_weights *w, int32_t slot, int32_t type,
                                int32_t rows, int32_t columns, const void *data, size_t bytes) {
    const size_t count = (size_t)stack->params.expert_count, each = bytes / count;
    if (bytes % count != 0)
        return GENIE_ERROR_ARGUMENT;
    genie_matrix **made = genie_arena_take(&stack->arena, count * sizeof *made);
    if (made == NULL)
        return GENIE_ERROR_MEMORY;
    for (size_t i = 0; i < count; i++) {
        const genie_status status =
            genie_matrix_create(stack->kernels, pool, &stack->arena, type, rows / (int32_t)count, columns,
                                (const uint8_t *)data + i * each, each, &made[i]);
        if (status != GENIE_OK)
            return status;
        stack->bytes += genie_matrix_bytes(made[i]);
    }
    w->experts[slot - GENIE_SLOT_UP] = made;
    w->matrix[slot] = made[0];
    return GENIE_OK;
}

genie_status genie_stack_set(genie_stack *stack, genie_pool *pool, int32_t block, int32_t sublayer, int32_t slot,
                             int32_t type, int64_t rows, int64_t columns, const void *data, size_t bytes) {
    if (stack == NULL || pool == NULL || data == NULL || stack->sealed)
        return GENIE_ERROR_ARGUMENT;
    const genie_stack_params *p = &stack->params;
    const int own = block == -1 && sublayer == -1;
    if (!own && (!in_range(block, 0, p->block_count - 1) || !in_range(sublayer, 0, p->sublayer_count - 1)))
        return GENIE_ERROR_ARGUMENT;
    int32_t want_rows, want_columns;
    int is_matrix;
    const int32_t kind = own ? -1 : p->sublayers[sublayer];
    if (!genie_slot_shape(p, kind, slot, &want_rows, &want_columns, &is_matrix) || rows != want_rows ||
        columns != want_columns)
        return GENIE_ERROR_ARGUMENT;
    genie_weights *w = own ? &stack->own : &stack->sublayer[block * p->sublayer_count + sublayer];
    if (is_matrix) {
        /* What is rounded in a router sends tokens elsewhere. */
        const int rough = slot == GENIE_SLOT_ROUTER && type != GENIE_TYPE_F32 && type != GENIE_TYPE_F16;
        if (w->matrix[slot] != NULL || rough)
            return GENIE_ERROR_ARGUMENT;
        if (p->expert_count > 0 && slot >= GENIE_SLOT_UP && slot <= GENIE_SLOT_DOWN)
            return set_experts(stack, pool, w, slot, type, (int32_t)rows, (int32_t)columns, data, bytes);
        const genie_status status = genie_matrix_create(stack->kernels, pool, &stack->arena, type, (int32_t)rows,
                                                        (int32_t)columns, data, bytes, &w->matrix[slot]);
        if (status == GENIE_OK)
            stack->bytes += genie_matrix_bytes(w->matrix[slot]);
        return status;
    }
    const size_t want_bytes = (size_t)rows * (size_t)columns * sizeof(float);
    if (type != GENIE_TYPE_F32 || bytes != want_bytes || w->vector[slot] != NULL)
        return GENIE_ERROR_ARGUMENT;
    if (!genie_weights_finite(type, data, bytes))
        return GENIE_ERROR_FINITE;
    w->vector[slot] = genie_arena_take(&stack->arena, want_bytes);
    if (w->vector[slot] == NULL)
        return GENIE_ERROR_MEMORY;
    memcpy(w->vector[slot], data, want_bytes);
    stack->bytes += want_bytes;
    return GENIE_OK;
}

static genie_status weights_seal(const genie_stack_params *p, int32_t kind, genie_weights *w) {
    for (int32_t slot = 0; slot < GENIE_SLOT_COUNT; slot++) {
        int32_t rows, columns;
        int is_matrix;
        if (!genie_slot_shape(p, kind, slot, &rows, &columns, &is_matrix))
            continue;
        if (is_matrix ? w->matrix[slot] == NULL : w->vector[slot] == NULL)
            return GENIE_ERROR_STATE;
        const int32_t matrix = genie_bias_of(slot);
        if (matrix < 0)
            continue;
        genie_matrix **of = &w->matrix[matrix];
        if (p->expert_count > 0 && matrix >= GENIE_SLOT_UP && matrix <= GENIE_SLOT_DOWN)
            of = w->experts[matrix - GENIE_SLOT_UP];
        for (int32_t i = 0; i < rows; i++) {
            const genie_status status = genie_matrix_set_bias(of[i], w->vector[slot] + (size_t)i * (size_t)columns);
            if (status != GENIE_OK)
                return status;
        }
    }
    /* q, k and v (up and gate) read the same activations, quantized or not. */
    const int32_t alike[][2] = {
        {GENIE_SLOT_Q, GENIE_SLOT_K}, {GENIE_SLOT_Q, GENIE_SLOT_V}, {GENIE_SLOT_UP, GENIE_SLOT_GATE}};
    for (size_t i = 0; i < sizeof alike / sizeof *alike; i++) {
        const genie_matrix *a = w->matrix[alike[i][0]], *b = w->matrix[alike[i][1]];
        if (a != NULL && b != NULL && genie_matrix_quantized(a) != genie_matrix_quantized(b))
            return GENIE_ERROR_ARGUMENT;
    }
    return GENIE_OK;
}

/* A stack that keeps a weight of attention in float is to be exact; one that does not has rounded more than bf16 does.
 */
static int narrow(const genie_stack *stack) {
    const genie_stack_params *p = &stack->params;
    if (!stack->kernels->prefers_bf16 || p->key_length % 16 != 0)
        return 0;
    for (int32_t i = 0; i < p->block_count * p->sublayer_count; i++) {
        const genie_matrix *q = stack->sublayer[i].matrix[GENIE_SLOT_Q];
        if (q != NULL && !genie_matrix_quantized(q))
            return 0;
    }
    return 1;
}

int genie_bias_bytes(const genie_stack_params *p, size_t *bytes) {
    const size_t P = (size_t)p->token_count;
    size_t count;
    *bytes = 0;
    return !p->spatial_bias ||
           (genie_mul(P * P, (size_t)p->head_count, &count) && genie_mul(count, sizeof(float), bytes));
}

/* The table of biases by offset -> a row of P biases for every query of every head. */
static genie_status expand_bias(genie_stack *stack) {
    const genie_stack_params *p = &stack->params;
    const int32_t P = p->token_count, C = p->grid_width, wide = 2 * C - 1, high = 2 * (P / C) - 1;
    const float *table = stack->own.vector[GENIE_SLOT_SPATIAL_BIAS];
    size_t bytes;
    if (!genie_bias_bytes(p, &bytes))
        return GENIE_ERROR_MEMORY;
    stack->bias_HPP = genie_arena_take(&stack->arena, bytes);
    if (stack->bias_HPP == NULL)
        return GENIE_ERROR_MEMORY;
    float *row = stack->bias_HPP;
    for (int32_t h = 0; h < p->head_count; h++, table += (size_t)wide * (size_t)high)
        for (int32_t q = 0; q < P; q++, row += P)
            for (int32_t k = 0; k < P; k++)
                row[k] = table[(size_t)(k / C - q / C + P / C - 1) * (size_t)wide + (size_t)(k % C - q % C + C - 1)];
    stack->bytes += bytes;
    return GENIE_OK;
}

genie_status genie_stack_seal(genie_stack *stack) {
    if (stack == NULL || stack->sealed)
        return GENIE_ERROR_ARGUMENT;
    const genie_stack_params *p = &stack->params;
    genie_status status = weights_seal(p, -1, &stack->own);
    for (int32_t i = 0; status == GENIE_OK && i < p->block_count * p->sublayer_count; i++)
        status = weights_seal(p, p->sublayers[i % p->sublayer_count], &stack->sublayer[i]);
    if (status == GENIE_OK && p->spatial_bias && stack->bias_HPP == NULL)
        status = expand_bias(stack);
    stack->narrow = status == GENIE_OK && narrow(stack);
    stack->sealed = status == GENIE_OK;
    return status;
}
