/* PCB: the competition of pruned deltas, see merging/methods/pcb.py. */
#pragma once
#include "select.h"

/* exp for x in [0, 87] and tanh, step by step as merging/instructions/elementary.py. */
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
 * keys where buckets[e][k] is -1 (32768 is the bucket of 0), nothing where it is -2, else of the
 * lower 16 inside it. */
void amalgam_score_histogram(const void *base, int base_type, const Expert *experts, int n_experts,
                             const Rule *rule, int64_t first, int64_t n, int n_buckets,
                             const int32_t *buckets, int64_t *counts) {
    ALIGNED float base_block[BLOCK], d[n_experts][BLOCK], b[n_experts][BLOCK];
    for (int64_t at = 0; at < n; at += BLOCK) {
        int m = n - at < BLOCK ? (int)(n - at) : BLOCK;
        load_pruned(base, base_type, experts, n_experts, first, at, m, base_block, d);
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
