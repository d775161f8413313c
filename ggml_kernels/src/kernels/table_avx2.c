/*
 * The AVX2 kernels: the vector bodies at 8 lanes, and this ISA's matrix products. AVX-VNNI has one more instruction,
 * and so only other matrix products.
 */
#define VL 8
#include "table_vector.h"

#include "peak/peak_avx2.h"
#include "peak/peak_avxvnni.h"

const genie_kernels genie_kernels_avx2 = {
    .name = "avx2",
    VECTOR_KERNELS,
    .matmul = &genie_matmul_avx2,
    .peak_int8 = peak_int8_avx2,
    .peak_float = peak_float_avx2,
    .peak_blocks = peak_blocks_avx2,
};

const genie_kernels genie_kernels_avxvnni = {
    .name = "avxvnni",
    VECTOR_KERNELS,
    .matmul = &genie_matmul_avxvnni,
    .peak_int8 = genie_peak_int8_avxvnni,
    .peak_float = peak_float_avx2,
    .peak_blocks = genie_peak_blocks_avxvnni,
};
