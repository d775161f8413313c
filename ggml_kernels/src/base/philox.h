/* Philox4x32-10 (Salmon et al., SC'11): a number depends only on (seed, counter), not on the order of the calls. */
#ifndef GENIE_PHILOX_H
#define GENIE_PHILOX_H

#include <stdint.h>

static inline void genie_philox_block(uint64_t seed, uint32_t c[4]) {
    uint32_t k0 = (uint32_t)seed, k1 = (uint32_t)(seed >> 32);
    for (int round = 0; round < 10; round++) {
        const uint64_t p0 = (uint64_t)c[0] * 0xD2511F53u, p1 = (uint64_t)c[2] * 0xCD9E8D57u;
        const uint32_t next[4] = {(uint32_t)(p1 >> 32) ^ c[1] ^ k0, (uint32_t)p1, (uint32_t)(p0 >> 32) ^ c[3] ^ k1,
                                  (uint32_t)p0};
        for (int i = 0; i < 4; i++)
            c[i] = next[i];
        k0 += 0x9E3779B9u;
        k1 += 0xBB67AE85u;
    }
}

/* A number in (0, 1), as defined in docs/sampling.md. */
static inline double genie_uniform(uint64_t seed, uint32_t position, uint32_t step, uint32_t frame, uint32_t draw) {
    uint32_t c[4] = {position, step, frame, draw};
    genie_philox_block(seed, c);
    return ((double)c[0] + 0.5) * (1.0 / 4294967296.0);
}

#endif
