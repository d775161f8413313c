/*
 * The loops of genie_peak with AVX2, which has 16 registers. Twelve sums leave room for the operands of an FMA, and two
 * units of latency 4 or 5 need ten. An integer sum waits for one addition only, so six sums are enough, and none is
 * spilled.
 */
#include <immintrin.h>

enum { PEAK_FLOAT_SUMS = 12, PEAK_INT8_SUMS = 6 };

/* Marks a value as used; otherwise the compiler would remove what computes it. */
#define USE(vector) __asm__ volatile("" : : "x"(vector))
/* Marks a value as changed; otherwise products of constants would be computed once, before the loop. */
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
            sum[i] = _mm256_fmadd_ps(sum[i], a, b); /* converges to 2: no infinity, no denormal */
    for (int i = 0; i < PEAK_FLOAT_SUMS; i++)
        USE(sum[i]);
    return rounds * PEAK_FLOAT_SUMS * 8 * 2;
}

/* One round: a block's eight groups of columns for six rows and a vector of channels, in two planes, and its scale. */
static int64_t peak_blocks_avx2(int64_t rounds) {
    enum { BLOCK_SUMS = 6, GROUPS = 8 };
    const __m256i b = _mm256_set1_epi8(-5), ones = _mm256_set1_epi16(1);
    const __m256 d = _mm256_set1_ps(1e-3f);
    __m256i a = _mm256_set1_epi8(3);
    float sum[BLOCK_SUMS * 8] __attribute__((aligned(32))) = {0}; /* in memory, as in plane_tile: no free registers */
    for (int64_t round = 0; round < rounds; round++) {
        __m256i dot[BLOCK_SUMS][2];
        for (int i = 0; i < BLOCK_SUMS; i++)
            dot[i][0] = dot[i][1] = _mm256_setzero_si256();
#pragma GCC unroll 8
        for (int g = 0; g < GROUPS; g++)
            for (int i = 0; i < BLOCK_SUMS; i++)
                for (int plane = 0; plane < 2; plane++) {
                    RENEW(a);
                    dot[i][plane] = _mm256_add_epi16(dot[i][plane], _mm256_maddubs_epi16(a, b));
                    RENEW(dot[i][plane]);
                }
        for (int i = 0; i < BLOCK_SUMS; i++) {
            const __m256i all =
                _mm256_add_epi32(_mm256_madd_epi16(dot[i][0], ones), _mm256_madd_epi16(dot[i][1], ones));
            float *to = sum + 8 * i;
            _mm256_store_ps(to, _mm256_fmadd_ps(_mm256_cvtepi32_ps(all), d, _mm256_load_ps(to)));
        }
    }
    for (int i = 0; i < BLOCK_SUMS; i++)
        USE(_mm256_load_ps(sum + 8 * i));
    return rounds * GROUPS * BLOCK_SUMS * 32 * 2;
}

#undef USE
#undef RENEW
