/* The loops of genie_peak with AVX-512 VNNI: sixteen independent sums hide the latency of two units. */
#include <immintrin.h>

enum { PEAK_SUMS = 16 };

/* Marks a value as used; otherwise the compiler would remove what computes it. */
#define USE(vector) __asm__ volatile("" : : "v"(vector))

static int64_t peak_int8_avx512vnni(int64_t rounds) {
    const __m512i a = _mm512_set1_epi8(3), b = _mm512_set1_epi8(-5);
    __m512i sum[PEAK_SUMS];
    for (int i = 0; i < PEAK_SUMS; i++)
        sum[i] = _mm512_set1_epi32(i);
    for (int64_t round = 0; round < rounds; round++)
#pragma GCC unroll 16
        for (int i = 0; i < PEAK_SUMS; i++)
            sum[i] = _mm512_dpbusd_epi32(sum[i], a, b);
    for (int i = 0; i < PEAK_SUMS; i++)
        USE(sum[i]);
    return rounds * PEAK_SUMS * 64 * 2;
}

static int64_t peak_float_avx512vnni(int64_t rounds) {
    const __m512 a = _mm512_set1_ps(0.5f), b = _mm512_set1_ps(1.0f);
    __m512 sum[PEAK_SUMS];
    for (int i = 0; i < PEAK_SUMS; i++)
        sum[i] = _mm512_set1_ps((float)i);
    for (int64_t round = 0; round < rounds; round++)
#pragma GCC unroll 16
        for (int i = 0; i < PEAK_SUMS; i++)
            sum[i] = _mm512_fmadd_ps(sum[i], a, b); /* converges to 2: no infinity, no denormal */
    for (int i = 0; i < PEAK_SUMS; i++)
        USE(sum[i]);
    return rounds * PEAK_SUMS * 16 * 2;
}

/* One round: a block's eight groups of columns for six rows and two vectors of channels, and its scale. */
static int64_t peak_blocks_avx512vnni(int64_t rounds) {
    enum { BLOCK_SUMS = 12, GROUPS = 8 };
    const __m512i b = _mm512_set1_epi8(-5);
    __m512i a = _mm512_set1_epi8(3);
    const __m512 d = _mm512_set1_ps(1e-3f);
    __m512 total[BLOCK_SUMS];
    for (int i = 0; i < BLOCK_SUMS; i++)
        total[i] = _mm512_setzero_ps();
    for (int64_t round = 0; round < rounds; round++) {
        __m512i dot[BLOCK_SUMS];
        for (int i = 0; i < BLOCK_SUMS; i++)
            dot[i] = _mm512_setzero_si512();
#pragma GCC unroll 8
        for (int g = 0; g < GROUPS; g++)
            for (int i = 0; i < BLOCK_SUMS; i++) {
                __asm__("" : "+v"(a)); /* otherwise the twelve equal sums become one */
                dot[i] = _mm512_dpbusd_epi32(dot[i], a, b);
            }
        for (int i = 0; i < BLOCK_SUMS; i++)
            total[i] = _mm512_fmadd_ps(_mm512_cvtepi32_ps(dot[i]), d, total[i]);
    }
    for (int i = 0; i < BLOCK_SUMS; i++)
        USE(total[i]);
    return rounds * GROUPS * BLOCK_SUMS * 64 * 2;
}

#undef USE
