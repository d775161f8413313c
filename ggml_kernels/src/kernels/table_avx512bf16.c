/* The AVX-512 BF16 kernels: those of AVX-512 VNNI, and attention of quantized stacks with bf16 products. */
#define VL 16
#include "kernels.h"
#include "vector.h"

#include "activation/activation_vector.h"
#include "attention/attention_vector.h"
#include "attention/attention_bf16.h"
#include "matmul/matmul_kernels.h"
#include "norm/norm_vector.h"
#include "peak/peak_avx512vnni.h"
#include "vq/nearest_vector.h"

const genie_kernels genie_kernels_avx512bf16 = {
    .name = "avx512bf16",
    .matmul = &genie_matmul_avx512vnni,
    .rms_norm = rms_norm_vector,
    .layer_norm = layer_norm_vector,
    .ffn_activation = ffn_activation_vector,
    .attention = attention_vector,
    .attention_one = attention_one_vector,
    .attention_bf16 = attention_bf16_avx512,
    .attention_one_bf16 = attention_one_bf16_avx512,
    .to_bf16 = to_bf16_avx512,
    .prefers_bf16 = 1,
    .peak_int8 = peak_int8_avx512vnni,
    .peak_float = peak_float_avx512vnni,
    .nearest = nearest_vector,
    .softmax_terms = softmax_terms_vector,
};
