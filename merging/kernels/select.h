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
        prune(expert, first + at, at, m, d);
        ALIGNED uint32_t key[BLOCK];
        for (int i = 0; i < m; i++) key[i] = bits_of(d[i]) & 0x7FFFFFFFu;
        for (int k = 0; k < n_buckets; k++)
            count_keys(key, m, buckets[k], counts + (int64_t)k * 65536);
    }
}

/* Bands of equal entries that are looked at, see tied.py. Of the entries whose magnitude is
 * values[k] it counts in below[k] those whose place (its upper half) is below limits[2 k], and
 * collects the places from there to below limits[2 k + 1], their number added to inside[k]. Limits
 * are at most 2^32. places: n x room; where inside exceeds the room they are not complete. */
typedef struct {
    int32_t n;
    uint32_t first; /* the place of the first entry of the chunk */
    const float *values;
    const uint64_t *limits;
    int64_t *below, *inside;
    int64_t room;
    uint32_t *places;
} Bands;

/* Looks at m entries of a chunk, from `at` on. */
static inline void look(const Bands *bands, const uint32_t *restrict key, int64_t at, int m) {
    uint32_t start = bands->first + (uint32_t)at * MULTIPLIER;
    for (int k = 0; k < bands->n; k++) {
        uint32_t wanted = bits_of(bands->values[k]);
        uint64_t low = bands->limits[2 * k], high = bands->limits[2 * k + 1];
        uint32_t *places = bands->places + k * bands->room;
        int64_t before = 0, inside = bands->inside[k], room = bands->room;
        int i = 0;
#if defined(__AVX512F__)
        __m512i value = _mm512_set1_epi32((int)wanted);
        __m512i first = _mm512_set1_epi32((int)(uint32_t)low);
        __m512i width = _mm512_set1_epi32((int)(uint32_t)(high - low - 1));
        __mmask16 some = high > low ? 0xFFFF : 0, all = low >> 32 ? 0xFFFF : 0;
        __m512i count = _mm512_setzero_si512(), one = _mm512_set1_epi32(1);
        ALIGNED uint32_t lanes[16];
        for (int j = 0; j < 16; j++) lanes[j] = start + (uint32_t)j * MULTIPLIER;
        __m512i place = _mm512_load_si512(lanes), step = _mm512_set1_epi32((int)(16 * MULTIPLIER));
        for (; i + 16 <= m; i += 16, place = _mm512_add_epi32(place, step)) {
            __mmask16 equal = _mm512_cmpeq_epi32_mask(_mm512_loadu_si512(key + i), value);
            __mmask16 early = _mm512_mask_cmplt_epu32_mask(equal, place, first) | (equal & all);
            count = _mm512_mask_add_epi32(count, early, count, one);
            __mmask16 mine = _mm512_mask_cmple_epu32_mask(
                equal & some, _mm512_sub_epi32(place, first), width);
            if (!mine) continue; /* seldom taken: branches on what is equal would be guessed wrong */
            if (inside + 16 <= room)
                _mm512_storeu_si512(places + inside, _mm512_maskz_compress_epi32(mine, place));
            inside += __builtin_popcount(mine);
        }
        before = _mm512_reduce_add_epi32(count);
#elif defined(__AVX2__)
        __m256i value = _mm256_set1_epi32((int)wanted);
        for (; i + 8 <= m; i += 8) {
            __m256i found = _mm256_cmpeq_epi32(_mm256_loadu_si256((const __m256i *)(key + i)), value);
            int equal = _mm256_movemask_ps(_mm256_castsi256_ps(found));
            for (; equal; equal &= equal - 1) {
                uint32_t place = start + (uint32_t)(i + __builtin_ctz((unsigned)equal)) * MULTIPLIER;
                int mine = place >= low && place < high;
                before += place < low;
                if (mine && inside < room) places[inside] = place;
                inside += mine;
            }
        }
#endif
        for (; i < m; i++) {
            uint32_t place = start + (uint32_t)i * MULTIPLIER;
            if (key[i] != wanted) continue;
            int mine = place >= low && place < high;
            before += place < low;
            if (mine && inside < room) places[inside] = place;
            inside += mine;
        }
        bands->below[k] += before;
        bands->inside[k] = inside;
    }
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
 * number alone. Bits of magnitudes order as the magnitudes do. Adds to above and found; keys:
 * n_brackets x capacity. Where found exceeds capacity the bracket was too wide, and its keys are not
 * complete. Looks at some bands of equal entries, too. Returns the largest bits. */
uint32_t amalgam_collect(const void *base, int base_type, const void *expert, int type, int64_t n,
                         int n_brackets, const uint32_t *low, const uint32_t *high, int64_t *above,
                         int64_t *found, int64_t capacity, uint32_t *keys, const Bands *bands) {
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
        look(bands, key, at, m);
    }
    return top;
}
