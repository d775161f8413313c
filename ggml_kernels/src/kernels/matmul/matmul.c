/* The matrix object: packing, and sharing a product among threads. Only the ISA's kernels know a panel's layout. */
#include "../../base/assert.h"
#include "../../base/error.h"
#include "matmul.h"
#include "matmul_kernels.h"
#include "../kernels.h"
#include "../../base/memory.h"

#include <stdatomic.h>
#include <string.h>

enum {
    MAX_SIDE = 1 << 24,
    LINE = 64,
    ROW_QUANTUM = 12,  /* rows of x are shared in groups of this size, a multiple of every kernel's tile */
    MOST_CHANNELS = 64 /* of a panel */
};

struct genie_matrix {
    const struct genie_matmul_format *format;
    int32_t type, rows, columns, panels;
    size_t panel_bytes, bytes;
    uint8_t *packed;
    float *bias; /* [panels * panel_channels]; zeros until set */
};

static const struct genie_matmul_format *format_of(const struct genie_matmul_kernels *kernels, int32_t type) {
    switch (type) {
    case GENIE_TYPE_F32:
        return &kernels->f32;
    case GENIE_TYPE_F16:
        return &kernels->f16;
    case GENIE_TYPE_Q4_0:
        return &kernels->q4_0;
    case GENIE_TYPE_Q8_0:
        return &kernels->q8_0;
    default:
        return NULL;
    }
}

/* Bytes of one row in the file's format; 0 if there can be no such row. */
static size_t row_bytes_of(int32_t type, int32_t columns) {
    const size_t n = (size_t)columns;
    switch (type) {
    case GENIE_TYPE_F32:
        return n * 4;
    case GENIE_TYPE_F16:
        return n * 2;
    case GENIE_TYPE_Q4_0:
        return n % GENIE_BLOCK == 0 ? n / GENIE_BLOCK * GENIE_Q4_0_BYTES : 0;
    case GENIE_TYPE_Q8_0:
        return n % GENIE_BLOCK == 0 ? n / GENIE_BLOCK * GENIE_Q8_0_BYTES : 0;
    default:
        return 0;
    }
}

/* ---- activations ---- */

/*
 * Columns of a row of x that share a scale. In longer spans the largest value would round the others too coarsely:
 * beyond 1,024 columns the error against float exceeds 0.0095. Longer rows are therefore cut, into few spans because
 * each one costs time.
 */
static int32_t span_of(int32_t columns) {
    enum { ONE = 1024, OF_MORE = 768 };
    return columns <= ONE ? (columns + GENIE_BLOCK - 1) / GENIE_BLOCK * GENIE_BLOCK : OF_MORE;
}

static int32_t spans_of(int32_t columns) { return (columns + span_of(columns) - 1) / span_of(columns); }

static size_t span_bytes(int32_t span) { return (size_t)(span / GENIE_BLOCK) * (GENIE_BLOCK + GENIE_NOTE_BYTES); }

/* A quantized row is a sequence of spans, each followed by its notes (GENIE_NOTE_BYTES per block). */
static size_t row_stride(int32_t columns) {
    const size_t blocks = ((size_t)columns + GENIE_BLOCK - 1) / GENIE_BLOCK;
    return (blocks * (GENIE_BLOCK + GENIE_NOTE_BYTES) + LINE - 1) / LINE * LINE;
}

size_t genie_activations_bytes(int32_t m, int32_t columns) {
    size_t bytes;
    /* On overflow, a size that no allocation can satisfy. */
    if (m < 0 || columns < 0 ||
        !genie_mul((size_t)m, row_stride(columns) + (size_t)spans_of(columns) * sizeof(float), &bytes))
        return SIZE_MAX;
    return bytes;
}

genie_activations genie_activations_place(void *storage, int32_t m, int32_t columns) {
    uint8_t *q = storage;
    return (genie_activations){q, (float *)(void *)(q + (size_t)m * row_stride(columns)), m};
}

genie_activations genie_activations_row(genie_activations a, int32_t columns, int32_t i) {
    return (genie_activations){a.q_MC + (size_t)i * row_stride(columns), a.scale_SM + i, a.m};
}

void genie_activations_quantize(const struct genie_kernels *kernels, const float *x_MC, int32_t stride, int32_t m,
                                int32_t columns, genie_activations a, int32_t thread, int32_t thread_count) {
    const int32_t span = span_of(columns), spans = spans_of(columns);
    int32_t begin, end;
    genie_share(m, thread, thread_count, &begin, &end);
    for (int32_t i = begin; i < end; i++)
        for (int32_t s = 0; s < spans; s++) {
            const int32_t left = columns - s * span, here = left < span ? left : span;
            const int32_t padded = (here + GENIE_BLOCK - 1) / GENIE_BLOCK * GENIE_BLOCK;
            kernels->matmul->quantize_row(x_MC + (size_t)i * (size_t)stride + (size_t)s * (size_t)span, here, padded,
                                          a.q_MC + (size_t)i * row_stride(columns) + (size_t)s * span_bytes(span),
                                          a.scale_SM + (size_t)s * (size_t)a.m + i);
        }
}

/* ---- the matrix ---- */

typedef struct {
    const genie_matrix *matrix;
    const uint8_t *data;
    atomic_int infinite; /* a value or a block's scale is infinite or NaN */
} packing;

/* step (a constant): bytes from one number to the next. upper: where the 16 bits with its exponent begin. mask: the
 * exponent in these bits. */
static inline int all_finite(const uint8_t *data, size_t bytes, const size_t step, const size_t upper,
                             const uint32_t mask) {
    uint32_t found = 0;
    for (size_t i = 0; i < bytes; i += step)
        found |= (((uint32_t)data[i + upper] | (uint32_t)data[i + upper + 1] << 8) & mask) == mask;
    return !found;
}

int genie_weights_finite(int32_t type, const void *data, size_t bytes) {
    switch (type) {
    case GENIE_TYPE_F32:
        return all_finite(data, bytes, 4, 2, 0x7F80);
    case GENIE_TYPE_F16:
        return all_finite(data, bytes, 2, 0, 0x7C00);
    case GENIE_TYPE_Q4_0:
        return all_finite(data, bytes, GENIE_Q4_0_BYTES, 0, 0x7C00);
    default:
        return all_finite(data, bytes, GENIE_Q8_0_BYTES, 0, 0x7C00);
    }
}

static void pack_share(void *context, int32_t thread, int32_t thread_count) {
    packing *p = context;
    const genie_matrix *w = p->matrix;
    const int32_t channels = w->format->panel_channels;
    const size_t row_bytes = row_bytes_of(w->type, w->columns);
    int32_t begin, end;
    genie_share(w->panels, thread, thread_count, &begin, &end);
    for (int32_t i = begin; i < end; i++) {
        const int32_t first = i * channels, left = w->rows - first < channels ? w->rows - first : channels;
        const uint8_t *rows = p->data + (size_t)first * row_bytes;
        if (!genie_weights_finite(w->type, rows, (size_t)left * row_bytes))
            atomic_store(&p->infinite, 1);
        w->format->pack(rows, row_bytes, left, w->columns, w->packed + (size_t)i * w->panel_bytes);
    }
}

/* Bytes of the packed weights and, in *bias_bytes, of a bias. Returns 0 if there can be no such matrix. */
static size_t packed_size(const struct genie_kernels *kernels, int32_t type, int32_t rows, int32_t columns,
                          size_t *bias_bytes) {
    const struct genie_matmul_format *format = format_of(kernels->matmul, type);
    if (format == NULL || row_bytes_of(type, columns) == 0)
        return 0;
    const size_t panels = (size_t)((rows + format->panel_channels - 1) / format->panel_channels);
    size_t bytes;
    *bias_bytes = panels * (size_t)format->panel_channels * sizeof(float);
    return genie_mul(format->panel_bytes(columns), panels, &bytes) ? bytes : 0;
}

size_t genie_matrix_need(const char *isa, int32_t type, int64_t rows, int64_t columns) {
    const struct genie_kernels *kernels = genie_kernels_find(isa);
    if (kernels == NULL || rows < 1 || rows > MAX_SIDE || columns < 1 || columns > MAX_SIDE)
        return 0;
    size_t bias_bytes;
    const size_t bytes = packed_size(kernels, type, (int32_t)rows, (int32_t)columns, &bias_bytes);
    return bytes == 0 ? 0 : bytes + bias_bytes;
}

genie_status genie_matrix_create(const struct genie_kernels *kernels, genie_pool *pool, genie_arena *arena,
                                 int32_t type, int32_t rows, int32_t columns, const void *data, size_t bytes,
                                 genie_matrix **out) {
    if (out == NULL)
        return genie_fail(GENIE_ERROR_ARGUMENT, "a pointer is NULL");
    *out = NULL;
    if (kernels == NULL || data == NULL || rows < 1 || rows > MAX_SIDE || columns < 1 || columns > MAX_SIDE)
        return genie_fail(GENIE_ERROR_ARGUMENT, "a matrix has no data, or too many rows or columns");
    const struct genie_matmul_format *format = format_of(kernels->matmul, type);
    const size_t row_bytes = row_bytes_of(type, columns);
    size_t want, bias_bytes;
    if (format == NULL || row_bytes == 0 || !genie_mul(row_bytes, (size_t)rows, &want) || bytes != want)
        return genie_fail(GENIE_ERROR_ARGUMENT,
                          "a matrix is of no known type, or its bytes are not those of its shape");
    const size_t packed_bytes = packed_size(kernels, type, rows, columns, &bias_bytes);
    if (packed_bytes == 0)
        return genie_fail(GENIE_ERROR_MEMORY, "out of memory");
    const int32_t panels = (rows + format->panel_channels - 1) / format->panel_channels;
    genie_matrix *w = genie_arena_take(arena, sizeof *w);
    uint8_t *packed = genie_arena_take(arena, packed_bytes);
    float *bias = genie_arena_take(arena, bias_bytes);
    if (w == NULL || packed == NULL || bias == NULL)
        return genie_fail(GENIE_ERROR_MEMORY, "out of memory");
    *w = (genie_matrix){.format = format,
                        .type = type,
                        .rows = rows,
                        .columns = columns,
                        .panels = panels,
                        .panel_bytes = format->panel_bytes(columns),
                        .bytes = packed_bytes + bias_bytes,
                        .packed = packed,
                        .bias = bias};
    memset(bias, 0, bias_bytes);
    packing context = {.matrix = w, .data = data};
    atomic_init(&context.infinite, 0);
    if (pool == NULL)
        pack_share(&context, 0, 1);
    else
        genie_pool_run(pool, pack_share, &context);
    if (atomic_load(&context.infinite))
        return genie_fail(GENIE_ERROR_FINITE, "a weight is infinite or not a number");
    *out = w;
    return GENIE_OK;
}

genie_status genie_matrix_set_bias(genie_matrix *matrix, const float *bias_R) {
    if (matrix == NULL)
        return genie_fail(GENIE_ERROR_ARGUMENT, "a bias has no matrix");
    if (bias_R == NULL)
        memset(matrix->bias, 0, (size_t)matrix->rows * sizeof(float));
    else
        memcpy(matrix->bias, bias_R, (size_t)matrix->rows * sizeof(float));
    return GENIE_OK;
}

size_t genie_matrix_bytes(const genie_matrix *matrix) { return matrix->bytes; }
int genie_matrix_quantized(const genie_matrix *matrix) {
    return matrix->type == GENIE_TYPE_Q4_0 || matrix->type == GENIE_TYPE_Q8_0;
}

static const float no_bias[MOST_CHANNELS];

/*
 * Units of work are panels. If these do not divide well among the threads, each panel is also cut by rows of x. A row's
 * result does not depend on the other rows, so the cut affects only the time.
 */
void genie_matrix_run(const genie_matrix *w, genie_activations a, const float *x_MC, int32_t x_stride, int32_t m,
                      float *y_MR, int32_t y_stride, int accumulate, int32_t thread, int32_t thread_count) {
    GENIE_ASSERT(w != NULL && m >= 0 && thread >= 0 && thread < thread_count);
    const int32_t quanta = (m + ROW_QUANTUM - 1) / ROW_QUANTUM;
    int32_t parts = 1;
    if (w->panels < 2 * thread_count || w->panels % thread_count != 0)
        parts = quanta / 2 < 1 ? 1 : quanta / 2 < thread_count ? quanta / 2 : thread_count;
    const int64_t units = (int64_t)w->panels * parts;
    const int64_t begin = units * thread / thread_count, end = units * (thread + 1) / thread_count;
    const int32_t channels = w->format->panel_channels, span = span_of(w->columns);
    const int quantized = genie_matrix_quantized(w);
    const size_t q_stride = row_stride(w->columns);
    for (int64_t unit = begin; unit < end; unit++) {
        const int32_t panel = (int32_t)(unit / parts), first = panel * channels;
        int32_t row, row_end;
        genie_share(quanta, (int32_t)(unit % parts), parts, &row, &row_end);
        row *= ROW_QUANTUM;
        row_end = row_end * ROW_QUANTUM < m ? row_end * ROW_QUANTUM : m;
        genie_panel_product product = {
            .panel = w->packed + (size_t)panel * w->panel_bytes,
            .bias = w->bias + first,
            .channels = w->rows - first < channels ? w->rows - first : channels,
            .columns = w->columns,
            .m = row_end - row,
            .x = quantized ? NULL : x_MC + (size_t)row * (size_t)x_stride,
            .x_stride = (size_t)x_stride,
            .y = y_MR + (size_t)row * (size_t)y_stride + first,
            .y_stride = (size_t)y_stride,
            .accumulate = accumulate,
        };
        if (!quantized) {
            w->format->run(&product);
            continue;
        }
        product.q = a.q_MC + (size_t)row * q_stride;
        product.q_stride = q_stride;
        product.scale = a.scale_SM + row;
        for (int32_t left = w->columns; left > 0; left -= span) {
            product.columns = left < span ? left : span;
            w->format->run(&product);
            product.panel += w->format->panel_bytes(span);
            product.q += span_bytes(span);
            product.scale += a.m;
            product.bias = no_bias;
            product.accumulate = 1;
        }
    }
}
