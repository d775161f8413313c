/* MaskGIT scoring and sampling: docs/sampling.md, steps 2 to 5. */
#include "stack.h"

#include "../base/philox.h"

#include <math.h>
#include <string.h>

static const double pi = 3.14159265358979323846;

/*
 * Sums in double precision are chains of dependent additions, so those of ROWS positions run side by side. `mark` keeps
 * what a sum was after each of MARKS stretches, for `drawn` to begin near its end.
 */
enum { ROWS = 4, MARKS = 64 };

typedef struct {
    int32_t count; /* 1..ROWS; further rows repeat the first */
    int32_t codes;
    int32_t position[ROWS], row[ROWS]; /* of its logits */
    const float *logits[ROWS];
    float *terms[ROWS];
    double total[ROWS];
    double mark[MARKS][ROWS];
} row_group;

static int32_t stretch(int32_t codes) { return (codes + MARKS - 1) / MARKS; }

static void sum_terms(row_group *g) {
    const float *a = g->terms[0], *b = g->terms[1], *c = g->terms[2], *d = g->terms[3];
    double sum_a = 0, sum_b = 0, sum_c = 0, sum_d = 0;
    const int32_t length = stretch(g->codes);
    for (int32_t begin = 0, i = 0; begin < g->codes; begin += length, i++) {
        const int32_t end = g->codes - begin < length ? g->codes : begin + length;
        for (int32_t v = begin; v < end; v++) {
            sum_a += (double)a[v];
            sum_b += (double)b[v];
            sum_c += (double)c[v];
            sum_d += (double)d[v];
        }
        const double sums[ROWS] = {sum_a, sum_b, sum_c, sum_d};
        memcpy(g->mark[i], sums, sizeof sums);
        memcpy(g->total, sums, sizeof sums);
    }
}

/* Step 2 with a temperature: the first token at which the running sum of terms exceeds u times their total. */
static int32_t drawn(const row_group *g, int32_t row, double u) {
    const double target = u * g->total[row];
    const int32_t length = stretch(g->codes);
    int32_t i = 0, v = 0;
    while (v < g->codes && !(g->mark[i][row] > target)) {
        i++;
        v += length;
    }
    double running = i > 0 ? g->mark[i - 1][row] : 0;
    for (; v < g->codes; v++) {
        running += (double)g->terms[row][v];
        if (running > target)
            return v;
    }
    return g->codes - 1;
}

/* Step 2 without one: the first of the likeliest. */
static int32_t likeliest(const float *logits, int32_t codes) {
    int32_t best = 0;
    for (int32_t v = 1; v < codes; v++)
        best = logits[v] > logits[best] ? v : best;
    return best;
}

static int worse(const genie_candidate *a, const genie_candidate *b) {
    return a->quality != b->quality ? a->quality < b->quality : a->position > b->position;
}

static void sift(genie_candidate *heap, int32_t root, int32_t n) {
    for (int32_t child; (child = 2 * root + 1) < n; root = child) {
        if (child + 1 < n && worse(&heap[child + 1], &heap[child]))
            child++;
        if (!worse(&heap[child], &heap[root]))
            return;
        const genie_candidate held = heap[root];
        heap[root] = heap[child];
        heap[child] = held;
    }
}

/* Best first. A heap sort, because the C library's sort may allocate. */
static void sort_by_quality(genie_candidate *list, int32_t n) {
    for (int32_t root = n / 2; root-- > 0;)
        sift(list, root, n);
    for (int32_t end = n; end-- > 1;) {
        const genie_candidate held = list[0];
        list[0] = list[end];
        list[end] = held;
        sift(list, 0, end);
    }
}

/* Step 5: how many of the n masked positions a step fills. */
static int32_t filled(const genie_sampler *sampler, int32_t step, int32_t tokens, int32_t n) {
    const double total = (double)tokens, steps = (double)sampler->steps;
    if (step == sampler->steps - 1)
        return n;
    int32_t fill, least = 0;
    if (sampler->schedule != 1) {
        const double kept = total * cos(pi / 2 * (double)(step + 1) / steps);
        fill = n - (int32_t)(sampler->schedule == 0 ? floor(kept) : ceil(kept));
    } else {
        fill = (int32_t)ceil(total * expm1(5.0 * (double)step / steps) / expm1(5.0)) - (tokens - n);
        least = tokens / 16 > 1 ? tokens / 16 : 1;
    }
    fill = fill > least ? fill : least;
    return fill < n ? fill : n;
}

/* The first of the likeliest, whose value is known to be `top`; logits that are no numbers are another matter. */
static int32_t first_at(const float *logits, int32_t codes, float top) {
    for (int32_t v = 0; v < codes; v++)
        if (logits[v] == top)
            return v;
    return likeliest(logits, codes);
}

/* Steps 2 to 4 for a group of masked positions and one factor of their ids: what it adds to log_p and quality. */
static void sample_factor(const genie_kernels *kernels, const genie_sampler *sampler, int32_t step, uint64_t seed,
                          uint32_t frame, int32_t factor, row_group *g, int32_t token[ROWS], double log_p[ROWS],
                          double quality[ROWS]) {
    const float temperature = sampler->temperature;
    const int largest = sampler->order == 2, log_p_wanted = sampler->order == 0 || sampler->threshold > 0;
    const int summed = log_p_wanted || largest; /* whether a greedy step needs sums at all */
    const uint32_t s = (uint32_t)step, draw = factor == 0 ? 0 : (uint32_t)factor + 1;
    float top[ROWS] = {0};
    if (temperature > 0) {
        for (int32_t r = 0; r < g->count; r++)
            top[r] = kernels->softmax_terms(g->logits[r], g->codes, 1.0f / temperature, g->terms[r]);
        sum_terms(g);
        for (int32_t r = 0; r < g->count; r++)
            token[r] = drawn(g, r, genie_uniform(seed, (uint32_t)g->position[r], s, frame, draw));
    } else {
        for (int32_t r = 0; r < g->count; r++) {
            if (summed)
                top[r] = kernels->softmax_terms(g->logits[r], g->codes, 1.0f, g->terms[r]);
            token[r] = summed ? first_at(g->logits[r], g->codes, top[r]) : likeliest(g->logits[r], g->codes);
            top[r] = g->logits[r][token[r]];
        }
        if (summed)
            sum_terms(g);
    }
    for (int32_t r = 0; largest && r < g->count; r++)
        quality[r] += -log(g->total[r]); /* of the largest probability at this temperature */
    if (log_p_wanted && temperature > 0 && temperature != 1) {
        for (int32_t r = 0; r < g->count; r++)
            kernels->softmax_terms(g->logits[r], g->codes, 1.0f, g->terms[r]);
        sum_terms(g);
    }
    for (int32_t r = 0; log_p_wanted && r < g->count; r++)
        log_p[r] += (double)(g->logits[r][token[r]] - top[r]) - log(g->total[r]);
}

/* Steps 2 to 4 for a group of masked positions. */
static void sample_rows(const genie_kernels *kernels, const genie_sampler *sampler, int32_t step, uint64_t seed,
                        uint32_t frame, row_group *g, genie_state *state, float *terms, int32_t *ids_P) {
    const genie_stack_params *p = &state->stack->params;
    const double noise = (double)sampler->noise * (1.0 - (double)(step + 1) / (double)sampler->steps);
    int32_t token[ROWS] = {0}, digit[ROWS], place = 1;
    double log_p[ROWS] = {0}, quality[ROWS] = {0};
    for (int32_t k = 0; k < p->factor_count; k++, place *= g->codes) {
        for (int32_t r = 0; r < ROWS; r++) {
            const int32_t i = r < g->count ? r : 0;
            g->logits[r] = state->logits_PO + (size_t)g->row[i] * (size_t)p->output_length + (size_t)(k * g->codes);
            g->terms[r] = terms + (size_t)i * (size_t)g->codes;
        }
        sample_factor(kernels, sampler, step, seed, frame, k, g, digit, log_p, quality);
        for (int32_t r = 0; r < g->count; r++)
            token[r] += digit[r] * place;
    }
    for (int32_t r = 0; r < g->count; r++) {
        const int32_t position = g->position[r];
        const uint32_t at = (uint32_t)position, s = (uint32_t)step;
        double q = sampler->order == 2 ? quality[r] : log_p[r];
        if (sampler->order == 1)
            q = genie_uniform(seed, at, s, frame, 1);
        else if (noise > 0)
            q += noise * -log(-log(genie_uniform(seed, at, s, frame, 1)));
        if (sampler->threshold > 0 && log_p[r] >= log(sampler->threshold))
            ids_P[position] = token[r];
        state->chosen_P[position] = token[r];
        state->quality_P[position] = isnan(q) ? -INFINITY : q;
    }
}

void genie_find_masked(genie_state *state, const int32_t *ids_P) {
    const genie_stack_params *p = &state->stack->params;
    const int32_t mask = genie_mask_id(p);
    state->masked = 0;
    for (int32_t i = 0; i < p->token_count; i++)
        if (ids_P[i] == mask)
            state->masked_P[state->masked++] = i;
}

void genie_sample(const genie_kernels *kernels, genie_pool *pool, const genie_sampler *sampler, int32_t step,
                  uint64_t seed, uint32_t frame, genie_state *state, int packed, int32_t *ids_P, int32_t thread,
                  int32_t thread_count) {
    const genie_stack_params *params = &state->stack->params;
    const int32_t tokens = params->token_count, mask = genie_mask_id(params);
    int32_t begin, end;
    genie_share(state->masked, thread, thread_count, &begin, &end);
    row_group g = {.codes = genie_factor_size(params)};
    float *terms = state->terms_PO + (size_t)begin * (size_t)g.codes; /* a group's, and always the same */
    for (int32_t i = begin; i < end;) {
        for (g.count = 0; i < end && g.count < ROWS; i++, g.count++) {
            g.position[g.count] = state->masked_P[i];
            g.row[g.count] = packed ? i : state->masked_P[i];
        }
        sample_rows(kernels, sampler, step, seed, frame, &g, state, terms, ids_P);
    }
    genie_pool_barrier(pool);
    if (thread != 0)
        return;
    genie_candidate *list = state->candidates_P;
    int32_t n = 0;
    for (int32_t i = 0; i < state->masked; i++) {
        const int32_t position = state->masked_P[i];
        if (ids_P[position] == mask)
            list[n++] = (genie_candidate){state->quality_P[position], position};
    }
    sort_by_quality(list, n);
    const int32_t fill = filled(sampler, step, tokens, n);
    for (int32_t i = 0; i < fill; i++)
        ids_P[list[i].position] = state->chosen_P[list[i].position];
}

int genie_sampler_ok(const genie_stack_params *p, const genie_sampler *sampler, int32_t step) {
    return sampler != NULL && p->input_length == 0 && p->input_rows == p->output_length + 1 && sampler->steps >= 1 &&
           step >= 0 && step < sampler->steps && sampler->order >= 0 && sampler->order <= 2 && sampler->schedule >= 0 &&
           sampler->schedule <= 2 && sampler->temperature >= 0 && sampler->temperature <= 100 && sampler->noise >= 0 &&
           sampler->noise <= 100 && sampler->threshold >= 0 && sampler->threshold <= 1;
}

typedef struct {
    genie_state *state;
    genie_pool *pool;
    const genie_sampler *sampler;
    int32_t step;
    uint64_t seed;
    uint32_t frame;
    int32_t *ids_P;
} filling;

static void run_fill(void *context, int32_t thread, int32_t threads) {
    const filling *f = context;
    genie_sample(f->state->stack->kernels, f->pool, f->sampler, f->step, f->seed, f->frame, f->state, 0, f->ids_P,
                 thread, threads);
}

genie_status genie_maskgit_fill(const genie_stack *stack, genie_state *state, genie_pool *pool,
                                const genie_sampler *sampler, int32_t step, uint64_t seed, uint32_t frame,
                                const float *logits_PO, int32_t *ids_P) {
    if (stack == NULL || state == NULL || pool == NULL || state->stack != stack || logits_PO == NULL || ids_P == NULL ||
        !genie_sampler_ok(&stack->params, sampler, step))
        return GENIE_ERROR_ARGUMENT;
    const genie_stack_params *p = &stack->params;
    for (int32_t i = 0; i < p->token_count; i++)
        if (ids_P[i] < 0 || ids_P[i] > genie_mask_id(p))
            return GENIE_ERROR_ARGUMENT;
    memcpy(state->logits_PO, logits_PO, (size_t)p->token_count * (size_t)p->output_length * sizeof(float));
    genie_find_masked(state, ids_P);
    filling f = {state, pool, sampler, step, seed, frame, ids_P};
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
