/*
 * Every instruction set of this CPU against the scalar kernels, without Python: for emulated CPUs.
 * genie_differential ISA...: the names that detection must find here, best first. Prints a line per set; 0 when all
 * agree.
 */
#include "random_stack.h"

/* Distance relative to b's norm. `typical`: the least that each value of b counts as, because sums may cancel. */
static double distance(const float *a, const float *b, size_t count, double typical) {
    double difference = 0, norm = 0;
    for (size_t i = 0; i < count; i++) {
        difference += ((double)a[i] - b[i]) * ((double)a[i] - b[i]);
        norm += (double)b[i] * b[i];
    }
    norm = fmax(norm, (double)count * typical * typical);
    return sqrt(difference / (norm > 0 ? norm : 1)); /* NaN fails every comparison below */
}

static void must(double found, double limit, const char *isa, const char *what, int32_t a, int32_t b, int32_t c) {
    if (!(found <= limit)) {
        fprintf(stderr, "%s: %s %d x %d x %d is %g from scalar (limit %g)\n", isa, what, a, b, c, found, limit);
        exit(1);
    }
}

static void products(const char *isa, genie_pool *pool) {
    static const int32_t types[] = {GENIE_TYPE_F32, GENIE_TYPE_F16, GENIE_TYPE_Q4_0, GENIE_TYPE_Q8_0};
    static const int32_t columns[] = {32, 64, 96, 1056}, rows[] = {1, 5, 8, 15, 16, 17, 33},
                         counts[] = {1, 2, 3, 4, 5, 6, 7, 13, 100};
    for (int t = 0; t < 4; t++)
        for (size_t k = 0; k < sizeof columns / sizeof *columns; k++)
            for (size_t n = 0; n < sizeof rows / sizeof *rows; n++)
                for (size_t m = 0; m < sizeof counts / sizeof *counts; m++) {
                    if (columns[k] == 1056 && (n + m) % 4 != 0)
                        continue;                                                        /* emulation is slow */
                    const int32_t K = columns[k] - (types[t] <= GENIE_TYPE_F16 ? 3 : 0); /* float rows of any length */
                    const size_t all = (size_t)(counts[m] * rows[n]);
                    size_t bytes;
                    void *w = random_matrix(types[t], rows[n], K, &bytes);
                    float *x = random_floats((size_t)(counts[m] * K), 1), *y = random_floats(all, 1),
                          *want = random_floats(all, 1);
                    check(genie_matmul("scalar", pool, types[t], rows[n], K, w, bytes, x, counts[m], 1, want),
                          "matmul");
                    check(genie_matmul(isa, pool, types[t], rows[n], K, w, bytes, x, counts[m], 1, y), "matmul");
                    must(distance(y, want, all, sqrt(K) / 24), 2e-6, isa, "matmul", counts[m], K, rows[n]);
                    free(w), free(x), free(y), free(want);
                }
}

/* Scales of 1 and whole numbers: nothing is rounded, so results are equal. Includes the largest products of each
 * sign. */
static void exact_products(const char *isa, genie_pool *pool) {
    enum { ROWS = 37, K = 512, M = 11, BLOCKS = K / 32 };
    static uint8_t w[ROWS][BLOCKS][34];
    static float x[M][K], y[M][ROWS];
    for (int r = 0; r < ROWS; r++)
        for (int b = 0; b < BLOCKS; b++) {
            w[r][b][0] = 0x00, w[r][b][1] = 0x3C;
            for (int i = 2; i < 34; i++)
                w[r][b][i] = (uint8_t)(r == 0 ? 128 : r == 1 ? 127 : random_bits());
        }
    for (int m = 0; m < M; m++) {
        for (int k = 0; k < K; k++)
            x[m][k] = m == 0 ? 127.0f : m == 1 ? -127.0f : (float)(random_bits() % 255) - 127.0f;
        x[m][7] = 127.0f; /* every row's scale is 1 */
    }
    check(genie_matmul(isa, pool, GENIE_TYPE_Q8_0, ROWS, K, w, sizeof w, x[0], M, 1, y[0]), "matmul");
    for (int m = 0; m < M; m++)
        for (int r = 0; r < ROWS; r++) {
            int64_t sum = 0;
            for (int k = 0; k < K; k++)
                sum += (int64_t)x[m][k] * (int8_t)w[r][k / 32][2 + k % 32];
            must(fabs((double)sum - y[m][r]), 0, isa, "exact product", m, r, 0);
        }
}

static void attention(const char *isa) {
    static const int32_t shapes[][4] = {{1, 1, 1, 1}, {5, 3, 2, 7}, {64, 64, 3, 32}, {9, 300, 2, 40}, {4, 1023, 1, 64}};
    for (size_t s = 0; s < sizeof shapes / sizeof *shapes; s++)
        for (int few = 0; few < 2; few++) {
            const int32_t Q = shapes[s][0], K = shapes[s][1], H = shapes[s][2], D = shapes[s][3];
            const size_t nq = (size_t)(Q * H * D), nk = (size_t)(K * H * D);
            float *q = random_floats(nq, 2), *k = random_floats(nk, 2), *v = random_floats(nk, 2);
            float *y = random_floats(nq, 1), *want = random_floats(nq, 1);
            float *bias = random_floats((size_t)(H * Q * K), 3);
            check(genie_attention("scalar", Q, K, H, D, q, k, v, bias, 0.2f, few, 0, 1, want), "attention");
            check(genie_attention(isa, Q, K, H, D, q, k, v, bias, 0.2f, few, 0, 1, y), "attention");
            must(distance(y, want, nq, 0), 3e-6, isa, "attention", Q, K, D);
            free(q), free(k), free(v), free(y), free(want), free(bias);
        }
}

static void codes(const char *isa) {
    enum { V = 300, COUNT = 50 };
    for (int32_t L = 1; L < 40; L += 6) {
        float *book = random_floats((size_t)(V * L), 1), *z = random_floats((size_t)(COUNT * L), 1);
        int32_t ids[COUNT], want[COUNT], different = 0;
        check(genie_vq_nearest("scalar", book, V, L, z, COUNT, want), "nearest");
        check(genie_vq_nearest(isa, book, V, L, z, COUNT, ids), "nearest");
        for (int i = 0; i < COUNT; i++)
            different += ids[i] != want[i];
        must(different, 0, isa, "nearest", V, L, COUNT);
        free(book), free(z);
    }
}

/* Norms, activations and everything between, in whole passes over three frames. */
static void stacks(const char *isa, genie_pool *pool) {
    enum { P = 10, T = 3, O = 40 };
    static const int32_t types[] = {GENIE_TYPE_F32, GENIE_TYPE_Q8_0};
    /* 2: norms after each sublayer, conditioned, no final norm; 3: convolutions, biases, raw keys and values */
    for (int32_t norm = 0; norm < 4; norm++)
        for (int32_t ffn = 0; ffn < GENIE_FFN_COUNT; ffn++)
            for (int t = 0; t < 2; t++) {
                genie_stack_params params = {
                    .block_count = 2,
                    .embedding_length = 64,
                    .head_count = 2,
                    .key_length = 32,
                    .feed_forward_length = 96,
                    .token_count = P,
                    .context_length = T,
                    .input_rows = O + 1,
                    .action_count = 3,
                    .output_length = O,
                    .output_norm = norm % 3,
                    .conditioning = norm == 2 ? GENIE_CONDITIONING_FILM : GENIE_CONDITIONING_ADD,
                    .qk_norm = norm == 0   ? GENIE_NORM_NONE
                               : norm == 2 ? GENIE_NORM_LAYERNORM
                                           : GENIE_NORM_RMSNORM,
                    .factor_count = 1,
                    .bias = norm > 0,
                    .norm_epsilon = 1e-5f,
                    .grid_width = norm == 3 ? 5 : 0,
                    .norm_length = norm == 3 ? 61 : 0,
                    .position = norm == 3,
                    .spatial_bias = norm == 3,
                    .temporal_bias = norm == 3,
                    .first_frame = norm == 3 ? GENIE_FIRST_FRAME_OUTPUT : GENIE_FIRST_FRAME_NONE,
                    .qk_norm_epsilon = norm == 3 ? 1e-9f : 0,
                    .sublayer_count = norm == 3 ? 4 : 3,
                };
                const int32_t kinds[] = {ffn == GENIE_FFN_GEGLU ? GENIE_SUBLAYER_SPACETIME : GENIE_SUBLAYER_SPATIAL,
                                         GENIE_SUBLAYER_TEMPORAL, GENIE_SUBLAYER_FFN, GENIE_SUBLAYER_PEG};
                for (int i = 0; i < params.sublayer_count; i++)
                    params.sublayers[i] = (genie_sublayer){
                        .kind = kinds[i],
                        .norm = norm > 0 && norm < 3 ? GENIE_NORM_LAYERNORM : GENIE_NORM_RMSNORM,
                        .norm_position = norm == 2 ? GENIE_NORM_POSITION_POST : GENIE_NORM_POSITION_PRE,
                        .kv_input = norm == 3 ? GENIE_KV_INPUT_RESIDUAL : GENIE_KV_INPUT_NORM,
                        .ffn = ffn,
                        .expert_count = norm % 2 ? 3 : 0, /* before the residual and, with gates, after it */
                        .expert_used_count = norm % 2 ? 2 : 0,
                    };
                static float results[2][P * O];
                const uint64_t start = random_state;
                for (int i = 0; i < 2; i++) {
                    random_state = start;
                    genie_stack *stack = random_stack(i ? isa : "scalar", pool, &params, types[t]);
                    genie_state *state;
                    check(genie_state_create(stack, &state), "state");
                    for (int32_t frame = 0; frame < T; frame++) {
                        int32_t ids[P];
                        for (int p = 0; p < P; p++)
                            ids[p] = (int32_t)(random_bits() % (O + 1));
                        check(genie_stack_forward(stack, state, pool, ids, NULL, frame, 1, results[i]), "forward");
                    }
                    /* Fills in tokens from given logits. */
                    int32_t filled[P];
                    for (int p = 0; p < P; p++)
                        filled[p] = p % 2 ? O : p;
                    const genie_sampler sampler = {.steps = 3, .temperature = 0};
                    check(genie_maskgit_fill(stack, state, pool, &sampler, 2, 1, 1, results[i], filled), "fill");
                    for (int p = 0; p < P; p++)
                        for (int v = 0; v < O; v++)
                            must(p % 2 == 0 ? filled[p] != p : results[i][p * O + v] > results[i][p * O + filled[p]], 0,
                                 isa, "fill", p, v, 0);
                    genie_state_free(state);
                    genie_stack_free(stack);
                }
                /* A last bit of a float can move an activation to the next of 127 steps. */
                must(distance(results[1], results[0], P * O, 0), t ? 1e-2 : 1e-5, isa, "stack", norm, ffn, types[t]);
            }
}

/* Every kind of layer; channel counts that are not multiples of a vector, strips that end within a row. */
static void convolutions(const char *isa, genie_pool *pool) {
    enum { H = 6, W = 10, C = 3, LAYERS = 8, O = 5 };
    static const genie_conv_layer layers[LAYERS] = {
        {GENIE_CONV_3X3, 64},  {GENIE_CONV_RESIDUAL, 64}, {GENIE_CONV_RESIDUAL, 96}, {GENIE_CONV_DOWN, 36},
        {GENIE_CONV_NORM, 36}, {GENIE_CONV_UP, 32},       {GENIE_CONV_NORM, 32},     {GENIE_CONV_1X1, O}};
    static const int32_t types[] = {GENIE_TYPE_F32, GENIE_TYPE_Q8_0};
    const genie_conv_params params = {.height = H, .width = W, .channels = C, .group_count = 4, .norm_epsilon = 1e-6f};
    for (int t = 0; t < 2; t++) {
        static float results[2][H * W * O];
        const uint64_t start = random_state;
        for (int i = 0; i < 2; i++) {
            random_state = start;
            genie_conv *conv;
            genie_conv_state *state;
            check(genie_conv_create(i ? isa : "scalar", &params, layers, LAYERS, &conv), "conv");
            for (int32_t layer = 0, in = C; layer < LAYERS; in = layers[layer++].channels) {
                const int32_t kind = layers[layer].kind, out = layers[layer].channels;
                const int32_t tall = kind == GENIE_CONV_UP ? 4 * out : out, wide = kind == GENIE_CONV_1X1 ? in : 9 * in;
                const struct {
                    int32_t slot, matrix, rows, columns;
                } slots[] = {{GENIE_CONV_SLOT_WEIGHT, 1, tall, wide},
                             {GENIE_CONV_SLOT_BIAS, 0, 1, tall},
                             {GENIE_CONV_SLOT_NORM, 0, 1, in},
                             {GENIE_CONV_SLOT_NORM_BIAS, 0, 1, in},
                             {GENIE_CONV_SLOT_WEIGHT_2, 1, out, 9 * out},
                             {GENIE_CONV_SLOT_NORM_2, 0, 1, out},
                             {GENIE_CONV_SLOT_NORM_2_BIAS, 0, 1, out},
                             {GENIE_CONV_SLOT_SHORTCUT, 1, out, in}};
                for (size_t j = 0; j < sizeof slots / sizeof *slots; j++) {
                    const int whole = slots[j].columns % 32 == 0;
                    const int32_t type = slots[j].matrix && whole ? types[t] : GENIE_TYPE_F32;
                    size_t bytes;
                    void *w = random_matrix(type, slots[j].rows, slots[j].columns, &bytes);
                    const int32_t status = genie_conv_set(conv, pool, layer, slots[j].slot, type, slots[j].rows,
                                                          slots[j].columns, w, bytes);
                    if (status != GENIE_ERROR_ARGUMENT) /* no such weight here; sealing checks that none is missing */
                        check(status, "weights");
                    free(w);
                }
            }
            check(genie_conv_seal(conv), "seal");
            check(genie_conv_state_create(conv, 2, &state), "room");
            float *x = random_floats(H * W * C, 1);
            check(genie_conv_run(conv, state, pool, x, results[i]), "run");
            free(x);
            genie_conv_state_free(state);
            genie_conv_free(conv);
        }
        must(distance(results[1], results[0], H * W * O, 0), t ? 1e-2 : 1e-5, isa, "convolutions", H, W, types[t]);
    }
}

int main(int count, char **names) {
    for (int i = 1; i <= count; i++) {
        const char *found = genie_isa_name(i - 1);
        if (i < count ? found == NULL || strcmp(found, names[i]) != 0 : found != NULL) {
            fprintf(stderr, "instruction set %d is %s\n", i - 1, found == NULL ? "missing" : found);
            return 1;
        }
    }
    genie_pool *pool;
    check(genie_pool_create(2, &pool), "pool");
    for (int32_t i = 0; genie_isa_name(i) != NULL; i++) {
        const char *isa = genie_isa_name(i);
        random_state = 1; /* the same numbers for every set */
        products(isa, pool);
        exact_products(isa, pool);
        attention(isa);
        codes(isa);
        stacks(isa, pool);
        convolutions(isa, pool);
        int64_t operations;
        check(genie_peak(isa, pool, GENIE_TYPE_Q8_0, 3, &operations), "peak");
        printf("%s agrees\n", isa);
    }
    genie_pool_free(pool);
    return 0;
}
