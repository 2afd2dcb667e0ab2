/* Sums and counts of deltas: what sketches hold. */
#pragma once
#include "values.h"

/* Of a profile. The step between two tables is no multiple of a page: a processor that looks for
 * what was just written takes places a page apart for one. */
enum { FINE = 1 << 15, TABLE = 2 * FINE + 272, COMMON = 4, NONE = 0xFFFF };

/* The sum of |d| of one expert's delta, in double. Adds to what is there. */
void amalgam_norm(const void *base, int base_type, const void *expert, int type, int64_t n,
                  double *norm) {
    ALIGNED float b[BLOCK], d[BLOCK];
    for (int64_t at = 0; at < n; at += BLOCK) {
        int m = n - at < BLOCK ? (int)(n - at) : BLOCK;
        load(base, base_type, at, m, b);
        load_delta(b, expert, type, at, m, d);
        double lanes[16] = {0};
        int i = 0;
        for (; i + 16 <= m; i += 16)
            for (int j = 0; j < 16; j++) lanes[j] += fabs((double)d[i + j]);
        for (; i < m; i++) lanes[0] += fabs((double)d[i]);
        for (int j = 0; j < 16; j++) *norm += lanes[j];
    }
}

/* The sum of products of a whole block, in double: every product is exact. */
static double product(const float *restrict u, const float *restrict v) {
    double lanes[32] = {0};
    for (int i = 0; i < BLOCK; i += 32)
        for (int j = 0; j < 32; j++) lanes[j] += (double)u[i + j] * (double)v[i + j];
    for (int half = 16; half; half /= 2)
        for (int j = 0; j < half; j++) lanes[j] += lanes[j + half];
    return lanes[0];
}

/* Inner products of the base and some experts' deltas, (1 + experts)^2 doubles of which the lower
 * triangle is added to. */
void amalgam_gram(const void *base, int base_type, const void *const *experts,
                  const int32_t *types, int n_experts, int64_t n, double *gram) {
    float point[1 + n_experts][BLOCK];
    for (int64_t at = 0; at < n; at += BLOCK) {
        int m = n - at < BLOCK ? (int)(n - at) : BLOCK;
        load(base, base_type, at, m, point[0]);
        for (int k = 0; k < n_experts; k++)
            load_delta(point[0], experts[k], types[k], at, m, point[1 + k]);
        for (int k = 0; k <= n_experts; k++) {
            for (int i = m; i < BLOCK; i++) point[k][i] = 0;
            for (int j = 0; j <= k; j++)
                gram[k * (1 + n_experts) + j] += product(point[k], point[j]);
        }
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

#if defined(__AVX512VBMI2__) && defined(__AVX512BW__) && defined(__AVX512DQ__)
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

/* Counts a block of m entries, followed by zeros. Returns the bits of the largest |d|; *norm is the
 * sum of |d|. The same bits as below. */
static uint32_t count_block(Tally *tally, const float *restrict d, int m, double *norm) {
    static const uint16_t UPPER[32] = {1,  3,  5,  7,  9,  11, 13, 15, 17, 19, 21,
                                       23, 25, 27, 29, 31, 33, 35, 37, 39, 41, 43,
                                       45, 47, 49, 51, 53, 55, 57, 59, 61, 63};
    const __m512i upper = _mm512_loadu_si512(UPPER), lower = _mm512_set1_epi32(0xFFFF);
    const __m512i magnitude = _mm512_set1_epi32(0x7FFFFFFF);
    const __m512i offset = _mm512_set1_epi16((short)FINE);
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
        place = _mm512_mask_add_epi16(place, fine, place, offset);
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
    if (tally->common[0] == NONE) choose_common(tally, rare, n);
    norm0 = _mm512_add_pd(_mm512_add_pd(norm0, norm2), _mm512_add_pd(norm1, norm3));
    *norm = _mm512_reduce_add_pd(norm0);
    return _mm512_reduce_max_epu32(_mm512_max_epu32(top0, top1));
}
#else
/* Counts a block of m entries, followed by zeros. Returns the bits of the largest |d|; *norm is the
 * sum of |d|, in double: outliers are counted above multiples of it. */
static uint32_t count_block(Tally *tally, const float *restrict d, int m, double *norm) {
    ALIGNED uint16_t place[BLOCK];
    uint32_t largest = 0;
    double lanes[32] = {0};
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
    for (int i = 0; i < BLOCK; i += 32)
        for (int j = 0; j < 32; j++) lanes[j] += (double)fabsf(d[i + j]);
    for (int half = 16; half; half /= 2)
        for (int j = 0; j < half; j++) lanes[j] += lanes[j + half];
    *norm = lanes[0];
    return largest;
}
#endif

/* Counts a block and adds its sums. */
static void take(Tally *tally, const float *restrict d, int m) {
    double norm;
    uint32_t largest = count_block(tally, d, m, &norm);
    tally->top = largest > tally->top ? largest : tally->top;
    if (largest > 0x20000000u && largest < 0x5C000000u) { /* squares neither vanish nor overflow */
        tally->sums[0] += norm;
        tally->sums[1] += dot(d, d, BLOCK);
    } else if (largest) {
        add_sums(d, m, tally->sums);
    }
}

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
            take(&tallies[e], d[e], m);
        }
        *base_square += dot(b, b, BLOCK);
        for (int e = 0; e < n_experts; e++)
            for (int f = e + 1; f < n_experts; f++)
                dots[e * n_experts + f] += dot(d[e], d[f], BLOCK);
    }
    for (int e = 0; e < n_experts; e++) top[e] = tallies[e].top;
}
