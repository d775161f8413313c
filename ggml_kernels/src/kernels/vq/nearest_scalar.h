/* Nearest code: the specification. Codes are unit vectors, so the nearest has the largest dot product. */
static int32_t nearest_scalar(const float *codebook, int32_t codes, int32_t length, const float *z) {
    int32_t best = 0;
    float best_dot = 0;
    for (int32_t v = 0; v < codes; v++) {
        float dot = 0;
        for (int32_t i = 0; i < length; i++)
            dot += codebook[(size_t)v * (size_t)length + (size_t)i] * z[i];
        if (v == 0 || dot > best_dot) {
            best = v;
            best_dot = dot;
        }
    }
    return best;
}
