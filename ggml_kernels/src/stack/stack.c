/* Builds a stack: the parameters are checked, tensors are set one at a time, then the stack is sealed. */
#include "../base/error.h"
#include "stack.h"

#include <string.h>

static int in_range(int32_t value, int32_t low, int32_t high) { return value >= low && value <= high; }

genie_status genie_stack_create(const char *isa, const genie_stack_params *params, genie_stack **stack) {
    if (params == NULL || stack == NULL)
        return genie_fail(GENIE_ERROR_ARGUMENT, "a pointer is NULL");
    *stack = NULL;
    const char *fault = genie_params_fault(params);
    if (fault != NULL)
        return genie_fail(GENIE_ERROR_ARGUMENT, fault);
    const genie_kernels *kernels = genie_kernels_find(isa);
    if (kernels == NULL)
        return genie_fail(GENIE_ERROR_ISA, "unknown instruction set, or this CPU does not have it");
    genie_stack *s = genie_alloc(sizeof *s);
    if (s == NULL)
        return genie_fail(GENIE_ERROR_MEMORY, "out of memory");
    memset(s, 0, sizeof *s);
    const size_t bytes = (size_t)params->block_count * (size_t)params->sublayer_count * sizeof *s->sublayer;
    s->sublayer = genie_alloc(bytes);
    if (s->sublayer == NULL) {
        genie_release(s);
        return genie_fail(GENIE_ERROR_MEMORY, "out of memory");
    }
    memset(s->sublayer, 0, bytes);
    s->params = *params;
    s->kernels = kernels;
    for (int32_t i = 0; i < params->block_count * params->sublayer_count; i++)
        s->sublayer[i].sublayer = genie_sublayer_at(&s->params, i);
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

/* Sets one tensor that holds the matrices of all experts, stacked. */
static genie_status set_experts(genie_stack *stack, genie_pool *pool, genie_weights *w, int32_t slot, int32_t type,
                                int32_t rows, int32_t columns, const void *data, size_t bytes) {
    const size_t count = (size_t)w->sublayer->expert_count, each = bytes / count;
    if (bytes % count != 0)
        return genie_fail(GENIE_ERROR_ARGUMENT, "the experts' matrices are not of equal size");
    genie_matrix **made = genie_arena_take(&stack->arena, count * sizeof *made);
    if (made == NULL)
        return genie_fail(GENIE_ERROR_MEMORY, "out of memory");
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
    if (stack == NULL || pool == NULL || data == NULL)
        return genie_fail(GENIE_ERROR_ARGUMENT, "a pointer is NULL");
    if (stack->sealed)
        return genie_fail(GENIE_ERROR_ARGUMENT, "the stack is sealed");
    const genie_stack_params *p = &stack->params;
    const int own = block == -1 && sublayer == -1;
    if (!own && (!in_range(block, 0, p->block_count - 1) || !in_range(sublayer, 0, p->sublayer_count - 1)))
        return genie_fail(GENIE_ERROR_ARGUMENT, "there is no such block or sublayer");
    genie_weights *w = own ? &stack->own : &stack->sublayer[block * p->sublayer_count + sublayer];
    int32_t want_rows, want_columns;
    int is_matrix;
    if (!genie_slot_shape(p, w->sublayer, slot, &want_rows, &want_columns, &is_matrix))
        return genie_fail(GENIE_ERROR_ARGUMENT, "the parameters call for no such weight");
    if (rows != want_rows || columns != want_columns)
        return genie_fail(GENIE_ERROR_ARGUMENT, "the weight is of another shape");
    if (is_matrix) {
        /* Rounding in a router would send tokens to other experts. */
        const int rough = slot == GENIE_SLOT_ROUTER && type != GENIE_TYPE_F32 && type != GENIE_TYPE_F16;
        if (w->matrix[slot] != NULL)
            return genie_fail(GENIE_ERROR_ARGUMENT, "the weight is there");
        if (rough)
            return genie_fail(GENIE_ERROR_ARGUMENT, "a router must be F32 or F16");
        if (!own && w->sublayer->expert_count > 0 && slot >= GENIE_SLOT_UP && slot <= GENIE_SLOT_DOWN)
            return set_experts(stack, pool, w, slot, type, (int32_t)rows, (int32_t)columns, data, bytes);
        const genie_status status = genie_matrix_create(stack->kernels, pool, &stack->arena, type, (int32_t)rows,
                                                        (int32_t)columns, data, bytes, &w->matrix[slot]);
        if (status == GENIE_OK)
            stack->bytes += genie_matrix_bytes(w->matrix[slot]);
        return status;
    }
    const size_t want_bytes = (size_t)rows * (size_t)columns * sizeof(float);
    if (type != GENIE_TYPE_F32 || bytes != want_bytes || w->vector[slot] != NULL)
        return genie_fail(GENIE_ERROR_ARGUMENT, "a vector must be F32, as long as its shape says, and set once");
    if (!genie_weights_finite(type, data, bytes))
        return genie_fail(GENIE_ERROR_FINITE, "a weight is infinite or not a number");
    w->vector[slot] = genie_arena_take(&stack->arena, want_bytes);
    if (w->vector[slot] == NULL)
        return genie_fail(GENIE_ERROR_MEMORY, "out of memory");
    memcpy(w->vector[slot], data, want_bytes);
    stack->bytes += want_bytes;
    return GENIE_OK;
}

static genie_status weights_seal(const genie_stack_params *p, genie_weights *w) {
    for (int32_t slot = 0; slot < GENIE_SLOT_COUNT; slot++) {
        int32_t rows, columns;
        int is_matrix;
        if (!genie_slot_shape(p, w->sublayer, slot, &rows, &columns, &is_matrix))
            continue;
        if (is_matrix ? w->matrix[slot] == NULL : w->vector[slot] == NULL)
            return genie_fail(GENIE_ERROR_STATE, "a weight is missing");
        const int32_t matrix = genie_bias_of(slot);
        if (matrix < 0)
            continue;
        genie_matrix **of = &w->matrix[matrix];
        if (w->sublayer != NULL && w->sublayer->expert_count > 0 && matrix >= GENIE_SLOT_UP &&
            matrix <= GENIE_SLOT_DOWN)
            of = w->experts[matrix - GENIE_SLOT_UP];
        for (int32_t i = 0; i < rows; i++) {
            const genie_status status = genie_matrix_set_bias(of[i], w->vector[slot] + (size_t)i * (size_t)columns);
            if (status != GENIE_OK)
                return status;
        }
    }
    /* q, k and v (and up and gate) read the same activations, so all or none of them must be quantized. */
    const int32_t alike[][2] = {
        {GENIE_SLOT_Q, GENIE_SLOT_K}, {GENIE_SLOT_Q, GENIE_SLOT_V}, {GENIE_SLOT_UP, GENIE_SLOT_GATE}};
    for (size_t i = 0; i < sizeof alike / sizeof *alike; i++) {
        const genie_matrix *a = w->matrix[alike[i][0]], *b = w->matrix[alike[i][1]];
        if (a != NULL && b != NULL && genie_matrix_quantized(a) != genie_matrix_quantized(b))
            return genie_fail(GENIE_ERROR_ARGUMENT, "of q, k and v, or up and gate, all or none must be quantized");
    }
    return GENIE_OK;
}

/* If an attention weight is float, attention must be exact. Otherwise quantization has lost more than bf16 does. */
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
    return p->spatial_bias == GENIE_SPATIAL_BIAS_NONE ||
           (genie_mul(P * P, (size_t)p->head_count, &count) && genie_mul(count, sizeof(float), bytes));
}

/* The table of biases by offset -> a row of P biases for every query of every head. */
static genie_status expand_bias(genie_stack *stack) {
    const genie_stack_params *p = &stack->params;
    const int32_t P = p->token_count, C = p->grid_width, wide = 2 * C - 1, high = 2 * (P / C) - 1;
    const float *table = stack->own.vector[GENIE_SLOT_SPATIAL_BIAS];
    size_t bytes;
    if (!genie_bias_bytes(p, &bytes))
        return genie_fail(GENIE_ERROR_MEMORY, "out of memory");
    stack->bias_HPP = genie_arena_take(&stack->arena, bytes);
    if (stack->bias_HPP == NULL)
        return genie_fail(GENIE_ERROR_MEMORY, "out of memory");
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
        return genie_fail(GENIE_ERROR_ARGUMENT, "there is no stack, or it is sealed");
    const genie_stack_params *p = &stack->params;
    genie_status status = weights_seal(p, &stack->own);
    for (int32_t i = 0; status == GENIE_OK && i < p->block_count * p->sublayer_count; i++)
        status = weights_seal(p, &stack->sublayer[i]);
    if (status == GENIE_OK && p->spatial_bias != GENIE_SPATIAL_BIAS_NONE && stack->bias_HPP == NULL)
        status = expand_bias(stack);
    stack->narrow = status == GENIE_OK && narrow(stack);
    stack->sealed = status == GENIE_OK;
    return status;
}
