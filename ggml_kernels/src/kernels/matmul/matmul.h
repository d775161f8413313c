/* Matrix products y = x w^T + bias with packed weights: F32, F16, Q8_0, Q4_0. */
#ifndef GENIE_MATMUL_H
#define GENIE_MATMUL_H

#include "../../base/memory.h"
#include "genie.h"
#include "../../base/pool.h"

typedef struct genie_matrix genie_matrix;
struct genie_kernels; /* kernels/kernels.h: the table of one ISA */

/*
 * Activations of one product, quantized once and shared by all matrices that read the same rows (q, k, v). One scale
 * per span of columns of a row (up to 1024 columns, span_of in matmul.c): x = scale * q, q in -127..127. How q is
 * stored (s8, or u8 with +128) depends on the ISA. An all-zero span has scale 0. Columns are padded with zeros to a
 * multiple of 32.
 */
typedef struct {
    uint8_t *q_MC;   /* m rows, 64-byte aligned */
    float *scale_SM; /* [spans, m] */
    int32_t m;
} genie_activations;

/* Bytes for the quantized activations of m rows of `columns`. The caller provides this storage, 64-byte aligned. */
size_t genie_activations_bytes(int32_t m, int32_t columns);
genie_activations genie_activations_place(void *storage, int32_t m, int32_t columns);
/* The activations from row `i` on. */
genie_activations genie_activations_row(genie_activations a, int32_t columns, int32_t i);

/* Whether all numbers (quantized types: the scales of all blocks) are finite. `data` is in file format. */
int genie_weights_finite(int32_t type, const void *data, size_t bytes);

/* Copies and packs rows x columns weights (Q8_0, Q4_0: columns % 32 == 0). The matrix lives in the arena and is
 * freed with it. GENIE_ERROR_FINITE if a weight is not finite. */
genie_status genie_matrix_create(const struct genie_kernels *kernels, genie_pool *pool, genie_arena *arena,
                                 int32_t type, int32_t rows, int32_t columns, const void *data, size_t bytes,
                                 genie_matrix **matrix);
genie_status genie_matrix_set_bias(genie_matrix *matrix, const float *bias_R);
size_t genie_matrix_bytes(const genie_matrix *matrix);
int genie_matrix_quantized(const genie_matrix *matrix);

/*
 * Called by every thread of a parallel region with its index; each does its share. The caller puts a barrier between
 * quantize and run. Shares are by row of x (quantize) and by panel of output channels (run), never by column, so the
 * result does not depend on thread_count.
 */
void genie_activations_quantize(const struct genie_kernels *kernels, const float *x_MC, int32_t stride, int32_t m,
                                int32_t columns, genie_activations a, int32_t thread, int32_t thread_count);
/* y = x w^T + bias, or y += x w^T + bias. Quantized matrices read `a`, float ones read x_MC. */
void genie_matrix_run(const genie_matrix *matrix, genie_activations a, const float *x_MC, int32_t x_stride, int32_t m,
                      float *y_MR, int32_t y_stride, int accumulate, int32_t thread, int32_t thread_count);

#endif
