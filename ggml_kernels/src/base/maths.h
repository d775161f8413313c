/*
 * Exponentials and the like, written out: C libraries differ in their last bits, and a world must be the same wherever
 * it is played, in a browser too. Only additions, products and quotients, which IEEE 754 settles.
 */
#ifndef GENIE_MATHS_H
#define GENIE_MATHS_H

#include <math.h>
#include <stdint.h>
#include <string.h>

static inline double genie_from_bits(uint64_t bits) {
    double x;
    memcpy(&x, &bits, sizeof x);
    return x;
}

static inline uint64_t genie_to_bits(double x) {
    uint64_t bits;
    memcpy(&bits, &x, sizeof bits);
    return bits;
}

/* e^x, to 1 unit in the last place where that is no subnormal. x = k ln 2 + r, |r| <= ln 2 / 2, and a Taylor series. */
static inline double genie_exp(double x) {
    if (!(x < 709.782712893384)) /* also NaN */
        return x != x ? x : INFINITY;
    if (x < -745.2)
        return 0;
    const double k = rint(x * 1.4426950408889634);
    const double hi = x - k * 6.93147180369123816490e-01, lo = k * 1.90821492927058770002e-10, r = hi - lo;
    double p = 1.0 / 6227020800;
    p = p * r + 1.0 / 479001600;
    p = p * r + 1.0 / 39916800;
    p = p * r + 1.0 / 3628800;
    p = p * r + 1.0 / 362880;
    p = p * r + 1.0 / 40320;
    p = p * r + 1.0 / 5040;
    p = p * r + 1.0 / 720;
    p = p * r + 1.0 / 120;
    p = p * r + 1.0 / 24;
    p = p * r + 1.0 / 6;
    p = p * r + 1.0 / 2;
    const double y = 1 + (hi - (lo - r * r * p));                  /* 1 + r + r^2 p, the small parts first */
    const int64_t half = (int64_t)k / 2, rest = (int64_t)k - half; /* in two steps, for 2^1024 and subnormals */
    return y * genie_from_bits((uint64_t)(half + 1023) << 52) * genie_from_bits((uint64_t)(rest + 1023) << 52);
}

/* As genie_exp, rounded to float. */
static inline float genie_expf(float x) {
    if (!(x < 88.8f))
        return x != x ? x : INFINITY;
    return (float)genie_exp((double)x);
}

/* ln x, to 1 unit in the last place. x = 2^k m with m between sqrt(1/2) and sqrt(2); ln m = 2 artanh((m - 1) / (m +
 * 1)). */
static inline double genie_log(double x) {
    if (!(x > 0))
        return x == 0 ? -INFINITY : NAN;
    if (x == INFINITY)
        return x;
    int64_t k = 0;
    if (x < 2.2250738585072014e-308) { /* subnormal */
        x *= 18014398509481984.0;
        k = -54;
    }
    uint64_t bits = genie_to_bits(x);
    k += (int64_t)(bits >> 52) - 1023;
    double m = genie_from_bits((bits & 0xFFFFFFFFFFFFFu) | (uint64_t)1023 << 52);
    if (m > 1.4142135623730951) {
        m /= 2;
        k++;
    }
    const double f = m - 1, s = f / (2 + f), z = s * s;
    double p = 1.0 / 23;
    p = p * z + 1.0 / 21;
    p = p * z + 1.0 / 19;
    p = p * z + 1.0 / 17;
    p = p * z + 1.0 / 15;
    p = p * z + 1.0 / 13;
    p = p * z + 1.0 / 11;
    p = p * z + 1.0 / 9;
    p = p * z + 1.0 / 7;
    p = p * z + 1.0 / 5;
    p = p * z + 1.0 / 3;
    /* 2 s + 2 s^3 p = f - (f^2 / 2 - s (f^2 / 2 + 2 z p)), of which f is exact */
    const double square = f * f / 2;
    return (double)k * 6.93147180369123816490e-01 -
           ((square - (s * (square + 2 * z * p) + (double)k * 1.90821492927058770002e-10)) - f);
}

/* cos x for 0 <= x <= pi / 2. Beyond pi / 4 as sin(pi / 2 - x), whose subtraction is exact. */
static inline double genie_cos(double x) {
    const int turned = x > 0.78539816339744831;
    const double y = turned ? 1.5707963267948966 - x : x, rest = turned ? 6.123233995736766e-17 : 0, z = y * y;
    if (turned) {
        double p = -1.0 / 1307674368000;
        p = p * z + 1.0 / 6227020800;
        p = p * z - 1.0 / 39916800;
        p = p * z + 1.0 / 362880;
        p = p * z - 1.0 / 5040;
        p = p * z + 1.0 / 120;
        p = p * z - 1.0 / 6;
        return y + (y * z * p + rest);
    }
    double p = 1.0 / 20922789888000;
    p = p * z - 1.0 / 87178291200;
    p = p * z + 1.0 / 479001600;
    p = p * z - 1.0 / 3628800;
    p = p * z + 1.0 / 40320;
    p = p * z - 1.0 / 720;
    p = p * z + 1.0 / 24;
    const double half = z / 2, near = 1 - half; /* 1 - z / 2 + z^2 p, with what the subtraction lost */
    return near + ((1 - near - half) + z * z * p);
}

/* tanh x, rounded to float: (t - 1) / (t + 1) with t = e^(2 x). */
static inline float genie_tanhf(float x) {
    const double y = x;
    if (y < 1e-4 && y > -1e-4)
        return (float)(y - y * y * y / 3);
    if (y > 20 || y < -20)
        return y > 0 ? 1.0f : -1.0f;
    const double t = genie_exp(2 * y);
    return (float)((t - 1) / (t + 1)); /* NaN stays NaN */
}

/*
 * The error function, rounded to float. Up to 2 its series; beyond, 1 - e^(-x^2) / (x sqrt(pi)) times the continued
 * fraction 1 / (1 + a / (1 + 2 a / (1 + 3 a / ...))), a = 1 / (2 x^2) (Abramowitz and Stegun 7.1.6 and 7.1.14).
 */
static inline float genie_erff(float x) {
    const double y = x < 0 ? -(double)x : (double)x, z = y * y;
    double found = 1;
    if (y <= 2) {
        double term = y, sum = y;
        for (int n = 1; term > sum * 1e-11; n++) {
            term *= 2 * z / (2 * n + 1);
            sum += term;
        }
        found = 1.1283791670955126 * genie_exp(-z) * sum;
    } else if (y < 4) {
        double fraction = 1;
        for (int n = 40; n > 0; n--)
            fraction = 1 + n / (2 * z) / fraction;
        found = 1 - genie_exp(-z) * 0.56418958354775629 / (y * fraction);
    } else if (y != y) {
        return x;
    }
    return (float)(x < 0 ? -found : found);
}

#endif
