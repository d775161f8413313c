/*
 * The loops of genie_peak on ARM. The int8 instruction follows from the flags that the including table is compiled
 * with. Sixteen independent sums keep four units of latency 4 busy.
 */
#include <arm_neon.h>

enum { PEAK_SUMS = 16 };

/* Marks a value as used; otherwise the compiler would remove what computes it. */
#define USE(vector) __asm__ volatile("" : : "w"(vector))
/* Marks a value as changed; otherwise products of constants would be computed once, before the loop. */
#define RENEW(vector) __asm__("" : "+w"(vector))

#if defined(__ARM_FEATURE_MATMUL_INT8)
enum { PEAK_PRODUCTS = 32 };
static inline int32x4_t peak_add(int32x4_t sum, int8x16_t a, int8x16_t b) { return vmmlaq_s32(sum, a, b); }
#elif defined(__ARM_FEATURE_DOTPROD)
enum { PEAK_PRODUCTS = 16 };
static inline int32x4_t peak_add(int32x4_t sum, int8x16_t a, int8x16_t b) { return vdotq_s32(sum, a, b); }
#else
enum { PEAK_PRODUCTS = 16 };
static inline int32x4_t peak_add(int32x4_t sum, int8x16_t a, int8x16_t b) {
    return vpadalq_s16(sum, vmlal_high_s8(vmull_s8(vget_low_s8(a), vget_low_s8(b)), a, b));
}
#endif

static int64_t peak_int8_arm(int64_t rounds) {
    const int8x16_t b = vdupq_n_s8(-5);
    int8x16_t a = vdupq_n_s8(3);
    int32x4_t sum[PEAK_SUMS];
    for (int i = 0; i < PEAK_SUMS; i++)
        sum[i] = vdupq_n_s32(i);
    for (int64_t round = 0; round < rounds; round++)
#pragma GCC unroll 16
        for (int i = 0; i < PEAK_SUMS; i++) {
            RENEW(a);
            sum[i] = peak_add(sum[i], a, b);
        }
    for (int i = 0; i < PEAK_SUMS; i++)
        USE(sum[i]);
    return rounds * PEAK_SUMS * PEAK_PRODUCTS * 2;
}

static int64_t peak_float_arm(int64_t rounds) {
    const float32x4_t a = vdupq_n_f32(0.5f), b = vdupq_n_f32(1.0f);
    float32x4_t sum[PEAK_SUMS];
    for (int i = 0; i < PEAK_SUMS; i++)
        sum[i] = vdupq_n_f32((float)i);
    for (int64_t round = 0; round < rounds; round++)
#pragma GCC unroll 16
        for (int i = 0; i < PEAK_SUMS; i++)
            sum[i] = vfmaq_f32(b, sum[i], a); /* converges to 2: no infinity, no denormal */
    for (int i = 0; i < PEAK_SUMS; i++)
        USE(sum[i]);
    return rounds * PEAK_SUMS * 4 * 2;
}

#undef USE
#undef RENEW
