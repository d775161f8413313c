/* The AVX-512 VNNI kernels: the vector bodies at 16 lanes, and this ISA's matrix products. */
#define VL 16
#include "table_vector.h"

#include "peak/peak_avx512vnni.h"

const genie_kernels genie_kernels_avx512vnni = {
    .name = "avx512vnni",
    VECTOR_KERNELS,
    .matmul = &genie_matmul_avx512vnni,
    .peak_int8 = peak_int8_avx512vnni,
    .peak_float = peak_float_avx512vnni,
    .peak_blocks = peak_blocks_avx512vnni,
};
