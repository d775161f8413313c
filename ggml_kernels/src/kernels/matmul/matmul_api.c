/* genie_matmul: one product from weights in file format, for tests and benchmarks. */
#include "../../base/error.h"
#include "matmul.h"
#include "../kernels.h"
#include "genie_bench.h"
#include "../../base/memory.h"

typedef struct {
    const genie_kernels *kernels;
    genie_pool *pool;
    const genie_matrix *matrix;
    genie_activations activations;
    const float *x_MC;
    int32_t rows, columns, m;
    float *y_MR;
} product;

/* As in a stack: if there are enough rows, each thread has its own. */
static void run(void *context, int32_t thread, int32_t thread_count) {
    enum { OWN_ROWS = 32 };
    const product *p = context;
    int32_t begin = 0, end = p->m;
    const int own = p->m >= OWN_ROWS * thread_count;
    if (own) {
        genie_share(p->m, thread, thread_count, &begin, &end);
        thread = 0;
        thread_count = 1;
    }
    const int32_t m = end - begin;
    const float *x = p->x_MC + (size_t)begin * (size_t)p->columns;
    genie_activations a = p->activations;
    if (genie_matrix_quantized(p->matrix)) {
        a = genie_activations_row(a, p->columns, begin);
        genie_activations_quantize(p->kernels, x, p->columns, m, p->columns, a, thread, thread_count);
        if (!own)
            genie_pool_barrier(p->pool);
    }
    genie_matrix_run(p->matrix, a, x, p->columns, m, p->y_MR + (size_t)begin * (size_t)p->rows, p->rows, 0, thread,
                     thread_count);
}

genie_status genie_matmul(const char *isa, genie_pool *pool, int32_t type, int32_t rows, int32_t columns, const void *w,
                          size_t bytes, const float *x_MC, int32_t m, int32_t repeats, float *y_MR) {
    const genie_kernels *kernels = genie_kernels_find(isa);
    if (kernels == NULL)
        return genie_fail(GENIE_ERROR_ISA, "unknown instruction set, or this CPU does not have it");
    if (pool == NULL || x_MC == NULL || y_MR == NULL || m < 1 || m > 1 << 24 || repeats < 1)
        return genie_fail(GENIE_ERROR_ARGUMENT, "a pointer is NULL, or m or repeats are out of range");
    genie_matrix *matrix;
    genie_arena arena = {NULL, 0, 0};
    const genie_status status = genie_matrix_create(kernels, pool, &arena, type, rows, columns, w, bytes, &matrix);
    if (status != GENIE_OK) {
        genie_arena_free(&arena);
        return status;
    }
    void *storage = NULL;
    product p = {.kernels = kernels,
                 .pool = pool,
                 .matrix = matrix,
                 .x_MC = x_MC,
                 .rows = rows,
                 .columns = columns,
                 .m = m,
                 .y_MR = y_MR};
    if (genie_matrix_quantized(matrix)) {
        storage = genie_alloc(genie_activations_bytes(m, columns));
        if (storage == NULL) {
            genie_arena_free(&arena);
            return genie_fail(GENIE_ERROR_MEMORY, "out of memory");
        }
        p.activations = genie_activations_place(storage, m, columns);
    }
    for (int32_t i = 0; i < repeats; i++)
        genie_pool_run(pool, run, &p);
    genie_release(storage);
    genie_arena_free(&arena);
    return GENIE_OK;
}
