#include "memory.h"

#include <stdlib.h>
#if defined(_WIN32)
#include <malloc.h>
#endif

enum { ALIGNMENT = 64 };

void *genie_alloc(size_t bytes) {
    if (bytes > SIZE_MAX - ALIGNMENT)
        return NULL;
    /* aligned_alloc wants a multiple of the alignment; an empty request gets room too, so that NULL means failure. */
    const size_t rounded = bytes == 0 ? ALIGNMENT : (bytes + ALIGNMENT - 1) / ALIGNMENT * ALIGNMENT;
#if defined(_WIN32)
    return _aligned_malloc(rounded, ALIGNMENT);
#else
    return aligned_alloc(ALIGNMENT, rounded);
#endif
}

void genie_release(void *memory) {
#if defined(_WIN32)
    _aligned_free(memory);
#else
    free(memory);
#endif
}
