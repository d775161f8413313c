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
    int32_t masked_only; /* the head is for masked tokens alone */

    /* Where a pass is; every thread has its own copy of all this, and changes it alike. */
    float *x_PE, *y_PE; /* residual stream, and its normed copy: `rows` rows */
    int32_t rows;
    const int32_t *position; /* the token of each row; NULL: that of the same number */
    int parting;             /* after this sublayer no token sees another of its frame */
    int remembering;         /* of this sublayer nothing is wanted but what its window keeps */
} pass;

static inline size_t genie_token_of(const pass *c, int32_t row) {
    return (size_t)(c->position == NULL ? row : c->position[row]);
}

/* All of these do a thread's share, of rows unless they say otherwise. */

/* Quantize rows of the input of `w`, unless w is a float matrix and reads x itself. */
void genie_quantize_rows(const pass *c, const genie_matrix *w, const float *x, int32_t columns, genie_activations a,
                         int32_t thread, int32_t threads);

/* Norm rows of the residual stream into y_PE, or in place. */
void genie_norm_rows(const pass *c, int32_t kind, const float *weight, const float *bias, float *y_PE, int32_t thread,
                     int32_t threads);

/* What a sublayer reads, its rows normed where it has a norm and that comes first, and quantized for `matrix`; the
 * caller puts the barrier. */
const float *genie_sublayer_input(const pass *c, const genie_weights *w, const genie_matrix *matrix,
                                  genie_activations a, int32_t thread, int32_t threads);

/* After a sublayer was added to x and a barrier. The next reader of these rows is this thread, or waits for one. */
void genie_sublayer_end(const pass *c, const genie_weights *w, int32_t thread, int32_t threads);

/* x_PE from tokens or features, the action and positions. */
void genie_embed(const pass *c, int32_t thread, int32_t threads);

/* Where a pass parts tokens and is about masked ones only, their rows move together, into what was y_PE. All threads.
 */
void genie_keep_masked(pass *c, int32_t thread, int32_t threads);

/* An attention sublayer, whole. */
void genie_attend(pass *c, int32_t kind, const genie_weights *w, const genie_cache *cache, int32_t thread,
                  int32_t threads);

#endif
