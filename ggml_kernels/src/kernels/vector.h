/*
 * Float vectors of VL lanes for the bodies in *_vector.h, which one file per ISA includes with its own flags and VL.
 * GCC/Clang vector extensions: the same source is AVX2, AVX-512 and NEON. Everything here is static.
 */
#include <stdint.h>
#include <string.h>

typedef float vf __attribute__((vector_size(4 * VL)));
typedef int32_t vi __attribute__((vector_size(4 * VL)));

static inline vf vf_load(const float *p) {
    vf v;
    memcpy(&v, p, sizeof v);
    return v;
}

static inline void vf_store(float *p, vf v) { memcpy(p, &v, sizeof v); }

static inline float vf_sum(vf v) {
    float sum[VL];
    memcpy(sum, &v, sizeof v);
    for (int32_t width = VL / 2; width > 0; width /= 2)
        for (int32_t i = 0; i < width; i++)
            sum[i] += sum[i + width];
    return sum[0];
}

static inline float vf_max(vf v) {
    float top = v[0];
    for (int32_t i = 1; i < VL; i++)
        top = v[i] > top ? v[i] : top;
    return top;
}

static inline vf vf_select(vi mask, vf a, vf b) { return (vf)((mask & (vi)a) | (~mask & (vi)b)); }

/* e^x to about 1e-7 relative (Cephes' expf): x = n ln 2 + r, a polynomial in r, 2^n through the exponent bits. */
static inline vf vf_exp(vf x) {
    const vf zero = {0};
    const vf low = zero - 87.0f, high = zero + 88.0f;
    x = vf_select(x > low, x, low);
    x = vf_select(x < high, x, high);
    const vf magic = zero + 12582912.0f; /* 1.5 * 2^23: adding it rounds to a whole number */
    const vf n = (x * 1.44269504088896341f + magic) - magic;
    const vf r = (x - n * 0.693359375f) - n * -2.12194440e-4f;
    vf p = zero + 1.9875691500e-4f;
    p = p * r + 1.3981999507e-3f;
    p = p * r + 8.3334519073e-3f;
    p = p * r + 4.1665795894e-2f;
    p = p * r + 1.6666665459e-1f;
    p = p * r + 5.0000001201e-1f;
    p = p * r * r + r + 1.0f;
    const vi bits = (__builtin_convertvector(n, vi) + 127) << 23;
    return p * (vf)bits;
}
