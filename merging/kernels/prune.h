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
    uint32_t place;       /* upper half of the place of the chunk's first element: see tied.py */
    float lower[16], upper[16]; /* kept from lower on where the place is below ties, else from upper */
    uint32_t ties[16];
    float factor[16];
} Expert;

/* Upper half of the place of index i: see tied.py. */
#define MULTIPLIER 0x9E3779B1u

typedef struct {
    int32_t ties, normalize, zero_is_positive;
    float divisor;  /* of a normalized sum; 1 otherwise */
    float strength, base_weight;
    int32_t competition;  /* 0, or how agreement is scored: SUM_OF_DELTAS... */
} Rule;

enum { SUM_OF_DELTAS = 1, SUM_OF_NORMALIZED = 2, PAIRWISE = 3 };

/* As prune, for rings whose cuts part equal changes. place: of the first element. */
static void prune_parted(const Expert *expert, uint32_t place, int m, float *restrict d) {
    ALIGNED uint32_t places[BLOCK];
    for (int i = 0; i < m; i++) places[i] = place + (uint32_t)i * MULTIPLIER;
    if (expert->rings == 1 && expert->factor[0] == 1.0f) {
        float lower = expert->lower[0], upper = expert->upper[0];
        uint32_t ties = expert->ties[0];
        for (int i = 0; i < m; i++) {
            float least = places[i] < ties ? lower : upper;
            d[i] = fabsf(d[i]) >= least ? d[i] : 0.0f;
        }
        return;
    }
    ALIGNED float factor[BLOCK];
    for (int i = 0; i < m; i++) factor[i] = 0.0f;
    for (int k = expert->rings - 1; k >= 0; k--) {
        float lower = expert->lower[k], upper = expert->upper[k], value = expert->factor[k];
        uint32_t ties = expert->ties[k];
        for (int i = 0; i < m; i++) {
            float least = places[i] < ties ? lower : upper;
            factor[i] = fabsf(d[i]) >= least ? value : factor[i];
        }
    }
    for (int i = 0; i < m; i++) d[i] = factor[i] * d[i];
}

/* index: of the first element in its tensor; at: in the chunk that `place` is of. */
static void prune(const Expert *expert, int64_t index, int64_t at, int m, float *restrict d) {
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
    } else if (expert->parted) {
        prune_parted(expert, expert->place + (uint32_t)at * MULTIPLIER, m, d);
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
