/* FFN sublayers: one FFN for all tokens, or experts. A token uses only the few experts that its router prefers. */
#include "pass.h"

#include "../base/maths.h"

#include <math.h>
#include <string.h>

typedef struct {
    const genie_matrix *up, *gate, *down; /* gate may be NULL */
} ffn;

/* y = (or +=) down(act(gate x, up x)) for the rows of a pass. If the matrices are quantized, `a` holds the quantized
 * x. */
static void run_ffn(const pass *c, int32_t kind, ffn f, genie_activations a, const float *x, float *y, int accumulate) {
    const genie_stack_params *p = &c->stack->params;
    genie_state *s = c->state;
    const int32_t E = p->embedding_length, F = p->feed_forward_length;
    genie_phase(c);
    genie_product(c, f.up, a, x, E, s->up, F, 0);
    if (f.gate != NULL)
        genie_product(c, f.gate, a, x, E, s->gate, F, 0);
    genie_phase(c);
    for (int32_t i = c->begin; i < c->end; i++)
        c->stack->kernels->ffn_activation(kind, s->gate + (size_t)i * (size_t)F, s->up + (size_t)i * (size_t)F, F);
    a = genie_room(c, s->activations, F);
    genie_quantize(c, f.down, s->up, F, a);
    genie_phase(c);
    genie_product(c, f.down, a, s->up, F, y, E, accumulate);
    genie_phase(c);
}

/* Picks a token's K experts: those with the largest router outputs, the first of equal ones. Their shares are a
 * softmax over these. */
static void choose(const float *router_X, int32_t X, int32_t K, int32_t *expert_K, float *share_K) {
    float sum = 0;
    for (int32_t k = 0; k < K; k++) {
        int32_t best = -1;
        for (int32_t e = 0; e < X; e++) {
            int taken = 0;
            for (int32_t j = 0; j < k; j++)
                taken |= expert_K[j] == e;
            if (!taken && (best < 0 || router_X[e] > router_X[best]))
                best = e;
        }
        expert_K[k] = best;
        share_K[k] = genie_expf(router_X[best] - router_X[expert_K[0]]);
        sum += share_K[k];
    }
    for (int32_t k = 0; k < K; k++)
        share_K[k] /= sum;
}

/* Orders tokens begin..end-1 by expert: the place of each token's input and output. `place` is the first place. */
static void order_by_expert(genie_state *s, int32_t X, int32_t K, int32_t begin, int32_t end, const int32_t *count_X,
                            int32_t place) {
    int32_t next_X[GENIE_MAX_EXPERTS];
    for (int32_t e = 0; e < X; place += count_X[e++])
        next_X[e] = place;
    for (int32_t i = begin * K; i < end * K; i++) {
        s->place_PK[i] = next_X[s->expert_PK[i]]++;
        s->token_KP[s->place_PK[i]] = i / K;
    }
}

/*
 * Each expert runs on the rows that chose it, side by side. If each thread has its own rows, it does all of this alone;
 * otherwise the threads go from expert to expert together.
 */
static void run_experts(const pass *c, const genie_weights *w) {
    const genie_stack_params *p = &c->stack->params;
    genie_state *s = c->state;
    const int32_t X = w->sublayer->expert_count, K = w->sublayer->expert_used_count;
    const size_t E = (size_t)p->embedding_length;
    const genie_matrix *router = w->matrix[GENIE_SLOT_ROUTER];
    const genie_activations none = genie_room(c, s->activations, p->embedding_length); /* unused: routers are float */
    const float *x = genie_sublayer_input(c, w, router, none);
    genie_phase(c);
    genie_product(c, router, none, x, p->embedding_length, s->router_PX, X, 0);
    genie_phase(c);
    for (int32_t i = c->begin; i < c->end; i++)
        choose(s->router_PX + (size_t)i * (size_t)X, X, K, s->expert_PK + i * K, s->share_PK + i * K);
    genie_phase(c);

    const int32_t begin = c->by_row ? c->begin : 0, end = c->by_row ? c->end : c->rows;
    int32_t count_X[GENIE_MAX_EXPERTS] = {0};
    for (int32_t i = begin * K; i < end * K; i++)
        count_X[s->expert_PK[i]]++;
    if (c->by_row || c->thread == 0)
        order_by_expert(s, X, K, begin, end, count_X, begin * K);
    genie_phase(c);

    int32_t place = begin * K;
    for (int32_t e = 0; e < X; place += count_X[e++]) {
        if (count_X[e] == 0)
            continue;
        pass some = *c;
        some.rows = count_X[e];
        if (c->by_row)
            some.end = begin + count_X[e]; /* at most c->end: a token takes an expert once */
        else
            genie_share(some.rows, c->thread, c->threads, &some.begin, &some.end);
        for (int32_t i = some.begin; i < some.end; i++)
            memcpy(s->routed_PE + (size_t)i * E, x + (size_t)s->token_KP[place + i - begin] * E, E * sizeof *x);
        const ffn f = {w->experts[0][e], w->experts[1] == NULL ? NULL : w->experts[1][e], w->experts[2][e]};
        const genie_activations a = genie_room(&some, s->activations, p->embedding_length);
        genie_quantize(&some, f.up, s->routed_PE, p->embedding_length, a);
        run_ffn(&some, w->sublayer->ffn, f, a, s->routed_PE, s->expert_KPE + (size_t)(place - begin) * E, 0);
    }

    for (int32_t i = c->begin; i < c->end; i++) {
        float *y = c->x_PE + (size_t)i * E;
        for (int32_t k = 0; k < K; k++) {
            const float *from = s->expert_KPE + (size_t)s->place_PK[i * K + k] * E, share = s->share_PK[i * K + k];
            for (size_t j = 0; j < E; j++)
                y[j] += share * from[j];
        }
    }
}

void genie_feed_forward(const pass *c, const genie_weights *w) {
    if (w->matrix[GENIE_SLOT_ROUTER] != NULL) {
        run_experts(c, w);
    } else {
        const ffn f = {w->matrix[GENIE_SLOT_UP], w->matrix[GENIE_SLOT_GATE], w->matrix[GENIE_SLOT_DOWN]};
        const int32_t E = c->stack->params.embedding_length;
        const genie_activations a = genie_room(c, c->state->activations, E);
        run_ffn(c, w->sublayer->ffn, f, a, genie_sublayer_input(c, w, f.up, a), c->x_PE, 1);
    }
    genie_sublayer_end(c, w);
}
