/* IEEE half precision in plain C: exact for every value, subnormals, infinities and NaN included. */
#ifndef GENIE_HALF_H
#define GENIE_HALF_H

#include <stdint.h>
#include <string.h>

static inline float genie_half_to_float(uint16_t half) {
    const uint32_t sign = (uint32_t)(half & 0x8000u) << 16;
    uint32_t exponent = (half >> 10) & 0x1Fu, mantissa = half & 0x3FFu, bits;
    if (exponent == 0x1F) {
        /* Converting quietens a signalling NaN, as vcvtph2ps does. */
        bits = sign | 0x7F800000u | mantissa << 13 | (mantissa != 0 ? 0x00400000u : 0u);
    } else if (exponent != 0) {
        bits = sign | (exponent + 112) << 23 | mantissa << 13;
    } else if (mantissa == 0) {
        bits = sign;
    } else { /* a subnormal half is a normal float */
        exponent = 113;
        while ((mantissa & 0x400u) == 0) {
            mantissa <<= 1;
            exponent--;
        }
        bits = sign | exponent << 23 | (mantissa & 0x3FFu) << 13;
    }
    float value;
    memcpy(&value, &bits, sizeof value);
    return value;
}

/* From memory of any alignment. */
static inline float genie_half_load(const void *at) {
    uint16_t half;
    memcpy(&half, at, sizeof half);
    return genie_half_to_float(half);
}

#endif
