/*
 * vpdpbusd on 256 bits: acc[i] + sum over 4 bytes of unsigned a * signed b. What ships is AVX-VNNI's own (VEX)
 * encoding. Two twins of the same arithmetic are built for machines that lack AVX-VNNI: GENIE_AVXVNNI_TWIN=evex is the
 * instruction as AVX-512 encodes it, for measuring; =avx2 is made of other instructions, for testing on any machine.
 */
#include <immintrin.h>

static inline __m256i dpbusd(__m256i acc, __m256i a, __m256i b) {
#if defined(GENIE_AVXVNNI_TWIN_AVX2)
    /* Even and odd bytes as int16, whose products and sums of two fit in int32. */
    const __m256i even =
        _mm256_madd_epi16(_mm256_and_si256(a, _mm256_set1_epi16(255)), _mm256_srai_epi16(_mm256_slli_epi16(b, 8), 8));
    const __m256i odd = _mm256_madd_epi16(_mm256_srli_epi16(a, 8), _mm256_srai_epi16(b, 8));
    return _mm256_add_epi32(acc, _mm256_add_epi32(even, odd));
#elif defined(GENIE_AVXVNNI_TWIN_EVEX)
    return _mm256_dpbusd_epi32(acc, a, b);
#else
    return _mm256_dpbusd_avx_epi32(acc, a, b);
#endif
}
