/* What a stack and a state are made of; private to this folder. */
#ifndef GENIE_STACK_H
#define GENIE_STACK_H

#include "../base/memory.h"
#include "../base/pool.h"
#include "../kernels/kernels.h"
#include "../kernels/matmul/matmul.h"

/* Weights of one sublayer, or of the stack itself, by slot; unused slots are NULL. */
typedef struct {
    const genie_sublayer *sublayer; /* NULL: the stack itself */
    genie_matrix *matrix[GENIE_SLOT_COUNT];
    float *vector[GENIE_SLOT_COUNT];
    genie_matrix **experts[3]; /* UP, GATE and DOWN of every expert, [X]; `matrix` has those of the first */
} genie_weights;

struct genie_stack {
    genie_stack_params params;
    const genie_kernels *kernels;
    genie_weights own;       /* block = sublayer = -1 */
    genie_weights *sublayer; /* [block_count * sublayer_count] */
    genie_arena arena;       /* of the weights */
    float *bias_HPP;         /* of spatial attention, query by query; NULL where there is none */
    int sealed;
    int narrow; /* attention in bf16: temporal windows and spatial keys and values are uint16 then */
    size_t bytes;
};

/*
 * The window of one mixing sublayer, H*D = HD floats per token.
 * temporal: k and v are [P][T][HD], so that one position's past is contiguous; in a narrow stack, bf16 [P][H] windows
 * as attention_past_bf16 wants them.
 * peg: k is what the convolution sees, [T][P][E].
 * spacetime: k holds the keys of all frames as the attention kernel wants them, head by head; v is [T*P][HD].
 */
typedef struct {
    void *k, *v;
} genie_cache;

typedef struct {
    double quality;
    int32_t position;
} genie_candidate;

struct genie_state {
    const genie_stack *stack;
    int32_t length;         /* frames committed */
    genie_cache *cache;     /* [block_count * sublayer_count]; NULL members where a sublayer keeps nothing */
    float *x_PE, *y_PE;     /* residual stream, normed copy */
    float *features_PN;     /* input_norm: the features as INPUT takes them */
    float *q, *k, *v, *att; /* [P, HD] */
    float *kt;              /* keys of a spatial sublayer in panels, head by head */
    /* narrow: queries [P, HD], keys in panels head by head, values in pairs, of this spatial sublayer and of the one
     * before; and a row's own key and value for the window [P, 2 HD], apart from those, which other threads may be
     * writing already */
    uint16_t *q16, *k16[2], *v16[2], *own16;
    float *up, *gate; /* [P, F] */
    /* Experts, K of X for a token. A token's choices of them (rank by rank), what each counts, and its place in an
     * order by expert; the token at each place; the input of one expert's tokens, and by place what came out. */
    float *router_PX, *share_PK, *routed_PE, *expert_KPE;
    int32_t *expert_PK, *place_PK, *token_KP;
    float *logits_PO;
    float *terms_PO; /* softmax terms while sampling, and sums of stretches of them; a thread uses one row */
    double *sums_PS;
    double *quality_P;
    genie_candidate *candidates_P;
    int32_t *chosen_P;
    int32_t *masked_P; /* the masked tokens, in order, and how many there are */
    int32_t masked;
    void *activations;     /* quantized rows of the widest input, */
    size_t activation_row; /* so many bytes each */
    void *raw;             /* those of what keys and values read, where that is the residual */
    void *block;           /* the one allocation behind all of the above */
    size_t bytes;
};

enum { GENIE_MAX_EXPERTS = 256 };
enum { GENIE_PEG_TAPS = 27 };   /* 3 frames, rows and columns */
enum { GENIE_LIMIT = 1 << 24 }; /* numbers up to here are exact as floats */

/* What this folder takes for granted of the public header. */
_Static_assert(GENIE_SLOT_GATE == GENIE_SLOT_UP + 1 && GENIE_SLOT_DOWN == GENIE_SLOT_UP + 2, "genie_weights.experts");
_Static_assert(sizeof(genie_sublayer) == 7 * sizeof(int32_t), "a sublayer is its seven numbers and no padding");
_Static_assert(GENIE_KEY_PANEL % 2 == 0 && GENIE_PAST_PANEL % 2 == 0, "values lie in pairs");
_Static_assert(GENIE_MAX_CONTEXT % GENIE_PAST_PANEL == 0, "a window is whole panels");

static inline int32_t genie_round_up(int32_t n, int32_t to) { return (n + to - 1) / to * to; }

/* Frames that a narrow window has room for. */
static inline int32_t genie_past_slots(int32_t frames) { return genie_round_up(frames, genie_past_panel(frames)); }

/* What is wrong with parameters, in words; NULL: nothing. */
const char *genie_params_fault(const genie_stack_params *p);

/* Whether a sublayer (NULL: the stack itself) must have this slot, and its shape. */
int genie_slot_shape(const genie_stack_params *p, const genie_sublayer *sublayer, int32_t slot, int32_t *rows,
                     int32_t *columns, int *is_matrix);

/* The i-th sublayer of all blocks. */
static inline const genie_sublayer *genie_sublayer_at(const genie_stack_params *p, int32_t i) {
    return &p->sublayers[i % p->sublayer_count];
}

/* Values that norms look at. */
static inline int32_t genie_norm_length(const genie_stack_params *p) {
    return p->norm_length > 0 ? p->norm_length : p->embedding_length;
}

/* Bytes of the table of biases with a row for every query of every head, 0 without one; 0 is returned where they are
 * too many to count. */
int genie_bias_bytes(const genie_stack_params *p, size_t *bytes);

/* The matrix slot a bias belongs to, or -1. */
int32_t genie_bias_of(int32_t slot);

/* What is wrong with a sampler's settings, or with sampling from this stack, in words; NULL: nothing. */
const char *genie_sampler_fault(const genie_stack_params *p, const genie_sampler *sampler, int32_t step);

/* Codes of one factor, and of all of them together, which is the mask id too. */
static inline int32_t genie_factor_size(const genie_stack_params *p) { return p->output_length / p->factor_count; }

static inline int32_t genie_stretches(int32_t codes) { return (codes + GENIE_SUM_STRETCH - 1) / GENIE_SUM_STRETCH; }

static inline int32_t genie_mask_id(const genie_stack_params *p) {
    int32_t codes = 1;
    for (int32_t k = 0; k < p->factor_count; k++)
        codes *= genie_factor_size(p);
    return codes;
}

/* Which tokens are masked: before a region that samples. */
void genie_find_masked(genie_state *state, const int32_t *ids_P);

/* Steps 2-4 of docs/sampling.md for masked tokens `begin`..`end`-1. Logits are row by row those of these, or (by_token)
 * of all tokens. `room`: which of the state's rows for terms and sums is used. */
void genie_sample_rows(const genie_kernels *kernels, const genie_sampler *sampler, int32_t step, uint64_t seed,
                       uint32_t frame, genie_state *state, int32_t begin, int32_t end, int32_t room,
                       const float *logits_PO, int by_token, int32_t *ids_P);
/* Step 5, once all are sampled. */
void genie_fill_best(const genie_sampler *sampler, int32_t step, genie_state *state, int32_t *ids_P);

#endif
