/* What the workers of a page run: see threads_wasm.h. Elsewhere this file is empty. */
#if defined(__wasm_atomics__)
#include "threads.h"

#include <stdint.h>

enum { MOST = 64 };

static struct {
    void *(*entry)(void *);
    void *argument;
    atomic_int finished;
} started[MOST];
static int32_t count;

int genie_thread_start(genie_thread *thread, void *(*entry)(void *), void *argument) {
    if (count == MOST)
        return 0;
    started[count].entry = entry;
    started[count].argument = argument;
    *thread = count++;
    return 1;
}

void genie_thread_join(genie_thread thread) {
    while (!atomic_load(&started[thread].finished))
        genie_sleep(&started[thread].finished, 0);
}

/* How many workers are wanted; the i-th calls genie_wasm_run(i), with a stack of its own. */
__attribute__((export_name("genie_wasm_wanted"))) int32_t genie_wasm_wanted(void) { return count; }

__attribute__((export_name("genie_wasm_run"))) void genie_wasm_run(int32_t i) {
    if (i < 0 || i >= count)
        return;
    started[i].entry(started[i].argument);
    atomic_store(&started[i].finished, 1);
    genie_wake(&started[i].finished, ~0u);
}
#else
typedef int genie_nothing; /* ISO C wants a declaration */
#endif
