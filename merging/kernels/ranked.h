/* Draws whose chance follows from an entry's rank in its row. */
#pragma once
#include <stdlib.h>

#include "select.h"

/* Functions that are no faster inlined: what they hold together would not fit the registers. */
#define APART __attribute__((noinline))

/* Magnitudes in their order, in steps: those whose lower 16 bits are 0 have a step to themselves, an
 * even one; the others up to the next of these share an odd one. Changes between bfloat16 models
 * mostly lie in even steps, where a count says the rank. */
enum { STEPS = 1 << 16 };

static inline uint32_t step_of(uint32_t key) {
    return key >> 16 << 1 | ((key & 0xFFFFu) != 0);
}

/* The limit of a draw is low + floor(span * twice / divisor), where twice is twice the entry's rank: a
 * draw is below it where (draw - low + 1) * divisor <= span * twice, and nothing need be divided.
 * Both sides are below 2^58. */
typedef struct {
    uint32_t low;
    uint64_t span, divisor;
    uint32_t key0, key1; /* of the draws */
} Law;

typedef struct {
    uint64_t least, width; /* span * twice of a step's entries lies in [least, least + width] */
} Limits;

typedef struct {
    float *d;               /* the row's delta */
    uint16_t *step;         /* of its magnitudes */
    uint8_t *keep;          /* 1 where an entry is kept */
    uint32_t *open, *draw;  /* entries whose limit matters, and their draws */
    int64_t opened;
    uint32_t least, most;   /* magnitudes but 0, less 1; and all */
    uint32_t *even, *odd;   /* entries by step, in two tables */
    uint32_t *steps, *size; /* steps that have entries, and how many */
    Limits *limits;         /* by step */
    uint32_t *ranked;       /* by step: the last magnitude ranked */
    uint64_t *limit;        /* and its span * twice */
} Row;

/* The draws of m entries, the first of which has an index. */
static void draw_block(uint64_t index, int m, const Law *law, uint32_t *restrict draw) {
    for (int at = 0, size; at < m; at += size, index += (uint64_t)size) {
        uint32_t low = (uint32_t)index, left = UINT32_MAX - low;
        uint32_t key0 = law->key0, added = law->key1 + (uint32_t)(index >> 32) * 0x632BE5ABu;
        size = left < (uint32_t)(m - at) ? (int)left + 1 : m - at;
        for (int i = 0; i < size; i++)
            draw[at + i] = mix(mix((low + (uint32_t)i) ^ key0) + added) >> 8;
    }
}

/* Draws below the lowest limit are kept, those from the highest on are not, the others are open. */
APART static void draw_entries(Row *row, int64_t at, int m, uint64_t index, const Law *law) {
    ALIGNED uint32_t draw[BLOCK];
    uint8_t *restrict keep = row->keep + at;
    uint32_t low = law->low, span = (uint32_t)law->span;
    draw_block(index, m, law, draw);
    for (int i = 0; i < m; i++) keep[i] = draw[i] < low;
    if (span)
        collect(draw, m, low, low + span - 1, INT64_MAX, row->draw, (uint32_t)at, row->open,
                &row->opened);
}

/* Counts m entries by step, and looks how far magnitudes reach. */
APART static void count_steps(Row *row, int64_t at, int m) {
    const float *restrict d = row->d + at;
    uint16_t *restrict step = row->step + at;
    uint32_t least = row->least, most = row->most;
    for (int i = 0; i < m; i++) {
        uint32_t key = bits_of(d[i]) & 0x7FFFFFFFu, before = key - 1;
        step[i] = (uint16_t)step_of(key);
        most = key > most ? key : most;
        least = before < least ? before : least;
    }
    row->least = least;
    row->most = most;
    uint32_t *restrict even = row->even, *restrict odd = row->odd;
    int pair = 0; /* in two tables: equal neighbours do not wait for each other */
    for (; pair + 2 <= m; pair += 2) {
        even[step[pair]]++;
        odd[step[pair + 1]]++;
    }
    if (pair < m) even[step[pair]]++;
}

/* Limits of all entries of a row by step; counts are 0 before and after. */
APART static void bound_limits(Row *row, const Law *law) {
    uint32_t *restrict even = row->even, *restrict odd = row->odd;
    uint32_t from = step_of(row->least + 1) & ~15u, to = row->most ? step_of(row->most) : 0;
    int64_t found = 0;
    from = from && row->most ? from : 1; /* the step of 0 apart: from there it is far */
    row->steps[0] = 0;
    row->size[0] = even[0] + odd[0];
    even[0] = odd[0] = 0;
    found += row->size[0] > 0;
    ALIGNED uint32_t both[BLOCK];
    for (uint32_t group = from; group <= to; group += BLOCK) {
        int m = to - group < BLOCK ? (int)(to - group) + 1 : BLOCK;
        for (int i = 0; i < m; i++) {
            both[i] = even[group + i] + odd[group + i];
            even[group + i] = odd[group + i] = 0;
        }
        collect(both, m, 1, UINT32_MAX, STEPS, row->size, group, row->steps, &found);
    }
    const uint32_t *restrict steps = row->steps, *restrict size = row->size;
    uint64_t below = 0, span = law->span;
    for (int64_t k = 0; k < found; k++) {
        uint32_t step = steps[k];
        uint64_t others = span * (size[k] - 1), own = 0 - (uint64_t)(step & 1); /* all bits or none */
        row->limits[step].least = 2 * span * below + (others & ~own);
        row->limits[step].width = 2 * others & own;
        row->ranked[step] = 0; /* of no entry that shares its step */
        below += size[k];
    }
}

/* span * twice of one entry. */
APART static uint64_t limit_of(Row *row, int64_t columns, uint32_t key, const Law *law) {
    uint32_t step = step_of(key), smaller = 0, equal = 0;
    if (row->ranked[step] == key) return row->limit[step];
    for (int64_t j = 0; j < columns; j++) {
        uint32_t other = bits_of(row->d[j]) & 0x7FFFFFFFu;
        smaller += other < key;
        equal += other == key;
    }
    row->ranked[step] = key;
    return row->limit[step] = law->span * (2 * (uint64_t)smaller + equal - 1);
}

/* Decides on what is open: by the bounds of a limit; ranks are counted where that leaves doubt. */
APART static void decide_open(Row *row, int64_t columns, const Law *law) {
    uint32_t *restrict open = row->open, *restrict draw = row->draw, low = law->low;
    uint8_t *restrict keep = row->keep;
    const uint16_t *restrict step = row->step;
    const Limits *restrict limits = row->limits;
    uint64_t divisor = law->divisor;
    int64_t doubts = 0;
    for (int64_t k = 0; k < row->opened; k++) { /* without branches: draws cannot be predicted */
        uint32_t i = open[k];
        Limits limit = limits[step[i]];
        uint64_t above = (uint64_t)(draw[k] - low + 1) * divisor - 1 - limit.least;
        keep[i] = (uint8_t)(above >> 63); /* not above: below 0 */
        open[doubts] = i;
        draw[doubts] = draw[k];
        doubts += above < limit.width;
    }
    for (int64_t k = 0; k < doubts; k++) {
        uint32_t key = bits_of(row->d[open[k]]) & 0x7FFFFFFFu;
        uint64_t limit = limit_of(row, columns, key, law);
        keep[open[k]] = (uint64_t)(draw[k] - low + 1) * divisor <= limit;
    }
}

APART static double sum_of_magnitudes(const float *restrict d, int64_t n) {
    double lanes[32] = {0};
    int64_t i = 0;
    for (; i + 32 <= n; i += 32)
        for (int j = 0; j < 32; j++) lanes[j] += (double)fabsf(d[i + j]);
    for (; i < n; i++) lanes[0] += (double)fabsf(d[i]);
    for (int half = 16; half; half /= 2)
        for (int j = 0; j < half; j++) lanes[j] += lanes[j + half];
    return lanes[0];
}

/* Adds to sums {sum |d|, sum |kept d|}; what is not kept becomes 0. */
static void add_kept(float *restrict d, const uint8_t *restrict keep, int64_t n,
                     double *restrict sums) {
    sums[0] += sum_of_magnitudes(d, n);
    for (int64_t i = 0; i < n; i++) d[i] = keep[i] ? d[i] : 0.0f;
    sums[1] += sum_of_magnitudes(d, n);
}

/* Sets bits from one on where a byte is 1. */
static void set_bits(const uint8_t *restrict keep, int64_t n, int64_t bit, uint8_t *restrict bits) {
    int64_t i = 0;
    for (; i < n && bit & 7; i++, bit++) bits[bit >> 3] |= (uint8_t)(keep[i] << (bit & 7));
#if defined(__AVX2__)
    for (; i + 32 <= n; i += 32, bit += 32) {
        __m256i bytes = _mm256_loadu_si256((const __m256i *)(keep + i));
        int word = _mm256_movemask_epi8(_mm256_slli_epi16(bytes, 7)); /* of every byte the sign */
        memcpy(bits + (bit >> 3), &word, 4);
    }
#endif
    for (; i < n; i++, bit++) bits[bit >> 3] |= (uint8_t)(keep[i] << (bit & 7));
}

/* Which entries of some whole rows are kept: a bit each is set, at the entry's index in the tensor.
 * Draws below low + (high - low) * twice / (2 (columns - 1)) are kept, where twice is twice the mean
 * rank of the magnitudes equal to an entry's (0 for the smallest); below low in rows of one entry.
 * sums: {sum |d|, sum |kept d|} are added to. first: index of the first entry. Returns 0, or 1 where
 * there is no memory. */
int amalgam_ranked(const void *base, int base_type, const void *expert, int type, int64_t first,
                   int64_t rows, int64_t columns, uint32_t low, uint32_t high, uint32_t key0,
                   uint32_t key1, uint8_t *bits, double *sums) {
    size_t n = (size_t)columns + GROUP;
    Row row = {
        .d = malloc(n * 4), .step = malloc(n * 2), .keep = malloc(n), .open = malloc(n * 4),
        .draw = malloc(n * 4), .even = calloc(STEPS, 4), .odd = calloc(STEPS, 4),
        .steps = malloc((STEPS + GROUP) * 4), .size = malloc((STEPS + GROUP) * 4),
        .limits = malloc(STEPS * sizeof(Limits)), .ranked = malloc(STEPS * 4),
        .limit = malloc(STEPS * 8),
    };
    void *all[] = {row.d, row.step, row.keep, row.open, row.draw, row.even,
                   row.odd, row.steps, row.size, row.limits, row.ranked, row.limit};
    int failed = 0;
    for (int k = 0; k < 12; k++) failed |= !all[k];
    Law law = {low, columns > 1 ? high - low : 0, 2 * ((uint64_t)columns - 1), key0, key1};
    ALIGNED float b[BLOCK];
    for (int64_t at = 0; at < rows * columns && !failed; at += columns) {
        row.opened = row.most = 0;
        row.least = UINT32_MAX;
        for (int64_t i = 0; i < columns; i += BLOCK) {
            int m = columns - i < BLOCK ? (int)(columns - i) : BLOCK;
            load(base, base_type, at + i, m, b);
            load_delta(b, expert, type, at + i, m, row.d + i);
            count_steps(&row, i, m);
            draw_entries(&row, i, m, (uint64_t)(first + at + i), &law);
        }
        bound_limits(&row, &law);
        decide_open(&row, columns, &law);
        add_kept(row.d, row.keep, columns, sums);
        set_bits(row.keep, columns, first + at, bits);
    }
    for (int k = 0; k < 12; k++) free(all[k]);
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
