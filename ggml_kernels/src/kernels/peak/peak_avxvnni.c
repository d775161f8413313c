/* The loops of genie_peak with AVX-VNNI: twelve sums, as in quant_tile, hide the latency of two units. */
#include "../dpbusd.h"
#include "peak_avxvnni.h"

enum { SUMS = 12, GROUPS = 8 };

/* Marks a value as used; otherwise the compiler would remove what computes it. */
#define USE(vector) __asm__ volatile("" : : "x"(vector))
/* Marks a value as changed; otherwise products of constants would be computed once, before the loop. */
#define RENEW(vector) __asm__("" : "+x"(vector))

int64_t genie_peak_int8_avxvnni(int64_t rounds) {
    const __m256i a = _mm256_set1_epi8(3), b = _mm256_set1_epi8(-5);
    __m256i sum[SUMS];
    for (int i = 0; i < SUMS; i++)
        sum[i] = _mm256_set1_epi32(i);
    for (int64_t round = 0; round < rounds; round++)
#pragma GCC unroll 12
        for (int i = 0; i < SUMS; i++)
            sum[i] = dpbusd(sum[i], a, b);
    for (int i = 0; i < SUMS; i++)
        USE(sum[i]);
    return rounds * SUMS * 32 * 2;
}

/* One round: a block's eight groups of columns for three rows and four vectors of channels, and its scale. */
int64_t genie_peak_blocks_avxvnni(int64_t rounds) {
    const __m256i b = _mm256_set1_epi8(-5);
    __m256i a = _mm256_set1_epi8(3);
    const __m256 d = _mm256_set1_ps(1e-3f);
    float sum[SUMS * 8] __attribute__((aligned(32))) = {0}; /* in memory, as in quant_tile: no free registers */
    for (int64_t round = 0; round < rounds; round++) {
        __m256i dot[SUMS];
        for (int i = 0; i < SUMS; i++)
            dot[i] = _mm256_setzero_si256();
#pragma GCC unroll 8
        for (int g = 0; g < GROUPS; g++)
            for (int i = 0; i < SUMS; i++) {
                RENEW(a);
                dot[i] = dpbusd(dot[i], a, b);
            }
        for (int i = 0; i < SUMS; i++)
            _mm256_store_ps(sum + 8 * i, _mm256_fmadd_ps(_mm256_cvtepi32_ps(dot[i]), d, _mm256_load_ps(sum + 8 * i)));
    }
    for (int i = 0; i < SUMS; i++)
        USE(_mm256_load_ps(sum + 8 * i));
    return rounds * GROUPS * SUMS * 32 * 2;
}
