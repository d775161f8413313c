/*
 * genie_bench.h - single kernels of the C core, for tests and benchmarks. No program that plays a world needs it.
 *
 * Everything between the two CFFI marks is read by the Python layer.
 */
#ifndef GENIE_BENCH_H
#define GENIE_BENCH_H

#include "genie.h"

#if defined(__GNUC__) && !defined(_WIN32) /* on Windows CMake exports all symbols */
#pragma GCC visibility push(default)
#endif

#ifdef __cplusplus
extern "C" {
#endif

/* CFFI BEGIN */

/*
 * One matrix product y_MR = x_MC w_RC^T, for tests and benchmarks: packed once, run `repeats` times, activations
 * quantized each time.
 */
genie_status genie_matmul(const char *isa, genie_pool *pool, int32_t type, int32_t rows, int32_t columns, const void *w,
                          size_t bytes, const float *x_MC, int32_t m, int32_t repeats, float *y_MR);

/*
 * One attention, for tests and benchmarks: q_QHD over k_KHD, v_KHD, scale 1/sqrt(D), plus bias_HQK (NULL: none). `few`
 * chooses the kernel:
 *   0: the one for many queries.
 *   1: the one for a single query; -slope (K - 1 - j) is added to the score of key j.
 *   2: as 1, but each query has its own keys and values, k_QKHD and v_QKHD, as in a temporal window.
 *   3: as 1, in a window that has room for more keys.
 * bf16: operands are rounded to bf16. This needs D % 16 == 0, and gives GENIE_ERROR_ISA if the CPU has no bf16
 * products; with few > 0 the last key is the query's own. The kernel runs `repeats` times on one thread.
 */
genie_status genie_attention(const char *isa, int32_t queries, int32_t keys, int32_t heads, int32_t key_length,
                             const float *q_QHD, const float *k_KHD, const float *v_KHD, const float *bias_HQK,
                             float slope, int32_t few, int32_t bf16, int32_t repeats, float *y_QHD);

/*
 * Arithmetic only, for benchmarks: every thread of the pool runs `rounds` (up to 2^36) rounds of the multiply-add
 * instructions for weights of this type, without memory accesses. The caller's clock makes it a peak. operations: those
 * of all threads together, 2 per multiply-add; 0 where there is nothing to measure (scalar). type GENIE_PEAK_BLOCKS:
 * all instructions that blocks of Q8_0 take, including those for the scales (AVX-512 VNNI and AVX2; 0 elsewhere).
 */
typedef enum { GENIE_PEAK_BLOCKS = 256 } genie_peak_kind;
genie_status genie_peak(const char *isa, genie_pool *pool, int32_t type, int64_t rounds, int64_t *operations);

/* The core's own functions (base/maths.h), one value at a time: y[i] = f(x[i]). */
typedef enum {
    GENIE_MATHS_EXP = 0,
    GENIE_MATHS_LOG = 1,
    GENIE_MATHS_COS = 2, /* of 0 to pi / 2 */
    GENIE_MATHS_EXPF = 3,
    GENIE_MATHS_TANHF = 4,
    GENIE_MATHS_ERFF = 5,
    GENIE_MATHS_COUNT = 6
} genie_maths_function;
genie_status genie_maths(int32_t function, const double *x, int32_t n, double *y);

/* CFFI END */

#if defined(__GNUC__) && !defined(_WIN32)
#pragma GCC visibility pop
#endif

#ifdef __cplusplus
}
#endif
#endif
