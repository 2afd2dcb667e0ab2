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

/* Appends those of m keys inside [low, high] to keys, adding their number to *found, and their
 * indices to indices unless that is NULL. Where there are more than the capacity not all are kept;
 * up to GROUP places beyond it are written. first: index of the first key. Without branches: which
 * keys are inside cannot be predicted. */
static inline void collect(const uint32_t *restrict key, int m, uint32_t low, uint32_t high,
                           int64_t capacity, uint32_t *restrict keys, uint32_t first,
                           uint32_t *restrict indices, int64_t *found) {
    uint32_t width = high - low;
    int64_t count = *found;
    int i = 0;
#if defined(__AVX512F__)
    const __m512i least = _mm512_set1_epi32((int)low), most = _mm512_set1_epi32((int)width);
    __m512i index = _mm512_add_epi32(_mm512_set1_epi32((int)first), _mm512_set_epi32(
        15, 14, 13, 12, 11, 10, 9, 8, 7, 6, 5, 4, 3, 2, 1, 0));
    for (; i + 16 <= m; i += 16, index = _mm512_add_epi32(index, _mm512_set1_epi32(16))) {
        __m512i lanes = _mm512_loadu_si512(key + i);
        __mmask16 mask = _mm512_cmple_epu32_mask(_mm512_sub_epi32(lanes, least), most);
        int64_t to = count < capacity ? count : capacity;
        _mm512_storeu_si512(keys + to, _mm512_maskz_compress_epi32(mask, lanes));
        if (indices)
            _mm512_storeu_si512(indices + to, _mm512_maskz_compress_epi32(mask, index));
        count += __builtin_popcount(mask);
    }
#elif defined(__AVX2__)
    const __m256i least = _mm256_set1_epi32((int)low), most = _mm256_set1_epi32((int)width);
    __m256i index = _mm256_add_epi32(
        _mm256_set1_epi32((int)first), _mm256_set_epi32(7, 6, 5, 4, 3, 2, 1, 0));
    for (; i + 8 <= m; i += 8, index = _mm256_add_epi32(index, _mm256_set1_epi32(8))) {
        __m256i lanes = _mm256_loadu_si256((const __m256i *)(key + i));
        __m256i above = _mm256_sub_epi32(lanes, least);
        __m256i inside = _mm256_cmpeq_epi32(_mm256_min_epu32(above, most), above);
        int mask = _mm256_movemask_ps(_mm256_castsi256_ps(inside));
        __m256i order = _mm256_loadu_si256((const __m256i *)PACK[mask]);
        int64_t to = count < capacity ? count : capacity;
        _mm256_storeu_si256((__m256i *)(keys + to), _mm256_permutevar8x32_epi32(lanes, order));
        if (indices)
            _mm256_storeu_si256(
                (__m256i *)(indices + to), _mm256_permutevar8x32_epi32(index, order));
        count += __builtin_popcount((unsigned)mask);
    }
#endif
    for (; i < m; i++) {
        int64_t to = count < capacity ? count : capacity;
        keys[to] = key[i];
        if (indices) indices[to] = first + (uint32_t)i;
        count += key[i] - low <= width;
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
    collect(key, m, low, low | 0xFFFFu, BLOCK, inside, 0, NULL, &found);
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
    uint32_t first; /* the index of the first entry of the chunk in its run */
    const float *values;
    const uint64_t *limits;
    int64_t *below, *inside;
    int64_t room;
    uint32_t *places;
} Bands;

/* Looks at a chunk of one expert's changes. */
void amalgam_look(const void *base, int base_type, const void *expert, int type, int64_t n,
                  const Bands *bands) {
    ALIGNED float b[BLOCK], d[BLOCK];
    ALIGNED uint32_t key[BLOCK], same[BLOCK + GROUP], indices[BLOCK + GROUP];
    for (int64_t at = 0; at < n; at += BLOCK) {
        int m = n - at < BLOCK ? (int)(n - at) : BLOCK;
        load(base, base_type, at, m, b);
        load_delta(b, expert, type, at, m, d);
        for (int i = 0; i < m; i++) key[i] = bits_of(d[i]) & 0x7FFFFFFFu;
        for (int k = 0; k < bands->n; k++) {
            uint32_t value = bits_of(bands->values[k]), first = bands->first + (uint32_t)at;
            int64_t equal = 0;
            collect(key, m, value, value, BLOCK, same, first, indices, &equal);
            uint64_t low = bands->limits[2 * k], high = bands->limits[2 * k + 1];
            for (int64_t i = 0; i < equal; i++) {
                uint32_t place = place_of(indices[i]);
                bands->below[k] += place < low;
                if (place < low || place >= high) continue;
                int64_t inside = bands->inside[k]++;
                if (inside < bands->room) bands->places[k * bands->room + inside] = place;
            }
        }
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

/* One pass for several order statistics whose values are bracketed: the bits of the magnitudes
 * inside each bracket [low, high], in order, with their indices; where low is high how many of them
 * are in each stripe, by section; and how many lie above it, unless another bracket follows on it:
 * then those above and inside that one do. Bits of magnitudes order as the magnitudes do. Returns
 * the largest bits.
 *
 * first: index of the chunk's first entry, whole blocks. Adds to above, found and stripes. keys,
 * indices: n_brackets x (capacity + GROUP); where found exceeds the capacity the bracket was too wide,
 * and they are not complete. stripes: for each bracket of a single value, sections x 2 STRIPES, by
 * lane and turn. */
enum { SECTION = 1 << 19 };

uint32_t amalgam_collect(const void *base, int base_type, const void *expert, int type,
                         int64_t first, int64_t n, int n_brackets, const uint32_t *low,
                         const uint32_t *high, int64_t *above, int64_t *found, int64_t capacity,
                         uint32_t *keys, uint32_t *indices, int64_t sections, uint32_t *stripes) {
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
        uint32_t index = (uint32_t)(first + at);
        uint32_t *single = stripes + (first + at) / SECTION * 2 * STRIPES + turn(index / STRIPES);
        for (int k = 0; k < n_brackets; k++) {
            uint32_t from = low[k], to = high[k];
            if (k + 1 == n_brackets || to + 1 < low[k + 1]) {
                int over = 0;
                for (int i = 0; i < m; i++) over += key[i] > to;
                above[k] += over;
            }
            if (from == to) {
                for (int i = 0; i < m; i++) single[i] += key[i] == to;
                single += sections * 2 * STRIPES;
                continue;
            }
            int64_t row = k * (capacity + GROUP);
            collect(key, m, from, to, capacity, keys + row, index, indices + row, found + k);
        }
    }
    return top;
}
