#if defined(__linux__)
#define _DEFAULT_SOURCE /* madvise */
#include <sys/mman.h>
#endif
#include "memory.h"

#include <stdlib.h>

/* Extra bytes of each block: the pointer to free, and padding to a cache line. */
enum { LINE = 64, HEAD = sizeof(void *) + LINE, HUGE_PAGE = 2 << 20 };

/*
 * The first touch of a page costs a page fault, and these faults take much of the time to load a model and to make its
 * first frame. With huge pages there are 512 times fewer. This is only advice: if the system has no huge pages, nothing
 * changes.
 */
static void prefer_huge_pages(void *raw, size_t bytes) {
#if defined(__linux__)
    const uintptr_t start = ((uintptr_t)raw + HUGE_PAGE - 1) / HUGE_PAGE * HUGE_PAGE;
    const uintptr_t end = ((uintptr_t)raw + bytes) / HUGE_PAGE * HUGE_PAGE;
    if (end > start)
        (void)madvise((void *)start, end - start, MADV_HUGEPAGE);
#else
    (void)raw;
    (void)bytes;
#endif
}

static void *place(void *raw, size_t bytes) {
    if (raw == NULL)
        return NULL;
    prefer_huge_pages(raw, bytes);
    void **block = (void **)(((uintptr_t)raw + sizeof(void *) + LINE - 1) / LINE * LINE);
    block[-1] = raw;
    return block;
}

void *genie_alloc(size_t bytes) { return bytes > SIZE_MAX / 2 ? NULL : place(malloc(bytes + HEAD), bytes + HEAD); }

void *genie_alloc_zeroed(size_t bytes) {
    return bytes > SIZE_MAX / 2 ? NULL : place(calloc(1, bytes + HEAD), bytes + HEAD);
}

void genie_release(void *memory) {
    if (memory != NULL)
        free(((void **)memory)[-1]);
}

void *genie_arena_take(genie_arena *arena, size_t bytes) {
    enum { SMALLEST = 1 << 20, LARGEST = 64 << 20 };
    if (bytes > SIZE_MAX / 4)
        return NULL;
    bytes = (bytes + LINE - 1) / LINE * LINE;
    if (bytes > arena->size - arena->used) {
        const size_t twice = arena->size < SMALLEST ? SMALLEST : arena->size < LARGEST / 2 ? 2 * arena->size : LARGEST;
        const size_t size = bytes + LINE > twice ? bytes + LINE : twice;
        void **piece = genie_alloc(size);
        if (piece == NULL)
            return NULL;
        *piece = arena->newest;
        *arena = (genie_arena){piece, LINE, size};
    }
    void *place = (char *)arena->newest + arena->used;
    arena->used += bytes;
    return place;
}

void genie_arena_free(genie_arena *arena) {
    for (void *piece = arena->newest; piece != NULL;) {
        void *before = *(void **)piece;
        genie_release(piece);
        piece = before;
    }
    *arena = (genie_arena){NULL, 0, 0};
}
