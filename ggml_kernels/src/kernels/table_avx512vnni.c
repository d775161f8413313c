/* The AVX-512 VNNI kernels: the vector bodies at 16 lanes, and this ISA's matrix products. */
#define VL 16
#include "kernels.h"
#include "vector.h"

#include "activation/activation_vector.h"
#include "attention/attention_vector.h"
#include "matmul/matmul_kernels.h"
#include "norm/norm_vector.h"
#include "peak/peak_avx512vnni.h"
#include "vq/nearest_vector.h"

const genie_kernels genie_kernels_avx512vnni = {
    .name = "avx512vnni",
    .matmul = &genie_matmul_avx512vnni,
    .rms_norm = rms_norm_vector,
    .layer_norm = layer_norm_vector,
    .ffn_activation = ffn_activation_vector,
    .attention = attention_vector,
    .attention_one = attention_one_vector,
    .nearest = nearest_vector,
    .softmax_terms = softmax_terms_vector,
    .peak_int8 = peak_int8_avx512vnni,
    .peak_float = peak_float_avx512vnni,
};
