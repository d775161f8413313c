/* genie_step ISA TYPE STEPS: runs STEPS MaskGIT steps of a small random model on one thread, to count instructions. */
#include "random_stack.h"

int main(int count, char **arguments) {
    enum { P = 64, V = 256 };
    if (count != 4)
        return 2;
    const genie_stack_params params = {.block_count = 2,
                                       .embedding_length = 128,
                                       .head_count = 4,
                                       .key_length = 32,
                                       .feed_forward_length = 512,
                                       .token_count = P,
                                       .context_length = 4,
                                       .input_rows = V + 1,
                                       .action_count = 8,
                                       .output_length = V,
                                       .qk_norm = GENIE_NORM_RMSNORM,
                                       .factor_count = 1,
                                       .norm_epsilon = 1e-5f,
                                       .sublayer_count = 3,
                                       .sublayers = {{.kind = GENIE_SUBLAYER_SPATIAL},
                                                     {.kind = GENIE_SUBLAYER_TEMPORAL},
                                                     {.kind = GENIE_SUBLAYER_FFN}}};
    const genie_sampler sampler = {.steps = 64, .temperature = 1.0f};
    genie_pool *pool;
    genie_state *state;
    check(genie_pool_create(1, &pool), "pool");
    genie_stack *stack = random_stack(arguments[1], pool, &params, atoi(arguments[2]));
    check(genie_state_create(stack, &state), "state");
    int32_t ids[P];
    for (int p = 0; p < P; p++)
        ids[p] = p;
    check(genie_stack_forward(stack, state, pool, ids, NULL, -1, 1, NULL), "prompt");
    for (int p = 0; p < P; p++)
        ids[p] = V;
    for (int32_t step = 0; step < atoi(arguments[3]); step++)
        check(genie_maskgit_step(stack, state, pool, &sampler, step, 1, 1, 0, ids, NULL), "step");
    genie_state_free(state);
    genie_stack_free(stack);
    genie_pool_free(pool);
    return 0;
}
