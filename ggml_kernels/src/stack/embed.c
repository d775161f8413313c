/* What goes into the first block: embeddings of tokens or of features, the action, positions. */
#include "pass.h"

#include <math.h>
#include <string.h>

/* Standardises this thread's rows of features to mean 0 and variance 1. */
static const float *standardise(const pass *c) {
    const int32_t N = c->stack->params.input_length;
    for (int32_t i = c->begin; i < c->end; i++) {
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
static void embed_features(const pass *c) {
    const genie_stack_params *p = &c->stack->params;
    const genie_weights *w = &c->stack->own;
    const int32_t E = p->embedding_length, N = p->input_length;
    const int first = p->first_frame == GENIE_FIRST_FRAME_INPUT && c->state->length == 0;
    const genie_matrix *matrix = w->matrix[first ? GENIE_SLOT_INPUT_FIRST : GENIE_SLOT_INPUT];
    const genie_activations a = genie_room(c, c->state->activations, N);
    const float *features = p->input_norm == GENIE_INPUT_NORM_DUAL ? standardise(c) : c->features_PN;
    genie_quantize(c, matrix, features, N, a);
    genie_phase(c);
    genie_product(c, matrix, a, features, N, c->x_PE, E, 0);
    genie_phase(c);
    if (p->input_norm == GENIE_INPUT_NORM_DUAL)
        genie_norm_rows(c, GENIE_NORM_LAYERNORM, w->vector[first ? GENIE_SLOT_INPUT_FIRST_NORM : GENIE_SLOT_INPUT_NORM],
                        w->vector[first ? GENIE_SLOT_INPUT_FIRST_NORM_BIAS : GENIE_SLOT_INPUT_NORM_BIAS], c->x_PE);
}

/* The embedding of a token: the mask's own row, or the sum of its digits' rows, least significant digit first. */
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

static void add_row(float *x_E, const float *more_E, int32_t E) {
    for (int32_t e = 0; more_E != NULL && e < E; e++)
        x_E[e] += more_E[e];
}

void genie_embed(const pass *c) {
    const genie_stack_params *p = &c->stack->params;
    const genie_weights *w = &c->stack->own;
    const int32_t E = p->embedding_length, P = p->token_count, N = p->input_length;
    const int separate = p->position == GENIE_POSITION_SEPARATE, joint = p->position == GENIE_POSITION_JOINT;
    float *x = c->x_PE;
    if (N > 0)
        embed_features(c);
    const size_t frame = (size_t)c->state->length * (size_t)E;
    const float *time = separate ? w->vector[GENIE_SLOT_POS_TIME] + frame : NULL;
    const float *places = separate ? w->vector[GENIE_SLOT_POS_SPACE]
                          : joint  ? w->vector[GENIE_SLOT_POS] + frame * (size_t)P
                                   : NULL;
    const float *actions = w->vector[GENIE_SLOT_ACTION_EMBD];
    const float *action = c->action >= 0 && actions != NULL ? actions + (size_t)c->action * (size_t)E : NULL;
    for (int32_t i = c->begin; i < c->end; i++) {
        float *row = x + (size_t)i * (size_t)E;
        const float *space = places == NULL ? NULL : places + (size_t)i * (size_t)E;
        if (N == 0)
            token_row(p, w->vector[GENIE_SLOT_TOKEN_EMBD], c->ids_P[i], row);
        add_row(row, action, E);
        add_row(row, space, E);
        add_row(row, time, E);
    }
}
