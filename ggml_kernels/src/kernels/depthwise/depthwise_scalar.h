/* One token of a depthwise convolution: the specification. */
static void depthwise_scalar(const float *const *x, const float *const *w, int32_t count, const float *bias, int32_t n,
                             float *y) {
    for (int32_t e = 0; e < n; e++) {
        float sum = bias[e];
        for (int32_t k = 0; k < count; k++)
            sum += w[k][e] * x[k][e];
        y[e] += sum;
    }
}
