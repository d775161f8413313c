/*
 * Float vectors of VL lanes for the bodies in *_vector.h, which one file per ISA includes with its own flags and VL.
 * GCC/Clang vector extensions: the same source is AVX2, AVX-512 and NEON. Everything here is static.
 */
#include <stdint.h>
#include <string.h>
#if VL >= 8
#include <immintrin.h>
#endif

typedef float vf __attribute__((vector_size(4 * VL)));
typedef int32_t vi __attribute__((vector_size(4 * VL)));

/* Otherwise gcc folds a load into every multiplication that uses it, and so loads it once per row of a tile. */
#if defined(__wasm__)
#define KEEP_IN_REGISTER(vector) (void)0 /* the engine that compiles WebAssembly decides, not this compiler */
#elif defined(__aarch64__)
#define KEEP_IN_REGISTER(vector) __asm__("" : "+w"(vector))
#else
#define KEEP_IN_REGISTER(vector) __asm__("" : "+v"(vector))
#endif

static inline vf vf_load(const float *p) {
    vf v;
    memcpy(&v, p, sizeof v);
    return v;
}

static inline void vf_store(float *p, vf v) { memcpy(p, &v, sizeof v); }

static inline vf vf_select(vi mask, vf a, vf b) { return (vf)((mask & (vi)a) | (~mask & (vi)b)); }

/* a > b ? a : b, and a < b ? a : b. */
#if VL == 16
static inline vf vf_larger(vf a, vf b) { return (vf)_mm512_max_ps((__m512)a, (__m512)b); }
static inline vf vf_smaller(vf a, vf b) { return (vf)_mm512_min_ps((__m512)a, (__m512)b); }
#elif VL == 8
static inline vf vf_larger(vf a, vf b) { return (vf)_mm256_max_ps((__m256)a, (__m256)b); }
static inline vf vf_smaller(vf a, vf b) { return (vf)_mm256_min_ps((__m256)a, (__m256)b); }
#else
static inline vf vf_larger(vf a, vf b) { return vf_select(a > b, a, b); }
static inline vf vf_smaller(vf a, vf b) { return vf_select(a < b, a, b); }
#endif

/* Reductions fold halves onto each other: unlike a loop over lanes, the compiler keeps this in registers. */
typedef float vf4 __attribute__((vector_size(16)));
typedef int32_t vi4 __attribute__((vector_size(16)));
#if VL >= 8
typedef float vf8 __attribute__((vector_size(32)));
typedef int32_t vi8 __attribute__((vector_size(32)));
#endif

static inline float vf_sum(vf v) {
#if VL == 16
    const vf8 eight = __builtin_shufflevector(v, v, 0, 1, 2, 3, 4, 5, 6, 7) +
                      __builtin_shufflevector(v, v, 8, 9, 10, 11, 12, 13, 14, 15);
#elif VL == 8
    const vf8 eight = v;
#endif
#if VL >= 8
    const vf4 four =
        __builtin_shufflevector(eight, eight, 0, 1, 2, 3) + __builtin_shufflevector(eight, eight, 4, 5, 6, 7);
#else
    const vf4 four = v;
#endif
    return (four[0] + four[2]) + (four[1] + four[3]);
}

static inline float vf_max(vf v) {
#if VL == 16
    const vf8 low = __builtin_shufflevector(v, v, 0, 1, 2, 3, 4, 5, 6, 7);
    const vf8 high = __builtin_shufflevector(v, v, 8, 9, 10, 11, 12, 13, 14, 15);
    const vi8 above = high > low;
    const vf8 eight = (vf8)((above & (vi8)high) | (~above & (vi8)low));
#elif VL == 8
    const vf8 eight = v;
#endif
#if VL >= 8
    const vf4 a = __builtin_shufflevector(eight, eight, 0, 1, 2, 3);
    const vf4 b = __builtin_shufflevector(eight, eight, 4, 5, 6, 7);
    const vi4 larger = b > a;
    const vf4 four = (vf4)((larger & (vi4)b) | (~larger & (vi4)a));
#else
    const vf4 four = v;
#endif
    float top = four[0];
    for (int i = 1; i < 4; i++)
        top = four[i] > top ? four[i] : top;
    return top;
}

static inline int32_t vi_top(vi v) {
#if VL == 16
    return _mm512_reduce_max_epi32((__m512i)v);
#else
#if VL == 8
    const vi8 eight = v;
#endif
#if VL >= 8
    const vi4 a = __builtin_shufflevector(eight, eight, 0, 1, 2, 3);
    const vi4 b = __builtin_shufflevector(eight, eight, 4, 5, 6, 7);
    const vi4 larger = b > a, four = (larger & b) | (~larger & a);
#else
    const vi4 four = v;
#endif
    const int32_t x = four[0] > four[1] ? four[0] : four[1], y = four[2] > four[3] ? four[2] : four[3];
    return x > y ? x : y;
#endif
}

#if VL == 16
/*
 * e^x = 2^t, with a relative error of 2e-7 and 6e-8 of t: a polynomial in the fractional part of t. scalef itself takes
 * the floor of t, and underflows and overflows correctly. NaN stays NaN, and e^0 is 1.
 */
static inline vf vf_exp(vf x) {
    const __m512 t = _mm512_mul_ps((__m512)x, _mm512_set1_ps(1.44269504088896341f));
    const __m512 r = _mm512_reduce_ps(t, _MM_FROUND_TO_NEG_INF | _MM_FROUND_NO_EXC);
    __m512 p = _mm512_set1_ps(1.867130070e-03f);
    p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(9.017030322e-03f));
    p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(5.579991310e-02f));
    p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(2.401644502e-01f));
    p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(6.931513118e-01f));
    p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(1.0f));
    return (vf)_mm512_scalef_ps(p, t);
}
#else
/* e^x to about 1e-7 relative (Cephes' expf): x = n ln 2 + r, a polynomial in r, 2^n through the exponent bits. */
static inline vf vf_exp(vf x) {
    const vf zero = {0};
    const vf low = zero - 87.0f, high = zero + 88.0f;
    x = vf_smaller(vf_larger(x, low), high);
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
#endif

/* Adds the two halves of a vector, in double. */
typedef double vd __attribute__((vector_size(4 * VL)));
static inline vd vd_halves(vf v) {
#if VL == 16
    const __m256 high = _mm256_castpd_ps(_mm512_extractf64x4_pd((__m512d)v, 1));
    return (vd)_mm512_add_pd(_mm512_cvtps_pd(_mm512_castps512_ps256((__m512)v)), _mm512_cvtps_pd(high));
#elif VL == 8
    return __builtin_convertvector(__builtin_shufflevector(v, v, 0, 1, 2, 3), vd) +
           __builtin_convertvector(__builtin_shufflevector(v, v, 4, 5, 6, 7), vd);
#else
    return __builtin_convertvector(__builtin_shufflevector(v, v, 0, 1), vd) +
           __builtin_convertvector(__builtin_shufflevector(v, v, 2, 3), vd);
#endif
}

static inline double vd_sum(vd v) {
#if VL == 16
    return _mm512_reduce_add_pd((__m512d)v);
#else
    double sum = 0;
    for (int i = 0; i < VL / 2; i++)
        sum += v[i];
    return sum;
#endif
}
