/* The structs of a convolutional network and of its buffers; private to this folder. */
#ifndef GENIE_CONV_H
#define GENIE_CONV_H

#include "../base/memory.h"
#include "../base/pool.h"
#include "../kernels/kernels.h"
#include "../kernels/matmul/matmul.h"

/* A layer with the shapes of its input (H W C) and output; unused slots are NULL. */
typedef struct {
    int32_t kind, height, width, channels, out_height, out_width, out_channels;
    genie_matrix *matrix[GENIE_CONV_SLOT_COUNT];
    float *vector[GENIE_CONV_SLOT_COUNT];
} genie_conv_step;

struct genie_conv {
    genie_conv_params params;
    const genie_kernels *kernels;
    genie_conv_step *steps;
    genie_arena arena; /* of the weights */
    int32_t step_count;
    int sealed;
    size_t bytes;
};

enum { GENIE_CONV_PICTURES = 3 };

/* One thread's strip of rows on their way through a product. */
typedef struct {
    float *rows_MK;       /* input of a float matrix; for a quantized matrix a single row */
    void *activations_MK; /* input of a quantized matrix */
    float *out_MR;        /* output of GENIE_CONV_UP, before depth-to-space */
} genie_conv_strip;

struct genie_conv_state {
    const genie_conv *conv;
    int32_t thread_count;
    float *picture[GENIE_CONV_PICTURES]; /* [H, W, C] of the current layer */
    double *sums;                        /* [H, 2, C]: for each row of pixels, sums of values and of squares */
    float *scale_C, *shift_C;            /* of the current norm */
    genie_conv_strip *strip;             /* [thread_count] */
    void *block;
    size_t bytes;
};

/* Whether a layer must have this slot, and its shape. */
int genie_conv_slot_shape(const genie_conv_step *step, int32_t slot, int32_t *rows, int32_t *columns, int *is_matrix);

/* Rows of a product's strip: as many as fit in a core's own cache, but at least 12. */
int32_t genie_conv_strip_rows(const genie_matrix *matrix, int32_t columns);

#endif
