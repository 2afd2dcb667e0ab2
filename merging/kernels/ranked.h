/* Draws whose chance follows from an entry's rank in its row. */
#pragma once
#include <stdlib.h>

#include "prune.h"

enum { COARSE_BITS = 14, COARSE = 1 << COARSE_BITS, FINE_BITS = 31 - COARSE_BITS };

/* The draws of n entries, the first of which has an index. */
static void draw_row(uint64_t index, int64_t n, uint32_t key0, uint32_t key1,
                     uint32_t *restrict draw) {
    for (int64_t at = 0, size; at < n; at += size, index += (uint64_t)size) {
        uint32_t low = (uint32_t)index, added = key1 + (uint32_t)(index >> 32) * 0x632BE5ABu;
        size = n - at < (int64_t)(UINT32_MAX - low) + 1 ? n - at : (int64_t)(UINT32_MAX - low) + 1;
        uint32_t *restrict out = draw + at;
        for (int64_t i = 0; i < size; i++)
            out[i] = mix(mix((low + (uint32_t)i) ^ key0) + added) >> 8;
    }
}

/* Which entries of some whole rows are kept: a bit each is set, at the entry's index in the tensor.
 * Draws below low + (high - low) * twice / (2 (columns - 1)) are kept, where twice is twice the mean
 * rank of the magnitudes equal to an entry's (0 for the smallest); below low in rows of one entry.
 * A histogram of the upper bits bounds every rank; only entries whose draw lies between are ranked.
 * sums: {sum |d|, sum |kept d|} are added to. first: index of the first entry. Returns 0, or 1 where
 * there is no memory. */
typedef struct {
    float *d;                       /* the row's delta */
    uint32_t *key, *draw, *doubt;    /* its magnitudes' bits, the draws, and which are in doubt */
    uint32_t *counts, *odd;          /* by upper bits: entries, in two tables */
    uint32_t *least, *most;          /* and bounds of their limits */
    uint32_t *ranked, *limit;        /* by upper bits: the last magnitude ranked, and its limit */
} Row;

/* Limits of all entries of a row by the upper bits of their magnitudes; counts are 0 before and
 * after. */
static void bound_limits(Row *row, int64_t columns, uint32_t low, uint64_t span) {
    uint32_t from = COARSE - 1, to = 0;
    uint64_t last = (uint64_t)columns - 1, below = 0;
    for (int64_t i = 0; i < columns; i++) { /* the bucket of 0 apart: from there it is far */
        uint32_t bucket = row->key[i] >> FINE_BITS, next = bucket ? bucket : COARSE - 1;
        from = next < from ? next : from;
        to = bucket > to ? bucket : to;
    }
    uint32_t *even = row->counts, *odd = row->odd; /* equal neighbours do not wait for each other */
    int64_t pair = 0;
    for (; pair + 2 <= columns; pair += 2) {
        even[row->key[pair] >> FINE_BITS]++;
        odd[row->key[pair + 1] >> FINE_BITS]++;
    }
    if (pair < columns) even[row->key[pair] >> FINE_BITS]++;
    for (uint32_t bucket = 0; bucket <= to; bucket = bucket ? bucket + 1 : from) {
        if (!(even[bucket] + odd[bucket])) continue;
        uint64_t up_to = below + even[bucket] + odd[bucket];
        row->least[bucket] = last ? low + (uint32_t)(span * (2 * below) / (2 * last)) : low;
        row->most[bucket] = last ? low + (uint32_t)(span * (2 * up_to - 2) / (2 * last)) : low;
        below = up_to;
        even[bucket] = odd[bucket] = 0;
        row->ranked[bucket] = UINT32_MAX;
    }
}

/* The limit of one entry, from its rank. */
static uint32_t limit_of(Row *row, int64_t columns, uint32_t key, uint32_t low, uint64_t span) {
    uint32_t bucket = key >> FINE_BITS, smaller = 0, equal = 0;
    if (row->ranked[bucket] == key) return row->limit[bucket];
    const uint32_t *restrict other = row->key;
    for (int64_t j = 0; j < columns; j++) {
        smaller += other[j] < key;
        equal += other[j] == key;
    }
    uint64_t twice = 2 * (uint64_t)smaller + equal - 1;
    row->ranked[bucket] = key;
    row->limit[bucket] = low + (uint32_t)(span * twice / (2 * ((uint64_t)columns - 1)));
    return row->limit[bucket];
}

static double sum_of_magnitudes(const float *restrict d, int64_t n) {
    double lanes[16] = {0}, sum = 0.0;
    int64_t i = 0;
    for (; i + 16 <= n; i += 16)
        for (int j = 0; j < 16; j++) lanes[j] += (double)fabsf(d[i + j]);
    for (; i < n; i++) lanes[0] += (double)fabsf(d[i]);
    for (int j = 0; j < 16; j++) sum += lanes[j];
    return sum;
}

int amalgam_ranked(const void *base, int base_type, const void *expert, int type, int64_t first,
                   int64_t rows, int64_t columns, uint32_t low, uint32_t high, uint32_t key0,
                   uint32_t key1, uint8_t *bits, double *sums) {
    Row row = {
        malloc((size_t)columns * 4), malloc((size_t)columns * 4), malloc((size_t)columns * 4),
        malloc((size_t)columns * 4),
        calloc(COARSE, 4),           calloc(COARSE, 4),           calloc(COARSE, 4),
        calloc(COARSE, 4),           calloc(COARSE, 4),           calloc(COARSE, 4),
    };
    int failed = !row.d || !row.key || !row.draw || !row.doubt || !row.counts || !row.odd || !row.least || !row.most ||
                 !row.ranked || !row.limit;
    ALIGNED float b[BLOCK];
    uint64_t span = high - low;
    for (int64_t at = 0; at < rows * columns && !failed; at += columns) {
        for (int64_t i = 0; i < columns; i += BLOCK) {
            int m = columns - i < BLOCK ? (int)(columns - i) : BLOCK;
            load(base, base_type, at + i, m, b);
            load_delta(b, expert, type, at + i, m, row.d + i);
            for (int j = 0; j < m; j++) row.key[i + j] = bits_of(row.d[i + j]) & 0x7FFFFFFFu;
        }
        draw_row((uint64_t)(first + at), columns, key0, key1, row.draw);
        bound_limits(&row, columns, low, span);
        sums[0] += sum_of_magnitudes(row.d, columns);
        int64_t doubts = 0;
        for (int64_t i = 0; i < columns; i++) { /* without branches: draws cannot be predicted */
            uint32_t bucket = row.key[i] >> FINE_BITS, beyond = row.draw[i] - row.least[bucket];
            row.doubt[doubts] = (uint32_t)i;
            doubts += beyond < row.most[bucket] - row.least[bucket];
        }
        for (int64_t k = 0; k < doubts; k++) {
            uint32_t i = row.doubt[k];
            uint32_t kept = row.draw[i] < limit_of(&row, columns, row.key[i], low, span);
            row.doubt[k] |= kept << 31;
        }
        for (int64_t i = 0; i < columns; i++)
            row.draw[i] = row.draw[i] < row.least[row.key[i] >> FINE_BITS];
        for (int64_t k = 0; k < doubts; k++)
            row.draw[row.doubt[k] & 0x7FFFFFFFu] = row.doubt[k] >> 31;
        for (int64_t i = 0; i < columns; i++) row.d[i] = row.draw[i] ? row.d[i] : 0.0f;
        sums[1] += sum_of_magnitudes(row.d, columns);
        int64_t bit = first + at;
        for (int64_t i = 0; i < columns;) {
            uint32_t byte = 0, place = bit & 7;
            for (; place < 8 && i < columns; i++, bit++, place++) byte |= row.draw[i] << place;
            bits[(bit - 1) >> 3] |= (uint8_t)byte;
        }
    }
    void *all[] = {row.d,   row.key,   row.draw, row.doubt,  row.counts,
                   row.odd, row.least, row.most, row.ranked, row.limit};
    for (int k = 0; k < 10; k++) free(all[k]);
    return failed;
}

/* {sum |d|, sum |pruned d|} of one expert, added to sums. */
void amalgam_pruned_norms(const void *base, int base_type, const Expert *expert, int64_t first,
                          int64_t n, double *sums) {
    ALIGNED float b[BLOCK], d[BLOCK];
    for (int64_t at = 0; at < n; at += BLOCK) {
        int m = n - at < BLOCK ? (int)(n - at) : BLOCK;
        load(base, base_type, at, m, b);
        load_delta(b, expert->data, expert->type, at, m, d);
        for (int side = 0; side < 2; side++) {
            double sum = 0.0;
            if (side) prune(expert, first + at, at, m, d);
            for (int i = 0; i < m; i++) sum += (double)fabsf(d[i]);
            sums[side] += sum;
        }
    }
}
