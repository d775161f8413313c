/* What the tables of all vector ISAs share: the bodies at VL lanes, compiled with the flags of the including file. */
#include "kernels.h"
#include "vector.h"

#include "activation/activation_vector.h"
#include "attention/attention_vector.h"
#include "depthwise/depthwise_vector.h"
#include "matmul/matmul_kernels.h"
#include "norm/norm_vector.h"
#include "vq/nearest_vector.h"

#define VECTOR_KERNELS                                                                                                 \
    .rms_norm = rms_norm_vector, .rms_norm_heads = rms_norm_heads_vector, .layer_norm = layer_norm_vector,             \
    .ffn_activation = ffn_activation_vector, .attention = attention_vector, .attention_one = attention_one_vector,     \
    .nearest = nearest_vector, .softmax_terms = softmax_terms_vector, .depthwise = depthwise_vector,                   \
    .channel_sums = channel_sums_vector, .scaled_silu = scaled_silu_vector
