/* One token of a depthwise convolution on vectors of the including file's ISA. */
static void depthwise_vector(const float *const *x, const float *const *w, int32_t count, const float *bias, int32_t n,
                             float *y) {
    int32_t e = 0;
    for (; e + VL <= n; e += VL) {
        vf sum = vf_load(bias + e);
        for (int32_t k = 0; k < count; k++)
            sum += vf_load(w[k] + e) * vf_load(x[k] + e);
        vf_store(y + e, vf_load(y + e) + sum);
    }
    for (; e < n; e++) {
        float sum = bias[e];
        for (int32_t k = 0; k < count; k++)
            sum += w[k][e] * x[k][e];
        y[e] += sum;
    }
}
