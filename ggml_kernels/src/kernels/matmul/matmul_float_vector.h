/* Float products on vectors of the including file's ISA: tiles of MR rows by two vectors of channels. */
enum { FLOAT_MR = VL == 16 ? 8 : 4 };

static inline __attribute__((always_inline)) void dot_float_tile(const float *x, int64_t x_stride, int rows, const float *panel, int32_t k,
                                  float *acc) {
    vf sum[FLOAT_MR][2];
    for (int r = 0; r < rows; r++)
        for (int v = 0; v < 2; v++)
            sum[r][v] = vf_load(acc + r * 2 * VL + v * VL);
    for (int32_t i = 0; i < k; i++) {
        const vf w0 = vf_load(panel + (int64_t)i * 2 * VL), w1 = vf_load(panel + (int64_t)i * 2 * VL + VL);
        for (int r = 0; r < rows; r++) {
            const float a = x[r * x_stride + i];
            sum[r][0] += w0 * a;
            sum[r][1] += w1 * a;
        }
    }
    for (int r = 0; r < rows; r++)
        for (int v = 0; v < 2; v++)
            vf_store(acc + r * 2 * VL + v * VL, sum[r][v]);
}

static void dot_float_vector(const float *x, int64_t x_stride, int32_t rows, const float *panel, int32_t k,
                             float *acc) {
    int32_t r = 0;
    for (; r + FLOAT_MR <= rows; r += FLOAT_MR)
        dot_float_tile(x + r * x_stride, x_stride, FLOAT_MR, panel, k, acc + r * 2 * VL);
    for (; r < rows; r++)
        dot_float_tile(x + r * x_stride, x_stride, 1, panel, k, acc + r * 2 * VL);
}
