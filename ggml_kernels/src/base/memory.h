/* Checked sizes and aligned allocation. */
#ifndef GENIE_MEMORY_H
#define GENIE_MEMORY_H

#include <stddef.h>
#include <stdint.h>

/* *out = a * b and 1, or 0 when the product does not fit. */
static inline int genie_mul(size_t a, size_t b, size_t *out) {
    if (b != 0 && a > SIZE_MAX / b)
        return 0;
    *out = a * b;
    return 1;
}

/* At least `bytes` bytes, 64-byte aligned and not initialised; NULL when there is no room. */
void *genie_alloc(size_t bytes);
/* The same, zeroed: pages of a large block come zeroed from the system, and only when they are touched. */
void *genie_alloc_zeroed(size_t bytes);
/* Frees what one of the above gave; NULL is fine. */
void genie_release(void *memory);

/*
 * Memory that is freed all at once, in few large pieces, of which the system makes huge pages: what is taken from it is
 * 64-byte aligned and not initialised. All zeros is an empty one.
 */
typedef struct {
    void *newest; /* piece, which holds where the one before it is */
    size_t used, size;
} genie_arena;

/* NULL when there is no room. */
void *genie_arena_take(genie_arena *arena, size_t bytes);
void genie_arena_free(genie_arena *arena);

#endif
