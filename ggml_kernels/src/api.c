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

genie_status genie_attention(const char *isa, int32_t queries, int32_t keys, int32_t heads, int32_t key_length,
                             const float *q_QHD, const float *k_KHD, const float *v_KHD, int32_t few, float *y_QHD) {
    const genie_kernels *kernels = genie_kernels_find(isa);
    if (kernels == NULL)
        return GENIE_ERROR_ISA;
    if (q_QHD == NULL || k_KHD == NULL || v_KHD == NULL || y_QHD == NULL || queries < 1 || keys < 1 || keys > 1 << 20 ||
        heads < 1 || heads > 512 || key_length < 1 || key_length > GENIE_MAX_KEY_LENGTH ||
        (few && keys > GENIE_MAX_CONTEXT))
        return GENIE_ERROR_ARGUMENT;
    const int32_t D = key_length, HD = heads * D, stride = (keys + 15) / 16 * 16;
    const float scale = 1.0f / sqrtf((float)D);
    float *kt = genie_alloc((size_t)D * (size_t)stride * sizeof(float));
    if (kt == NULL)
        return GENIE_ERROR_MEMORY;
    memset(kt, 0, (size_t)D * (size_t)stride * sizeof(float));
    for (int32_t h = 0; h < heads; h++) {
        const size_t at = (size_t)h * (size_t)D;
        for (int32_t j = 0; j < keys; j++)
            for (int32_t c = 0; c < D; c++)
                kt[(size_t)c * (size_t)stride + (size_t)j] = k_KHD[(size_t)j * (size_t)HD + at + (size_t)c];
        if (few)
            for (int32_t i = 0; i < queries; i++) {
                const size_t row = (size_t)i * (size_t)HD + at;
                kernels->attention_one(q_QHD + row, k_KHD + at, v_KHD + at, HD, keys, D, scale, y_QHD + row);
            }
        else
            kernels->attention(q_QHD + at, HD, queries, kt, stride, v_KHD + at, HD, keys, D, scale, y_QHD + at, HD);
    }
    genie_release(kt);
    return GENIE_OK;
}
