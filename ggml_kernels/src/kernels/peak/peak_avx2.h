/*
 * The loops of genie_peak with AVX2, which has 16 registers: twelve sums leave room for the operands of an FMA, and two
 * units of latency 4 or 5 need ten. An integer sum waits for one addition only, so six do, and none is spilled.
 */
#include <immintrin.h>

enum { PEAK_FLOAT_SUMS = 12, PEAK_INT8_SUMS = 6 };

/* Says that a value is used, or the compiler would leave out what made it. */
#define USE(vector) __asm__ volatile("" : : "x"(vector))
/* Says that a value may have changed, or products of constants would be computed once, before the loop. */
#define RENEW(vector) __asm__("" : "+x"(vector))

static int64_t peak_int8_avx2(int64_t rounds) {
    const __m256i b = _mm256_set1_epi8(-5), ones = _mm256_set1_epi16(1);
    __m256i a = _mm256_set1_epi8(3), sum[PEAK_INT8_SUMS];
    for (int i = 0; i < PEAK_INT8_SUMS; i++)
        sum[i] = _mm256_set1_epi32(i);
    for (int64_t round = 0; round < rounds; round++)
#pragma GCC unroll 6
        for (int i = 0; i < PEAK_INT8_SUMS; i++) {
            RENEW(a);
            sum[i] = _mm256_add_epi32(sum[i], _mm256_madd_epi16(_mm256_maddubs_epi16(a, b), ones));
        }
    for (int i = 0; i < PEAK_INT8_SUMS; i++)
        USE(sum[i]);
    return rounds * PEAK_INT8_SUMS * 32 * 2;
}

static int64_t peak_float_avx2(int64_t rounds) {
    const __m256 a = _mm256_set1_ps(0.5f), b = _mm256_set1_ps(1.0f);
    __m256 sum[PEAK_FLOAT_SUMS];
    for (int i = 0; i < PEAK_FLOAT_SUMS; i++)
        sum[i] = _mm256_set1_ps((float)i);
    for (int64_t round = 0; round < rounds; round++)
#pragma GCC unroll 12
        for (int i = 0; i < PEAK_FLOAT_SUMS; i++)
            sum[i] = _mm256_fmadd_ps(sum[i], a, b); /* goes to 2 and stays: no infinity, no denormal */
    for (int i = 0; i < PEAK_FLOAT_SUMS; i++)
        USE(sum[i]);
    return rounds * PEAK_FLOAT_SUMS * 8 * 2;
}

#undef USE
#undef RENEW
