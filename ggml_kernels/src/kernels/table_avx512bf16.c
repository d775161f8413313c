/* The AVX-512 BF16 kernels: those of AVX-512 VNNI, and attention of quantized stacks with bf16 products. */
#define VL 16
#include "table_vector.h"

#include "attention/attention_bf16.h"
#include "peak/peak_avx512vnni.h"

const genie_kernels genie_kernels_avx512bf16 = {
    .name = "avx512bf16",
    VECTOR_KERNELS,
    .matmul = &genie_matmul_avx512vnni,
    .attention_bf16 = attention_bf16_avx512,
    .attention_past_bf16 = attention_past_bf16_avx512,
    .keys_bf16 = keys_bf16_avx512,
    .values_bf16 = values_bf16_avx512,
    .to_bf16 = to_bf16_avx512,
    .prefers_bf16 = 1,
    .peak_int8 = peak_int8_avx512vnni,
    .peak_float = peak_float_avx512vnni,
    .peak_blocks = peak_blocks_avx512vnni,
};
