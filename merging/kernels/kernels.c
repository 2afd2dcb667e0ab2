/* Fused loops over flat chunks: what merging/methods does with torch, without the passes between.
 *
 * Compiled on first need by merging/kernels/__init__.py where a C compiler is present. Every
 * function computes in float32, one operation at a time in the order of its torch twin, with
 * contraction off, so both give the same bits (tests/merging/test_fused.py holds them to it).
 * Inputs are raw tensors: float32, bfloat16, float16 or float64. Blocks stay in the first cache.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <math.h>
#include <signal.h>
#include <stdint.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>
#if defined(__AVX2__)
#include <immintrin.h>
#endif

#define BLOCK 512
#define GROUP 32
#define ALIGNED _Alignas(64) /* blocks: vectors that lie in one line of the cache each */
enum { F32 = 0, BF16 = 1, F16 = 2, F64 = 3 };
/* Of a profile. The step between two tables is no multiple of a page: a processor that looks for
 * what was just written takes places a page apart for one. */
enum { FINE = 1 << 15, TABLE = 2 * FINE + 272, COMMON = 4, NONE = 0xFFFF };

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

static void load_delta(const float *restrict base, const void *expert, int type, int64_t at, int n,
                       float *restrict out) {
    if (type == BF16) { /* the usual one, without a pass between */
        const uint16_t *in = (const uint16_t *)expert + at;
        for (int i = 0; i < n; i++) out[i] = float_of((uint32_t)in[i] << 16) - base[i];
        return;
    }
    load(expert, type, at, n, out);
    for (int i = 0; i < n; i++) out[i] = out[i] - base[i];
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

/* Sums of one expert's delta: sums = {|d|, d^2}. Adds to what is there. */
void amalgam_sums(const void *base, int base_type, const void *expert, int type, int64_t n,
                  double *sums) {
    ALIGNED float b[BLOCK], d[BLOCK];
    for (int64_t at = 0; at < n; at += BLOCK) {
        int m = n - at < BLOCK ? (int)(n - at) : BLOCK;
        load(base, base_type, at, m, b);
        load_delta(b, expert, type, at, m, d);
        add_sums(d, m, sums);
    }
}

/* Number of |delta| > bounds[k], added to counts[k]. */
void amalgam_count(const void *base, int base_type, const void *expert, int type, int64_t n,
                   int bounds_n, const float *bounds, int64_t *counts) {
    ALIGNED float b[BLOCK], d[BLOCK];
    for (int64_t at = 0; at < n; at += BLOCK) {
        int m = n - at < BLOCK ? (int)(n - at) : BLOCK;
        load(base, base_type, at, m, b);
        load_delta(b, expert, type, at, m, d);
        for (int k = 0; k < bounds_n; k++) {
            int over = 0;
            for (int i = 0; i < m; i++) over += fabsf(d[i]) > bounds[k];
            counts[k] += over;
        }
    }
}

static inline uint32_t mix(uint32_t x) {
    x ^= x >> 16;
    x *= 0x7FEB352Du;
    x ^= x >> 15;
    x *= 0x846CA68Bu;
    return x ^ (x >> 16);
}

typedef struct {
    const void *data;
    int32_t type;
    int32_t rings;        /* K, or 0: keep everything, times scale */
    int32_t random;       /* 1: random pruning */
    uint32_t key0, key1;  /* of the draw */
    uint32_t keep;        /* draws below this of 2^24 are kept */
    float scale;          /* factor on a kept random draw, or on everything */
    float weight;
    int32_t active;       /* takes part in a competition */
    float low, high, threshold, top;  /* its bounds there */
    float lower[16], factor[16];
} Expert;

typedef struct {
    int32_t ties, normalize, zero_is_positive;
    float divisor;  /* of a normalized sum; 1 otherwise */
    float strength, base_weight;
    int32_t competition;  /* 0, or how agreement is scored: SUM_OF_DELTAS... */
} Rule;

enum { SUM_OF_DELTAS = 1, SUM_OF_NORMALIZED = 2, PAIRWISE = 3 };

static void prune(const Expert *expert, int64_t index, int m, float *restrict d) {
    if (expert->random) {
        for (int i = 0; i < m; i++) {
            uint64_t at = (uint64_t)(index + i);
            uint32_t x = mix((uint32_t)at ^ expert->key0);
            x = mix(x + expert->key1 + (uint32_t)(at >> 32) * 0x632BE5ABu);
            float scaled = d[i] * expert->scale, none = d[i] * 0.0f; /* NaN stays one */
            d[i] = (x >> 8) < expert->keep ? scaled : none;
        }
    } else if (expert->rings == 0) {
        if (expert->scale != 1.0f)
            for (int i = 0; i < m; i++) d[i] = d[i] * expert->scale;
    } else if (expert->rings == 1 && expert->factor[0] == 1.0f) {
        float lower = expert->lower[0];
        for (int i = 0; i < m; i++) d[i] = fabsf(d[i]) >= lower ? d[i] : 0.0f;
    } else {
        ALIGNED float factor[BLOCK];
        for (int i = 0; i < m; i++) factor[i] = 0.0f;
        for (int k = expert->rings - 1; k >= 0; k--) {
            float lower = expert->lower[k], value = expert->factor[k];
            for (int i = 0; i < m; i++) factor[i] = fabsf(d[i]) >= lower ? value : factor[i];
        }
        for (int i = 0; i < m; i++) d[i] = factor[i] * d[i];
    }
}

#if defined(__AVX2__) && !defined(__AVX512F__)
static uint32_t PACK[256][8]; /* for a mask of 8 lanes: where each lane set in it goes */

__attribute__((constructor)) static void fill_pack(void) {
    for (int mask = 0; mask < 256; mask++)
        for (int lane = 0, to = 0; lane < 8; lane++)
            if (mask >> lane & 1) PACK[mask][to++] = (uint32_t)lane;
}
#endif

/* Appends those of m keys inside [low, high] to keys, adding their number to *found. Where it
 * exceeds the capacity not all are kept; up to GROUP places beyond the last are written. */
static inline void collect(const uint32_t *restrict key, int m, uint32_t low, uint32_t high,
                           int64_t capacity, uint32_t *restrict keys, int64_t *found) {
    uint32_t width = high - low;
    int64_t count = *found;
    int i = 0;
#if defined(__AVX512F__)
    for (; i + 16 <= m; i += 16) {
        __m512i lanes = _mm512_loadu_si512(key + i);
        __m512i above = _mm512_sub_epi32(lanes, _mm512_set1_epi32((int)low));
        __mmask16 mask = _mm512_cmple_epu32_mask(above, _mm512_set1_epi32((int)width));
        if (!mask) continue;
        if (count + GROUP <= capacity)
            _mm512_storeu_si512(keys + count, _mm512_maskz_compress_epi32(mask, lanes));
        else
            count += GROUP;
        count += __builtin_popcount(mask);
    }
#elif defined(__AVX2__)
    __m256i most = _mm256_set1_epi32((int)width), least = _mm256_set1_epi32((int)low);
    for (; i + 8 <= m; i += 8) {
        __m256i lanes = _mm256_loadu_si256((const __m256i *)(key + i));
        __m256i above = _mm256_sub_epi32(lanes, least);
        __m256i inside = _mm256_cmpeq_epi32(_mm256_min_epu32(above, most), above);
        int mask = _mm256_movemask_ps(_mm256_castsi256_ps(inside));
        if (!mask) continue;
        __m256i order = _mm256_loadu_si256((const __m256i *)PACK[mask]);
        if (count + GROUP <= capacity)
            _mm256_storeu_si256((__m256i *)(keys + count),
                                _mm256_permutevar8x32_epi32(lanes, order));
        else
            count += GROUP;
        count += __builtin_popcount((unsigned)mask);
    }
#endif
    for (; i < m; i++)
        if (key[i] - low <= width) {
            if (count + GROUP <= capacity)
                keys[count] = key[i];
            else
                count += GROUP;
            count++;
        }
    *found = count;
}

/* Counts keys by their upper 16 bits (bucket -1), or by the lower 16 bits of those inside a bucket. */
static inline void count_keys(const uint32_t *restrict key, int m, int32_t bucket,
                              int64_t *restrict to) {
    if (bucket == -1) {
        for (int i = 0; i < m; i++) to[key[i] >> 16]++;
        return;
    }
    uint32_t inside[BLOCK + GROUP], low = (uint32_t)bucket << 16;
    int64_t found = 0;
    collect(key, m, low, low | 0xFFFFu, BLOCK + GROUP, inside, &found);
    for (int64_t i = 0; i < found; i++) to[inside[i] & 0xFFFFu]++;
}

/* Histograms of the magnitudes of one expert's pruned delta: of the upper 16 bits where buckets[k]
 * is -1, else of the lower 16 bits inside that bucket. counts: n_buckets x 65536, upper buckets
 * from 0 (magnitudes have no sign). */
void amalgam_histogram(const void *base, int base_type, const Expert *expert, int64_t first,
                       int64_t n, int n_buckets, const int32_t *buckets, int64_t *counts) {
    ALIGNED float b[BLOCK], d[BLOCK];
    for (int64_t at = 0; at < n; at += BLOCK) {
        int m = n - at < BLOCK ? (int)(n - at) : BLOCK;
        load(base, base_type, at, m, b);
        load_delta(b, expert->data, expert->type, at, m, d);
        prune(expert, first + at, m, d);
        ALIGNED uint32_t key[BLOCK];
        for (int i = 0; i < m; i++) key[i] = bits_of(d[i]) & 0x7FFFFFFFu;
        for (int k = 0; k < n_buckets; k++)
            count_keys(key, m, buckets[k], counts + (int64_t)k * 65536);
    }
}

/* Index in [0, n) of the nth entry (from 1) whose magnitude equals value; -(entries seen) - 1 if
 * there are fewer. */
int64_t amalgam_nth_equal(const void *base, int base_type, const Expert *expert, int64_t first,
                          int64_t n, float value, int64_t nth) {
    ALIGNED float b[BLOCK], d[BLOCK];
    int64_t seen = 0;
    for (int64_t at = 0; at < n; at += BLOCK) {
        int m = n - at < BLOCK ? (int)(n - at) : BLOCK, here = 0;
        load(base, base_type, at, m, b);
        load_delta(b, expert->data, expert->type, at, m, d);
        prune(expert, first + at, m, d);
        for (int i = 0; i < m; i++) here += fabsf(d[i]) == value;
        if (seen + here < nth) {
            seen += here;
            continue;
        }
        for (int i = 0; i < m; i++)
            if (fabsf(d[i]) == value && ++seen == nth) return at + i;
    }
    return -seen - 1;
}


/* Of n keys in [low, high] the one at an ascending rank. higher, equal: how many are above it and
 * at it. Narrows the range by histograms until one value is left. */
uint32_t amalgam_select(const uint32_t *keys, int64_t n, int64_t rank, uint32_t low, uint32_t high,
                        int64_t *higher, int64_t *equal) {
    enum { BINS = 2048 };
    int64_t above = 0;
    for (;;) {
        /* two halves, so that equal neighbours do not wait for each other; the last bin is for
         * what lies outside */
        uint32_t width = high - low, counts[BINS + 1] = {0}, odd[BINS + 1] = {0};
        int shift = 0;
        while (width >> shift >= BINS) shift++;
        int64_t i = 0;
        for (; i + 2 <= n; i += 2) {
            uint32_t one = keys[i] - low, two = keys[i + 1] - low;
            counts[one <= width ? one >> shift : BINS]++;
            odd[two <= width ? two >> shift : BINS]++;
        }
        if (i < n && keys[i] - low <= width) counts[(keys[i] - low) >> shift]++;
        for (int b = 0; b < BINS; b++) counts[b] += odd[b];
        int bin = BINS - 1;
        int64_t from_top = n - rank; /* the rank-th from below is the from_top-th from above */
        while (above + counts[bin] < from_top) above += counts[bin--];
        if (shift == 0) {
            *higher = above;
            *equal = counts[bin];
            return low + (uint32_t)bin;
        }
        uint32_t start = low + ((uint32_t)bin << shift), end = start + (((uint32_t)1 << shift) - 1);
        low = start;
        high = end < high ? end : high;
    }
}

/* The inner product of m floats, m a multiple of 64. */
static double dot(const float *restrict u, const float *restrict v, int m) {
#if defined(__AVX512F__)
    __m512 lanes[4];
    for (int j = 0; j < 4; j++) lanes[j] = _mm512_setzero_ps();
    for (int i = 0; i < m; i += 64)
        for (int j = 0; j < 4; j++) {
            __m512 x = _mm512_loadu_ps(u + i + 16 * j), y = _mm512_loadu_ps(v + i + 16 * j);
            lanes[j] = _mm512_add_ps(lanes[j], _mm512_mul_ps(x, y));
        }
    __m512 even = _mm512_add_ps(lanes[0], lanes[2]), odd = _mm512_add_ps(lanes[1], lanes[3]);
    return _mm512_reduce_add_ps(_mm512_add_ps(even, odd));
#else
    float lanes[64] = {0};
    for (int i = 0; i < m; i += 64)
        for (int j = 0; j < 64; j++) lanes[j] += u[i + j] * v[i + j];
    for (int half = 32; half; half /= 2)
        for (int j = 0; j < half; j++) lanes[j] += lanes[j + half];
    return lanes[0];
#endif
}

/* Whether squares of floats up to this magnitude neither vanish nor overflow. */
static inline int can_square(uint32_t largest) {
    return largest > 0x20000000u && largest < 0x5C000000u;
}

/* Which of 32 values lie in [from, from + width], a bit each. */
static inline uint32_t inside(const uint16_t *value, uint16_t from, uint16_t width) {
#if defined(__AVX2__)
    __m256i least = _mm256_set1_epi16((short)from), most = _mm256_set1_epi16((short)width), half[2];
    for (int k = 0; k < 2; k++) {
        __m256i lanes = _mm256_loadu_si256((const __m256i *)(value + 16 * k));
        __m256i above = _mm256_sub_epi16(lanes, least);
        half[k] = _mm256_cmpeq_epi16(_mm256_min_epu16(above, most), above);
    }
    __m256i packed = _mm256_permute4x64_epi64(_mm256_packs_epi16(half[0], half[1]), 0xD8);
    return (uint32_t)_mm256_movemask_epi8(packed);
#else
    uint32_t mask = 0;
    for (int j = 0; j < 32; j++) mask |= (uint32_t)((uint16_t)(value[j] - from) <= width) << j;
    return mask;
#endif
}

/* What a profile counts of one expert. A place is the upper bits of |d|, plus FINE where its lower
 * 16 bits are not zero. */
typedef struct {
    uint32_t *even, *odd; /* by place, in halves: equal neighbours do not wait for each other */
    double *sums;         /* {|d|, d^2} */
    uint32_t top;         /* bits of the largest |d| */
    int n_near;           /* ranges of places whose entries' bits are collected */
    const uint16_t *first, *last;
    int64_t *found, capacity;
    uint32_t *keys;
    uint16_t common[COMMON]; /* places that many entries share: a processor that can counts them
                              * by comparing, which is quicker than adding to a table */
} Tally;

/* Appends the bits of those of 32 entries whose bit is set in a mask. */
static inline void keep_near(Tally *tally, int k, const float *d, uint32_t mask) {
    for (; mask; mask &= mask - 1) {
        int64_t slot = tally->found[k]++;
        if (slot < tally->capacity)
            tally->keys[k * tally->capacity + slot] = bits_of(d[__builtin_ctz(mask)]) & 0x7FFFFFFFu;
    }
}

static void count_places(Tally *tally, const uint16_t *restrict place, int n) {
    uint32_t *even = tally->even, *odd = tally->odd;
    int i = 0;
    for (; i + 4 <= n; i += 4) {
        even[place[i]]++;
        odd[place[i + 1]]++;
        even[place[i + 2]]++;
        odd[place[i + 3]]++;
    }
    for (; i < n; i++) even[place[i]]++;
}

#if defined(__AVX512VBMI2__) && defined(__AVX512BW__)
/* Makes the most frequent of n places common, going by the first of them. */
static void choose_common(Tally *tally, const uint16_t *place, int n) {
    int most[COMMON] = {0};
    for (int c = 0; c < n && c < 64; c++) {
        int equal = 0, known = 0, k = COMMON;
        for (int j = 0; j < n; j++) equal += place[j] == place[c];
        for (int j = 0; j < COMMON; j++) known |= most[j] && tally->common[j] == place[c];
        if (known) continue;
        for (; k && most[k - 1] < equal; k--)
            if (k < COMMON) most[k] = most[k - 1], tally->common[k] = tally->common[k - 1];
        if (k < COMMON) most[k] = equal, tally->common[k] = place[c];
    }
}

/* Counts a block of m entries, followed by zeros; the same bits as below. */
static void take(Tally *tally, const float *restrict d, int m, int is_first) {
    static const uint16_t UPPER[32] = {1,  3,  5,  7,  9,  11, 13, 15, 17, 19, 21,
                                       23, 25, 27, 29, 31, 33, 35, 37, 39, 41, 43,
                                       45, 47, 49, 51, 53, 55, 57, 59, 61, 63};
    const __m512i upper = _mm512_loadu_si512(UPPER), lower = _mm512_set1_epi32(0xFFFF);
    const __m512i magnitude = _mm512_set1_epi32(0x7FFFFFFF);
    const __m512i fine_too = _mm512_set1_epi16((short)FINE);
    __m512i top0 = _mm512_setzero_si512(), top1 = top0;
    __m512d norm0 = _mm512_setzero_pd(), norm1 = norm0, norm2 = norm0, norm3 = norm0;
    ALIGNED uint16_t rare[BLOCK + 32];
    int common[COMMON] = {0}, n = 0, n_near = tally->n_near;
    __m512i value[COMMON], from[n_near + 1], width[n_near + 1];
    for (int k = 0; k < COMMON; k++) value[k] = _mm512_set1_epi16((short)tally->common[k]);
    for (int k = 0; k < n_near; k++) {
        from[k] = _mm512_set1_epi16((short)(tally->first[k] | FINE));
        width[k] = _mm512_set1_epi16((short)(tally->last[k] - tally->first[k]));
    }
    for (int i = 0; i < BLOCK; i += 32) {
        __m512 x0 = _mm512_loadu_ps(d + i), x1 = _mm512_loadu_ps(d + i + 16);
        __m512i k0 = _mm512_and_si512(_mm512_castps_si512(x0), magnitude);
        __m512i k1 = _mm512_and_si512(_mm512_castps_si512(x1), magnitude);
        top0 = _mm512_max_epu32(top0, k0);
        top1 = _mm512_max_epu32(top1, k1);
        __mmask32 fine = _mm512_kunpackw(_mm512_test_epi32_mask(k1, lower),
                                         _mm512_test_epi32_mask(k0, lower));
        __m512i place = _mm512_permutex2var_epi16(k0, upper, k1);
        place = _mm512_mask_add_epi16(place, fine, place, fine_too);
        uint32_t near[n_near + 1], any = 0;
        for (int k = 0; k < n_near; k++) {
            near[k] = _mm512_cmple_epu16_mask(_mm512_sub_epi16(place, from[k]), width[k]);
            any |= near[k];
        }
        if (any)
            for (int k = 0; k < n_near; k++) keep_near(tally, k, d + i, near[k]);
        __mmask32 left = m - i >= 32 ? 0xFFFFFFFFu : m > i ? (1u << (m - i)) - 1 : 0;
        for (int k = 0; k < COMMON; k++) {
            __mmask32 equal = _mm512_mask_cmpeq_epu16_mask(left, place, value[k]);
            common[k] += __builtin_popcount(equal);
            left &= ~equal;
        }
        _mm512_storeu_si512(rare + n, _mm512_maskz_compress_epi16(left, place));
        n += __builtin_popcount(left);
        __m512 a0 = _mm512_castsi512_ps(k0), a1 = _mm512_castsi512_ps(k1);
        norm0 = _mm512_add_pd(norm0, _mm512_cvtps_pd(_mm512_castps512_ps256(a0)));
        norm1 = _mm512_add_pd(norm1, _mm512_cvtps_pd(_mm512_extractf32x8_ps(a0, 1)));
        norm2 = _mm512_add_pd(norm2, _mm512_cvtps_pd(_mm512_castps512_ps256(a1)));
        norm3 = _mm512_add_pd(norm3, _mm512_cvtps_pd(_mm512_extractf32x8_ps(a1, 1)));
    }
    for (int k = 0; k < COMMON; k++) tally->even[tally->common[k]] += (uint32_t)common[k];
    count_places(tally, rare, n);
    if (is_first) choose_common(tally, rare, n);
    uint32_t largest = _mm512_reduce_max_epu32(_mm512_max_epu32(top0, top1));
    tally->top = largest > tally->top ? largest : tally->top;
    if (can_square(largest)) {
        norm0 = _mm512_add_pd(_mm512_add_pd(norm0, norm2), _mm512_add_pd(norm1, norm3));
        tally->sums[0] += _mm512_reduce_add_pd(norm0);
        tally->sums[1] += dot(d, d, BLOCK);
    } else if (largest) {
        add_sums(d, m, tally->sums);
    }
}
#else
/* The sum of |u|, in double: outliers are counted above multiples of it. As dot. */
static double norm(const float *restrict u, int m) {
    double lanes[32] = {0};
    for (int i = 0; i < m; i += 32)
        for (int j = 0; j < 32; j++) lanes[j] += (double)fabsf(u[i + j]);
    for (int half = 16; half; half /= 2)
        for (int j = 0; j < half; j++) lanes[j] += lanes[j + half];
    return lanes[0];
}

/* Counts a block of m entries, followed by zeros. */
static void take(Tally *tally, const float *restrict d, int m, int is_first) {
    ALIGNED uint16_t place[BLOCK];
    uint32_t largest = 0;
    (void)is_first;
    for (int i = 0; i < BLOCK; i++) {
        uint32_t key = bits_of(d[i]) & 0x7FFFFFFFu;
        largest = key > largest ? key : largest;
        place[i] = (uint16_t)((key >> 16) | ((key & 0xFFFFu) ? FINE : 0u));
    }
    count_places(tally, place, m);
    for (int k = 0; k < tally->n_near; k++) {
        uint16_t from = tally->first[k] | FINE, width = tally->last[k] - tally->first[k];
        for (int i = 0; i < BLOCK; i += 32)
            keep_near(tally, k, d + i, inside(place + i, from, width));
    }
    tally->top = largest > tally->top ? largest : tally->top;
    if (can_square(largest)) {
        tally->sums[0] += norm(d, BLOCK);
        tally->sums[1] += dot(d, d, BLOCK);
    } else if (largest) {
        add_sums(d, m, tally->sums);
    }
}
#endif

/* Everything a sketch holds of [0, n), in one pass. Adds to what is there.
 * tables: n_experts x 2 x TABLE counts of entries by the upper 16 bits of |d|, those whose lower
 * 16 bits are zero first; in two halves, so that equal neighbours do not wait for each other.
 * sums: n_experts x {|d|, d^2}. top: bits of the largest |d|. dots: inner products of deltas
 * (row-major, upper triangle). base_square: of the base. first, last, found, keys: n_experts x
 * n_near ranges of upper bits; the bits of entries there are collected but for those whose lower
 * bits are zero, whose number says all of them. Where found exceeds capacity not all are kept. */
void amalgam_profile(const void *base, int base_type, const void *const *experts, const int *types,
                     int n_experts, int64_t n, uint32_t *tables, double *sums, uint32_t *top,
                     double *dots, double *base_square, int n_near, const uint16_t *first,
                     const uint16_t *last, int64_t *found, int64_t capacity, uint32_t *keys) {
    ALIGNED float b[BLOCK], d[n_experts][BLOCK];
    Tally tallies[n_experts];
    for (int e = 0; e < n_experts; e++)
        tallies[e] = (Tally){
            .even = tables + (int64_t)e * 2 * TABLE, .odd = tables + (int64_t)(e * 2 + 1) * TABLE,
            .sums = sums + 2 * e, .top = top[e], .n_near = n_near, .first = first + e * n_near,
            .last = last + e * n_near, .found = found + e * n_near, .capacity = capacity,
            .keys = keys + e * n_near * capacity, .common = {NONE, NONE, NONE, NONE},
        };
    for (int64_t at = 0; at < n; at += BLOCK) {
        int m = n - at < BLOCK ? (int)(n - at) : BLOCK;
        load(base, base_type, at, m, b);
        if (m < BLOCK) memset(b + m, 0, (size_t)(BLOCK - m) * 4);
        for (int e = 0; e < n_experts; e++) {
            load_delta(b, experts[e], types[e], at, m, d[e]);
            if (m < BLOCK) memset(d[e] + m, 0, (size_t)(BLOCK - m) * 4);
            take(&tallies[e], d[e], m, at == 0);
        }
        *base_square += dot(b, b, BLOCK);
        for (int e = 0; e < n_experts; e++)
            for (int f = e + 1; f < n_experts; f++)
                dots[e * n_experts + f] += dot(d[e], d[f], BLOCK);
    }
    for (int e = 0; e < n_experts; e++) top[e] = tallies[e].top;
}

/* One pass for several order statistics whose values are bracketed: how many magnitudes lie above
 * each bracket [low, high], and the bits of those inside it, in order; where low is high their
 * number alone. Bits of magnitudes order as the magnitudes do. Adds to above and found; keys: n_brackets x capacity. Where found exceeds
 * capacity the bracket was too wide, and its keys are not complete. Returns the largest bits. */
uint32_t amalgam_collect(const void *base, int base_type, const void *expert, int type, int64_t n,
                         int n_brackets, const uint32_t *low, const uint32_t *high, int64_t *above,
                         int64_t *found, int64_t capacity, uint32_t *keys) {
    ALIGNED float b[BLOCK], d[BLOCK];
    ALIGNED uint32_t key[BLOCK], top = 0;
    for (int64_t at = 0; at < n; at += BLOCK) {
        int m = n - at < BLOCK ? (int)(n - at) : BLOCK;
        load(base, base_type, at, m, b);
        load_delta(b, expert, type, at, m, d);
        for (int i = 0; i < m; i++) {
            key[i] = bits_of(d[i]) & 0x7FFFFFFFu;
            top = key[i] > top ? key[i] : top;
        }
        for (int k = 0; k < n_brackets; k++) {
            uint32_t from = low[k], to = high[k], width = to - from;
            int over = 0;
            for (int i = 0; i < m; i++) over += key[i] > to;
            above[k] += over;
            if (width == 0) { /* a single value: its place is not needed */
                int equal = 0;
                for (int i = 0; i < m; i++) equal += key[i] == to;
                found[k] += equal;
                continue;
            }
            collect(key, m, from, to, capacity, keys + (int64_t)k * capacity, found + k);
        }
    }
    return top;
}

static void combine_sum(float (*d)[BLOCK], const Expert *experts, int n_experts, const Rule *rule,
                        int m, float *restrict merged) {
    for (int i = 0; i < m; i++) merged[i] = d[0][i] * experts[0].weight;
    for (int e = 1; e < n_experts; e++) {
        float weight = experts[e].weight;
        for (int i = 0; i < m; i++) merged[i] = merged[i] + d[e][i] * weight;
    }
    if (rule->divisor != 1.0f)
        for (int i = 0; i < m; i++) merged[i] = merged[i] / rule->divisor;
}

/* As below with a known number of experts: everything stays in registers. */
static inline __attribute__((always_inline)) void ties_of(
    const int n_experts, float (*restrict d)[BLOCK], const Expert *experts, const Rule *rule, int m,
    float *restrict merged) {
    float weight[4];
    for (int e = 0; e < n_experts; e++) weight[e] = experts[e].weight;
    int zero_is_positive = rule->zero_is_positive, normalize = rule->normalize;
    for (int i = 0; i < m; i++) {
        float v[4];
        for (int e = 0; e < n_experts; e++) v[e] = d[e][i] * weight[e];
        float total = v[0];
        for (int e = 1; e < n_experts; e++) total = total + v[e];
        int positive = zero_is_positive ? total >= 0.0f : total > 0.0f;
        float sign = positive ? 1.0f : -1.0f, sum = 0.0f, divisor = 0.0f;
        for (int e = 0; e < n_experts; e++) {
            int agrees = v[e] * sign > 0.0f;
            sum = sum + (agrees ? v[e] : 0.0f);
            divisor = divisor + (agrees ? weight[e] : 0.0f);
        }
        divisor = divisor == 0.0f || !normalize ? 1.0f : divisor;
        merged[i] = sum / divisor + total * 0.0f; /* NaN has no sign, and must be seen */
    }
}

static void combine_ties(float (*d)[BLOCK], const Expert *experts, int n_experts, const Rule *rule,
                         int m, float *restrict merged) {
    if (n_experts == 2) return ties_of(2, d, experts, rule, m, merged);
    if (n_experts == 3) return ties_of(3, d, experts, rule, m, merged);
    if (n_experts == 4) return ties_of(4, d, experts, rule, m, merged);
    ALIGNED float total[BLOCK], divisor[BLOCK];
    for (int e = 0; e < n_experts; e++) {
        float weight = experts[e].weight;
        for (int i = 0; i < m; i++) d[e][i] = d[e][i] * weight;
    }
    for (int i = 0; i < m; i++) total[i] = d[0][i];
    for (int e = 1; e < n_experts; e++)
        for (int i = 0; i < m; i++) total[i] = total[i] + d[e][i];
    /* flip signs so that the elected one is always +: comparing is then the same for both */
    ALIGNED float unseen[BLOCK]; /* NaN has no sign, and must be seen */
    for (int i = 0; i < m; i++) {
        int positive = rule->zero_is_positive ? total[i] >= 0.0f : total[i] > 0.0f;
        unseen[i] = total[i] * 0.0f;
        total[i] = positive ? 1.0f : -1.0f;
        merged[i] = 0.0f;
        divisor[i] = 0.0f;
    }
    for (int e = 0; e < n_experts; e++) {
        float weight = experts[e].weight;
        for (int i = 0; i < m; i++) {
            int agrees = d[e][i] * total[i] > 0.0f;
            merged[i] = merged[i] + (agrees ? d[e][i] : 0.0f);
            divisor[i] = divisor[i] + (agrees ? weight : 0.0f);
        }
    }
    if (rule->normalize)
        for (int i = 0; i < m; i++)
            merged[i] = merged[i] / (divisor[i] == 0.0f ? 1.0f : divisor[i]);
    for (int i = 0; i < m; i++) merged[i] = merged[i] + unseen[i];
}

/* exp for x in [0, 87] and tanh, step by step as merging/methods/elementary.py. */
static inline float exp_fixed(float x) {
    x = x > 87.0f ? 87.0f : x;
    float power = floorf(x * 1.44269504088896341f + 0.5f);
    x = x - power * 0.693359375f;
    x = x - power * -2.12194440e-4f;
    float y = x * 1.9875691500e-4f + 1.3981999507e-3f;
    y = y * x + 8.3334519073e-3f;
    y = y * x + 4.1665795894e-2f;
    y = y * x + 1.6666665459e-1f;
    y = y * x + 5.0000001201e-1f;
    y = y * (x * x) + x + 1.0f;
    return y * float_of((uint32_t)((int32_t)power + 127) << 23);
}

static inline float tanh_fixed(float x) {
    const float limit = 7.90531110763549805f;
    x = x > limit ? limit : x;
    x = x < -limit ? -limit : x;
    float z = x * x;
    z = z < 1e-20f ? 1e-20f : z;
    float over = z * -2.76076847742355e-16f + 2.00018790482477e-13f;
    over = over * z + -8.60467152213735e-11f;
    over = over * z + 5.12229709037114e-08f;
    over = over * z + 1.48572235717979e-05f;
    over = over * z + 6.37261928875436e-04f;
    over = over * z + 4.89352455891786e-03f;
    float under = z * 1.19825839466702e-06f + 1.18534705686654e-04f;
    under = under * z + 2.26843463243900e-03f;
    under = under * z + 4.89352518554385e-03f;
    return over * x / under;
}

static inline float clamped(float value, float low, float high) {
    value = value < low ? low : value;
    return value > high ? high : value;
}

static inline float sign_of(float value) { return (float)((value > 0.0f) - (value < 0.0f)); }

/* PCB's scores b_i of the active experts; d holds the pruned deltas and is kept. */
static void score(float (*d)[BLOCK], const Expert *experts, int n_experts, const Rule *rule, int m,
                  float (*restrict b)[BLOCK]) {
    ALIGNED float v[n_experts][BLOCK], total[BLOCK];
    int count = 0, seen[n_experts]; /* seen: b holds a sum already */
    for (int e = 0; e < n_experts; e++) seen[e] = 0;
    for (int i = 0; i < m; i++) total[i] = 0.0f;
    for (int e = 0; e < n_experts; e++) {
        if (!experts[e].active) continue;
        count++;
        float low = experts[e].low, high = experts[e].high, span = high - low;
        for (int i = 0; i < m; i++)
            v[e][i] = span <= 0.0f ? 0.0f
                                   : sign_of(d[e][i]) * ((clamped(fabsf(d[e][i]), low, high) - low) / span);
        const float *added = rule->competition == SUM_OF_NORMALIZED ? v[e] : d[e];
        for (int i = 0; i < m; i++) total[i] = total[i] + added[i];
    }
    for (int e = 0; e < n_experts; e++) {
        if (!experts[e].active) continue;
        if (rule->competition == PAIRWISE) {
            /* each pair once; terms of b[e] still add up in the experts' order, because those with
             * f < e were added when f's turn came, lowest f first */
            for (int i = 0; i < m; i++)
                b[e][i] = (seen[e] ? b[e][i] : 0.0f) + tanh_fixed(v[e][i] * v[e][i]);
            for (int f = e + 1; f < n_experts; f++) {
                if (!experts[f].active) continue;
                for (int i = 0; i < m; i++) {
                    float agreement = tanh_fixed(v[e][i] * v[f][i]);
                    b[e][i] = b[e][i] + agreement;
                    b[f][i] = (seen[f] ? b[f][i] : 0.0f) + agreement;
                }
                seen[f] = 1;
            }
        } else {
            for (int i = 0; i < m; i++) b[e][i] = tanh_fixed(d[e][i] * total[i]);
        }
        float n = (float)count;
        for (int i = 0; i < m; i++) b[e][i] = exp_fixed(n * v[e][i] * v[e][i]) * b[e][i];
    }
}

static void combine_pcb(float (*d)[BLOCK], const Expert *experts, int n_experts, const Rule *rule,
                        int m, float *restrict merged) {
    ALIGNED float b[n_experts][BLOCK], denominator[BLOCK];
    score(d, experts, n_experts, rule, m, b);
    for (int i = 0; i < m; i++) merged[i] = denominator[i] = 0.0f;
    for (int e = 0; e < n_experts; e++) {
        if (!experts[e].active) continue;
        Expert x = experts[e];
        float span = x.top - x.threshold;
        int out_voted = x.top == 0.0f && x.high > x.low; /* everywhere */
        for (int i = 0; i < m; i++) {
            float share = span <= 0.0f
                              ? (!out_voted && b[e][i] >= x.threshold ? 1.0f : 0.0f)
                              : (clamped(b[e][i], x.threshold, x.top) - x.threshold) / span;
            float clip = sign_of(d[e][i]) * clamped(fabsf(d[e][i]), x.low, x.high);
            merged[i] = merged[i] + x.weight * clip * share;
            denominator[i] = denominator[i] + share;
        }
    }
    for (int i = 0; i < m; i++)
        merged[i] = merged[i] / (denominator[i] < 1e-12f ? 1e-12f : denominator[i]);
}

/* Histograms of the scores of every active expert, n_buckets each: of the upper 16 bits of the
 * keys where buckets[e][k] is -1 (32768 is the bucket of 0), nothing where it is -2, else of the lower
 * 16 inside it. */
void amalgam_score_histogram(const void *base, int base_type, const Expert *experts, int n_experts,
                             const Rule *rule, int64_t first, int64_t n, int n_buckets,
                             const int32_t *buckets, int64_t *counts) {
    ALIGNED float base_block[BLOCK], d[n_experts][BLOCK], b[n_experts][BLOCK];
    for (int64_t at = 0; at < n; at += BLOCK) {
        int m = n - at < BLOCK ? (int)(n - at) : BLOCK;
        load(base, base_type, at, m, base_block);
        for (int e = 0; e < n_experts; e++) {
            if (!experts[e].active) continue;
            load_delta(base_block, experts[e].data, experts[e].type, at, m, d[e]);
            prune(&experts[e], first + at, m, d[e]);
        }
        score(d, experts, n_experts, rule, m, b);
        for (int e = 0; e < n_experts; e++) {
            if (!experts[e].active) continue;
            ALIGNED uint32_t key[BLOCK]; /* orders as the score does, from 0 */
            for (int i = 0; i < m; i++) {
                int32_t bits = (int32_t)bits_of(b[e][i] + 0.0f);
                key[i] = (uint32_t)(bits ^ ((bits >> 31) & 0x7FFFFFFF)) ^ 0x80000000u;
            }
            for (int k = 0; k < n_buckets; k++) {
                int32_t wanted = buckets[e * n_buckets + k];
                if (wanted >= -1)
                    count_keys(key, m, wanted, counts + ((int64_t)e * n_buckets + k) * 65536);
            }
        }
    }
}

/* Merges [0, n) of a chunk whose first element has index `first` in its tensor.
 * drift += {sum (merged - base)^2, sum base^2}. Returns how many results are not finite. */
int64_t amalgam_merge(const void *base, int base_type, const Expert *experts, int n_experts,
                      const Rule *rule, int64_t first, int64_t n, void *out, int out_type,
                      double *drift) {
    ALIGNED float b[BLOCK], d[n_experts][BLOCK], merged[BLOCK];
    int64_t bad = 0;
    for (int64_t at = 0; at < n; at += BLOCK) {
        int m = n - at < BLOCK ? (int)(n - at) : BLOCK;
        load(base, base_type, at, m, b);
        for (int e = 0; e < n_experts; e++) {
            load_delta(b, experts[e].data, experts[e].type, at, m, d[e]);
            prune(&experts[e], first + at, m, d[e]);
        }
        if (rule->competition)
            combine_pcb(d, experts, n_experts, rule, m, merged);
        else if (rule->ties)
            combine_ties(d, experts, n_experts, rule, m, merged);
        else
            combine_sum(d, experts, n_experts, rule, m, merged);
        if (rule->strength != 1.0f)
            for (int i = 0; i < m; i++) merged[i] = merged[i] * rule->strength;
        float changed[16] = {0}, squared[16] = {0};
        ALIGNED float scaled[BLOCK];
        for (int i = 0; i < m; i++) scaled[i] = b[i];
        if (rule->base_weight != 1.0f)
            for (int i = 0; i < m; i++) scaled[i] = b[i] * rule->base_weight;
        for (int i = 0; i < m; i++) merged[i] = scaled[i] + merged[i];
        int i = 0;
        for (; i + 16 <= m; i += 16)
            for (int j = 0; j < 16; j++) {
                float moved = merged[i + j] - b[i + j];
                changed[j] += moved * moved;
                squared[j] += b[i + j] * b[i + j];
            }
        for (; i < m; i++) {
            float moved = merged[i] - b[i];
            changed[0] += moved * moved;
            squared[0] += b[i] * b[i];
        }
        for (int j = 0; j < 16; j++) {
            drift[0] += changed[j];
            drift[1] += squared[j];
        }
        bad += store(merged, out, out_type, at, m);
    }
    return bad;
}

/* -1, 0, +1 summed over the votes of a chunk: how many parameters elect + minus how many -. */
int64_t amalgam_balance(const void *base, int base_type, const Expert *experts, int n_experts,
                        int64_t first, int64_t n) {
    ALIGNED float b[BLOCK], d[n_experts][BLOCK], total[BLOCK];
    Rule plain = {0, 0, 0, 1.0f, 1.0f, 1.0f, 0};
    int64_t balance = 0;
    for (int64_t at = 0; at < n; at += BLOCK) {
        int m = n - at < BLOCK ? (int)(n - at) : BLOCK;
        load(base, base_type, at, m, b);
        for (int e = 0; e < n_experts; e++) {
            load_delta(b, experts[e].data, experts[e].type, at, m, d[e]);
            prune(&experts[e], first + at, m, d[e]);
        }
        combine_sum(d, experts, n_experts, &plain, m, total);
        int sum = 0;
        for (int i = 0; i < m; i++) sum += (total[i] > 0.0f) - (total[i] < 0.0f);
        balance += sum;
    }
    return balance;
}

/* The sum of merging/checkpoints/checksum.py; `first` is the index of the first of n words. */
uint64_t amalgam_checksum(const int16_t *words, int64_t n, int64_t first) {
    enum { REGION = 128 };
    int16_t factor[REGION];
    for (int k = 0; k < REGION; k++) factor[k] = (int16_t)(2 * k + 1);
    uint64_t sum = 0;
    for (int64_t i = 0; i < n;) {
        int64_t at = first + i, begin = at % REGION;
        int64_t end = n - i < REGION - begin ? begin + n - i : REGION;
        const int16_t *word = words + i - begin;
        int32_t part = 0; /* below 2**29 */
        if (begin == 0 && end == REGION)
            for (int k = 0; k < REGION; k++) part += word[k] * factor[k];
        else
            for (int64_t k = begin; k < end; k++) part += word[k] * factor[k];
        sum += (uint64_t)(int64_t)part * (2 * (uint64_t)(at / REGION) + 1);
        i += end - begin;
    }
    return sum;
}

/* Files as memory, brought in and let go piece by piece. A file that shrinks while it is mapped, or
 * whose disk fails, raises SIGBUS where it is touched. Inside a mapping zeros take the place of the
 * page that is lost, the thread that met it is told by amalgam_lost(), and the program goes on to
 * say so; elsewhere the signal does what it did before. */
#define MAPPINGS 4096
static struct { _Atomic uintptr_t start, stop; } mappings[MAPPINGS];
static struct sigaction before;
static _Thread_local volatile int lost;

static uintptr_t page_of(uintptr_t at) { return at & ~(uintptr_t)(sysconf(_SC_PAGESIZE) - 1); }

static void on_bus_error(int number, siginfo_t *info, void *context) {
    uintptr_t at = page_of((uintptr_t)info->si_addr);
    (void)number, (void)context;
    for (int i = 0; i < MAPPINGS; i++) {
        if (at < mappings[i].start || at >= mappings[i].stop) continue;
        int flags = MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED;
        size_t page = (size_t)sysconf(_SC_PAGESIZE);
        if (mmap((void *)at, page, PROT_READ, flags, -1, 0) == MAP_FAILED) break;
        lost = 1;
        return;
    }
    sigaction(SIGBUS, &before, NULL); /* not ours: the access is tried again and meets the old one */
}

/* Whoever else asked for the signal meanwhile gets what is not ours. */
static int watch(void) {
    struct sigaction now, own;
    if (sigaction(SIGBUS, NULL, &now) != 0) return -1;
    if ((now.sa_flags & SA_SIGINFO) && now.sa_sigaction == on_bus_error) return 0;
    memset(&own, 0, sizeof own);
    own.sa_sigaction = on_bus_error;
    own.sa_flags = SA_SIGINFO;
    before = now;
    return sigaction(SIGBUS, &own, NULL);
}

/* Maps the first `size` bytes of a file. Returns NULL where that cannot be done. */
void *amalgam_map(int file, int64_t size) {
    if (watch() != 0) return NULL;
    void *start = mmap(NULL, (size_t)size, PROT_READ, MAP_PRIVATE, file, 0);
    if (start == MAP_FAILED) return NULL;
    for (int i = 0; i < MAPPINGS; i++) {
        uintptr_t none = 0;
        if (!__atomic_compare_exchange_n((uintptr_t *)&mappings[i].start, &none, (uintptr_t)start,
                                         0, __ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST))
            continue;
        mappings[i].stop = (uintptr_t)start + (uintptr_t)size;
        return start;
    }
    munmap(start, (size_t)size);
    return NULL;
}

void amalgam_unmap(void *start, int64_t size) {
    for (int i = 0; i < MAPPINGS; i++)
        if (mappings[i].start == (uintptr_t)start) {
            mappings[i].stop = 0;
            mappings[i].start = 0;
            break;
        }
    munmap(start, (size_t)size);
}

/* Brings `size` mapped bytes in at once, where the system can; reading brings them in otherwise. */
void amalgam_bring(void *at, int64_t size) {
    uintptr_t start = page_of((uintptr_t)at);
    lost = lost; /* the thread's flag exists before a signal needs it */
#ifdef MADV_POPULATE_READ
    madvise((void *)start, (size_t)((uintptr_t)at + (uintptr_t)size - start), MADV_POPULATE_READ);
#else
    (void)start, (void)size;
#endif
}

/* Lets them go: they no longer count as this process' memory. */
void amalgam_drop(void *at, int64_t size) {
    uintptr_t start = page_of((uintptr_t)at);
    madvise((void *)start, (size_t)((uintptr_t)at + (uintptr_t)size - start), MADV_DONTNEED);
}

/* Whether this thread has met bytes that are gone since it last asked. */
int amalgam_lost(void) {
    int met = lost;
    lost = 0;
    return met;
}

/* Copies `count` blocks of `size` bytes of a file, the first at `offset`, each `step` bytes after
 * the one before. Returns how many could be read whole. */
int64_t amalgam_gather(int file, int64_t offset, int64_t step, int64_t size, int64_t count,
                       char *out) {
    for (int64_t k = 0; k < count; k++)
        for (int64_t done = 0; done < size;) {
            ssize_t read = pread(file, out + k * size + done, (size_t)(size - done),
                                 offset + k * step + done);
            if (read < 0 && errno == EINTR) continue;
            if (read <= 0) return k;
            done += read;
        }
    return count;
}
