/* The scalar kernels: the specification of all others, and the fallback where no other set runs. */
#include "kernels.h"

#include "activation/activation_scalar.h"
#include "attention/attention_bf16_scalar.h"
#include "attention/attention_scalar.h"
#include "depthwise/depthwise_scalar.h"
#include "matmul/matmul_kernels.h"
#include "norm/norm_scalar.h"
#include "vq/nearest_scalar.h"

const genie_kernels genie_kernels_scalar = {
    .name = "scalar",
    .matmul = &genie_matmul_scalar,
    .rms_norm = rms_norm_scalar,
    .rms_norm_heads = rms_norm_heads_scalar,
    .layer_norm = layer_norm_scalar,
    .ffn_activation = ffn_activation_scalar,
    .attention = attention_scalar,
    .attention_one = attention_one_scalar,
    .attention_bf16 = attention_bf16_scalar,
    .attention_past_bf16 = attention_past_bf16_scalar,
    .keys_bf16 = keys_bf16_scalar,
    .values_bf16 = values_bf16_scalar,
    .to_bf16 = to_bf16_scalar,
    .channel_sums = channel_sums_scalar,
    .scaled_silu = scaled_silu_scalar,
    .nearest = nearest_scalar,
    .softmax_terms = softmax_terms_scalar,
    .depthwise = depthwise_scalar,
};
