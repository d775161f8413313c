/* One pass of a frame through a stack, and what its parts share; private to this folder. */
#ifndef GENIE_PASS_H
#define GENIE_PASS_H

#include "stack.h"

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
    int32_t masked_only; /* the head is needed for masked tokens only */

    /* The progress of a pass. Every thread has its own copy of this struct, and all change it alike. */
    int32_t thread, threads;
    float *x_PE, *y_PE; /* residual stream, and its normed copy: `rows` rows */
    int32_t rows;
    const int32_t *position; /* the token of row `offset` and of those after it; NULL: row i is token i */
    int32_t begin, end;      /* this thread's rows; the first one is even, if there are any */
    int32_t offset;          /* this thread's row `begin` is number begin - offset of all rows */
    int by_row;              /* products are shared by rows too; else by output channels, with barriers around them */
    int buffer;              /* which of k16 and v16 the last spatial sublayer filled */
    int last_mixing;         /* after this sublayer no token sees others of its frame */
    int keep_only;           /* of this sublayer, only what its window keeps is needed */
} pass;

/*
 * From here on the pass has `rows` rows, and each thread gets its share of them. A thread's rows begin at the same
 * place of the buffers as its tokens do, because that part is in its core's cache.
 */
void genie_share_rows(pass *c, int32_t rows);

static inline size_t genie_token_of(const pass *c, int32_t row) {
    return (size_t)(c->position == NULL ? row : c->position[row - c->offset]);
}

/* A barrier between a product and row-by-row work, unless both are shared by rows. */
static inline void genie_phase(const pass *c) {
    if (!c->by_row)
        genie_pool_barrier(c->pool);
}

/* Places quantized rows in `storage`, one of the state's buffers: this thread's rows if by_row, otherwise all rows. */
genie_activations genie_room(const pass *c, void *storage, int32_t columns);

/* Quantize this thread's rows of the input of `w`, unless w is a float matrix and reads x itself. */
void genie_quantize(const pass *c, const genie_matrix *w, const float *x, int32_t columns, genie_activations a);

/* This thread's share of y = x w^T, or y += x w^T. */
void genie_product(const pass *c, const genie_matrix *w, genie_activations a, const float *x, int32_t columns, float *y,
                   int32_t y_stride, int accumulate);

/* Norm this thread's rows of the residual stream into y_PE, or in place. */
void genie_norm_rows(const pass *c, int32_t kind, const float *weight, const float *bias, float *y_PE);

/* The input of a sublayer: this thread's rows, normed if the sublayer has a norm before it, and quantized if
 * `matrix` is. */
const float *genie_sublayer_input(const pass *c, const genie_weights *w, const genie_matrix *matrix,
                                  genie_activations a);

/* Called after a sublayer was added to x and a phase ended: applies a norm that comes after the sublayer. */
void genie_sublayer_end(const pass *c, const genie_weights *w);

/* x_PE from tokens or features, the action and positions. */
void genie_embed(const pass *c);

/* Packs the rows of masked tokens together, into what was y_PE, if the pass needs only these. Called where tokens
 * stop seeing each other. */
void genie_keep_masked(pass *c);

/* An attention sublayer, whole. */
void genie_attend(pass *c, const genie_weights *w, const genie_cache *cache);

/* Adds to looked_PT what an attention sublayer over time looked at, once it ran; before the pass, genie_look_begin. */
void genie_look(const pass *c, const genie_weights *w, const genie_cache *cache);
void genie_look_begin(const genie_state *state);

/* An FFN sublayer, whole: one FFN, or experts. */
void genie_feed_forward(const pass *c, const genie_weights *w);

/* A PEG sublayer, whole: x_PE += convolution of this frame and of the two before, which `cache` holds. */
void genie_peg(const pass *c, const genie_weights *w, const genie_cache *cache);

#endif
