/* Preloaded: makes the n-th allocation or thread creation of libgenie fail, and none of other libraries. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

static atomic_long countdown = -1, seen; /* -1: nothing fails */
static atomic_uintptr_t first, last;     /* where the code of libgenie is */

/* symbol: any function of libgenie. nth: which call fails, from 0 on; -1: none, but count. */
__attribute__((visibility("default"))) void fail_at(void *symbol, uintptr_t size, long nth) {
    Dl_info info;
    if (dladdr(symbol, &info)) {
        atomic_store(&first, (uintptr_t)info.dli_fbase);
        atomic_store(&last, (uintptr_t)info.dli_fbase + size);
    }
    atomic_store(&seen, 0);
    atomic_store(&countdown, nth);
}

__attribute__((visibility("default"))) long calls_seen(void) { return atomic_load(&seen); }

static int fails(void *caller) {
    const uintptr_t at = (uintptr_t)caller;
    if (at < atomic_load(&first) || at >= atomic_load(&last))
        return 0;
    Dl_info info; /* the range is a guess, and another library may begin in it */
    if (!dladdr(caller, &info) || (uintptr_t)info.dli_fbase != atomic_load(&first))
        return 0;
    return atomic_fetch_add(&seen, 1) == atomic_load(&countdown);
}

#define REAL(name) ((__typeof__(&name))dlsym(RTLD_NEXT, #name))

void *malloc(size_t size) {
    static void *(*real)(size_t);
    if (real == NULL)
        real = REAL(malloc);
    if (fails(__builtin_return_address(0))) {
        errno = ENOMEM;
        return NULL;
    }
    return real(size);
}

/* dlsym itself calls calloc, before the real one is known. */
static char early[8192];
static size_t early_used;

void *calloc(size_t count, size_t size) {
    static void *(*real)(size_t, size_t);
    static int looking;
    if (real == NULL) {
        if (looking) {
            void *place = early + early_used;
            early_used += (count * size + 15) / 16 * 16;
            return early_used <= sizeof early ? place : NULL;
        }
        looking = 1;
        real = REAL(calloc);
    }
    if (fails(__builtin_return_address(0))) {
        errno = ENOMEM;
        return NULL;
    }
    return real(count, size);
}

void free(void *place) {
    static void (*real)(void *);
    if (real == NULL)
        real = REAL(free);
    if ((char *)place < early || (char *)place >= early + sizeof early)
        real(place);
}

int pthread_create(pthread_t *thread, const pthread_attr_t *attributes, void *(*run)(void *), void *context) {
    static int (*real)(pthread_t *, const pthread_attr_t *, void *(*)(void *), void *);
    if (real == NULL)
        real = REAL(pthread_create);
    return fails(__builtin_return_address(0)) ? EAGAIN : real(thread, attributes, run, context);
}
