/* genie_attention: one attention on plain rows in memory, for tests and benchmarks. */
#include "../kernels.h"
#include "genie_bench.h"
#include "../../base/error.h"
#include "../../base/memory.h"

#include <math.h>
#include <string.h>

enum { MAX_HEADS = 512 };

/* Lays out one head's window for attention_past_bf16, from rows of HD values. */
static void lay_out_window(const uint16_t *k, const uint16_t *v, int32_t wide, int32_t keys, size_t HD, int32_t D,
                           uint16_t *kp, uint16_t *vp) {
    for (int32_t j = 0; j < keys; j++)
        for (int32_t c = 0; c < D; c++) {
            const size_t from = (size_t)j * HD + (size_t)c, panel = (size_t)(j / wide);
            const size_t at = (panel * (size_t)(D / 2) + (size_t)(c / 2)) * (size_t)wide + (size_t)(j % wide);
            kp[at * 2 + c % 2] = k[from];
            vp[((size_t)(j / 2) * (size_t)D + (size_t)c) * 2 + j % 2] = v[from];
        }
}

/* Lays out one head's keys and values for attention_bf16, from rows of HD values. */
static void lay_out_bf16(const genie_kernels *kernels, const float *k, const float *v, int32_t keys, int32_t HD,
                         int32_t D, uint16_t *kp, uint16_t *vp) {
    enum { HALF = GENIE_KEY_PANEL / 2 };
    for (int32_t j = 0; j < keys; j += HALF)
        kernels->keys_bf16(k + (size_t)j * (size_t)HD, HD, keys - j < HALF ? keys - j : HALF, j % GENIE_KEY_PANEL, D,
                           kp + (size_t)(j / GENIE_KEY_PANEL * GENIE_KEY_PANEL) * (size_t)D);
    for (int32_t j = 0; j < keys; j += 2) {
        const float *row = v + (size_t)j * (size_t)HD;
        kernels->values_bf16(row, j + 1 < keys ? row + HD : NULL, D, vp + (size_t)j * (size_t)D);
    }
}

static void lay_out(const float *k, int32_t keys, size_t HD, int32_t D, float *kt) {
    for (int32_t j = 0; j < keys; j++)
        for (int32_t c = 0; c < D; c++)
            kt[((size_t)(j / GENIE_KEY_PANEL) * (size_t)D + (size_t)c) * GENIE_KEY_PANEL + j % GENIE_KEY_PANEL] =
                k[(size_t)j * HD + (size_t)c];
}

genie_status genie_attention(const char *isa, int32_t queries, int32_t keys, int32_t heads, int32_t key_length,
                             const float *q_QHD, const float *k_KHD, const float *v_KHD, const float *bias_HQK,
                             float slope, int32_t few, int32_t bf16, int32_t repeats, float *y_QHD) {
    const genie_kernels *kernels = genie_kernels_find(isa);
    if (kernels == NULL || (bf16 && kernels->to_bf16 == NULL))
        return genie_fail(GENIE_ERROR_ISA, "unknown instruction set, or this CPU does not have it");
    if (q_QHD == NULL || k_KHD == NULL || v_KHD == NULL || y_QHD == NULL || queries < 1 || queries > 1 << 20 ||
        keys < 1 || keys > 1 << 20 || heads < 1 || heads > MAX_HEADS || key_length < 1 ||
        key_length > GENIE_MAX_KEY_LENGTH || few < 0 || few > 3 || (few && keys > GENIE_MAX_CONTEXT) ||
        (bf16 && key_length % 16 != 0) || repeats < 1)
        return genie_fail(GENIE_ERROR_ARGUMENT, "a pointer is NULL, or a count is out of range");
    const int32_t D = key_length, HD = heads * D;
    const int32_t key_rows = few == 2 ? queries * keys : keys;
    const int32_t past_panel = few == 3 ? GENIE_PAST_PANEL : genie_past_panel(keys);
    const size_t panel = few ? (size_t)past_panel : GENIE_KEY_PANEL;
    const size_t padded = ((size_t)keys + panel - 1) / panel * panel;
    const size_t head = padded * (size_t)D, row = (size_t)HD;
    const float scale = 1.0f / sqrtf((float)D);
    /* Holds kt; or for bf16 the kp of every head, then their vp, and the rounded q, k, v. */
    const size_t windows = (size_t)heads * (size_t)(few == 2 ? queries : 1);
    const size_t bytes = bf16  ? 2 * (2 * windows * head + ((size_t)queries + 2 * (size_t)key_rows) * row)
                         : few ? 0
                               : head * sizeof(float);
    void *storage = genie_alloc(bytes);
    if (storage == NULL)
        return genie_fail(GENIE_ERROR_MEMORY, "out of memory");
    memset(storage, 0, bytes);
    float *kt = storage;
    uint16_t *kp = storage, *vp = kp + windows * head, *q16 = vp + windows * head, *k16 = q16 + (size_t)queries * row;
    uint16_t *v16 = k16 + (size_t)key_rows * row;
    for (int32_t i = 0; bf16 && i < queries; i++)
        kernels->to_bf16(q_QHD + (size_t)i * row, HD, q16 + (size_t)i * row);
    for (int32_t j = 0; bf16 && j < key_rows; j++) {
        kernels->to_bf16(k_KHD + (size_t)j * row, HD, k16 + (size_t)j * row);
        kernels->to_bf16(v_KHD + (size_t)j * row, HD, v16 + (size_t)j * row);
    }
    for (int32_t h = 0; !few && h < heads; h++) {
        const size_t at = (size_t)h * (size_t)D;
        if (bf16)
            lay_out_bf16(kernels, k_KHD + at, v_KHD + at, keys, HD, D, kp, vp);
        else
            lay_out(k_KHD + at, keys, row, D, kt);
        const size_t scores = (size_t)h * (size_t)queries * (size_t)keys;
        const float *bias = bias_HQK == NULL ? NULL : bias_HQK + scores;
        for (int32_t time = 0; time < repeats; time++) {
            if (bf16)
                kernels->attention_bf16(q16 + at, HD, queries, kp, vp, D, keys, D, scale, bias, keys, y_QHD + at, HD);
            else
                kernels->attention(q_QHD + at, HD, queries, kt, v_KHD + at, HD, keys, D, scale, bias, keys, y_QHD + at,
                                   HD);
        }
    }
    float slopes[MAX_HEADS];
    for (int32_t h = 0; h < heads; h++)
        slopes[h] = slope;
    /* The last key is the query's own. */
    const size_t own = (size_t)(keys - 1) * row;
    for (size_t i = 0; few && bf16 && i < windows; i++) {
        const size_t from = i / (size_t)heads * (size_t)keys * row + i % (size_t)heads * (size_t)D;
        lay_out_window(k16 + from, v16 + from, past_panel, keys - 1, row, D, kp + i * head, vp + i * head);
    }
    for (int64_t i = 0; few && i < (int64_t)repeats * queries; i++) {
        const size_t query = (size_t)(i % queries), to = query * row;
        const size_t from = few == 2 ? query * (size_t)keys * row : 0;
        const size_t window = few == 2 ? query * (size_t)heads * head : 0;
        if (bf16)
            kernels->attention_past_bf16(q16 + to, k16 + from + own, v16 + from + own, kp + window, vp + window, head,
                                         past_panel, keys - 1, heads, D, scale, slopes, y_QHD + to);
        for (int32_t h = 0; !bf16 && h < heads; h++)
            kernels->attention_one(q_QHD + to + h * D, k_KHD + from + h * D, v_KHD + from + h * D, HD, keys, D, scale,
                                   slope, y_QHD + to + h * D);
    }
    genie_release(storage);
    return GENIE_OK;
}
