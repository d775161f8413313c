/* How attention over time shared its weight among the frames, for those who explain a frame. Plain loops, beside those
 * that make the frame: see genie_state_watch. */
#include "pass.h"

#include "../base/maths.h"

#include <math.h>
#include <string.h>

/* A softmax whose weights are summed by frame, one score at a time. */
typedef struct {
    float top, sum_T[GENIE_MAX_CONTEXT];
} shares;

static void begin(shares *s, int32_t frames) {
    s->top = -INFINITY;
    memset(s->sum_T, 0, (size_t)frames * sizeof(float));
}

static void add(shares *s, int32_t frames, int32_t frame, float score) {
    if (score > s->top) {
        const float less = genie_expf(s->top - score);
        for (int32_t t = 0; t < frames; t++)
            s->sum_T[t] *= less;
        s->top = score;
    }
    s->sum_T[frame] += genie_expf(score - s->top);
}

static void end(const shares *s, int32_t frames, float part, float *looked_T) {
    float total = 0;
    for (int32_t t = 0; t < frames; t++)
        total += s->sum_T[t];
    for (int32_t t = 0; t < frames; t++)
        looked_T[t] += part * s->sum_T[t] / total;
}

static float from_bf16(uint16_t half) {
    const uint32_t bits = (uint32_t)half << 16;
    float x;
    memcpy(&x, &bits, sizeof x);
    return x;
}

static float dot(const float *q, const float *k, int32_t stride, int32_t D) {
    float sum = 0;
    for (int32_t d = 0; d < D; d++)
        sum += q[d] * k[(size_t)d * (size_t)stride];
    return sum;
}

/* Frame t's key of a narrow window, in pairs as keep_bf16 lays it out; the frame in the making has its key apart. */
static float dot_bf16(const uint16_t *q, const uint16_t *k, int32_t stride, int32_t D) {
    float sum = 0;
    for (int32_t d = 0; d < D; d++)
        sum += from_bf16(q[d]) * from_bf16(k[(size_t)(d / 2) * (size_t)stride + (size_t)(d % 2)]);
    return sum;
}

static void temporal_scores(const pass *c, const genie_cache *cache, int32_t i, int32_t h, float slope, shares *all) {
    const genie_stack_params *p = &c->stack->params;
    const genie_state *s = c->state;
    const int32_t D = p->key_length, HD = p->head_count * D, T = p->context_length, now = s->length;
    const size_t row = (size_t)i * (size_t)HD + (size_t)(h * D), token = genie_token_of(c, i);
    const float scale = 1.0f / sqrtf((float)D);
    const int32_t panel = genie_past_panel(T);
    const uint16_t *narrow =
        (const uint16_t *)cache->k + (token * (size_t)HD + (size_t)(h * D)) * (size_t)genie_past_slots(T);
    const float *wide = (const float *)cache->k + token * (size_t)T * (size_t)HD + (size_t)(h * D);
    for (int32_t t = 0; t <= now; t++) {
        float score;
        if (!c->stack->narrow)
            score = dot(s->q + row, wide + (size_t)t * (size_t)HD, 1, D);
        else if (t < now)
            score =
                dot_bf16(s->q16 + row, narrow + (size_t)(t / panel * panel) * (size_t)D + t % panel * 2, 2 * panel, D);
        else
            score = dot_bf16(s->q16 + row, s->own16 + 2 * (size_t)i * (size_t)HD + (size_t)(h * D), 2, D);
        add(all, now + 1, t, score * scale - slope * (float)(now - t));
    }
}

static void spacetime_scores(const pass *c, const genie_cache *cache, int32_t i, int32_t h, shares *all) {
    const genie_stack_params *p = &c->stack->params;
    const genie_state *s = c->state;
    const int32_t D = p->key_length, P = p->token_count, keys = (s->length + 1) * P;
    const size_t head = (size_t)genie_round_up(P * p->context_length, GENIE_KEY_PANEL) * (size_t)D * (size_t)h;
    const float *q = s->q + (size_t)i * (size_t)(p->head_count * D) + (size_t)(h * D), *kt = (float *)cache->k + head;
    const float scale = 1.0f / sqrtf((float)D);
    for (int32_t j = 0; j < keys; j++) {
        const float *k = kt + (size_t)(j / GENIE_KEY_PANEL * GENIE_KEY_PANEL) * (size_t)D + j % GENIE_KEY_PANEL;
        add(all, s->length + 1, j / P, dot(q, k, GENIE_KEY_PANEL, D) * scale);
    }
}

/* The sublayers that see the past. */
static int32_t lookers(const genie_stack_params *p) {
    int32_t count = 0;
    for (int32_t i = 0; i < p->sublayer_count; i++)
        count += p->sublayers[i].kind == GENIE_SUBLAYER_TEMPORAL || p->sublayers[i].kind == GENIE_SUBLAYER_SPACETIME;
    return count * p->block_count;
}

void genie_look(const pass *c, const genie_weights *w, const genie_cache *cache) {
    const genie_stack_params *p = &c->stack->params;
    const float *slopes = c->stack->own.vector[GENIE_SLOT_TEMPORAL_BIAS];
    const int32_t frames = c->state->length + 1;
    const float part = 1.0f / (float)(lookers(p) * p->head_count);
    shares all;
    for (int32_t i = c->begin; i < c->end; i++)
        for (int32_t h = 0; h < p->head_count; h++) {
            begin(&all, frames);
            if (w->sublayer->kind == GENIE_SUBLAYER_TEMPORAL)
                temporal_scores(c, cache, i, h, slopes == NULL ? 0 : slopes[h], &all);
            else
                spacetime_scores(c, cache, i, h, &all);
            end(&all, frames, part, c->state->looked_PT + genie_token_of(c, i) * (size_t)p->context_length);
        }
}

void genie_look_begin(const genie_state *s) {
    const genie_stack_params *p = &s->stack->params;
    const size_t T = (size_t)p->context_length, P = (size_t)p->token_count;
    memset(s->looked_PT, 0, P * T * sizeof(float));
    for (size_t i = 0; i < P && s->length == 0; i++)
        s->looked_PT[i * T] = 1; /* there is nothing else to see, and queries are not even made */
}
