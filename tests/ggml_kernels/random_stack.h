/* Random numbers and random stacks for the C test programs. Any fault ends the program. */
#include "genie_bench.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static uint64_t random_state = 1;

static void check(int32_t status, const char *what) {
    if (status != GENIE_OK) {
        fprintf(stderr, "%s: %s\n", what, genie_last_error());
        exit(1);
    }
}

static uint32_t random_bits(void) { /* splitmix64 */
    uint64_t z = random_state += UINT64_C(0x9E3779B97F4A7C15);
    z = (z ^ z >> 30) * UINT64_C(0xBF58476D1CE4E5B9);
    z = (z ^ z >> 27) * UINT64_C(0x94D049BB133111EB);
    return (uint32_t)(z >> 32);
}

/* Uniform in +-scale. */
static float *random_floats(size_t count, float scale) {
    float *x = malloc(count * sizeof *x);
    if (x == NULL)
        exit(1);
    for (size_t i = 0; i < count; i++)
        x[i] = ((float)(random_bits() >> 8) / 8388608.0f - 1.0f) * scale;
    return x;
}

/* A matrix in file format whose values stay within about +-1 / 8; every bit pattern of the integers occurs. */
static void *random_matrix(int32_t type, int64_t rows, int64_t columns, size_t *bytes) {
    const size_t count = (size_t)rows * (size_t)columns;
    if (type == GENIE_TYPE_F32) {
        *bytes = 4 * count;
        return random_floats(count, 0.125f);
    }
    const size_t head = type == GENIE_TYPE_F16 ? 0 : 2;
    const size_t block = type == GENIE_TYPE_F16 ? 64 : type == GENIE_TYPE_Q8_0 ? 34 : 18;
    *bytes = type == GENIE_TYPE_F16 ? 2 * count : count / 32 * block;
    uint8_t *w = malloc(*bytes);
    if (w == NULL)
        exit(1);
    for (size_t i = 0; i < *bytes; i++)
        w[i] = (uint8_t)random_bits();
    if (head == 0)
        for (size_t i = 1; i < *bytes; i += 2)
            w[i] = (uint8_t)((w[i] & 0x83) | 0x28); /* exponents of 2^-5 .. 2^-4 */
    else
        for (size_t i = 1; i < *bytes; i += block)
            w[i] = (uint8_t)((w[i] & 0x83) | (type == GENIE_TYPE_Q8_0 ? 0x10 : 0x20)); /* 2^-11, 2^-7 */
    return w;
}

/* Sets every weight that the parameters require: the core refuses others, and sealing checks that none is missing. */
static genie_stack *random_stack(const char *isa, genie_pool *pool, const genie_stack_params *p, int32_t type) {
    const int32_t E = p->embedding_length, A = p->head_count * p->key_length, F = p->feed_forward_length;
    const int32_t norms = p->conditioning == GENIE_CONDITIONING_FILM ? p->action_count + 1 : 1;
    int32_t X = 1; /* of the one kind of FFN there is */
    for (int32_t s = 0; s < p->sublayer_count; s++)
        X = p->sublayers[s].expert_count > 0 ? p->sublayers[s].expert_count : X;
    const int32_t C = p->grid_width, offsets = C > 0 ? (2 * C - 1) * (2 * (p->token_count / C) - 1) : 1;
    const struct {
        int32_t slot, matrix;
        int64_t rows, columns;
    } stack_slots[] = {{GENIE_SLOT_TOKEN_EMBD, 0, p->input_rows, E},
                       {GENIE_SLOT_ACTION_EMBD, 0, p->action_count, E},
                       {GENIE_SLOT_POS_SPACE, 0, p->token_count, E},
                       {GENIE_SLOT_POS_TIME, 0, p->context_length, E},
                       {GENIE_SLOT_OUTPUT_NORM, 0, 1, E},
                       {GENIE_SLOT_OUTPUT_NORM_BIAS, 0, 1, E},
                       {GENIE_SLOT_OUTPUT, 1, p->output_length, E},
                       {GENIE_SLOT_OUTPUT_BIAS, 0, 1, p->output_length},
                       {GENIE_SLOT_POS, 0, (int64_t)p->token_count * p->context_length, E},
                       {GENIE_SLOT_SPATIAL_BIAS, 0, p->head_count, offsets},
                       {GENIE_SLOT_TEMPORAL_BIAS, 0, 1, p->head_count},
                       {GENIE_SLOT_OUTPUT_FIRST, 1, p->output_length, E},
                       {GENIE_SLOT_OUTPUT_FIRST_BIAS, 0, 1, p->output_length}},
      block_slots[] = {{GENIE_SLOT_NORM, 0, norms, E},
                       {GENIE_SLOT_NORM_BIAS, 0, norms, E},
                       {GENIE_SLOT_Q, 1, A, E},
                       {GENIE_SLOT_K, 1, A, E},
                       {GENIE_SLOT_V, 1, A, E},
                       {GENIE_SLOT_OUT, 1, E, A},
                       {GENIE_SLOT_Q_BIAS, 0, 1, A},
                       {GENIE_SLOT_K_BIAS, 0, 1, A},
                       {GENIE_SLOT_V_BIAS, 0, 1, A},
                       {GENIE_SLOT_OUT_BIAS, 0, 1, E},
                       {GENIE_SLOT_Q_NORM, 0, 1, p->key_length},
                       {GENIE_SLOT_K_NORM, 0, 1, p->key_length},
                       {GENIE_SLOT_Q_NORM_BIAS, 0, 1, p->key_length},
                       {GENIE_SLOT_K_NORM_BIAS, 0, 1, p->key_length},
                       {GENIE_SLOT_UP, 1, (int64_t)X * F, E},
                       {GENIE_SLOT_GATE, 1, (int64_t)X * F, E},
                       {GENIE_SLOT_DOWN, 1, (int64_t)X * E, F},
                       {GENIE_SLOT_UP_BIAS, 0, X, F},
                       {GENIE_SLOT_GATE_BIAS, 0, X, F},
                       {GENIE_SLOT_DOWN_BIAS, 0, X, E},
                       {GENIE_SLOT_ROUTER, 0, X, E},
                       {GENIE_SLOT_CONV, 0, 27, E},
                       {GENIE_SLOT_CONV_BIAS, 0, 1, E}};
    genie_stack *stack;
    check(genie_stack_create(isa, p, &stack), "stack");
    for (int32_t b = -1; b < p->block_count; b++)
        for (int32_t s = b < 0 ? -1 : 0; s < (b < 0 ? 0 : p->sublayer_count); s++)
            for (size_t i = 0;
                 i < (b < 0 ? sizeof stack_slots / sizeof *stack_slots : sizeof block_slots / sizeof *block_slots);
                 i++) {
                const int32_t slot = b < 0 ? stack_slots[i].slot : block_slots[i].slot;
                const int32_t matrix = b < 0 ? stack_slots[i].matrix : block_slots[i].matrix;
                const int64_t rows = b < 0 ? stack_slots[i].rows : block_slots[i].rows;
                const int64_t columns = b < 0 ? stack_slots[i].columns : block_slots[i].columns;
                const int32_t kind = matrix ? type : GENIE_TYPE_F32;
                size_t bytes;
                void *w = random_matrix(kind, rows, columns, &bytes);
                const int32_t status = genie_stack_set(stack, pool, b, s, slot, kind, rows, columns, w, bytes);
                if (status != GENIE_ERROR_ARGUMENT)
                    check(status, "weights");
                free(w);
            }
    check(genie_stack_seal(stack), "seal");
    return stack;
}
