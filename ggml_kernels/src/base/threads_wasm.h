/*
 * Threads in WebAssembly; threads.h includes this. A core with shared memory can have threads: the page makes a worker
 * for each (genie.mjs), which calls genie_wasm_run. In any other core a pool has one thread, and locks do nothing.
 */
#ifndef GENIE_THREADS_WASM_H
#define GENIE_THREADS_WASM_H

#define GENIE_THREAD void *

typedef int genie_thread;

#if defined(__wasm_atomics__)

#include <stdatomic.h>

typedef struct {
    atomic_int held;
} genie_mutex;

typedef struct {
    atomic_int turns;
} genie_condition;

/* Remembers what a worker shall run. Returns 1, or 0 if there are too many. */
int genie_thread_start(genie_thread *thread, void *(*entry)(void *), void *argument);
/* Waits until the worker has run it. */
void genie_thread_join(genie_thread thread);

/* The page asks for no more threads than there are CPUs. */
static inline int genie_cpus(void) { return 1 << 20; }

static inline void genie_sleep(atomic_int *while_it_is, int value) {
    __builtin_wasm_memory_atomic_wait32((int *)while_it_is, value, -1);
}

static inline void genie_wake(atomic_int *at, unsigned count) { __builtin_wasm_memory_atomic_notify((int *)at, count); }

/* There is nobody to yield to, so this only takes a while. */
static inline void genie_yield(void) {
    for (volatile int i = 0; i < 50; i++) {
    }
}

static inline int genie_mutex_create(genie_mutex *mutex) {
    atomic_init(&mutex->held, 0);
    return 1;
}

static inline int genie_condition_create(genie_condition *condition) {
    atomic_init(&condition->turns, 0);
    return 1;
}

static inline void genie_mutex_free(genie_mutex *mutex) { (void)mutex; }
static inline void genie_condition_free(genie_condition *condition) { (void)condition; }

static inline void genie_lock(genie_mutex *mutex) {
    while (atomic_exchange(&mutex->held, 1))
        genie_sleep(&mutex->held, 1);
}

static inline void genie_unlock(genie_mutex *mutex) {
    atomic_store(&mutex->held, 0);
    genie_wake(&mutex->held, 1);
}

static inline void genie_wake_all(genie_condition *condition) {
    atomic_fetch_add(&condition->turns, 1);
    genie_wake(&condition->turns, ~0u);
}

static inline void genie_wait(genie_condition *condition, genie_mutex *mutex) {
    const int turns = atomic_load(&condition->turns);
    genie_unlock(mutex);
    genie_sleep(&condition->turns, turns);
    genie_lock(mutex);
}

#else

typedef int genie_mutex, genie_condition;

static inline int genie_thread_start(genie_thread *thread, void *(*entry)(void *), void *argument) {
    (void)thread;
    (void)entry;
    (void)argument;
    return 0;
}

static inline int genie_cpus(void) { return 1; }
static inline int genie_mutex_create(genie_mutex *mutex) { return *mutex = 1; }
static inline int genie_condition_create(genie_condition *condition) { return *condition = 1; }
static inline void genie_thread_join(genie_thread thread) { (void)thread; }
static inline void genie_yield(void) {}
static inline void genie_mutex_free(genie_mutex *mutex) { (void)mutex; }
static inline void genie_condition_free(genie_condition *condition) { (void)condition; }
static inline void genie_lock(genie_mutex *mutex) { (void)mutex; }
static inline void genie_unlock(genie_mutex *mutex) { (void)mutex; }
static inline void genie_wake_all(genie_condition *condition) { (void)condition; }
static inline void genie_wait(genie_condition *condition, genie_mutex *mutex) {
    (void)condition;
    (void)mutex;
}

#endif
#endif
