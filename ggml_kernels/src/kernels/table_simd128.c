/* WebAssembly's 128-bit vectors: the vector bodies at 4 lanes, and this ISA's matrix products. */
#define VL 4
#include "table_vector.h"

const genie_kernels genie_kernels_simd128 = {
    .name = "simd128",
    VECTOR_KERNELS,
    .matmul = &genie_matmul_simd128,
};
