/* Order statistics of magnitudes: counts, histograms, and what lies inside brackets. */
#pragma once
#include "prune.h"

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
