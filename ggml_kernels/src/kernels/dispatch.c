/* Which kernels this CPU runs. */
#include "kernels.h"

#include <string.h>

#if defined(__x86_64__) || defined(_M_X64)
#include <cpuid.h>
#elif defined(__aarch64__) && defined(__linux__)
#include <sys/auxv.h>
#elif defined(__aarch64__) && defined(__APPLE__)
#include <sys/sysctl.h>
#endif

static int always(void) { return 1; }

#if defined(__x86_64__) || defined(_M_X64)
/* Older versions of Clang do not know "f16c" in __builtin_cpu_supports. */
static int has_f16c(void) {
    unsigned eax, ebx, ecx, edx;
    return __get_cpuid(1, &eax, &ebx, &ecx, &edx) && (ecx & bit_F16C) != 0;
}

/* __builtin_cpu_supports also asks the operating system whether it saves the wide registers. */
static int has_avx2(void) { return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && has_f16c(); }

static int has_avx512vnni(void) {
    return has_avx2() && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
           __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512dq") &&
           __builtin_cpu_supports("avx512vnni");
}

/* Leaf 7.1, EAX bit 4. The registers are AVX2's, and so is what the operating system must save. */
static int has_avxvnni(void) {
#if defined(GENIE_AVXVNNI_TWIN_AVX2)
    return has_avx2();
#elif defined(GENIE_AVXVNNI_TWIN_EVEX)
    return has_avx512vnni();
#else
    unsigned eax, ebx, ecx, edx;
    return has_avx2() && __get_cpuid_count(7, 1, &eax, &ebx, &ecx, &edx) && (eax >> 4 & 1) != 0;
#endif
}

static int has_avx512bf16(void) { return has_avx512vnni() && __builtin_cpu_supports("avx512bf16"); }
#elif defined(__aarch64__)
#if defined(__linux__)
/* The bits of <asm/hwcap.h>: HWCAP_ASIMDDP, HWCAP2_I8MM. */
static int has_dotprod(void) { return (getauxval(AT_HWCAP) >> 20 & 1) != 0; }
static int has_i8mm(void) { return has_dotprod() && (getauxval(AT_HWCAP2) >> 13 & 1) != 0; }
#elif defined(__APPLE__)
static int has_feature(const char *name) {
    int present = 0;
    size_t size = sizeof present;
    return sysctlbyname(name, &present, &size, NULL, 0) == 0 && present;
}
static int has_dotprod(void) { return has_feature("hw.optional.arm.FEAT_DotProd"); }
static int has_i8mm(void) { return has_dotprod() && has_feature("hw.optional.arm.FEAT_I8MM"); }
#else
static int has_dotprod(void) { return 0; }
static int has_i8mm(void) { return 0; }
#endif
#endif

static const struct {
    const genie_kernels *kernels;
    int (*runs_here)(void);
} table[] = {
#if defined(__x86_64__) || defined(_M_X64)
    {&genie_kernels_avx512bf16, has_avx512bf16},
    {&genie_kernels_avx512vnni, has_avx512vnni},
#if defined(GENIE_AVXVNNI_TWIN_AVX2) || defined(GENIE_AVXVNNI_TWIN_EVEX)
    {&genie_kernels_avx2, has_avx2},
    {&genie_kernels_avxvnni, has_avxvnni}, /* last, so that nobody plays on a twin unasked */
#else
    {&genie_kernels_avxvnni, has_avxvnni},
    {&genie_kernels_avx2, has_avx2},
#endif
#elif defined(__aarch64__)
    {&genie_kernels_i8mm, has_i8mm},
    {&genie_kernels_dotprod, has_dotprod},
    {&genie_kernels_neon, always}, /* part of every ARMv8-A */
#elif defined(__wasm_simd128__)
    {&genie_kernels_simd128, always}, /* an engine without it refuses the whole module */
#endif
    {&genie_kernels_scalar, always},
};

static const int32_t table_length = (int32_t)(sizeof table / sizeof *table);

const genie_kernels *genie_kernels_find(const char *name) {
    for (int32_t i = 0; i < table_length; i++)
        if ((name == NULL || strcmp(name, table[i].kernels->name) == 0) && table[i].runs_here())
            return table[i].kernels;
    return NULL;
}

const char *genie_isa_name(int32_t i) {
    for (int32_t j = 0; i >= 0 && j < table_length; j++)
        if (table[j].runs_here() && i-- == 0)
            return table[j].kernels->name;
    return NULL;
}
