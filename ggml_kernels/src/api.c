/* The small public functions that belong to no folder: status texts, vector quantizer, single kernels for tests. */
#include "base/memory.h"
#include "kernels/kernels.h"

#include <math.h>
#include <string.h>

uint32_t genie_abi_version(void) { return GENIE_ABI_VERSION; }

const char *genie_status_text(int32_t status) {
    switch (status) {
    case GENIE_OK:
        return "ok";
    case GENIE_ERROR_ARGUMENT:
        return "an argument is out of range";
    case GENIE_ERROR_MEMORY:
        return "out of memory";
    case GENIE_ERROR_THREAD:
        return "a thread could not be started";
    case GENIE_ERROR_ISA:
        return "unknown instruction set, or this CPU does not have it";
    case GENIE_ERROR_STATE:
        return "the window is full or a weight is missing";
    default:
        return "unknown status";
    }
}

genie_status genie_vq_nearest(const char *isa, const float *codebook_VL, int32_t codes, int32_t length,
                              const float *z_ML, int32_t count, int32_t *ids_M) {
    const genie_kernels *kernels = genie_kernels_find(isa);
    if (kernels == NULL)
        return GENIE_ERROR_ISA;
    if (codebook_VL == NULL || z_ML == NULL || ids_M == NULL || codes < 1 || length < 1 || count < 0)
        return GENIE_ERROR_ARGUMENT;
    for (int32_t m = 0; m < count; m++)
        ids_M[m] = kernels->nearest(codebook_VL, codes, length, z_ML + (size_t)m * (size_t)length);
    return GENIE_OK;
}

genie_status genie_vq_lookup(const float *codebook_VL, int32_t codes, int32_t length, const int32_t *ids_M,
                             int32_t count, float *z_ML) {
    if (codebook_VL == NULL || z_ML == NULL || ids_M == NULL || codes < 1 || length < 1 || count < 0)
        return GENIE_ERROR_ARGUMENT;
    for (int32_t m = 0; m < count; m++) {
        if (ids_M[m] < 0 || ids_M[m] >= codes)
            return GENIE_ERROR_ARGUMENT;
        memcpy(z_ML + (size_t)m * (size_t)length, codebook_VL + (size_t)ids_M[m] * (size_t)length,
               (size_t)length * sizeof(float));
    }
    return GENIE_OK;
}

/* k in panels of pairs and v in pairs, as attention_bf16 wants one head. */
static void narrow_head(const genie_kernels *kernels, const float *k, const float *v, int32_t keys, int32_t HD,
                        int32_t D, uint16_t *kp, uint16_t *vp) {
    for (int32_t j = 0; j < keys; j++)
        for (int32_t c = 0; c < D; c++) {
            const size_t from = (size_t)j * (size_t)HD + (size_t)c, panel = (size_t)(j / GENIE_KEY_PANEL);
            const size_t at = (panel * (size_t)(D / 2) + (size_t)(c / 2)) * GENIE_KEY_PANEL + j % GENIE_KEY_PANEL;
            kernels->to_bf16(k + from, 1, kp + at * 2 + c % 2);
            kernels->to_bf16(v + from, 1, vp + ((size_t)(j / 2) * (size_t)D + (size_t)c) * 2 + j % 2);
        }
}

genie_status genie_attention(const char *isa, int32_t queries, int32_t keys, int32_t heads, int32_t key_length,
                             const float *q_QHD, const float *k_KHD, const float *v_KHD, int32_t few, int32_t bf16,
                             int32_t repeats, float *y_QHD) {
    const genie_kernels *kernels = genie_kernels_find(isa);
    if (kernels == NULL || (bf16 && kernels->to_bf16 == NULL))
        return GENIE_ERROR_ISA;
    if (q_QHD == NULL || k_KHD == NULL || v_KHD == NULL || y_QHD == NULL || queries < 1 || keys < 1 || keys > 1 << 20 ||
        heads < 1 || heads > 512 || key_length < 1 || key_length > GENIE_MAX_KEY_LENGTH ||
        (few && keys > GENIE_MAX_CONTEXT) || (bf16 && key_length % 32 != 0) || repeats < 1 ||
        queries > (1 << 30) / repeats)
        return GENIE_ERROR_ARGUMENT;
    const int32_t D = key_length, HD = heads * D;
    const size_t padded = (size_t)(keys + GENIE_KEY_PANEL - 1) / GENIE_KEY_PANEL * GENIE_KEY_PANEL;
    const size_t head = padded * (size_t)D, all = (size_t)(keys + queries) * (size_t)HD;
    const float scale = 1.0f / sqrtf((float)D);
    float *kt = genie_alloc(head * sizeof(float));
    uint16_t *kp = genie_alloc(head * 2), *vp = genie_alloc(head * 2), *rounded = genie_alloc(2 * all * 2);
    const genie_status status =
        kt == NULL || kp == NULL || vp == NULL || rounded == NULL ? GENIE_ERROR_MEMORY : GENIE_OK;
    for (int32_t h = 0; status == GENIE_OK && h < heads; h++) {
        const size_t at = (size_t)h * (size_t)D;
        memset(kt, 0, head * sizeof(float));
        memset(kp, 0, head * 2);
        memset(vp, 0, head * 2);
        for (int32_t j = 0; j < keys; j++)
            for (int32_t c = 0; c < D; c++)
                kt[((size_t)(j / GENIE_KEY_PANEL) * (size_t)D + (size_t)c) * GENIE_KEY_PANEL + j % GENIE_KEY_PANEL] =
                    k_KHD[(size_t)j * (size_t)HD + at + (size_t)c];
        uint16_t *q16 = rounded, *k16 = rounded + (size_t)queries * (size_t)HD, *v16 = rounded + all;
        if (bf16) {
            narrow_head(kernels, k_KHD + at, v_KHD + at, keys, HD, D, kp, vp);
            kernels->to_bf16(q_QHD, queries * HD, q16);
            kernels->to_bf16(k_KHD, keys * HD, k16);
            kernels->to_bf16(v_KHD, keys * HD, v16);
        }
        for (int32_t i = 0; few && i < queries * repeats; i++) {
            const size_t row = (size_t)(i % queries) * (size_t)HD + at;
            if (bf16)
                kernels->attention_one_bf16(q_QHD + row, k16 + at, v16 + at, HD, keys, D, scale, y_QHD + row);
            else
                kernels->attention_one(q_QHD + row, k_KHD + at, v_KHD + at, HD, keys, D, scale, y_QHD + row);
        }
        for (int32_t i = 0; !few && bf16 && i < repeats; i++)
            kernels->attention_bf16(q16 + at, HD, queries, kp, vp, D, keys, D, scale, y_QHD + at, HD);
        for (int32_t i = 0; !few && !bf16 && i < repeats; i++)
            kernels->attention(q_QHD + at, HD, queries, kt, v_KHD + at, HD, keys, D, scale, y_QHD + at, HD);
    }
    genie_release(kt);
    genie_release(kp);
    genie_release(vp);
    genie_release(rounded);
    return status;
}
