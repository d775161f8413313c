/* genie_peak: the throughput of the arithmetic units without memory accesses. Benchmarks divide by it. */
#include "../../base/error.h"
#include "../kernels.h"
#include "genie_bench.h"
#include "../../base/pool.h"

typedef struct {
    int64_t (*loop)(int64_t rounds);
    int64_t rounds, operations;
} measurement;

static void run(void *context, int32_t thread, int32_t thread_count) {
    measurement *m = context;
    const int64_t done = m->loop(m->rounds);
    if (thread == 0) /* all threads do the same */
        m->operations = done * thread_count;
}

genie_status genie_peak(const char *isa, genie_pool *pool, int32_t type, int64_t rounds, int64_t *operations) {
    const genie_kernels *kernels = genie_kernels_find(isa);
    if (kernels == NULL)
        return genie_fail(GENIE_ERROR_ISA, "unknown instruction set, or this CPU does not have it");
    /* The limit keeps the count of 1024 threads within 63 bits. */
    if (pool == NULL || operations == NULL || rounds < 1 || rounds > INT64_C(1) << 36)
        return genie_fail(GENIE_ERROR_ARGUMENT, "a pointer is NULL, or rounds are not in 1..2^36");
    measurement m = {.rounds = rounds};
    switch (type) {
    case GENIE_TYPE_F32:
    case GENIE_TYPE_F16: /* products of F16 weights are float32 too */
        m.loop = kernels->peak_float;
        break;
    case GENIE_TYPE_Q4_0:
    case GENIE_TYPE_Q8_0:
        m.loop = kernels->peak_int8;
        break;
    case GENIE_PEAK_BLOCKS:
        m.loop = kernels->peak_blocks;
        break;
    default:
        return genie_fail(GENIE_ERROR_ARGUMENT, "there is no peak of such a type");
    }
    if (m.loop != NULL)
        genie_pool_run(pool, run, &m);
    *operations = m.operations;
    return GENIE_OK;
}
