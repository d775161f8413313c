/* Which parameters a stack may have, and which weights they require. */
#include "stack.h"

/* Buffers in the kernels have these fixed sizes. */
_Static_assert(GENIE_MAX_KEY_LENGTH == 1024 && GENIE_MAX_CONTEXT == 1024, "the texts below say these numbers");

/* Each check returns its fault as a text, so the first fault is reported. */
#define IN(field, low, high)                                                                                           \
    if (!(p->field >= (low) && p->field <= (high)))                                                                    \
    return #field " must be in " #low ".." #high
#define KIND(of, field, count)                                                                                         \
    if (!((of)->field >= 0 && (of)->field < (count)))                                                                  \
    return #field " is not one of its kinds"
#define MUST(ok, why)                                                                                                  \
    if (!(ok))                                                                                                         \
    return why

static int attends(const genie_sublayer *s) {
    return s->kind == GENIE_SUBLAYER_SPATIAL || s->kind == GENIE_SUBLAYER_TEMPORAL ||
           s->kind == GENIE_SUBLAYER_SPACETIME;
}

static const char *sublayer_fault(const genie_stack_params *p, const genie_sublayer *s) {
    KIND(s, kind, GENIE_SUBLAYER_COUNT);
    MUST(s->kind != GENIE_SUBLAYER_PEG || p->grid_width > 0, "a PEG needs a grid_width");
    if (s->kind == GENIE_SUBLAYER_PEG)
        return NULL;
    KIND(s, norm, GENIE_NORM_COUNT);
    KIND(s, norm_position, GENIE_NORM_POSITION_COUNT);
    if (attends(s)) {
        KIND(s, kv_input, GENIE_KV_INPUT_COUNT);
        MUST(s->kv_input != GENIE_KV_INPUT_RESIDUAL || s->norm_position == GENIE_NORM_POSITION_PRE,
             "kv_input must be the norm where norms come after");
    } else {
        KIND(s, ffn, GENIE_FFN_COUNT);
        MUST(s->expert_count >= 0 && s->expert_count <= GENIE_MAX_EXPERTS, "expert_count must be in 0..256");
        MUST(s->expert_used_count >= (s->expert_count > 0) && s->expert_used_count <= s->expert_count,
             "expert_used_count must be in 1..expert_count");
    }
    return NULL;
}

/* All factors have the same number of codes, and all ids are exact as floats. */
static const char *factors_fault(const genie_stack_params *p) {
    IN(factor_count, 1, 4);
    if (p->factor_count == 1)
        return NULL;
    MUST(p->input_length == 0 && p->output_length % p->factor_count == 0 && p->output_length >= p->factor_count &&
             p->input_rows == p->output_length + 1,
         "tokens of several factors need as many logits for each, and a row more of TOKEN_EMBD");
    int64_t codes = 1;
    for (int32_t k = 0; k < p->factor_count; k++) {
        codes *= genie_factor_size(p);
        MUST(codes <= GENIE_LIMIT, "tokens have more than 2^24 ids");
    }
    return NULL;
}

const char *genie_params_fault(const genie_stack_params *p) {
    IN(block_count, 1, 512);
    IN(embedding_length, 1, 16384);
    IN(head_count, 1, 512);
    IN(key_length, 1, 1024);
    IN(feed_forward_length, 1, 131072);
    IN(token_count, 1, 1 << 20);
    IN(context_length, 1, 1024);
    IN(output_length, 0, 1 << 24);
    IN(action_count, 0, 1 << 24);
    IN(input_length, 0, 1 << 24);
    IN(input_rows, 0, 1 << 24);
    IN(bias, 0, 1);
    IN(sublayer_count, 1, 8);
    MUST(p->norm_length >= 0 && p->norm_length <= p->embedding_length, "norm_length must be in 0..embedding_length");
    MUST(p->grid_width >= 0 && p->grid_width <= p->token_count, "grid_width must be in 0..token_count");
    KIND(p, qk_norm, GENIE_NORM_COUNT);
    KIND(p, output_norm, GENIE_NORM_COUNT);
    KIND(p, conditioning, GENIE_CONDITIONING_COUNT);
    KIND(p, position, GENIE_POSITION_COUNT);
    KIND(p, spatial_bias, GENIE_SPATIAL_BIAS_COUNT);
    KIND(p, temporal_bias, GENIE_TEMPORAL_BIAS_COUNT);
    KIND(p, input_norm, GENIE_INPUT_NORM_COUNT);
    KIND(p, first_frame, GENIE_FIRST_FRAME_COUNT);
    MUST(p->norm_epsilon > 0 && p->norm_epsilon <= 0.1f, "norm_epsilon must be > 0 and <= 0.1");
    MUST(p->qk_norm_epsilon >= 0 && p->qk_norm_epsilon <= 0.1f, "qk_norm_epsilon must be >= 0 and <= 0.1");
    MUST((p->input_length > 0) != (p->input_rows > 0),
         "input must be features or token ids: input_length or input_rows");
    MUST(p->grid_width == 0 || p->token_count % p->grid_width == 0, "grid_width must divide token_count");
    MUST((int64_t)p->token_count * p->context_length <= GENIE_LIMIT, "a window has more than 2^24 tokens");
    MUST(p->spatial_bias == GENIE_SPATIAL_BIAS_NONE || p->grid_width > 0, "a spatial_bias needs a grid_width");
    MUST(p->input_norm == GENIE_INPUT_NORM_NONE || p->input_length > 0, "an input_norm is for features");
    MUST(p->first_frame != GENIE_FIRST_FRAME_INPUT || p->input_length > 0, "first_frame INPUT is for features");
    MUST(p->first_frame != GENIE_FIRST_FRAME_OUTPUT || p->output_length > 0, "first_frame OUTPUT needs a head");
    const char *fault = factors_fault(p);
    for (int32_t i = 0; fault == NULL && i < p->sublayer_count; i++)
        fault = sublayer_fault(p, &p->sublayers[i]);
    return fault;
}

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

int genie_slot_shape(const genie_stack_params *p, const genie_sublayer *sublayer, int32_t slot, int32_t *rows,
                     int32_t *columns, int *is_matrix) {
    static const genie_sublayer none = {.kind = GENIE_SUBLAYER_COUNT, .norm = GENIE_NORM_NONE};
    const genie_sublayer *s = sublayer == NULL ? &none : sublayer;
    const int32_t E = p->embedding_length, HD = p->head_count * p->key_length, F = p->feed_forward_length;
    const int own = sublayer == NULL, ffn = s->kind == GENIE_SUBLAYER_FFN, peg = s->kind == GENIE_SUBLAYER_PEG;
    const int attention = !own && !peg && !ffn, gated = ffn && genie_ffn_gated(s->ffn);
    const int normed = (attention || ffn) && s->norm != GENIE_NORM_NONE, qk_norm = p->qk_norm != GENIE_NORM_NONE;
    const int input = own && p->input_length > 0, output = own && p->output_length > 0;
    const int dual = input && p->input_norm == GENIE_INPUT_NORM_DUAL;
    const int first_input = input && p->first_frame == GENIE_FIRST_FRAME_INPUT;
    const int first_output = output && p->first_frame == GENIE_FIRST_FRAME_OUTPUT;
    const int separate = p->position == GENIE_POSITION_SEPARATE;
    const int32_t wide = 2 * p->grid_width - 1, high = p->grid_width > 0 ? 2 * (p->token_count / p->grid_width) - 1 : 0;
    const int film = p->conditioning == GENIE_CONDITIONING_FILM;
    const int32_t norms = film ? p->action_count + 1 : 1;
    const int32_t experts = s->expert_count > 0 ? s->expert_count : 1;
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
        [GENIE_SLOT_OUTPUT_NORM_BIAS] = {1, E, 0, own && p->output_norm == GENIE_NORM_LAYERNORM},
        [GENIE_SLOT_OUTPUT] = {p->output_length, E, 1, output},
        [GENIE_SLOT_OUTPUT_BIAS] = {1, p->output_length, 0, output},
        [GENIE_SLOT_NORM] = {norms, E, 0, normed},
        [GENIE_SLOT_NORM_BIAS] = {norms, E, 0, normed && s->norm == GENIE_NORM_LAYERNORM},
        [GENIE_SLOT_Q] = {HD, E, 1, attention},
        [GENIE_SLOT_K] = {HD, E, 1, attention},
        [GENIE_SLOT_V] = {HD, E, 1, attention},
        [GENIE_SLOT_OUT] = {E, HD, 1, attention},
        [GENIE_SLOT_Q_BIAS] = {1, HD, 0, attention && p->bias},
        [GENIE_SLOT_K_BIAS] = {1, HD, 0, attention && p->bias},
        [GENIE_SLOT_V_BIAS] = {1, HD, 0, attention && p->bias},
        [GENIE_SLOT_OUT_BIAS] = {1, E, 0, attention && p->bias},
        [GENIE_SLOT_Q_NORM] = {1, p->key_length, 0, attention && qk_norm},
        [GENIE_SLOT_K_NORM] = {1, p->key_length, 0, attention && qk_norm},
        [GENIE_SLOT_Q_NORM_BIAS] = {1, p->key_length, 0, attention && p->qk_norm == GENIE_NORM_LAYERNORM},
        [GENIE_SLOT_K_NORM_BIAS] = {1, p->key_length, 0, attention && p->qk_norm == GENIE_NORM_LAYERNORM},
        [GENIE_SLOT_UP] = {experts * F, E, 1, ffn},
        [GENIE_SLOT_GATE] = {experts * F, E, 1, gated},
        [GENIE_SLOT_DOWN] = {experts * E, F, 1, ffn},
        [GENIE_SLOT_UP_BIAS] = {experts, F, 0, ffn && p->bias},
        [GENIE_SLOT_GATE_BIAS] = {experts, F, 0, gated && p->bias},
        [GENIE_SLOT_DOWN_BIAS] = {experts, E, 0, ffn && p->bias},
        [GENIE_SLOT_ROUTER] = {s->expert_count, E, 1, ffn && s->expert_count > 0},
        [GENIE_SLOT_CONV] = {GENIE_PEG_TAPS, E, 0, peg},
        [GENIE_SLOT_CONV_BIAS] = {1, E, 0, peg},
        [GENIE_SLOT_POS] = {p->context_length * p->token_count, E, 0, own && p->position == GENIE_POSITION_JOINT},
        [GENIE_SLOT_SPATIAL_BIAS] = {p->head_count, wide * high, 0,
                                     own && p->spatial_bias == GENIE_SPATIAL_BIAS_RELATIVE},
        [GENIE_SLOT_TEMPORAL_BIAS] = {1, p->head_count, 0, own && p->temporal_bias == GENIE_TEMPORAL_BIAS_ALIBI},
        [GENIE_SLOT_INPUT_NORM] = {1, E, 0, dual},
        [GENIE_SLOT_INPUT_NORM_BIAS] = {1, E, 0, dual},
        [GENIE_SLOT_INPUT_FIRST] = {E, p->input_length, 1, first_input},
        [GENIE_SLOT_INPUT_FIRST_BIAS] = {1, E, 0, first_input},
        [GENIE_SLOT_INPUT_FIRST_NORM] = {1, E, 0, first_input && dual},
        [GENIE_SLOT_INPUT_FIRST_NORM_BIAS] = {1, E, 0, first_input && dual},
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
