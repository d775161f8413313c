/* Nearest code on vectors of the including file's ISA. */
static int32_t nearest_vector(const float *codebook, int32_t codes, int32_t length, const float *z) {
    int32_t best = 0;
    float best_dot = 0;
    for (int32_t v = 0; v < codes; v++) {
        const float dot = dot_vector(codebook + (size_t)v * (size_t)length, z, length);
        if (v == 0 || dot > best_dot) {
            best = v;
            best_dot = dot;
        }
    }
    return best;
}
