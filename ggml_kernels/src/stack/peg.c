/* Position encoding generator (arXiv 2102.10882) over space and time: a causal depthwise convolution, 3 x 3 x 3. */
#include "pass.h"

#include <string.h>

void genie_peg(const pass *c, const genie_weights *w, const genie_cache *cache) {
    const genie_stack_params *p = &c->stack->params;
    const genie_state *state = c->state;
    const int32_t P = p->token_count, C = p->grid_width, R = P / C;
    const size_t E = (size_t)p->embedding_length, frame = (size_t)P * E;
    float *now = (float *)cache->k + (size_t)state->length * frame;
    if (c->end > c->begin)
        memcpy(now + (size_t)c->begin * E, c->x_PE + (size_t)c->begin * E,
               (size_t)(c->end - c->begin) * E * sizeof(float));
    genie_pool_barrier(c->pool);
    for (int32_t i = c->begin; i < c->end; i++) {
        const float *x[GENIE_PEG_TAPS], *taps[GENIE_PEG_TAPS];
        int32_t count = 0; /* what lies outside the frame or before the window is zero */
        for (int32_t t = 0; t < 3; t++)
            for (int32_t n = 0; n < 9; n++) {
                const int32_t row = i / C + n / 3 - 1, column = i % C + n % 3 - 1;
                if (state->length + t < 2 || row < 0 || row >= R || column < 0 || column >= C)
                    continue;
                x[count] = now - (size_t)(2 - t) * frame + (size_t)(row * C + column) * E;
                taps[count++] = w->vector[GENIE_SLOT_CONV] + (size_t)(9 * t + n) * E;
            }
        c->stack->kernels->depthwise(x, taps, count, w->vector[GENIE_SLOT_CONV_BIAS], p->embedding_length,
                                     c->x_PE + (size_t)i * E);
    }
}
