/* FEAT_I8MM: the vector bodies at 4 lanes, and this ISA's matrix products. */
#define VL 4
#include "table_vector.h"

#include "peak/peak_arm.h"

const genie_kernels genie_kernels_i8mm = {
    .name = "i8mm",
    VECTOR_KERNELS,
    .matmul = &genie_matmul_i8mm,
    .peak_int8 = peak_int8_arm,
    .peak_float = peak_float_arm,
};
