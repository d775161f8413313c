/*
 * genie.h - spatio-temporal (ST) transformers on the CPU. The public interface of the C core, and its manual.
 *
 * The core knows no file format and no model family: a *stack* is a list of sublayers with weights, a *state* is one
 * window of past frames for one stack, a *pool* is a set of threads. A complete program:
 *
 *     genie_pool *pool;    genie_pool_create(2, &pool);
 *     genie_stack *stack;  genie_stack_create(NULL, &params, &stack);
 *     genie_stack_set(stack, pool, block, sublayer, GENIE_SLOT_Q, GENIE_TYPE_Q8_0, rows, columns, data, bytes);  // ...
 *     genie_stack_seal(stack);
 *     genie_state *state;  genie_state_create(stack, &state);
 *     genie_stack_forward(stack, state, pool, prompt_ids, NULL, -1, 1, NULL);          // commit the first frame
 *     for (int step = 0; step < sampler.steps; step++)                                 // then a frame in N passes
 *         genie_maskgit_step(stack, state, pool, &sampler, step, seed, frame, action, ids, NULL);
 *     genie_stack_forward(stack, state, pool, ids, NULL, action, 1, NULL);             // commit it
 *
 * Rules. Every function that can fail returns a status; nothing aborts, exits or prints. A stack is read-only once
 * sealed and may be used from many threads; a state belongs to one caller at a time; a pool serialises its callers.
 * Results are the same bytes for any number of threads. Nothing is allocated after genie_state_create. Inputs are
 * checked for range (ids, actions, lengths). Pointers are trusted: buffers must have the shapes stated here.
 *
 * Shapes in names: T frames, P tokens per frame, E embedding, N input features, O outputs, V codes, L latent length;
 * H height, W width, C channels of a convolutional network's pictures.
 * Everything between the two CFFI marks is read by the Python layer.
 */
#ifndef GENIE_H
#define GENIE_H

#include <stddef.h>
#include <stdint.h>

#if defined(__GNUC__) && !defined(_WIN32) /* on Windows CMake exports all symbols */
#pragma GCC visibility push(default)
#endif

#ifdef __cplusplus
extern "C" {
#endif

/* CFFI BEGIN */

#define GENIE_ABI_VERSION 11

typedef enum {
    GENIE_OK = 0,
    GENIE_ERROR_ARGUMENT = 1, /* a value out of its range */
    GENIE_ERROR_MEMORY = 2,   /* an allocation failed */
    GENIE_ERROR_THREAD = 3,   /* a thread could not be started */
    GENIE_ERROR_ISA = 4,      /* unknown ISA name, or this CPU lacks it */
    GENIE_ERROR_STATE = 5,    /* window full, stack not sealed, or a weight missing */
    GENIE_ERROR_FINITE = 6    /* a weight is infinite or not a number */
} genie_status;

/* Numbered as in ggml. Q8_0: blocks of 32 {f16 d; int8 q[32]}; Q4_0: {f16 d; uint8 nibbles[16]}, value (n - 8) * d. */
typedef enum { GENIE_TYPE_F32 = 0, GENIE_TYPE_F16 = 1, GENIE_TYPE_Q4_0 = 2, GENIE_TYPE_Q8_0 = 8 } genie_type;

/* In every enum of kinds, _COUNT is one more than the last kind. It and larger values are out of range. */
typedef enum {
    GENIE_NORM_RMSNORM = 0,
    GENIE_NORM_LAYERNORM = 1,
    GENIE_NORM_NONE = 2,
    GENIE_NORM_COUNT = 3
} genie_norm_kind;

/* x + f(norm(x)), or norm(x + f(x)). */
typedef enum {
    GENIE_NORM_POSITION_PRE = 0,
    GENIE_NORM_POSITION_POST = 1,
    GENIE_NORM_POSITION_COUNT = 2
} genie_norm_position;

/* The input of an attention sublayer's keys and values. Queries always read the norm. */
typedef enum { GENIE_KV_INPUT_NORM = 0, GENIE_KV_INPUT_RESIDUAL = 1, GENIE_KV_INPUT_COUNT = 2 } genie_kv_input;

typedef enum {
    GENIE_FFN_GELU = 0,
    GENIE_FFN_GELU_TANH = 1,
    GENIE_FFN_RELU = 2,
    GENIE_FFN_SWIGLU = 3, /* silu(gate) * up */
    GENIE_FFN_GEGLU = 4,  /* gelu(gate) * up */
    GENIE_FFN_RELU2 = 5,  /* relu(up)^2 */
    GENIE_FFN_COUNT = 6
} genie_ffn_kind;

typedef enum {
    GENIE_SUBLAYER_SPATIAL = 0,   /* the P tokens of a frame see each other */
    GENIE_SUBLAYER_TEMPORAL = 1,  /* a token sees its own position in all frames so far */
    GENIE_SUBLAYER_SPACETIME = 2, /* a token sees all tokens of all frames so far */
    GENIE_SUBLAYER_FFN = 3,
    GENIE_SUBLAYER_PEG = 4, /* x + depthwise convolution of x, 3 x 3 tokens of this frame and the two before; no norm */
    GENIE_SUBLAYER_COUNT = 5
} genie_sublayer_kind;

/* How an action affects its frame. ADD: its embedding is added to every token. FILM: it picks the row of weights in
 * every sublayer's norm. */
typedef enum {
    GENIE_CONDITIONING_ADD = 0,
    GENIE_CONDITIONING_FILM = 1,
    GENIE_CONDITIONING_COUNT = 2
} genie_conditioning;

/* Position embeddings. SEPARATE: one for the token's place plus one for the time. JOINT: one for each token of each
 * frame. */
typedef enum {
    GENIE_POSITION_SEPARATE = 0,
    GENIE_POSITION_JOINT = 1,
    GENIE_POSITION_NONE = 2,
    GENIE_POSITION_COUNT = 3
} genie_position_kind;

/* Added to the scores of spatial attention: nothing, or a bias that depends on the offset from query to key. */
typedef enum {
    GENIE_SPATIAL_BIAS_NONE = 0,
    GENIE_SPATIAL_BIAS_RELATIVE = 1,
    GENIE_SPATIAL_BIAS_COUNT = 2
} genie_spatial_bias;

/* Added to the scores of temporal attention: nothing, or a penalty proportional to the distance in frames. */
typedef enum {
    GENIE_TEMPORAL_BIAS_NONE = 0,
    GENIE_TEMPORAL_BIAS_ALIBI = 1,
    GENIE_TEMPORAL_BIAS_COUNT = 2
} genie_temporal_bias;

/* DUAL: features get mean 0 and variance 1 before INPUT, and a layer norm after it. */
typedef enum { GENIE_INPUT_NORM_NONE = 0, GENIE_INPUT_NORM_DUAL = 1, GENIE_INPUT_NORM_COUNT = 2 } genie_input_norm;

/* Where the first frame of a window uses weights of its own. */
typedef enum {
    GENIE_FIRST_FRAME_NONE = 0,
    GENIE_FIRST_FRAME_INPUT = 1,
    GENIE_FIRST_FRAME_OUTPUT = 2,
    GENIE_FIRST_FRAME_COUNT = 3
} genie_first_frame;

/* What genie_stack_set sets. Slots up to OUTPUT_BIAS and from POS on belong to the stack (block = sublayer = -1). */
typedef enum {
    GENIE_SLOT_INPUT = 0,       /* matrix [E, N]; feature stacks */
    GENIE_SLOT_INPUT_BIAS = 1,  /* [E] */
    GENIE_SLOT_TOKEN_EMBD = 2,  /* F32 [rows, E]; token stacks; rows factor by factor, the last is the mask token */
    GENIE_SLOT_ACTION_EMBD = 3, /* F32 [actions, E]; with GENIE_CONDITIONING_ADD */
    GENIE_SLOT_POS_SPACE = 4,   /* F32 [P, E] */
    GENIE_SLOT_POS_TIME = 5,    /* F32 [T, E] */
    GENIE_SLOT_OUTPUT_NORM = 6,
    GENIE_SLOT_OUTPUT_NORM_BIAS = 7,
    GENIE_SLOT_OUTPUT = 8, /* matrix [O, E] */
    GENIE_SLOT_OUTPUT_BIAS = 9,
    GENIE_SLOT_NORM = 10, /* from here on: of one sublayer; FILM: [actions + 1, E], the last row for no action */
    GENIE_SLOT_NORM_BIAS = 11,
    GENIE_SLOT_Q = 12,
    GENIE_SLOT_K = 13,
    GENIE_SLOT_V = 14,
    GENIE_SLOT_OUT = 15,
    GENIE_SLOT_Q_BIAS = 16,
    GENIE_SLOT_K_BIAS = 17,
    GENIE_SLOT_V_BIAS = 18,
    GENIE_SLOT_OUT_BIAS = 19,
    GENIE_SLOT_Q_NORM = 20,
    GENIE_SLOT_K_NORM = 21,
    GENIE_SLOT_UP = 22, /* with experts: those of all experts stacked, [X F, E]; biases [X, F] */
    GENIE_SLOT_GATE = 23,
    GENIE_SLOT_DOWN = 24,
    GENIE_SLOT_UP_BIAS = 25,
    GENIE_SLOT_GATE_BIAS = 26,
    GENIE_SLOT_DOWN_BIAS = 27,
    GENIE_SLOT_CONV = 28, /* F32 [27, E]: frame t-2, t-1, t, in each the 3 x 3 tokens row by row */
    GENIE_SLOT_CONV_BIAS = 29,
    GENIE_SLOT_Q_NORM_BIAS = 30,
    GENIE_SLOT_K_NORM_BIAS = 31,
    GENIE_SLOT_ROUTER = 32,        /* F32 or F16 matrix [X, E] of an FFN of experts */
    GENIE_SLOT_POS = 33,           /* from here on: of the stack; F32 [T * P, E]; POSITION_JOINT */
    GENIE_SLOT_SPATIAL_BIAS = 34,  /* F32 [H, (2 R - 1) (2 C - 1)]: by rows down and columns right from query to key */
    GENIE_SLOT_TEMPORAL_BIAS = 35, /* F32 [1, H]: subtracted from a score per frame of distance (ALiBi's slopes) */
    GENIE_SLOT_INPUT_NORM = 36,    /* F32 [E]; input_norm */
    GENIE_SLOT_INPUT_NORM_BIAS = 37,
    GENIE_SLOT_INPUT_FIRST = 38, /* as INPUT, for the first frame; FIRST_FRAME_INPUT */
    GENIE_SLOT_INPUT_FIRST_BIAS = 39,
    GENIE_SLOT_INPUT_FIRST_NORM = 40,
    GENIE_SLOT_INPUT_FIRST_NORM_BIAS = 41,
    GENIE_SLOT_OUTPUT_FIRST = 42, /* as OUTPUT; FIRST_FRAME_OUTPUT */
    GENIE_SLOT_OUTPUT_FIRST_BIAS = 43,
    GENIE_SLOT_COUNT = 44
} genie_slot;

/* One sublayer of a block. Fields that its kind does not use are ignored. */
typedef struct {
    int32_t kind;              /* genie_sublayer_kind */
    int32_t norm;              /* genie_norm_kind; NONE: the sublayer reads the residual stream itself */
    int32_t norm_position;     /* genie_norm_position */
    int32_t kv_input;          /* genie_kv_input; RESIDUAL is not allowed with POST */
    int32_t ffn;               /* genie_ffn_kind */
    int32_t expert_count;      /* X FFNs, of which each token uses some; 0: a single FFN for all tokens */
    int32_t expert_used_count; /* per token: the largest ROUTER outputs, weighted by a softmax over these; 1..X */
} genie_sublayer;

typedef struct {
    int32_t block_count, embedding_length, head_count, key_length, feed_forward_length;
    int32_t token_count;    /* P */
    int32_t context_length; /* T */
    int32_t input_length;   /* N features per token, or 0: the input is token ids */
    int32_t input_rows;     /* rows of TOKEN_EMBD, or 0 */
    int32_t action_count;   /* actions, or 0 */
    int32_t output_length;  /* O, or 0: no head, the output is [P, E] */
    int32_t qk_norm;        /* genie_norm_kind of q and k, per head */
    int32_t bias;           /* 0 or 1 */
    int32_t output_norm;    /* genie_norm_kind before the head */
    int32_t conditioning;   /* genie_conditioning */
    int32_t grid_width;     /* C: tokens per row of a frame, P = R C. Needed for PEG and SPATIAL_BIAS, else 0 will do */
    int32_t norm_length;    /* number of values of an embedding that norms use; the rest are zero; 0: all */
    int32_t position;       /* genie_position_kind */
    int32_t spatial_bias;   /* genie_spatial_bias */
    int32_t temporal_bias;  /* genie_temporal_bias */
    int32_t input_norm;     /* genie_input_norm */
    int32_t first_frame;    /* genie_first_frame */
    int32_t factor_count;   /* K in 1..4: an id has K digits, each with its own rows in TOKEN_EMBD and in OUTPUT */
    float norm_epsilon;
    float qk_norm_epsilon; /* 0: norm_epsilon */
    int32_t sublayer_count;
    genie_sublayer sublayers[8]; /* in order, the same in every block */
} genie_stack_params;

/* Which masked tokens are filled first. */
typedef enum {
    GENIE_ORDER_CONFIDENCE = 0,
    GENIE_ORDER_RANDOM = 1,
    GENIE_ORDER_LARGEST_PROBABILITY = 2,
    GENIE_ORDER_COUNT = 3
} genie_order;

/* How many masked tokens are filled by each step. */
typedef enum {
    GENIE_SCHEDULE_COSINE = 0,
    GENIE_SCHEDULE_EXPONENTIAL = 1,
    GENIE_SCHEDULE_COSINE_CEIL = 2,
    GENIE_SCHEDULE_COUNT = 3
} genie_schedule;

/* docs/sampling.md is the specification. */
typedef struct {
    int32_t steps;     /* N >= 1 */
    int32_t order;     /* genie_order */
    float temperature; /* >= 0; 0 takes the most likely token */
    float noise;       /* >= 0; Gumbel noise on the confidence, falling to 0 at the last step */
    double threshold;  /* 0…1; a token with at least this probability is filled at once; 0: off */
    int32_t schedule;  /* genie_schedule */
} genie_sampler;

typedef struct genie_pool genie_pool;
typedef struct genie_stack genie_stack;
typedef struct genie_state genie_state;

uint32_t genie_abi_version(void);
const char *genie_status_text(int32_t status);

/* Why this thread's last failed call failed, in words, such as "head_count must be in 1..512". */
const char *genie_last_error(void);

/* The i-th instruction set that is built in and runs on this CPU, best first; NULL past the last. */
const char *genie_isa_name(int32_t i);

/* 1 <= thread_count <= 1024; the caller's thread is one of them. */
genie_status genie_pool_create(int32_t thread_count, genie_pool **pool);
void genie_pool_free(genie_pool *pool);

/* isa: a name from genie_isa_name, or NULL for the best. */
genie_status genie_stack_create(const char *isa, const genie_stack_params *params, genie_stack **stack);
void genie_stack_free(genie_stack *stack);
const char *genie_stack_isa(const genie_stack *stack);

/* Copies one tensor of `rows` rows of `columns` values and packs it in parallel. A vector is one row. */
genie_status genie_stack_set(genie_stack *stack, genie_pool *pool, int32_t block, int32_t sublayer, int32_t slot,
                             int32_t type, int64_t rows, int64_t columns, const void *data, size_t bytes);
/* Checks that every weight that the parameters require has been set. */
genie_status genie_stack_seal(genie_stack *stack);
/* Bytes of packed weights. */
size_t genie_stack_bytes(const genie_stack *stack);
/* Needs no weights yet. seal_bytes: what sealing will add to the weights; state_bytes: the most that a state takes. */
genie_status genie_stack_need(const genie_stack *stack, size_t *seal_bytes, size_t *state_bytes);
/* Bytes that a matrix takes once it is packed for an instruction set (NULL: the best); 0 if it cannot be packed. */
size_t genie_matrix_need(const char *isa, int32_t type, int64_t rows, int64_t columns);

genie_status genie_state_create(const genie_stack *stack, genie_state **state);
void genie_state_free(genie_state *state);
size_t genie_state_bytes(const genie_state *state);
/* Frames committed, 0..T. */
int32_t genie_state_length(const genie_state *state);
/* Forget all but the first `length` frames. */
genie_status genie_state_truncate(genie_state *state, int32_t length);
/* Both states must be of the same stack. */
genie_status genie_state_copy(genie_state *to, const genie_state *from);
/*
 * From now on each pass that has an output also writes where its tokens looked: looked_PT[i][t], [P, T], is the share
 * of attention that token i gave to frame t of the window, the mean over heads and over temporal and space-time
 * sublayers; the frame in the making is number genie_state_length before the pass. Rows of tokens that a pass leaves
 * out for being known do not add up to 1. The pass takes longer and gives the same bytes. The buffer must live until
 * the next call; NULL ends it.
 */
genie_status genie_state_watch(genie_state *state, float *looked_PT);

/*
 * Run one frame at time index genie_state_length(state), which must be < T. Give ids_P (token stacks) or
 * features_PN (feature stacks). action -1: none. commit: the frame joins the window. output_PO ([P, E] where O is 0):
 * may be NULL when only the commit is wanted.
 */
genie_status genie_stack_forward(const genie_stack *stack, genie_state *state, genie_pool *pool, const int32_t *ids_P,
                                 const float *features_PN, int32_t action, int32_t commit, float *output_PO);

/*
 * One MaskGIT step on the uncommitted frame: a forward pass, then fill in the best of the sampled tokens. ids_P holds
 * the mask id, V = (O / factor_count) ^ factor_count, where a token is unknown; before step 0 that is everywhere.
 * logits_PO may be NULL. If nothing is masked, nothing is filled.
 */
genie_status genie_maskgit_step(const genie_stack *stack, genie_state *state, genie_pool *pool,
                                const genie_sampler *sampler, int32_t step, uint64_t seed, uint32_t frame,
                                int32_t action, int32_t *ids_P, float *logits_PO);

/*
 * The same from given logits, without a forward pass: for example from the logits that a frame gives for the next
 * frame. Fills in the best tokens of ids_P. Only the scratch of `state` is used.
 */
genie_status genie_maskgit_fill(const genie_stack *stack, genie_state *state, genie_pool *pool,
                                const genie_sampler *sampler, int32_t step, uint64_t seed, uint32_t frame,
                                const float *logits_PO, int32_t *ids_P);

/*
 * A convolutional network: a list of layers on one picture [H, W, C], channels last. Kernels of 3 x 3 see zeros beyond
 * the edges. Each layer names its number of output channels; GENIE_CONV_NORM must keep that of its input.
 */
typedef enum {
    GENIE_CONV_3X3 = 0,  /* W, B */
    GENIE_CONV_1X1 = 1,  /* W, B */
    GENIE_CONV_DOWN = 2, /* 3 x 3, stride 2, starting at row and column -1: halves height and width; W, B */
    GENIE_CONV_UP = 3,   /* 3 x 3 to 4 C channels (y, x, c), then depth-to-space to 2 x 2: doubles both sides; W, B */
    /* x + conv2(silu(norm2(conv1(silu(norm1(x)))))); if channels change, 1 x 1 SHORTCUT on x; NORM.., W, W2 */
    GENIE_CONV_RESIDUAL = 4,
    GENIE_CONV_NORM = 5, /* silu(norm(x)); NORM.. */
    GENIE_CONV_COUNT = 6
} genie_conv_kind;

/* Matrices are [out, in]. The order of their columns: kernel row, kernel column, channel. */
typedef enum {
    GENIE_CONV_SLOT_WEIGHT = 0,
    GENIE_CONV_SLOT_BIAS = 1,
    GENIE_CONV_SLOT_NORM = 2,
    GENIE_CONV_SLOT_NORM_BIAS = 3,
    GENIE_CONV_SLOT_WEIGHT_2 = 4,
    GENIE_CONV_SLOT_NORM_2 = 5,
    GENIE_CONV_SLOT_NORM_2_BIAS = 6,
    GENIE_CONV_SLOT_SHORTCUT = 7,
    GENIE_CONV_SLOT_COUNT = 8
} genie_conv_slot;

typedef struct {
    int32_t kind, channels; /* genie_conv_kind; output channels, 1..65536 */
} genie_conv_layer;

typedef struct {
    int32_t height, width, channels; /* of the input; at every GENIE_CONV_DOWN both sides must be even */
    int32_t group_count;             /* of the group norms; must divide the channels of each norm's input */
    float norm_epsilon;
} genie_conv_params;

typedef struct genie_conv genie_conv;
typedef struct genie_conv_state genie_conv_state; /* buffers for the pictures between layers; one caller at a time */

/* 1 <= layer_count <= 1024. Then genie_conv_set for each tensor, genie_conv_seal, as with a stack. */
genie_status genie_conv_create(const char *isa, const genie_conv_params *params, const genie_conv_layer *layers,
                               int32_t layer_count, genie_conv **conv);
void genie_conv_free(genie_conv *conv);
genie_status genie_conv_set(genie_conv *conv, genie_pool *pool, int32_t layer, int32_t slot, int32_t type, int64_t rows,
                            int64_t columns, const void *data, size_t bytes);
genie_status genie_conv_seal(genie_conv *conv);
size_t genie_conv_bytes(const genie_conv *conv);
/* Needs no weights yet: the most bytes that a state for `thread_count` threads takes. */
genie_status genie_conv_need(const genie_conv *conv, int32_t thread_count, size_t *state_bytes);
/* thread_count: that of the largest pool that the state will be used with. */
genie_status genie_conv_state_create(const genie_conv *conv, int32_t thread_count, genie_conv_state **state);
void genie_conv_state_free(genie_conv_state *state);
size_t genie_conv_state_bytes(const genie_conv_state *state);
/* One picture in, one out: x_HWC has the shape of the network's input, y_HWC that of its last layer's output. */
genie_status genie_conv_run(const genie_conv *conv, genie_conv_state *state, genie_pool *pool, const float *x_HWC,
                            float *y_HWC);

/* ids_M[m] = the first v with the largest z_ML[m] . codebook_VL[v]. */
genie_status genie_vq_nearest(const char *isa, const float *codebook_VL, int32_t codes, int32_t length,
                              const float *z_ML, int32_t count, int32_t *ids_M);
genie_status genie_vq_lookup(const float *codebook_VL, int32_t codes, int32_t length, const int32_t *ids_M,
                             int32_t count, float *z_ML);

/* Finite scalar quantization: ids_M[m] = sum of d_j bins^j, d_j = (tanh(z_j) + 1) / 2 (bins - 1), rounded half to even.
 * bins >= 2, bins^length <= 2^24. */
genie_status genie_fsq_nearest(int32_t bins, int32_t length, const float *z_ML, int32_t count, int32_t *ids_M);

/* Philox4x32-10: out[4 i ..] of counter (i, c1, c2, c3). */
void genie_philox(uint64_t seed, uint32_t c1, uint32_t c2, uint32_t c3, int32_t blocks, uint32_t *out);

/* CFFI END */

#if defined(__GNUC__) && !defined(_WIN32)
#pragma GCC visibility pop
#endif

#ifdef __cplusplus
}
#endif
#endif
