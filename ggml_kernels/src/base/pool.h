/* A persistent set of threads. One parallel region per stack call; barriers inside it. */
#ifndef GENIE_POOL_H
#define GENIE_POOL_H

#include "genie.h"

typedef void (*genie_task)(void *context, int32_t thread, int32_t thread_count);

/* Runs task on every thread of the pool (the caller is thread 0) and returns when all are done. */
void genie_pool_run(genie_pool *pool, genie_task task, void *context);
/* Inside a region: waits until every thread has come here. */
void genie_pool_barrier(genie_pool *pool);
int32_t genie_pool_threads(const genie_pool *pool);

/* The half-open share [*begin, *end) of `count` items for one thread. A smaller `count` never gives a thread more
 * items. */
static inline void genie_share(int32_t count, int32_t thread, int32_t thread_count, int32_t *begin, int32_t *end) {
    const int32_t each = count / thread_count, more = count % thread_count; /* the first `more` threads get one extra */
    *begin = each * thread + (thread < more ? thread : more);
    *end = *begin + each + (thread < more);
}

#endif
