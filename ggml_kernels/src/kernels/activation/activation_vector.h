/* FFN activations and softmax terms on vectors of the including file's ISA. */

/*
 * x (1 + erf(x / sqrt 2)) / 2 with erf(x / sqrt 2) = x P(x^2) / Q(x^2), fitted to 2e-8 up to where erf rounds to 1.
 * This needs no exponential, and only one division.
 */
static inline vf vf_gelu(vf x) {
    const vf zero = {0};
    const vf least = zero - 5.5437f, most = zero + 5.5437f;
    const vf z = vf_smaller(vf_larger(x, least), most);
    const vf u = z * z;
    vf p = zero + 4.49605864e-08f;
    p = p * u + 1.27044013e-05f;
    p = p * u + 3.41896113e-04f;
    p = p * u + 9.37974267e-03f;
    p = p * u + 6.81509450e-02f;
    p = p * u + 7.97884464e-01f;
    vf q = zero + 1.18967148e-06f;
    q = q * u + 7.42530974e-05f;
    q = q * u + 1.89648580e-03f;
    q = q * u + 2.87707075e-02f;
    q = q * u + 2.52080381e-01f;
    q = q * u + 1.0f;
    return 0.5f * x * (1.0f + z * p / q);
}

static inline vf vf_activate(int32_t kind, vf gate, vf x) {
    const vf zero = {0};
    switch ((genie_ffn_kind)kind) {
    case GENIE_FFN_GELU:
        return vf_gelu(x);
    case GENIE_FFN_GELU_TANH: /* (1 + tanh u) / 2 = 1 / (1 + e^(-2u)) */
        return x / (1.0f + vf_exp(-1.59576912160573072f * (x + 0.044715f * x * x * x)));
    case GENIE_FFN_RELU:
        return vf_larger(x, zero);
    case GENIE_FFN_RELU2:
        return vf_larger(x, zero) * vf_larger(x, zero);
    case GENIE_FFN_SWIGLU:
        return gate / (1.0f + vf_exp(-gate)) * x;
    case GENIE_FFN_GEGLU:
        return vf_gelu(gate) * x;
    case GENIE_FFN_COUNT: /* not a kind: genie_stack_create refuses it */
        break;
    }
    return x;
}

static void ffn_activation_vector(int32_t kind, const float *gate, float *up, int32_t n) {
    const int gated = genie_ffn_gated(kind);
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

static float softmax_terms_vector(const float *x, int32_t n, float inverse_temperature, float *e, double *sums) {
    float top = x[0];
    int32_t i = 0;
    if (n >= 4 * VL) {
        vf tops[4];
        for (int j = 0; j < 4; j++)
            tops[j] = vf_load(x + j * VL);
        for (i = 4 * VL; i + 4 * VL <= n; i += 4 * VL)
            for (int j = 0; j < 4; j++)
                tops[j] = vf_larger(vf_load(x + i + j * VL), tops[j]);
        top = vf_max(vf_larger(vf_larger(tops[0], tops[1]), vf_larger(tops[2], tops[3])));
    }
    for (; i < n; i++)
        top = x[i] > top ? x[i] : top;
    for (int32_t begin = 0; begin < n; begin += GENIE_SUM_STRETCH) {
        const int32_t end = n - begin < GENIE_SUM_STRETCH ? n : begin + GENIE_SUM_STRETCH;
        vf sum = {0}; /* so few terms that a float sum is as exact as the terms */
        for (i = begin; i + VL <= end; i += VL) {
            const vf term = vf_exp((vf_load(x + i) - top) * inverse_temperature);
            vf_store(e + i, term);
            sum += term;
        }
        double total = vd_sum(vd_halves(sum));
        if (i < end) {
            float rest[VL] = {0};
            memcpy(rest, x + i, (size_t)(end - i) * sizeof *rest);
            vf_store(rest, vf_exp((vf_load(rest) - top) * inverse_temperature));
            memcpy(e + i, rest, (size_t)(end - i) * sizeof *rest);
            for (int32_t j = 0; j < end - i; j++)
                total += (double)rest[j];
        }
        if (sums != NULL)
            sums[begin / GENIE_SUM_STRETCH] = total;
    }
    return top;
}

static void scaled_silu_vector(const float *x, const float *scale, const float *shift, int32_t n, float *y) {
    int32_t i = 0;
    for (; i + VL <= n; i += VL) {
        const vf z = vf_load(x + i) * vf_load(scale + i) + vf_load(shift + i);
        vf_store(y + i, z / (1.0f + vf_exp(-z)));
    }
    if (i < n) {
        float z[VL] = {0};
        for (int32_t j = i; j < n; j++)
            z[j - i] = x[j] * scale[j] + shift[j];
        const vf rest = vf_load(z);
        vf_store(z, rest / (1.0f + vf_exp(-rest)));
        memcpy(y + i, z, (size_t)(n - i) * sizeof *z);
    }
}
