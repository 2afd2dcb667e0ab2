/* Raw tensors as blocks of float32, and back. */
#pragma once
#include <math.h>
#include <stdint.h>
#include <string.h>
#if defined(__AVX2__)
#include <immintrin.h>
#endif

#define BLOCK 512
#define GROUP 32
#define ALIGNED _Alignas(64) /* blocks: vectors that lie in one line of the cache each */
enum { F32 = 0, BF16 = 1, F16 = 2, F64 = 3, SPREAD = 4 };

/* Several experts taken as one: of type SPREAD, whose delta is the variance over theirs. */
typedef struct {
    int32_t n, types[64];
    const void *data[64];
    double *energy; /* NULL, or where squares of all their changes are added up */
} Spread;

static inline uint32_t bits_of(float value) {
    uint32_t bits;
    memcpy(&bits, &value, 4);
    return bits;
}

static inline float float_of(uint32_t bits) {
    float value;
    memcpy(&value, &bits, 4);
    return value;
}

static void load(const void *source, int type, int64_t at, int n, float *restrict out) {
    if (type == F32) {
        memcpy(out, (const float *)source + at, (size_t)n * 4);
    } else if (type == BF16) {
        const uint16_t *in = (const uint16_t *)source + at;
        for (int i = 0; i < n; i++) out[i] = float_of((uint32_t)in[i] << 16);
    } else if (type == F16) {
        const _Float16 *in = (const _Float16 *)source + at;
        for (int i = 0; i < n; i++) out[i] = (float)in[i];
    } else {
        const double *in = (const double *)source + at;
        for (int i = 0; i < n; i++) out[i] = (float)in[i];
    }
}

/* Rounds to the output type, to nearest even. Returns how many values are not finite there. */
static int store(float *restrict in, void *target, int type, int64_t at, int n) {
    int bad = 0;
    if (type == F32) {
        memcpy((float *)target + at, in, (size_t)n * 4);
        for (int i = 0; i < n; i++) bad += (bits_of(in[i]) & 0x7F800000u) == 0x7F800000u;
    } else if (type == BF16) {
        uint16_t *out = (uint16_t *)target + at;
        for (int i = 0; i < n; i++) {
            uint32_t b = bits_of(in[i]);
            uint16_t rounded = (uint16_t)((b + 0x7FFFu + ((b >> 16) & 1u)) >> 16);
            out[i] = rounded;
            bad += (rounded & 0x7F80u) == 0x7F80u || (b & 0x7F800000u) == 0x7F800000u;
        }
    } else if (type == F16) {
        _Float16 *out = (_Float16 *)target + at;
        for (int i = 0; i < n; i++) {
            out[i] = (_Float16)in[i];
            uint16_t b;
            memcpy(&b, &out[i], 2);
            bad += (b & 0x7C00u) == 0x7C00u;
        }
    } else {
        double *out = (double *)target + at;
        for (int i = 0; i < n; i++) {
            out[i] = (double)in[i];
            bad += (bits_of(in[i]) & 0x7F800000u) == 0x7F800000u;
        }
    }
    return bad;
}

static void load_spread(const float *restrict base, const Spread *spread, int64_t at, int n,
                        float *restrict out);

static void load_delta(const float *restrict base, const void *expert, int type, int64_t at, int n,
                       float *restrict out) {
    if (type == SPREAD) return load_spread(base, expert, at, n, out);
    if (type == BF16) { /* the usual one, without a pass between */
        const uint16_t *in = (const uint16_t *)expert + at;
        for (int i = 0; i < n; i++) out[i] = float_of((uint32_t)in[i] << 16) - base[i];
        return;
    }
    load(expert, type, at, n, out);
    for (int i = 0; i < n; i++) out[i] = out[i] - base[i];
}

/* value / n, rounded once. With fused products a correction makes the product with the inverse the
 * quotient to the bit: after the first it is off by less than one unit in its last place, and from
 * there the second rounds it as division does (Markstein, "Computation of elementary functions on
 * the IBM RISC System/6000 processor", 1990). For values far from the ends of a double's range. */
static inline double over(double value, double n, double inverse) {
#if defined(__FMA__)
    double quotient = value * inverse;
    quotient = __builtin_fma(__builtin_fma(-n, quotient, value), inverse, quotient);
    return __builtin_fma(__builtin_fma(-n, quotient, value), inverse, quotient);
#else
    (void)inverse;
    return value / n;
#endif
}

/* One more value of every element, of which there were k before: Welford's steps, in double. The
 * first leaves the mean at the value; halves are the same as products with 0.5. */
static inline void widen(const float *restrict d, int k, int n, double *restrict mean,
                         double *restrict squares) {
    if (k == 0) {
        for (int i = 0; i < n; i++) mean[i] = (double)d[i];
        for (int i = 0; i < n; i++) squares[i] = mean[i] - mean[i]; /* 0, or NaN */
    } else if (k == 1) {
        for (int i = 0; i < n; i++) {
            double apart = (double)d[i] - mean[i];
            mean[i] = mean[i] + apart * 0.5;
            squares[i] = squares[i] + apart * ((double)d[i] - mean[i]);
        }
    } else {
        double count = (double)(k + 1), inverse = 1.0 / count;
        for (int i = 0; i < n; i++) {
            double apart = (double)d[i] - mean[i];
            mean[i] = mean[i] + over(apart, count, inverse);
            squares[i] = squares[i] + apart * ((double)d[i] - mean[i]);
        }
    }
}

static inline void variance_of(const double *restrict squares, int count, int n,
                               float *restrict out) {
    double by = (double)count, inverse = 1.0 / by;
    for (int i = 0; i < n; i++) out[i] = (float)over(squares[i], by, inverse);
}

/* The sum of squares of some values, from their means and Welford's sums. */
static double energy_of(const double *restrict mean, const double *restrict squares, int count,
                        int n) {
    double lanes[16] = {0}, sum = 0.0, by = (double)count;
    int i = 0;
    for (; i + 16 <= n; i += 16)
        for (int j = 0; j < 16; j++) lanes[j] += squares[i + j] + by * mean[i + j] * mean[i + j];
    for (; i < n; i++) lanes[0] += squares[i] + by * mean[i] * mean[i];
    for (int j = 0; j < 16; j++) sum += lanes[j];
    return sum;
}

static void load_spread(const float *restrict base, const Spread *spread, int64_t at, int n,
                        float *restrict out) {
    ALIGNED double mean[BLOCK], squares[BLOCK];
    ALIGNED float d[BLOCK];
    for (int k = 0; k < spread->n; k++) {
        load_delta(base, spread->data[k], spread->types[k], at, n, d);
        widen(d, k, n, mean, squares);
    }
    variance_of(squares, spread->n, n, out);
    if (spread->energy) *spread->energy += energy_of(mean, squares, spread->n, n);
}

/* Adds to sums = {|d|, d^2} of a block, in double. */
static void add_sums(const float *restrict d, int m, double *restrict sums) {
    double lanes[2][16] = {{0}};
    int i = 0;
    for (; i + 16 <= m; i += 16)
        for (int j = 0; j < 16; j++) {
            double v = fabs((double)d[i + j]);
            lanes[0][j] += v;
            lanes[1][j] += v * v;
        }
    for (; i < m; i++) {
        double v = fabs((double)d[i]);
        lanes[0][0] += v;
        lanes[1][0] += v * v;
    }
    for (int j = 0; j < 16; j++) {
        sums[0] += lanes[0][j];
        sums[1] += lanes[1][j];
    }
}
