/* Builds a convolutional network and the buffers it runs in. */
#include "../base/error.h"
#include "conv.h"

#include <string.h>

enum { MAX_SIDE = 4096, MAX_CHANNELS = 65536, MAX_LAYERS = 1024, STRIP_BYTES = 384 * 1024, LEAST_ROWS = 12 };

static int in_range(int32_t value, int32_t low, int32_t high) { return value >= low && value <= high; }

/* Sets the shapes along the list. Returns 0 if a layer does not fit the one before it. */
static int lay_steps(const genie_conv_params *p, const genie_conv_layer *layers, int32_t count,
                     genie_conv_step *steps) {
    int32_t height = p->height, width = p->width, channels = p->channels;
    for (int32_t i = 0; i < count; i++) {
        const int32_t kind = layers[i].kind, out = layers[i].channels, groups = p->group_count;
        if (!in_range(kind, GENIE_CONV_3X3, GENIE_CONV_NORM) || !in_range(out, 1, MAX_CHANNELS))
            return 0;
        const int normed = kind == GENIE_CONV_NORM || kind == GENIE_CONV_RESIDUAL;
        if ((normed && (channels % groups != 0 || out % groups != 0)) || (kind == GENIE_CONV_NORM && out != channels) ||
            (kind == GENIE_CONV_DOWN && (height % 2 != 0 || width % 2 != 0)))
            return 0;
        steps[i] = (genie_conv_step){.kind = kind, .height = height, .width = width, .channels = channels};
        if (kind == GENIE_CONV_DOWN) {
            height /= 2;
            width /= 2;
        } else if (kind == GENIE_CONV_UP) {
            height *= 2;
            width *= 2;
        }
        if (!in_range(height, 1, MAX_SIDE) || !in_range(width, 1, MAX_SIDE))
            return 0;
        steps[i].out_height = height;
        steps[i].out_width = width;
        steps[i].out_channels = channels = out;
    }
    return 1;
}

genie_status genie_conv_create(const char *isa, const genie_conv_params *params, const genie_conv_layer *layers,
                               int32_t layer_count, genie_conv **conv) {
    if (params == NULL || layers == NULL || conv == NULL)
        return genie_fail(GENIE_ERROR_ARGUMENT, "a pointer is NULL");
    if (!in_range(layer_count, 1, MAX_LAYERS))
        return genie_fail(GENIE_ERROR_ARGUMENT, "layer_count is out of range");
    if (!in_range(params->height, 1, MAX_SIDE) || !in_range(params->width, 1, MAX_SIDE))
        return genie_fail(GENIE_ERROR_ARGUMENT, "height or width is out of range");
    if (!in_range(params->channels, 1, MAX_CHANNELS) || !in_range(params->group_count, 1, MAX_CHANNELS))
        return genie_fail(GENIE_ERROR_ARGUMENT, "channels or group_count is out of range");
    if (!(params->norm_epsilon > 0 && params->norm_epsilon <= 0.1f))
        return genie_fail(GENIE_ERROR_ARGUMENT, "norm_epsilon must be > 0 and <= 0.1");
    *conv = NULL;
    const genie_kernels *kernels = genie_kernels_find(isa);
    if (kernels == NULL)
        return genie_fail(GENIE_ERROR_ISA, "unknown instruction set, or this CPU does not have it");
    genie_conv *c = genie_alloc(sizeof *c);
    if (c == NULL)
        return genie_fail(GENIE_ERROR_MEMORY, "out of memory");
    *c = (genie_conv){.params = *params,
                      .kernels = kernels,
                      .step_count = layer_count,
                      .steps = genie_alloc((size_t)layer_count * sizeof *c->steps)};
    if (c->steps == NULL) {
        genie_release(c);
        return genie_fail(GENIE_ERROR_MEMORY, "out of memory");
    }
    memset(c->steps, 0, (size_t)layer_count * sizeof *c->steps);
    if (!lay_steps(params, layers, layer_count, c->steps)) {
        genie_conv_free(c);
        return genie_fail(GENIE_ERROR_ARGUMENT, "a layer is of no known kind, or does not fit the one before it");
    }
    *conv = c;
    return GENIE_OK;
}

void genie_conv_free(genie_conv *conv) {
    if (conv == NULL)
        return;
    genie_arena_free(&conv->arena);
    genie_release(conv->steps);
    genie_release(conv);
}

size_t genie_conv_bytes(const genie_conv *conv) { return conv->bytes; }

int genie_conv_slot_shape(const genie_conv_step *s, int32_t slot, int32_t *rows, int32_t *columns, int *is_matrix) {
    const int32_t in = s->channels, out = s->out_channels, area = s->kind == GENIE_CONV_1X1 ? 1 : 9;
    const int residual = s->kind == GENIE_CONV_RESIDUAL, plain = !residual && s->kind != GENIE_CONV_NORM;
    const int normed = residual || s->kind == GENIE_CONV_NORM;
    const int32_t tall = s->kind == GENIE_CONV_UP ? 4 * out : out;
    const struct {
        int32_t rows, columns;
        int is_matrix, here;
    } shape[GENIE_CONV_SLOT_COUNT] = {
        [GENIE_CONV_SLOT_WEIGHT] = {tall, area * in, 1, plain || residual},
        [GENIE_CONV_SLOT_BIAS] = {1, tall, 0, plain},
        [GENIE_CONV_SLOT_NORM] = {1, in, 0, normed},
        [GENIE_CONV_SLOT_NORM_BIAS] = {1, in, 0, normed},
        [GENIE_CONV_SLOT_WEIGHT_2] = {out, 9 * out, 1, residual},
        [GENIE_CONV_SLOT_NORM_2] = {1, out, 0, residual},
        [GENIE_CONV_SLOT_NORM_2_BIAS] = {1, out, 0, residual},
        [GENIE_CONV_SLOT_SHORTCUT] = {out, in, 1, residual && in != out},
    };
    if (slot < 0 || slot >= GENIE_CONV_SLOT_COUNT || !shape[slot].here)
        return 0;
    *rows = shape[slot].rows;
    *columns = shape[slot].columns;
    *is_matrix = shape[slot].is_matrix;
    return 1;
}

genie_status genie_conv_set(genie_conv *conv, genie_pool *pool, int32_t layer, int32_t slot, int32_t type, int64_t rows,
                            int64_t columns, const void *data, size_t bytes) {
    if (conv == NULL || pool == NULL || data == NULL || conv->sealed || !in_range(layer, 0, conv->step_count - 1))
        return genie_fail(GENIE_ERROR_ARGUMENT, "a pointer is NULL, the network is sealed, or there is no such layer");
    genie_conv_step *s = &conv->steps[layer];
    int32_t want_rows, want_columns;
    int is_matrix;
    if (!genie_conv_slot_shape(s, slot, &want_rows, &want_columns, &is_matrix) || rows != want_rows ||
        columns != want_columns || s->matrix[slot] != NULL || s->vector[slot] != NULL)
        return genie_fail(GENIE_ERROR_ARGUMENT, "the layer has no such weight, it is of another shape, or it is there");
    if (is_matrix) {
        const genie_status status = genie_matrix_create(conv->kernels, pool, &conv->arena, type, want_rows,
                                                        want_columns, data, bytes, &s->matrix[slot]);
        if (status == GENIE_OK)
            conv->bytes += genie_matrix_bytes(s->matrix[slot]);
        return status;
    }
    const size_t want_bytes = (size_t)columns * sizeof(float);
    if (type != GENIE_TYPE_F32 || bytes != want_bytes)
        return genie_fail(GENIE_ERROR_ARGUMENT, "a vector must be float32, and as long as its shape says");
    if (!genie_weights_finite(type, data, bytes))
        return genie_fail(GENIE_ERROR_FINITE, "a weight is infinite or not a number");
    s->vector[slot] = genie_arena_take(&conv->arena, want_bytes);
    if (s->vector[slot] == NULL)
        return genie_fail(GENIE_ERROR_MEMORY, "out of memory");
    memcpy(s->vector[slot], data, want_bytes);
    conv->bytes += want_bytes;
    return GENIE_OK;
}

genie_status genie_conv_seal(genie_conv *conv) {
    if (conv == NULL || conv->sealed)
        return genie_fail(GENIE_ERROR_ARGUMENT, "there is no network, or it is sealed");
    for (int32_t i = 0; i < conv->step_count; i++) {
        genie_conv_step *s = &conv->steps[i];
        for (int32_t slot = 0; slot < GENIE_CONV_SLOT_COUNT; slot++) {
            int32_t rows, columns;
            int is_matrix;
            if (!genie_conv_slot_shape(s, slot, &rows, &columns, &is_matrix))
                continue;
            if (is_matrix ? s->matrix[slot] == NULL : s->vector[slot] == NULL)
                return genie_fail(GENIE_ERROR_STATE, "a weight is missing");
        }
        if (s->vector[GENIE_CONV_SLOT_BIAS] != NULL)
            genie_matrix_set_bias(s->matrix[GENIE_CONV_SLOT_WEIGHT], s->vector[GENIE_CONV_SLOT_BIAS]);
    }
    conv->sealed = 1;
    return GENIE_OK;
}

static int32_t strip_rows(int quantized, int32_t columns) {
    const int32_t rows = STRIP_BYTES / (columns * (quantized ? 1 : (int32_t)sizeof(float)));
    return rows < LEAST_ROWS ? LEAST_ROWS : rows > 20 * LEAST_ROWS ? 20 * LEAST_ROWS : rows / LEAST_ROWS * LEAST_ROWS;
}

int32_t genie_conv_strip_rows(const genie_matrix *matrix, int32_t columns) {
    return strip_rows(genie_matrix_quantized(matrix), columns);
}

/* ---- room: the buffers of a state ---- */

typedef struct {
    size_t picture, sums, channels, rows, activations, out; /* counts of items; activations in bytes */
    int fits;
} room;

static void at_least(room *r, size_t *have, size_t a, size_t b) {
    size_t n;
    if (!genie_mul(a, b, &n) || n > SIZE_MAX / 64) {
        r->fits = 0;
        return;
    }
    *have = n > *have ? n : *have;
}

static room measure(const genie_conv *conv) {
    room r = {.fits = 1};
    for (int32_t i = 0; i < conv->step_count; i++) {
        const genie_conv_step *s = &conv->steps[i];
        const size_t in = (size_t)s->channels, out = (size_t)s->out_channels;
        at_least(&r, &r.picture, (size_t)s->height * (size_t)s->width, in);
        at_least(&r, &r.picture, (size_t)s->out_height * (size_t)s->out_width, out);
        at_least(&r, &r.sums, 2 * (size_t)s->height, in > out ? in : out);
        at_least(&r, &r.channels, in > out ? in : out, 1);
        at_least(&r, &r.rows, 2, in > out ? in : out); /* channel sums of a norm */
        for (int32_t slot = 0; slot < GENIE_CONV_SLOT_COUNT; slot++) {
            int32_t rows, columns;
            int is_matrix;
            if (!genie_conv_slot_shape(s, slot, &rows, &columns, &is_matrix) || !is_matrix)
                continue;
            /* A matrix that is not set yet may be of either kind. */
            for (int quantized = 0; quantized < 2; quantized++) {
                if (s->matrix[slot] != NULL && genie_matrix_quantized(s->matrix[slot]) != quantized)
                    continue;
                const int32_t m = strip_rows(quantized, columns);
                at_least(&r, &r.rows, quantized ? 1 : (size_t)m, (size_t)columns);
                if (quantized)
                    at_least(&r, &r.activations, genie_activations_bytes(m, columns), 1);
                if (s->kind == GENIE_CONV_UP)
                    at_least(&r, &r.out, (size_t)m, (size_t)rows);
            }
        }
    }
    return r;
}

static void *take(char *base, size_t *used, size_t count, size_t size) {
    void *place = base == NULL ? NULL : base + *used;
    *used += (count * size + 63) / 64 * 64;
    return place;
}

static void lay_out(genie_conv_state *s, const room *r, char *base) {
    size_t used = 0;
    for (int32_t i = 0; i < GENIE_CONV_PICTURES; i++)
        s->picture[i] = take(base, &used, r->picture, sizeof(float));
    s->sums = take(base, &used, r->sums, sizeof(double));
    s->scale_C = take(base, &used, r->channels, sizeof(float));
    s->shift_C = take(base, &used, r->channels, sizeof(float));
    s->strip = take(base, &used, (size_t)s->thread_count, sizeof *s->strip);
    for (int32_t i = 0; i < s->thread_count; i++) {
        genie_conv_strip strip;
        strip.rows_MK = take(base, &used, r->rows, sizeof(float));
        strip.activations_MK = take(base, &used, r->activations, 1);
        strip.out_MR = take(base, &used, r->out, sizeof(float));
        if (base != NULL)
            s->strip[i] = strip;
    }
    s->bytes = used;
}

genie_status genie_conv_need(const genie_conv *conv, int32_t thread_count, size_t *state_bytes) {
    if (conv == NULL || state_bytes == NULL || !in_range(thread_count, 1, 1024))
        return genie_fail(GENIE_ERROR_ARGUMENT, "a pointer is NULL, or thread_count is not in 1..1024");
    const room r = measure(conv);
    if (!r.fits)
        return genie_fail(GENIE_ERROR_MEMORY, "out of memory");
    genie_conv_state measured = {.conv = conv, .thread_count = thread_count};
    lay_out(&measured, &r, NULL);
    *state_bytes = measured.bytes;
    return GENIE_OK;
}

genie_status genie_conv_state_create(const genie_conv *conv, int32_t thread_count, genie_conv_state **state) {
    if (conv == NULL || state == NULL || !in_range(thread_count, 1, 1024))
        return genie_fail(GENIE_ERROR_ARGUMENT, "a pointer is NULL, or thread_count is not in 1..1024");
    *state = NULL;
    if (!conv->sealed)
        return genie_fail(GENIE_ERROR_STATE, "the network is not sealed");
    const room r = measure(conv);
    if (!r.fits)
        return genie_fail(GENIE_ERROR_MEMORY, "out of memory");
    genie_conv_state *s = genie_alloc(sizeof *s);
    if (s == NULL)
        return genie_fail(GENIE_ERROR_MEMORY, "out of memory");
    *s = (genie_conv_state){.conv = conv, .thread_count = thread_count};
    lay_out(s, &r, NULL);
    s->block = genie_alloc(s->bytes);
    if (s->block == NULL) {
        genie_release(s);
        return genie_fail(GENIE_ERROR_MEMORY, "out of memory");
    }
    lay_out(s, &r, s->block);
    *state = s;
    return GENIE_OK;
}

void genie_conv_state_free(genie_conv_state *state) {
    if (state == NULL)
        return;
    genie_release(state->block);
    genie_release(state);
}

size_t genie_conv_state_bytes(const genie_conv_state *state) { return state->bytes; }
