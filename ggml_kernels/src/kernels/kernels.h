/* The kernels of one instruction set. A table is filled once per ISA; kernels/dispatch.c picks one. */
#ifndef GENIE_KERNELS_H
#define GENIE_KERNELS_H

#include "genie.h"

#define GENIE_MAX_KEY_LENGTH 1024
#define GENIE_MAX_CONTEXT 1024
#define GENIE_KEY_PANEL 32
#define GENIE_PAST_PANEL 16
#define GENIE_SHORT_PAST 4
#define GENIE_SUM_STRETCH 64

/* Keys per panel of a bf16 window for `frames` frames. */
static inline int32_t genie_past_panel(int32_t frames) {
    return frames <= GENIE_SHORT_PAST ? GENIE_SHORT_PAST : GENIE_PAST_PANEL;
}

/* Whether an FFN has a second matrix, whose product gates that of the first. The compiler warns if a kind has no
 * case here. */
static inline int genie_ffn_gated(int32_t kind) {
    switch ((genie_ffn_kind)kind) {
    case GENIE_FFN_SWIGLU:
    case GENIE_FFN_GEGLU:
        return 1;
    case GENIE_FFN_GELU:
    case GENIE_FFN_GELU_TANH:
    case GENIE_FFN_RELU:
    case GENIE_FFN_RELU2:
    case GENIE_FFN_COUNT:
        break;
    }
    return 0;
}

/* Kernels of the matmul folder, with the layout of packed panels; defined in kernels/matmul/matmul_kernels.h. */
struct genie_matmul_kernels;

typedef struct genie_kernels {
    const char *name;
    const struct genie_matmul_kernels *matmul;

    /* y = norm(x) * weight + bias over n values; an RMS norm has no bias. */
    void (*rms_norm)(const float *x, const float *weight, float epsilon, int32_t n, float *y);
    /* rms_norm of each of `heads` vectors of d values, in place. */
    void (*rms_norm_heads)(const float *weight, float epsilon, int32_t heads, int32_t d, float *x);
    void (*layer_norm)(const float *x, const float *weight, const float *bias, float epsilon, int32_t n, float *y);

    /* In place on n values of `up` (and `gate` for the gated kinds); see genie_ffn_kind. */
    void (*ffn_activation)(int32_t kind, const float *gate, float *up, int32_t n);

    /*
     * One head over many keys: y[n_q, d] = softmax(q k^T * scale) v. Keys come in transposed panels, [n_k / 32][d][32],
     * so that scores need no horizontal sums and are read in order. The last panel must be whole and finite. d <=
     * GENIE_MAX_KEY_LENGTH. A query's result does not depend on the other queries of the call. bias: n_q rows of n_k
     * values, added to the scores; or NULL.
     */
    void (*attention)(const float *q, int32_t q_stride, int32_t n_q, const float *kt, const float *v, int32_t v_stride,
                      int32_t n_k, int32_t d, float scale, const float *bias, int32_t bias_stride, float *y,
                      int32_t y_stride);

    /* One query over a few keys [n_k, d], contiguous in d; n_k <= GENIE_MAX_CONTEXT. slope * (n_k - 1 - j) is
     * subtracted from score j. */
    void (*attention_one)(const float *q, const float *k, const float *v, int32_t kv_stride, int32_t n_k, int32_t d,
                          float scale, float slope, float *y);

    /*
     * As `attention`, with operands rounded to bf16 (sums stay float), for quantized stacks whose d is a multiple of
     * 16. NULL if the CPU has no such products. Keys are in panels of pairs, kp[n_k / 32][d / 2][32][2]. Values of two
     * keys are side by side, vp[n_k / 2][v_stride][2], zero beyond n_k.
     */
    void (*attention_bf16)(const uint16_t *q, int32_t q_stride, int32_t n_q, const uint16_t *kp, const uint16_t *vp,
                           int32_t v_stride, int32_t n_k, int32_t d, float scale, const float *bias,
                           int32_t bias_stride, float *y, int32_t y_stride);
    /* Writes keys first..first+n-1 of a panel from n <= 16 rows; `first` is 0 or 16. */
    void (*keys_bf16)(const float *k, int32_t k_stride, int32_t n, int32_t first, int32_t d, uint16_t *panel);
    /* Interleaves two rows of n values, n a multiple of 16. If odd is NULL, zeros take its place. */
    void (*values_bf16)(const float *even, const float *odd, int32_t n, uint16_t *pairs);
    /*
     * For each of `heads` heads: one query over `past` <= GENIE_MAX_CONTEXT keys of a window, and over its own key k
     * and value v, whose weight stays float. The window is kp[past / panel][d / 2][panel][2] and vp[past / 2][d][2];
     * beyond `past` the last ones may hold anything. slope * (past - j) is subtracted from the score of key j; slopes
     * may be NULL (zeros). q, k, v, y: heads one after the other. window: values from one head's window to the next.
     * panel: GENIE_PAST_PANEL, or GENIE_SHORT_PAST if past is less than that.
     */
    void (*attention_past_bf16)(const uint16_t *q, const uint16_t *k, const uint16_t *v, const uint16_t *kp,
                                const uint16_t *vp, size_t window, int32_t panel, int32_t past, int32_t heads,
                                int32_t d, float scale, const float *slopes, float *y);
    /* Rounds to nearest, ties to even; subnormals become zero. */
    void (*to_bf16)(const float *x, int32_t n, uint16_t *y);
    int prefers_bf16; /* quantized stacks use the above; in the scalar table they are only a specification */

    /* y += bias + sum over `count` taps of w[k] * x[k], elementwise on n values. */
    void (*depthwise)(const float *const *x, const float *const *w, int32_t count, const float *bias, int32_t n,
                      float *y);
    /* For x[pixels, channels]: the sum of each channel's values, and of their squares. */
    void (*channel_sums)(const float *x, int32_t pixels, int32_t channels, float *sums, float *squares);
    /* y = silu(x * scale + shift) over n channels; y may be x. */
    void (*scaled_silu)(const float *x, const float *scale, const float *shift, int32_t n, float *y);

    /* Index of the first largest dot product z . codebook[v]. */
    int32_t (*nearest)(const float *codebook, int32_t codes, int32_t length, const float *z);

    /* max over n, then e[i] = exp((x[i] - max) * inverse_temperature). sums (may be NULL): the sum of each
     * GENIE_SUM_STRETCH terms. Returns max. */
    float (*softmax_terms)(const float *x, int32_t n, float inverse_temperature, float *e, double *sums);

    /* Multiply-adds on registers only. Return the number of operations, two per multiply-add. NULL: not measured. */
    int64_t (*peak_int8)(int64_t rounds);
    int64_t (*peak_float)(int64_t rounds);
    int64_t (*peak_blocks)(int64_t rounds);
} genie_kernels;

extern const genie_kernels genie_kernels_scalar;
#if defined(__x86_64__) || defined(_M_X64)
extern const genie_kernels genie_kernels_avx2;
extern const genie_kernels genie_kernels_avxvnni;
extern const genie_kernels genie_kernels_avx512vnni;
extern const genie_kernels genie_kernels_avx512bf16;
#elif defined(__aarch64__)
extern const genie_kernels genie_kernels_neon;
extern const genie_kernels genie_kernels_dotprod;
extern const genie_kernels genie_kernels_i8mm;
#elif defined(__wasm_simd128__)
extern const genie_kernels genie_kernels_simd128;
#endif

/* The table for a name, or for NULL the best that this CPU runs. NULL if the name is unknown or does not run here. */
const genie_kernels *genie_kernels_find(const char *name);

#endif
