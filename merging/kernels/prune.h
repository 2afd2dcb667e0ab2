/* Experts, and their pruned deltas. */
#pragma once
#include "values.h"

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
    int32_t parted;       /* a cut parts equal changes */
    uint32_t first;       /* index of the chunk's first element in its run of the scope: see tied.py */
    const uint8_t *bits;  /* not NULL: a bit for every entry of the tensor, set where it is kept */
    int32_t clipped;      /* every entry is kept up to a size, the limit */
    float limit;
    float lower[16], upper[16]; /* kept from lower on where the place is below ties, else from upper */
    uint32_t ties[16];
    float factor[16];
} Expert;

/* Stripes and places, see tied.py. */
enum { STRIPES = 512, STEP = 297, BLOCK_BITS = 23, BLOCK_MASK = (1 << BLOCK_BITS) - 1 };
#define MULTIPLIER 0x9E3779B1u
static int32_t STRIPE[2 * STRIPES]; /* by lane and turn */

__attribute__((constructor)) static void fill_stripes(void) {
    for (int at = 0; at < 2 * STRIPES; at++) STRIPE[at] = STEP * at % STRIPES;
}

/* The lane at which a block begins. */
static inline int turn(uint32_t block) { return (int)(block * MULTIPLIER >> BLOCK_BITS); }

/* Upper half of the place of an index in its run. */
static inline uint32_t place_of(uint32_t index) {
    uint32_t block = index / STRIPES;
    return (uint32_t)STRIPE[index % STRIPES + (uint32_t)turn(block)] << BLOCK_BITS | block;
}

typedef struct {
    int32_t ties, normalize, zero_is_positive;
    float divisor;  /* of a normalized sum; 1 otherwise */
    float strength, base_weight;
    int32_t competition;  /* 0, or how agreement is scored: SUM_OF_DELTAS... */
    int32_t masks;        /* 0, or what combines by masks: SELECTED... */
    int32_t task, agreement, zero_is_negative;
    float scale, epsilon;
    const Expert *selection; /* of SELECTED: what is kept by its variance; NULL keeps all */
} Rule;

enum { SELECTED = 1, UNIFIED = 2, RELIED = 3, SHARED = 4 };

enum { SUM_OF_DELTAS = 1, SUM_OF_NORMALIZED = 2, PAIRWISE = 3 };

/* The factor of every element: that of the innermost ring it lies in, or 0. Where stripe is not
 * NULL, an element lies in ring k from lower[k] on where its stripe is below limit[k], else from
 * upper[k] on. Inlined for a number of rings that is known, all of them stay in registers. */
static inline __attribute__((always_inline)) void amplify(
    int rings, const float *restrict lower, const float *restrict upper, const int *restrict limit,
    const float *restrict factor, const int32_t *restrict stripe, int m, float *restrict d) {
    for (int i = 0; i < m; i++) {
        float magnitude = fabsf(d[i]), scale = 0.0f;
        int32_t mine = stripe ? stripe[i] : 0;
#pragma GCC unroll 16
        for (int k = rings - 1; k >= 0; k--) {
            float low = lower[k], high = stripe ? upper[k] : low, value = factor[k];
            float least = low;
            if (stripe) least = mine < limit[k] ? low : high;
            scale = magnitude >= least ? value : scale;
        }
        d[i] = scale * d[i];
    }
}

static void prune_rings(const Expert *expert, const int *limit, const int32_t *stripe, int m,
                        float *restrict d) {
    const float *lower = expert->lower, *upper = expert->upper, *factor = expert->factor;
    if (expert->rings == 1 && factor[0] == 1.0f) {
        float low = lower[0], high = upper[0];
        int most = stripe ? limit[0] : 0;
        if (stripe)
            for (int i = 0; i < m; i++) {
                float least = stripe[i] < most ? low : high;
                d[i] = fabsf(d[i]) >= least ? d[i] : 0.0f;
            }
        else
            for (int i = 0; i < m; i++) d[i] = fabsf(d[i]) >= low ? d[i] : 0.0f;
        return;
    }
#define RINGS(K)                                                         \
    case K:                                                              \
        if (stripe)                                                      \
            amplify(K, lower, upper, limit, factor, stripe, m, d);       \
        else                                                             \
            amplify(K, lower, upper, limit, factor, NULL, m, d);         \
        break;
    switch (expert->rings) {
        RINGS(1)
        RINGS(2)
        RINGS(3)
        RINGS(4)
        RINGS(5)
        RINGS(6)
        RINGS(7)
        RINGS(8)
        RINGS(9)
        RINGS(10)
        RINGS(11)
        RINGS(12)
        RINGS(13)
        RINGS(14)
        RINGS(15)
        RINGS(16)
    }
#undef RINGS
}

/* Inside one block of indices a place is below ties where its stripe is below a limit. */
static inline void prune_block(const Expert *expert, uint32_t block, const int32_t *stripe, int m,
                               float *restrict d) {
    int limit[16];
    for (int k = 0; k < expert->rings; k++) {
        uint32_t ties = expert->ties[k];
        limit[k] = (int)(ties >> BLOCK_BITS) + (block < (ties & BLOCK_MASK));
    }
    prune_rings(expert, limit, stripe, m, d);
}

/* The same for any elements; index: of the first one in its run of the scope. */
static void prune_parted(const Expert *expert, uint32_t index, int m, float *restrict d) {
    for (int at = 0, size; at < m; at += size) {
        uint32_t here = index + (uint32_t)at, lane = here % STRIPES, block = here / STRIPES;
        size = STRIPES - (int)lane < m - at ? STRIPES - (int)lane : m - at;
        prune_block(expert, block, STRIPE + lane + turn(block), size, d + at);
    }
}

/* A bit says whether an element is kept; index: of the first in its tensor. */
static void prune_bits(const Expert *expert, int64_t index, int m, float *restrict d) {
    int32_t keep[BLOCK + 16];
    const uint8_t *byte = expert->bits + (index >> 3);
    int skip = (int)(index & 7);
#if defined(__AVX512F__)
    if (!skip && m == BLOCK) { /* as below, the bits taken as they are */
        __m512 scale = _mm512_set1_ps(expert->scale), zero = _mm512_setzero_ps();
        for (int i = 0; i < BLOCK; i += 16, byte += 2) {
            uint16_t kept;
            memcpy(&kept, byte, 2);
            __m512 x = _mm512_loadu_ps(d + i), none = _mm512_mul_ps(x, zero);
            _mm512_storeu_ps(d + i, _mm512_mask_mul_ps(none, kept, x, scale));
        }
        return;
    }
#endif
    for (int i = 0; i < skip + m; i += 8, byte++)
        for (int j = 0; j < 8; j++) keep[i + j] = *byte >> j & 1;
    float scale = expert->scale;
    for (int i = 0; i < m; i++) {
        float scaled = d[i] * scale, none = d[i] * 0.0f; /* NaN stays one */
        d[i] = keep[skip + i] ? scaled : none;
    }
}

/* index: of the first element in its tensor; at: in its chunk. */
static void prune(const Expert *expert, int64_t index, int64_t at, int m, float *restrict d) {
    if (expert->bits) {
        prune_bits(expert, index, m, d);
    } else if (expert->clipped) {
        for (int i = 0; i < m; i++) {
            float size = fabsf(d[i]);
            float closeness = expert->limit / (size < 1e-6f ? 1e-6f : size);
            closeness = closeness < 0.0f ? 0.0f : closeness > 1.0f ? 1.0f : closeness;
            d[i] = closeness * d[i];
        }
    } else if (expert->random) {
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
    } else if (expert->parted) {
        prune_parted(expert, expert->first + (uint32_t)at, m, d);
    } else {
        prune_rings(expert, NULL, NULL, m, d);
    }
}

/* The base's elements [at, at + m) and every expert's pruned delta there; `first` is the index of
 * the chunk's first element in its tensor. */
static void load_pruned(const void *base, int base_type, const Expert *experts, int n_experts,
                        int64_t first, int64_t at, int m, float *b, float (*d)[BLOCK]) {
    load(base, base_type, at, m, b);
    for (int e = 0; e < n_experts; e++) {
        load_delta(b, experts[e].data, experts[e].type, at, m, d[e]);
        prune(&experts[e], first + at, at, m, d[e]);
    }
}
