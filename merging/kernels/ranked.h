/* Draws whose chance follows from an entry's rank in its row. */
#pragma once
#include <stdlib.h>

#include "select.h"

/* Functions that are no faster inlined: what they hold together would not fit the registers. */
#define APART __attribute__((noinline))

/* Magnitudes in their order, in bins: 0; those below low; and from there on in twos, an even one for the
 * magnitude whose lower bits are 0, an odd one for those up to the next. Changes between bfloat16
 * models mostly lie in even ones, where a count says the rank. What is small beside the row's mean is
 * rare: it shares a bin, and few of its ranks must be counted. Where it is not, low is lowered. */
enum { OCTAVES = 24, BINS = 2 * (OCTAVES << 7) + 2, PER_BIN = 32, MANY = 8, SUMS = 32 };

typedef struct {
    uint32_t low, high; /* the lower bits of low are 0, those of high are 1 */
    int shift;          /* of the upper bits */
} Bins;

static inline uint32_t bin_of(uint32_t key, Bins bins) {
    uint32_t to = key < bins.high ? key : bins.high, rest = (1u << bins.shift) - 1;
    uint32_t bin = 2 + ((to - bins.low) >> bins.shift << 1) + ((to & rest) != 0);
    return key < bins.low ? key != 0 : bin;
}

static Bins bins_from(uint32_t from, int shift) {
    uint32_t low = from >> shift << shift, most = 0x7FFFFFFFu;
    uint64_t high = low + ((uint64_t)(OCTAVES << 7) << shift) - 1;
    return (Bins){low, high < most ? (uint32_t)high : most, shift};
}

/* Bins for a row with a mean magnitude: long rows have more, as it takes as long to go through them. */
static Bins bins_for(int64_t columns, double mean) {
    int shift = 23;
    for (int64_t size = columns / PER_BIN; size > 1 && shift > 16; size /= 2) shift--;
    return bins_from(bits_of((float)mean / 16.0f), shift);
}

static Bins lowered(Bins bins) {
    uint32_t by = OCTAVES << 23;
    return bins_from(bins.low > by ? bins.low - by : 0, bins.shift < 20 ? bins.shift + 2 : 23);
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
    float *d;              /* the row's delta */
    uint16_t *bin;         /* of its magnitudes */
    uint8_t *keep;         /* 1 where an entry is kept */
    uint32_t *open, *draw; /* entries whose limit matters, and their draws */
    int64_t opened, number;
    Bins bins;
    uint32_t *even, *odd;  /* entries by bin, in two tables */
    uint32_t *below;       /* by bin: entries in those before it */
    uint64_t *ranked;      /* by bin: the last magnitude ranked, and the number of its row */
    uint64_t *limit;       /* and its span * twice */
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

/* Counts a row's entries by bin. Returns the last bin that has any, at least 1. */
APART static uint32_t count_bins(Row *row, int64_t columns) {
    const float *restrict d = row->d;
    uint16_t *restrict bin = row->bin;
    uint32_t last = 1;
    Bins bins = row->bins;
    for (int64_t i = 0; i < columns; i++) {
        uint32_t own = bin_of(bits_of(d[i]) & 0x7FFFFFFFu, bins);
        bin[i] = (uint16_t)own;
        last = own > last ? own : last;
    }
    uint32_t *restrict even = row->even, *restrict odd = row->odd;
    int64_t pair = 0; /* in two tables: equal neighbours do not wait for each other */
    for (; pair + 2 <= columns; pair += 2) {
        even[bin[pair]]++;
        odd[bin[pair + 1]]++;
    }
    if (pair < columns) even[bin[pair]]++;
    return last;
}

/* Entries below every bin of a row; counts are 0 before and after. */
APART static void count_below(Row *row, uint32_t last) {
    uint32_t *restrict even = row->even, *restrict odd = row->odd, *restrict below = row->below;
    uint32_t bin = 0, sum = below[0] = 0;
#if defined(__AVX2__)
    __m256i before = _mm256_setzero_si256();
    for (; bin <= last; bin += 8) { /* up to 7 bins further there are none */
        __m256i *evens = (__m256i *)(even + bin), *odds = (__m256i *)(odd + bin);
        __m256i sums = _mm256_add_epi32(_mm256_loadu_si256(evens), _mm256_loadu_si256(odds));
        _mm256_storeu_si256(evens, _mm256_setzero_si256());
        _mm256_storeu_si256(odds, _mm256_setzero_si256());
        sums = _mm256_add_epi32(sums, _mm256_slli_si256(sums, 4)); /* within halves */
        sums = _mm256_add_epi32(sums, _mm256_slli_si256(sums, 8));
        __m256i lower = _mm256_permute2x128_si256(sums, sums, 0x08); /* 0, and the first half */
        sums = _mm256_add_epi32(sums, _mm256_shuffle_epi32(lower, 0xFF));
        sums = _mm256_add_epi32(sums, before);
        _mm256_storeu_si256((__m256i *)(below + bin + 1), sums);
        before = _mm256_permutevar8x32_epi32(sums, _mm256_set1_epi32(7));
    }
#endif
    for (; bin <= last; bin++) {
        sum += even[bin] + odd[bin];
        even[bin] = odd[bin] = 0;
        below[bin + 1] = sum;
    }
}

/* span * twice of one entry. */
APART static uint64_t limit_of(Row *row, int64_t columns, int64_t entry, const Law *law) {
    uint32_t bin = row->bin[entry], smaller = 0, equal = 0;
    float size = fabsf(row->d[entry]);
    uint64_t name = (uint64_t)row->number << 32 | bits_of(size);
    if (row->ranked[bin] == name) return row->limit[bin];
    for (int64_t j = 0; j < columns; j++) {
        float other = fabsf(row->d[j]);
        smaller += other < size;
        equal += other == size;
    }
    row->ranked[bin] = name;
    return row->limit[bin] = law->span * (2 * (uint64_t)smaller + equal - 1);
}

/* Decides on what is open: by the bounds of a limit; ranks are counted where that leaves doubt. */
APART static void decide_open(Row *row, int64_t columns, const Law *law) {
    uint32_t *restrict open = row->open, *restrict draw = row->draw, low = law->low;
    uint8_t *restrict keep = row->keep;
    const uint16_t *restrict bin = row->bin;
    const uint32_t *restrict below = row->below;
    uint64_t divisor = law->divisor, span = law->span;
    int64_t doubts = 0;
    for (int64_t k = 0; k < row->opened; k++) { /* without branches: draws cannot be predicted */
        uint32_t i = open[k], own = bin[i];
        uint64_t before = below[own], others = span * (below[own + 1] - before - 1);
        uint64_t differ = 0 - (uint64_t)(own & 1); /* all bits, or none where all are equal */
        uint64_t least = 2 * span * before + (others & ~differ), width = 2 * others & differ;
        uint64_t above = (uint64_t)(draw[k] - low + 1) * divisor - 1 - least;
        keep[i] = (uint8_t)(above >> 63); /* not above: below 0 */
        open[doubts] = i;
        draw[doubts] = draw[k];
        doubts += above < width;
    }
    for (int64_t k = 0; k < doubts; k++)
        keep[open[k]] = (uint64_t)(draw[k] - low + 1) * divisor <= limit_of(row, columns, open[k], law);
}

/* Adds |d| to some sums, each of its own entries. */
static inline void add_magnitudes(const float *restrict d, int m, double *restrict sums) {
    int i = 0;
    for (; i + SUMS <= m; i += SUMS)
        for (int j = 0; j < SUMS; j++) sums[j] += (double)fabsf(d[i + j]);
    for (; i < m; i++) sums[0] += (double)fabsf(d[i]);
}

static double total(double *sums) {
    for (int half = SUMS / 2; half; half /= 2)
        for (int j = 0; j < half; j++) sums[j] += sums[j + half];
    return sums[0];
}

/* Sum of |d| where it is kept. */
APART static double sum_kept(const float *restrict d, const uint8_t *restrict keep, int64_t n) {
    double sums[SUMS] = {0};
    ALIGNED float kept[BLOCK];
    for (int64_t at = 0; at < n; at += BLOCK) {
        int m = n - at < BLOCK ? (int)(n - at) : BLOCK;
        for (int i = 0; i < m; i++) kept[i] = keep[at + i] ? d[at + i] : 0.0f;
        add_magnitudes(kept, m, sums);
    }
    return total(sums);
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
        .d = malloc(n * 4), .bin = malloc(n * 2), .keep = malloc(n), .open = malloc(n * 4),
        .draw = malloc(n * 4), .even = calloc(BINS + GROUP, 4), .odd = calloc(BINS + GROUP, 4),
        .below = malloc((BINS + GROUP) * 4), .ranked = calloc(BINS, 8), .limit = malloc(BINS * 8),
    };
    void *all[] = {row.d, row.bin, row.keep, row.open, row.draw, row.even,
                   row.odd, row.below, row.ranked, row.limit};
    int failed = 0;
    for (int k = 0; k < 10; k++) failed |= !all[k];
    Law law = {low, columns > 1 ? high - low : 0, 2 * ((uint64_t)columns - 1), key0, key1};
    ALIGNED float b[BLOCK];
    for (int64_t at = 0; at < rows * columns && !failed; at += columns) {
        double magnitudes[SUMS] = {0};
        row.opened = 0;
        row.number++;
        for (int64_t i = 0; i < columns; i += BLOCK) {
            int m = columns - i < BLOCK ? (int)(columns - i) : BLOCK;
            load(base, base_type, at + i, m, b);
            load_delta(b, expert, type, at + i, m, row.d + i);
            add_magnitudes(row.d + i, m, magnitudes);
            draw_entries(&row, i, m, (uint64_t)(first + at + i), &law);
        }
        double sum = total(magnitudes);
        row.bins = bins_for(columns, sum / (double)columns);
        count_below(&row, count_bins(&row, columns));
        while (row.bins.low && row.below[2] - row.below[1] > columns / MANY) {
            row.bins = lowered(row.bins);
            count_below(&row, count_bins(&row, columns));
        }
        decide_open(&row, columns, &law);
        sums[0] += sum;
        sums[1] += sum_kept(row.d, row.keep, columns);
        set_bits(row.keep, columns, first + at, bits);
    }
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
