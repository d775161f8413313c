/* Shared by the ARM files: the primitives that matmul_vector.h needs, at 4 lanes, in base Advanced SIMD. */
#define VL 4
#include "../vector.h"
#include "matmul_kernels.h"

#include <arm_neon.h>

enum { OFFSET = 0 };

static inline vf vf_fma(vf a, vf b, vf c) { return (vf)vfmaq_f32((float32x4_t)c, (float32x4_t)a, (float32x4_t)b); }
static inline vf vf_from_half(const uint16_t *p) { return (vf)vcvt_f32_f16(vreinterpret_f16_u16(vld1_u16(p))); }
static inline vf vf_all(float x) { return (vf)vdupq_n_f32(x); }
static inline vi vi_max(vi a, vi b) { return (vi)vmaxq_s32((int32x4_t)a, (int32x4_t)b); }

static inline void store_bytes(uint8_t *to, vf v) {
    /* If one operand is a NaN, fminnm returns the other. */
    const float32x4_t most = vdupq_n_f32(127.0f), least = vdupq_n_f32(-127.0f);
    const int32x4_t q = vcvtnq_s32_f32(vmaxnmq_f32(vminnmq_f32((float32x4_t)v, most), least));
    const int16x4_t words = vmovn_s32(q);
    const int8x8_t bytes = vmovn_s16(vcombine_s16(words, words));
    vst1_lane_u32((uint32_t *)(void *)to, vreinterpret_u32_s8(bytes), 0);
}
