/*
 * The thread pool. Workers wait for a generation number to change. A parallel region ends with the same barrier that
 * separates its phases. MaskGIT steps follow each other within microseconds, so a waiting thread spins a little, then
 * yields, then sleeps. With fewer CPUs than threads no thread spins, because the thread it waits for may need this CPU.
 */
#include "threads.h"
#include "error.h"

#include "memory.h"
#include "pool.h"

#include <stdatomic.h>

enum {
    MAX_THREADS = 1024,
    IDLE_SPINS = 1000, /* about 30 us */
    IDLE_YIELDS = 8,
    BARRIER_SPINS = 400,
    BARRIER_YIELDS = 4000 /* about 1 ms if no other thread wants the CPU: waking takes longer than most waits */
};

/* What a worker is given. */
typedef struct {
    genie_pool *pool;
    int32_t thread;
} worker_start;

struct genie_pool {
    int32_t thread_count;
    int spins;       /* whether waiting threads spin */
    int32_t started; /* workers to join */
    genie_thread *workers;
    worker_start *starts; /* of the pool, because a worker may have no allocator (WebAssembly) */
    genie_mutex callers;  /* held for a whole region */
    genie_mutex sleeping;
    genie_condition wake;
    genie_task task; /* written by the caller before it advances the generation */
    void *context;
    int stop;
    _Alignas(64) atomic_uint generation;
    atomic_int sleepers;
    _Alignas(64) atomic_int arrived;
    _Alignas(64) atomic_uint phase; /* number of barriers passed; waiters watch it */
    atomic_int phase_sleepers;
    genie_condition passed;
};

static inline void relax(void) {
#if defined(__x86_64__) || defined(__i386__)
    __builtin_ia32_pause();
#elif defined(__aarch64__)
    __asm__ volatile("yield");
#endif
}

void genie_pool_barrier(genie_pool *pool) {
    if (pool->thread_count == 1)
        return;
    const unsigned phase = atomic_load_explicit(&pool->phase, memory_order_relaxed);
    if (atomic_fetch_add_explicit(&pool->arrived, 1, memory_order_acq_rel) == pool->thread_count - 1) {
        /* No thread arrives at the next barrier before the phase changes, so resetting `arrived` first is enough. */
        atomic_store_explicit(&pool->arrived, 0, memory_order_relaxed);
        atomic_store(&pool->phase, phase + 1);
        if (atomic_load(&pool->phase_sleepers) > 0) {
            genie_lock(&pool->sleeping);
            genie_wake_all(&pool->passed);
            genie_unlock(&pool->sleeping);
        }
        return;
    }
    for (int i = pool->spins ? 0 : BARRIER_SPINS; i < BARRIER_SPINS + BARRIER_YIELDS; i++) {
        if (atomic_load_explicit(&pool->phase, memory_order_acquire) != phase)
            return;
        if (i < BARRIER_SPINS)
            relax();
        else
            genie_yield();
    }
    genie_lock(&pool->sleeping);
    /* Both sides are sequentially consistent: this thread sees the new phase, or the last to arrive sees a sleeper. */
    atomic_fetch_add(&pool->phase_sleepers, 1);
    while (atomic_load(&pool->phase) == phase)
        genie_wait(&pool->passed, &pool->sleeping);
    atomic_fetch_sub(&pool->phase_sleepers, 1);
    genie_unlock(&pool->sleeping);
}

/* Returns the generation that ended the wait. */
static unsigned wait_for_work(genie_pool *pool, unsigned seen) {
    unsigned now;
    for (int i = pool->spins ? 0 : IDLE_SPINS; i < IDLE_SPINS + IDLE_YIELDS; i++) {
        now = atomic_load_explicit(&pool->generation, memory_order_acquire);
        if (now != seen)
            return now;
        if (i < IDLE_SPINS)
            relax();
        else
            genie_yield();
    }
    genie_lock(&pool->sleeping);
    /* Both sides are sequentially consistent: this thread sees the new generation, or the caller sees a sleeper. */
    atomic_fetch_add(&pool->sleepers, 1);
    while ((now = atomic_load(&pool->generation)) == seen)
        genie_wait(&pool->wake, &pool->sleeping);
    atomic_fetch_sub(&pool->sleepers, 1);
    genie_unlock(&pool->sleeping);
    return now;
}

static void advance(genie_pool *pool) {
    atomic_fetch_add(&pool->generation, 1);
    if (atomic_load(&pool->sleepers) > 0) {
        genie_lock(&pool->sleeping);
        genie_wake_all(&pool->wake);
        genie_unlock(&pool->sleeping);
    }
}

static GENIE_THREAD work(void *argument) {
    const worker_start *start = argument;
    genie_pool *pool = start->pool;
    for (unsigned seen = 0;;) {
        seen = wait_for_work(pool, seen);
        if (pool->stop)
            return 0;
        pool->task(pool->context, start->thread, pool->thread_count);
        genie_pool_barrier(pool);
    }
}

static void stop_workers(genie_pool *pool) {
    pool->stop = 1;
    advance(pool);
    for (int32_t i = 0; i < pool->started; i++)
        genie_thread_join(pool->workers[i]);
}

static genie_status start_workers(genie_pool *pool) {
    genie_status status = GENIE_OK;
    while (status == GENIE_OK && pool->started < pool->thread_count - 1) {
        worker_start *start = &pool->starts[pool->started];
        *start = (worker_start){pool, pool->started + 1};
        if (genie_thread_start(&pool->workers[pool->started], work, start))
            pool->started++;
        else
            status = GENIE_ERROR_THREAD;
    }
    if (status != GENIE_OK)
        stop_workers(pool);
    return status;
}

static void destroy(genie_pool *pool, int locks) {
    if (locks > 3)
        genie_condition_free(&pool->passed);
    if (locks > 2)
        genie_condition_free(&pool->wake);
    if (locks > 1)
        genie_mutex_free(&pool->sleeping);
    if (locks > 0)
        genie_mutex_free(&pool->callers);
    genie_release(pool->starts);
    genie_release(pool->workers);
    genie_release(pool);
}

genie_status genie_pool_create(int32_t thread_count, genie_pool **out) {
    if (out == NULL)
        return genie_fail(GENIE_ERROR_ARGUMENT, "a pointer is NULL");
    *out = NULL;
    if (thread_count < 1 || thread_count > MAX_THREADS)
        return genie_fail(GENIE_ERROR_ARGUMENT, "thread_count must be in 1..1024");
    genie_pool *pool = genie_alloc(sizeof *pool);
    if (pool == NULL)
        return genie_fail(GENIE_ERROR_MEMORY, "out of memory");
    pool->thread_count = thread_count;
    pool->spins = thread_count <= genie_cpus();
    pool->started = 0;
    pool->task = NULL;
    pool->context = NULL;
    pool->stop = 0;
    atomic_init(&pool->generation, 0);
    atomic_init(&pool->sleepers, 0);
    atomic_init(&pool->arrived, 0);
    atomic_init(&pool->phase, 0);
    atomic_init(&pool->phase_sleepers, 0);
    pool->workers = genie_alloc((size_t)thread_count * sizeof *pool->workers);
    pool->starts = genie_alloc((size_t)thread_count * sizeof *pool->starts);
    int locks = 0;
    genie_status status = pool->workers == NULL || pool->starts == NULL ? GENIE_ERROR_MEMORY : GENIE_OK;
    if (status == GENIE_OK) {
        locks += genie_mutex_create(&pool->callers);
        locks += locks == 1 && genie_mutex_create(&pool->sleeping);
        locks += locks == 2 && genie_condition_create(&pool->wake);
        locks += locks == 3 && genie_condition_create(&pool->passed);
        status = locks == 4 ? start_workers(pool) : GENIE_ERROR_THREAD;
    }
    if (status != GENIE_OK) {
        destroy(pool, locks);
        return genie_fail(status, status == GENIE_ERROR_MEMORY ? "out of memory" : "a thread could not be started");
    }
    *out = pool;
    return GENIE_OK;
}

void genie_pool_free(genie_pool *pool) {
    if (pool == NULL)
        return;
    stop_workers(pool);
    destroy(pool, 4);
}

void genie_pool_run(genie_pool *pool, genie_task task, void *context) {
    genie_lock(&pool->callers);
    if (pool->thread_count == 1) {
        task(context, 0, 1);
    } else {
        pool->task = task;
        pool->context = context;
        advance(pool);
        task(context, 0, pool->thread_count);
        genie_pool_barrier(pool);
    }
    genie_unlock(&pool->callers);
}

int32_t genie_pool_threads(const genie_pool *pool) { return pool->thread_count; }
