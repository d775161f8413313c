/* The loops of genie_peak with AVX-VNNI, in a file that is compiled for it. */
#include <stdint.h>

int64_t genie_peak_int8_avxvnni(int64_t rounds);
int64_t genie_peak_blocks_avxvnni(int64_t rounds);
