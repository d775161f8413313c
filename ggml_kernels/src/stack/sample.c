/* MaskGIT scoring and sampling: docs/sampling.md, steps 2 to 5. */
#include "../base/error.h"
#include "stack.h"

#include "../base/assert.h"
#include "../base/maths.h"
#include "../base/philox.h"

#include <math.h>
#include <string.h>

static const double pi = 3.14159265358979323846;

/* What a token, or one factor of it, is drawn from. */
typedef struct {
    const float *logits;
    int32_t codes;
    float *terms; /* exponentials, and the sums of each stretch of them */
    double *sums, total;
} distribution;

/* Returns the largest logit. */
static float set_terms(const genie_kernels *kernels, distribution *d, float inverse_temperature) {
    const float top = kernels->softmax_terms(d->logits, d->codes, inverse_temperature, d->terms, d->sums);
    d->total = 0;
    for (int32_t i = 0; i * GENIE_SUM_STRETCH < d->codes; i++)
        d->total += d->sums[i];
    return top;
}

/* Step 2 with a temperature: the first token at which the running sum of terms exceeds u times their total. */
static int32_t drawn(const distribution *d, double u) {
    const double target = u * d->total;
    double running = 0;
    int32_t v = 0;
    for (int32_t i = 0; v < d->codes && !(running + d->sums[i] > target); i++, v += GENIE_SUM_STRETCH)
        running += d->sums[i];
    for (; v < d->codes; v++) {
        running += (double)d->terms[v];
        if (running > target)
            return v;
    }
    return d->codes - 1;
}

/* Step 2 without a temperature: the first of the most likely codes. */
static int32_t likeliest(const float *logits, int32_t codes) {
    int32_t best = 0;
    for (int32_t v = 1; v < codes; v++)
        best = logits[v] > logits[best] ? v : best;
    return best;
}

static int better(const genie_candidate *a, const genie_candidate *b) {
    return a->quality != b->quality ? a->quality > b->quality : a->position < b->position;
}

/* Moves the root down to its place; the best candidate is at the root of the heap. */
static void sift(genie_candidate *heap, int32_t root, int32_t n) {
    for (int32_t child; (child = 2 * root + 1) < n; root = child) {
        if (child + 1 < n && better(&heap[child + 1], &heap[child]))
            child++;
        if (!better(&heap[child], &heap[root]))
            return;
        const genie_candidate held = heap[root];
        heap[root] = heap[child];
        heap[child] = held;
    }
}

/* Step 5: how many of the n masked positions a step fills. */
static int32_t filled(const genie_sampler *sampler, int32_t step, int32_t tokens, int32_t n) {
    const double total = (double)tokens, steps = (double)sampler->steps;
    if (step == sampler->steps - 1)
        return n;
    int32_t fill, least = 0;
    if (sampler->schedule != GENIE_SCHEDULE_EXPONENTIAL) {
        const double kept = total * genie_cos(pi / 2 * (double)(step + 1) / steps);
        fill = n - (int32_t)(sampler->schedule == GENIE_SCHEDULE_COSINE ? floor(kept) : ceil(kept));
    } else {
        fill = (int32_t)ceil(total * (genie_exp(5.0 * (double)step / steps) - 1) / (genie_exp(5.0) - 1)) - (tokens - n);
        least = tokens / 16 > 1 ? tokens / 16 : 1;
    }
    fill = fill > least ? fill : least;
    return fill < n ? fill : n;
}

/* The first code whose logit is `top`, the largest. With NaN among the logits there may be none: search again. */
static int32_t first_at(const float *logits, int32_t codes, float top) {
    for (int32_t v = 0; v < codes; v++)
        if (logits[v] == top)
            return v;
    return likeliest(logits, codes);
}

/* Steps 2 to 4 for one factor of a masked position's id. Returns the digit, and adds to *log_p and *quality. */
static int32_t sample_factor(const genie_kernels *kernels, const genie_sampler *sampler, double u, distribution *d,
                             double *log_p, double *quality) {
    const float temperature = sampler->temperature;
    const int largest = sampler->order == GENIE_ORDER_LARGEST_PROBABILITY;
    const int log_p_wanted = sampler->order == GENIE_ORDER_CONFIDENCE || sampler->threshold > 0;
    float top = 0;
    int32_t digit;
    if (temperature > 0) {
        top = set_terms(kernels, d, 1.0f / temperature);
        digit = drawn(d, u);
    } else if (log_p_wanted || largest) {
        top = set_terms(kernels, d, 1.0f);
        digit = first_at(d->logits, d->codes, top);
        top = d->logits[digit];
    } else {
        digit = likeliest(d->logits, d->codes); /* a greedy step that needs no sums */
    }
    if (largest)
        *quality += -genie_log(d->total); /* log of the largest probability at this temperature */
    if (log_p_wanted && temperature > 0 && temperature != 1)
        set_terms(kernels, d, 1.0f);
    if (log_p_wanted)
        *log_p += (double)(d->logits[digit] - top) - genie_log(d->total);
    return digit;
}

/* Steps 2 to 4 for a masked position. */
static void sample_position(const genie_kernels *kernels, const genie_sampler *sampler, int32_t step, uint64_t seed,
                            uint32_t frame, distribution *d, const float *logits_O, genie_state *state,
                            int32_t position, int32_t *ids_P) {
    const genie_stack_params *p = &state->stack->params;
    const double noise = (double)sampler->noise * (1.0 - (double)(step + 1) / (double)sampler->steps);
    const uint32_t at = (uint32_t)position, s = (uint32_t)step;
    int32_t token = 0, place = 1;
    double log_p = 0, quality = 0;
    for (int32_t k = 0; k < p->factor_count; k++, place *= d->codes) {
        d->logits = logits_O + (size_t)k * (size_t)d->codes;
        const double u = sampler->temperature > 0 ? genie_uniform(seed, at, s, frame, k == 0 ? 0 : (uint32_t)k + 1) : 0;
        token += place * sample_factor(kernels, sampler, u, d, &log_p, &quality);
    }
    if (sampler->order != GENIE_ORDER_LARGEST_PROBABILITY)
        quality = log_p;
    if (sampler->order == GENIE_ORDER_RANDOM)
        quality = genie_uniform(seed, at, s, frame, 1);
    else if (noise > 0)
        quality += noise * -genie_log(-genie_log(genie_uniform(seed, at, s, frame, 1)));
    if (sampler->threshold > 0 && log_p >= genie_log(sampler->threshold))
        ids_P[position] = token;
    state->chosen_P[position] = token;
    state->quality_P[position] = isnan(quality) ? -INFINITY : quality;
}

void genie_find_masked(genie_state *state, const int32_t *ids_P) {
    const genie_stack_params *p = &state->stack->params;
    const int32_t mask = genie_mask_id(p);
    state->masked = 0;
    for (int32_t i = 0; i < p->token_count; i++)
        if (ids_P[i] == mask)
            state->masked_P[state->masked++] = i;
}

void genie_sample_rows(const genie_kernels *kernels, const genie_sampler *sampler, int32_t step, uint64_t seed,
                       uint32_t frame, genie_state *state, int32_t begin, int32_t end, int32_t room,
                       const float *logits_PO, int by_token, int32_t *ids_P) {
    const genie_stack_params *p = &state->stack->params;
    if (begin >= end)
        return;
    distribution d = {.codes = genie_factor_size(p)};
    d.terms = state->terms_PO + (size_t)room * (size_t)d.codes; /* reused for each position */
    d.sums = state->sums_PS + (size_t)room * (size_t)genie_stretches(d.codes);
    for (int32_t i = begin; i < end; i++) {
        const int32_t position = state->masked_P[i], row = by_token ? position : i - begin;
        sample_position(kernels, sampler, step, seed, frame, &d, logits_PO + (size_t)row * (size_t)p->output_length,
                        state, position, ids_P);
    }
}

void genie_fill_best(const genie_sampler *sampler, int32_t step, genie_state *state, int32_t *ids_P) {
    GENIE_ASSERT(step >= 0 && step < sampler->steps && state->masked <= state->stack->params.token_count);
    const genie_stack_params *p = &state->stack->params;
    const int32_t mask = genie_mask_id(p);
    genie_candidate *list = state->candidates_P;
    int32_t n = 0;
    for (int32_t i = 0; i < state->masked; i++) {
        const int32_t position = state->masked_P[i];
        if (ids_P[position] == mask)
            list[n++] = (genie_candidate){state->quality_P[position], position};
    }
    for (int32_t root = n / 2; root-- > 0;)
        sift(list, root, n);
    for (int32_t fill = filled(sampler, step, p->token_count, n); fill > 0; fill--) {
        ids_P[list[0].position] = state->chosen_P[list[0].position];
        list[0] = list[--n];
        sift(list, 0, n);
    }
}

const char *genie_sampler_fault(const genie_stack_params *p, const genie_sampler *sampler, int32_t step) {
    if (sampler == NULL)
        return "a pointer is NULL";
    if (p->input_length > 0 || p->input_rows != p->output_length + 1)
        return "only a stack of tokens whose last is the mask can be sampled from";
    if (sampler->steps < 1 || step < 0 || step >= sampler->steps)
        return "step must be in 0..steps - 1";
    if (sampler->order < 0 || sampler->order >= GENIE_ORDER_COUNT)
        return "order is not a genie_order";
    if (sampler->schedule < 0 || sampler->schedule >= GENIE_SCHEDULE_COUNT)
        return "schedule is not a genie_schedule";
    if (!(sampler->temperature >= 0 && sampler->temperature <= 100))
        return "temperature must be in 0..100";
    if (!(sampler->noise >= 0 && sampler->noise <= 100))
        return "noise must be in 0..100";
    if (!(sampler->threshold >= 0 && sampler->threshold <= 1))
        return "threshold must be in 0..1";
    return NULL;
}

typedef struct {
    genie_state *state;
    genie_pool *pool;
    const genie_sampler *sampler;
    int32_t step;
    uint64_t seed;
    uint32_t frame;
    const float *logits_PO;
    int32_t *ids_P;
} filling;

static void run_fill(void *context, int32_t thread, int32_t threads) {
    const filling *f = context;
    int32_t begin, end;
    genie_share(f->state->masked, thread, threads, &begin, &end);
    genie_sample_rows(f->state->stack->kernels, f->sampler, f->step, f->seed, f->frame, f->state, begin, end, begin,
                      f->logits_PO, 1, f->ids_P);
    genie_pool_barrier(f->pool);
    if (thread == 0)
        genie_fill_best(f->sampler, f->step, f->state, f->ids_P);
}

genie_status genie_maskgit_fill(const genie_stack *stack, genie_state *state, genie_pool *pool,
                                const genie_sampler *sampler, int32_t step, uint64_t seed, uint32_t frame,
                                const float *logits_PO, int32_t *ids_P) {
    if (stack == NULL || state == NULL || pool == NULL || state->stack != stack || logits_PO == NULL || ids_P == NULL)
        return genie_fail(GENIE_ERROR_ARGUMENT, "a pointer is NULL, or the state is of another stack");
    const char *fault = genie_sampler_fault(&stack->params, sampler, step);
    if (fault != NULL)
        return genie_fail(GENIE_ERROR_ARGUMENT, fault);
    const genie_stack_params *p = &stack->params;
    for (int32_t i = 0; i < p->token_count; i++)
        if (ids_P[i] < 0 || ids_P[i] > genie_mask_id(p))
            return genie_fail(GENIE_ERROR_ARGUMENT, "an id is out of range");
    genie_find_masked(state, ids_P);
    filling f = {state, pool, sampler, step, seed, frame, logits_PO, ids_P};
    genie_pool_run(pool, run_fill, &f);
    return GENIE_OK;
}

void genie_philox(uint64_t seed, uint32_t c1, uint32_t c2, uint32_t c3, int32_t blocks, uint32_t *out) {
    for (int32_t i = 0; i < blocks; i++) {
        uint32_t c[4] = {(uint32_t)i, c1, c2, c3};
        genie_philox_block(seed, c);
        for (int j = 0; j < 4; j++)
            out[4 * (size_t)i + (size_t)j] = c[j];
    }
}
