/* MaskGIT scoring and sampling: docs/sampling.md, steps 2 to 5. */
#include "stack.h"

#include "../base/philox.h"

#include <math.h>

static const double pi = 3.14159265358979323846;

/* Step 2: a token for one masked position. `terms` are exp((l - max) / temperature), or NULL for the likeliest. */
static int32_t choose(const float *logits, const float *terms, int32_t codes, double u) {
    if (terms == NULL) {
        int32_t best = 0;
        for (int32_t v = 1; v < codes; v++)
            best = logits[v] > logits[best] ? v : best;
        return best;
    }
    double total = 0, running = 0;
    for (int32_t v = 0; v < codes; v++)
        total += (double)terms[v];
    const double target = u * total;
    for (int32_t v = 0; v < codes; v++) {
        running += (double)terms[v];
        if (running > target)
            return v;
    }
    return codes - 1;
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
    if (sampler->schedule == 0) {
        fill = n - (int32_t)floor(total * cos(pi / 2 * (double)(step + 1) / steps));
    } else {
        fill = (int32_t)ceil(total * expm1(5.0 * (double)step / steps) / expm1(5.0)) - (tokens - n);
        least = tokens / 16 > 1 ? tokens / 16 : 1;
    }
    fill = fill > least ? fill : least;
    return fill < n ? fill : n;
}

void genie_sample(const genie_kernels *kernels, genie_pool *pool, const genie_sampler *sampler, int32_t step,
                  uint64_t seed, uint32_t frame, int32_t tokens, int32_t codes, genie_state *state, int32_t *ids_P,
                  int32_t thread, int32_t thread_count) {
    const double noise = (double)sampler->noise * (1.0 - (double)(step + 1) / (double)sampler->steps);
    int32_t begin, end;
    genie_share(tokens, thread, thread_count, &begin, &end);
    for (int32_t p = begin; p < end; p++) {
        if (ids_P[p] != codes)
            continue;
        const float *logits = state->logits_PO + (size_t)p * (size_t)codes;
        float *terms = state->terms_PO + (size_t)p * (size_t)codes;
        const uint32_t at = (uint32_t)p, s = (uint32_t)step;
        int32_t token;
        float top = 0;
        if (sampler->temperature == 0) {
            token = choose(logits, NULL, codes, 0);
            top = logits[token];
        } else {
            top = kernels->softmax_terms(logits, codes, 1.0f / sampler->temperature, terms);
            token = choose(logits, terms, codes, genie_uniform(seed, at, s, frame, 0));
        }
        double log_p = 0, quality, largest = 0;
        if (sampler->order == 2) { /* at the temperature, before `terms` are made anew at 1 */
            if (sampler->temperature == 0)
                kernels->softmax_terms(logits, codes, 1.0f, terms);
            double total = 0;
            for (int32_t v = 0; v < codes; v++)
                total += (double)terms[v];
            largest = -log(total);
        }
        if (sampler->order == 0 || sampler->threshold > 0) {
            if (sampler->temperature != 1)
                kernels->softmax_terms(logits, codes, 1.0f, terms);
            double total = 0;
            for (int32_t v = 0; v < codes; v++)
                total += (double)terms[v];
            log_p = (double)(logits[token] - top) - log(total);
        }
        if (sampler->order == 1) {
            quality = genie_uniform(seed, at, s, frame, 1);
        } else {
            quality = sampler->order == 2 ? largest : log_p;
            if (noise > 0)
                quality += noise * -log(-log(genie_uniform(seed, at, s, frame, 1)));
        }
        if (sampler->threshold > 0 && log_p >= log(sampler->threshold))
            ids_P[p] = token;
        state->chosen_P[p] = token;
        state->quality_P[p] = isnan(quality) ? -INFINITY : quality;
    }
    genie_pool_barrier(pool);
    if (thread != 0)
        return;
    genie_candidate *list = state->candidates_P;
    int32_t n = 0;
    for (int32_t p = 0; p < tokens; p++)
        if (ids_P[p] == codes)
            list[n++] = (genie_candidate){state->quality_P[p], p};
    sort_by_quality(list, n);
    const int32_t fill = filled(sampler, step, tokens, n);
    for (int32_t i = 0; i < fill; i++)
        ids_P[list[i].position] = state->chosen_P[list[i].position];
}

void genie_philox(uint64_t seed, uint32_t c1, uint32_t c2, uint32_t c3, int32_t blocks, uint32_t *out) {
    for (int32_t i = 0; i < blocks; i++) {
        uint32_t c[4] = {(uint32_t)i, c1, c2, c3};
        genie_philox_block(seed, c);
        for (int j = 0; j < 4; j++)
            out[4 * (size_t)i + (size_t)j] = c[j];
    }
}
