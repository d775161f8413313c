/* FFN activations and softmax terms on vectors of the including file's ISA. */

/* erf(x) = sign(x) (1 - poly(t) e^(-x^2)), t = 1/(1 + 0.3275911 |x|), to 1.5e-7 (Abramowitz & Stegun 7.1.26). */
static inline vf vf_gelu(vf x) {
    const vf zero = {0};
    const vf z = x * 0.70710678118654752f;
    const vf a = vf_select(z < zero, -z, z);
    const vf t = 1.0f / (1.0f + 0.3275911f * a);
    vf p = zero + 1.061405429f;
    p = p * t - 1.453152027f;
    p = p * t + 1.421413741f;
    p = p * t - 0.284496736f;
    p = p * t + 0.254829592f;
    const vf erf = 1.0f - p * t * vf_exp(-a * a);
    return 0.5f * x * (1.0f + vf_select(z < zero, -erf, erf));
}

static inline vf vf_activate(int32_t kind, vf gate, vf x) {
    const vf zero = {0};
    switch (kind) {
    case GENIE_FFN_GELU:
        return vf_gelu(x);
    case GENIE_FFN_GELU_TANH: /* (1 + tanh u) / 2 = 1 / (1 + e^(-2u)) */
        return x / (1.0f + vf_exp(-1.59576912160573072f * (x + 0.044715f * x * x * x)));
    case GENIE_FFN_RELU:
        return vf_select(x > zero, x, zero);
    case GENIE_FFN_SWIGLU:
        return gate / (1.0f + vf_exp(-gate)) * x;
    default:
        return vf_gelu(gate) * x;
    }
}

static void ffn_activation_vector(int32_t kind, const float *gate, float *up, int32_t n) {
    const int gated = kind == GENIE_FFN_SWIGLU || kind == GENIE_FFN_GEGLU;
    int32_t i = 0;
    for (; i + VL <= n; i += VL) {
        const vf x = vf_load(up + i);
        vf_store(up + i, vf_activate(kind, gated ? vf_load(gate + i) : x, x));
    }
    if (i < n) {
        float x[VL] = {0}, g[VL] = {0};
        memcpy(x, up + i, (size_t)(n - i) * sizeof *x);
        if (gated)
            memcpy(g, gate + i, (size_t)(n - i) * sizeof *g);
        vf_store(x, vf_activate(kind, vf_load(g), vf_load(x)));
        memcpy(up + i, x, (size_t)(n - i) * sizeof *x);
    }
}

static float softmax_terms_vector(const float *x, int32_t n, float inverse_temperature, float *e) {
    float top = x[0];
    int32_t i = 0;
    if (n >= VL) {
        vf tops = vf_load(x);
        for (i = VL; i + VL <= n; i += VL) {
            const vf a = vf_load(x + i);
            tops = vf_select(a > tops, a, tops);
        }
        top = vf_max(tops);
    }
    for (; i < n; i++)
        top = x[i] > top ? x[i] : top;
    for (i = 0; i + VL <= n; i += VL)
        vf_store(e + i, vf_exp((vf_load(x + i) - top) * inverse_temperature));
    if (i < n) {
        float rest[VL] = {0};
        memcpy(rest, x + i, (size_t)(n - i) * sizeof *rest);
        vf_store(rest, vf_exp((vf_load(rest) - top) * inverse_temperature));
        memcpy(e + i, rest, (size_t)(n - i) * sizeof *rest);
    }
    return top;
}
