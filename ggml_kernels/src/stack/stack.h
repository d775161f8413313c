/* The structs of a stack and of a state; private to this folder. */
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
    float *bias_HPP;         /* of spatial attention, query by query; NULL if there is none */
    int sealed;
    int narrow; /* attention in bf16: temporal windows and spatial keys and values are uint16 then */
    size_t bytes;
};

/*
 * The window of one mixing sublayer, H*D = HD floats per token.
 * temporal: k and v are [P][T][HD], so that one position's past is contiguous; in a narrow stack, bf16 [P][H] windows
 * in the layout of attention_past_bf16.
 * peg: k is what the convolution sees, [T][P][E].
 * spacetime: k holds the keys of all frames in the layout of the attention kernel, head by head; v is [T*P][HD].
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
    float *features_PN;     /* with input_norm: the standardised features */
    float *q, *k, *v, *att; /* [P, HD] */
    float *kt;              /* keys of a spatial sublayer in panels, head by head */
    /*
     * Narrow stacks. q16: queries [P, HD]. k16, v16: keys in panels head by head and values in pairs, of this spatial
     * sublayer and of the one before. own16: a row's own key and value for the window, [P, 2 HD]; separate, because
     * other threads may already be writing k16 and v16.
     */
    uint16_t *q16, *k16[2], *v16[2], *own16;
    float *up, *gate; /* [P, F] */
    /*
     * Experts, K of X per token. expert: a token's experts, best first; share: their weights; place: the token's places
     * in the order by expert; token: the token at each place; routed: the input of one expert's tokens; expert_KPE: the
     * outputs by place.
     */
    float *router_PX, *share_PK, *routed_PE, *expert_KPE;
    int32_t *expert_PK, *place_PK, *token_KP;
    float *logits_PO;
    float *terms_PO; /* softmax terms while sampling, and in sums_PS sums of stretches of them; a thread uses one row */
    double *sums_PS;
    double *quality_P;
    genie_candidate *candidates_P;
    int32_t *chosen_P;
    int32_t *masked_P; /* the masked tokens, in order, and how many there are */
    int32_t masked;
    void *activations;     /* quantized rows of the widest input */
    size_t activation_row; /* bytes of each row */
    void *raw;             /* quantized rows of the residual, if keys and values read that */
    float *looked_PT;      /* the caller's, of genie_state_watch; NULL: nobody watches */
    void *block;           /* the one allocation behind all of the above */
    size_t bytes;
};

enum { GENIE_MAX_EXPERTS = 256 };
enum { GENIE_PEG_TAPS = 27 };   /* 3 frames, rows and columns */
enum { GENIE_LIMIT = 1 << 24 }; /* whole numbers up to this are exact as floats */

/* What this folder assumes about the public header. */
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

/* The number of values that norms use. */
static inline int32_t genie_norm_length(const genie_stack_params *p) {
    return p->norm_length > 0 ? p->norm_length : p->embedding_length;
}

/* *bytes: the size of the table of biases with a row for every query of every head; 0 without a spatial bias.
 * Returns 0 if that overflows. */
int genie_bias_bytes(const genie_stack_params *p, size_t *bytes);

/* The matrix slot a bias belongs to, or -1. */
int32_t genie_bias_of(int32_t slot);

/* What is wrong with a sampler's settings, or with sampling from this stack, in words; NULL: nothing. */
const char *genie_sampler_fault(const genie_stack_params *p, const genie_sampler *sampler, int32_t step);

/* Codes of one factor. genie_mask_id: of all factors together, which is also the mask id. */
static inline int32_t genie_factor_size(const genie_stack_params *p) { return p->output_length / p->factor_count; }

static inline int32_t genie_stretches(int32_t codes) { return (codes + GENIE_SUM_STRETCH - 1) / GENIE_SUM_STRETCH; }

static inline int32_t genie_mask_id(const genie_stack_params *p) {
    int32_t codes = 1;
    for (int32_t k = 0; k < p->factor_count; k++)
        codes *= genie_factor_size(p);
    return codes;
}

/* Finds the masked tokens. Call it before a region that samples. */
void genie_find_masked(genie_state *state, const int32_t *ids_P);

/* Steps 2-4 of docs/sampling.md for masked tokens `begin`..`end`-1. logits_PO has a row for each of these or,
 * by_token, for each token of the frame. `room`: which of the state's rows for terms and sums to use. */
void genie_sample_rows(const genie_kernels *kernels, const genie_sampler *sampler, int32_t step, uint64_t seed,
                       uint32_t frame, genie_state *state, int32_t begin, int32_t end, int32_t room,
                       const float *logits_PO, int by_token, int32_t *ids_P);
/* Step 5, once all are sampled. */
void genie_fill_best(const genie_sampler *sampler, int32_t step, genie_state *state, int32_t *ids_P);

#endif
