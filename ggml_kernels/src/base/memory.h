/* Checked sizes and aligned allocation. */
#ifndef GENIE_MEMORY_H
#define GENIE_MEMORY_H

#include <stddef.h>
#include <stdint.h>

/* Sets *out = a * b and returns 1; returns 0 if the product overflows. */
static inline int genie_mul(size_t a, size_t b, size_t *out) {
    if (b != 0 && a > SIZE_MAX / b)
        return 0;
    *out = a * b;
    return 1;
}

/* At least `bytes` bytes, 64-byte aligned and not initialised; NULL when out of memory. */
void *genie_alloc(size_t bytes);
/* The same, zeroed. The pages of a large block come zeroed from the system, on their first touch. */
void *genie_alloc_zeroed(size_t bytes);
/* Frees memory from one of the two above; NULL is fine. */
void genie_release(void *memory);

/*
 * Memory that is freed all at once. It comes in few large pieces, so that the system can use huge pages. What is taken
 * from it is 64-byte aligned and not initialised. An all-zero struct is an empty arena.
 */
typedef struct {
    void *newest; /* the newest piece; it begins with a pointer to the piece before it */
    size_t used, size;
} genie_arena;

/* NULL when out of memory. */
void *genie_arena_take(genie_arena *arena, size_t bytes);
void genie_arena_free(genie_arena *arena);

#endif
