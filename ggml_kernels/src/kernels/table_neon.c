/* Advanced SIMD of every ARMv8-A: the vector bodies at 4 lanes, and this ISA's matrix products. */
#define VL 4
#include "table_vector.h"

#include "peak/peak_arm.h"

const genie_kernels genie_kernels_neon = {
    .name = "neon",
    VECTOR_KERNELS,
    .matmul = &genie_matmul_neon,
    .peak_int8 = peak_int8_arm,
    .peak_float = peak_float_arm,
};
