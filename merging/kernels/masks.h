/* What combines pruned deltas by masks: selected, unified, relied upon, shared. */
#pragma once
#include "prune.h"

/* Changes are 0 where their variance does not select them. */
static void select_entries(float (*d)[BLOCK], int n_experts, const Rule *rule, int64_t index,
                           int64_t at, int m) {
    if (!rule->selection) return;
    ALIGNED double mean[BLOCK], squares[BLOCK];
    ALIGNED float v[BLOCK];
    for (int e = 0; e < n_experts; e++) widen(d[e], e, m, mean, squares);
    variance_of(squares, n_experts, m, v);
    prune(rule->selection, index, at, m, v);
    for (int e = 0; e < n_experts; e++)
        for (int i = 0; i < m; i++) d[e][i] = v[i] != 0.0f ? d[e][i] : d[e][i] * 0.0f;
}

/* As instructions/masks.py: the variance selects, signs are elected, minorities erased. */
static void combine_selected(float (*d)[BLOCK], const Expert *experts, int n_experts,
                             const Rule *rule, int64_t index, int64_t at, int m,
                             float *restrict merged) {
    select_entries(d, n_experts, rule, index, at, m);
    ALIGNED float balance[BLOCK], divisor[BLOCK];
    for (int i = 0; i < m; i++) balance[i] = merged[i] = divisor[i] = 0.0f;
    for (int e = 0; e < n_experts; e++)
        for (int i = 0; i < m; i++) balance[i] = balance[i] + d[e][i];
    for (int e = 0; e < n_experts; e++) {
        float weight = experts[e].weight;
        for (int i = 0; i < m; i++) {
            int agrees = balance[i] >= 0.0f ? d[e][i] > 0.0f : d[e][i] < 0.0f;
            merged[i] = merged[i] + (agrees ? d[e][i] * weight : 0.0f);
            divisor[i] = divisor[i] + (agrees ? weight : 0.0f);
        }
    }
    for (int i = 0; i < m; i++)
        merged[i] = merged[i] / (divisor[i] < 1e-6f ? 1e-6f : divisor[i]) + balance[i] * 0.0f;
}

static void weigh(float (*d)[BLOCK], const Expert *experts, int n_experts, int m) {
    for (int e = 0; e < n_experts; e++)
        if (experts[e].weight != 1.0f)
            for (int i = 0; i < m; i++) d[e][i] = d[e][i] * experts[e].weight;
}

/* The largest change with the elected sign: one for all tasks. */
static void unify(float (*d)[BLOCK], int n_experts, const Rule *rule, int m,
                  float *restrict unified) {
    ALIGNED float total[BLOCK], highest[BLOCK], lowest[BLOCK];
    for (int i = 0; i < m; i++) total[i] = highest[i] = lowest[i] = 0.0f;
    for (int e = 0; e < n_experts; e++)
        for (int i = 0; i < m; i++) {
            float x = d[e][i];
            total[i] = total[i] + x;
            highest[i] = x > highest[i] || x != x ? x : highest[i];
            lowest[i] = x < lowest[i] || x != x ? x : lowest[i];
        }
    for (int i = 0; i < m; i++) {
        int minus = rule->zero_is_negative ? total[i] <= 0.0f : total[i] < 0.0f;
        float elected = total[i] > 0.0f ? highest[i] : minus ? lowest[i] : 0.0f;
        unified[i] = elected + (highest[i] - highest[i]) + (lowest[i] - lowest[i]);
    }
}

static inline int has_sign_of(float change, float unified) {
    return unified > 0.0f ? change > 0.0f : unified < 0.0f && change < 0.0f;
}

static void combine_unified(float (*d)[BLOCK], const Expert *experts, int n_experts,
                            const Rule *rule, int m, float *restrict merged) {
    weigh(d, experts, n_experts, m);
    unify(d, n_experts, rule, m, merged);
    const float *own = d[rule->task];
    for (int i = 0; i < m; i++) {
        float masked = has_sign_of(own[i], merged[i]) ? merged[i] : merged[i] * 0.0f;
        merged[i] = masked * rule->scale;
    }
}

/* Where one task, or enough of them, relies on the sum. */
static void combine_relied(float (*d)[BLOCK], const Expert *experts, int n_experts,
                           const Rule *rule, int m, float *restrict merged) {
    int32_t votes[BLOCK] = {0};
    for (int i = 0; i < m; i++) merged[i] = d[0][i] * experts[0].weight;
    for (int e = 1; e < n_experts; e++)
        for (int i = 0; i < m; i++) merged[i] = merged[i] + d[e][i] * experts[e].weight;
    for (int e = 0; e < n_experts; e++) {
        if (rule->task >= 0 && rule->task != e) continue;
        float threshold = experts[e].threshold;
        for (int i = 0; i < m; i++)
            votes[i] += fabsf(d[e][i]) > fabsf(merged[i] - d[e][i]) * threshold;
    }
    for (int i = 0; i < m; i++)
        merged[i] = votes[i] >= rule->agreement ? merged[i] : merged[i] * 0.0f;
}

/* Alone: times a factor; shared: the mean. */
static void combine_shared(float (*d)[BLOCK], const Expert *experts, int n_experts,
                           const Rule *rule, int m, float *restrict merged) {
    int32_t together[BLOCK] = {0};
    float epsilon = rule->epsilon;
    for (int i = 0; i < m; i++) merged[i] = 0.0f;
    for (int e = 0; e < n_experts; e++)
        for (int i = 0; i < m; i++) together[i] += fabsf(d[e][i]) > epsilon;
    for (int e = 0; e < n_experts; e++) {
        float factor = experts[e].weight;
        for (int i = 0; i < m; i++) {
            float x = d[e][i], sharers = (float)(together[i] < 1 ? 1 : together[i]);
            float share = together[i] == 1 ? x * factor : x / sharers;
            merged[i] = merged[i] + (fabsf(x) > epsilon ? share : x * 0.0f);
        }
    }
}

static void combine_masks(float (*d)[BLOCK], const Expert *experts, int n_experts,
                          const Rule *rule, int64_t index, int64_t at, int m,
                          float *restrict merged) {
    if (rule->masks == SELECTED)
        combine_selected(d, experts, n_experts, rule, index, at, m, merged);
    else if (rule->masks == UNIFIED)
        combine_unified(d, experts, n_experts, rule, m, merged);
    else if (rule->masks == RELIED)
        combine_relied(d, experts, n_experts, rule, m, merged);
    else
        combine_shared(d, experts, n_experts, rule, m, merged);
}

/* How many entries have experts that differ: a variance above 0. */
int64_t amalgam_differing(const void *base, int base_type, const Spread *spread, int64_t n) {
    ALIGNED float b[BLOCK], first[BLOCK], d[BLOCK], apart[BLOCK];
    int64_t count = 0;
    for (int64_t at = 0; at < n; at += BLOCK) {
        int m = n - at < BLOCK ? (int)(n - at) : BLOCK, sure = 0, doubt = 0;
        load(base, base_type, at, m, b);
        load_delta(b, spread->data[0], spread->types[0], at, m, first);
        for (int i = 0; i < m; i++) apart[i] = 0.0f;
        for (int k = 1; k < spread->n; k++) {
            load_delta(b, spread->data[k], spread->types[k], at, m, d);
            for (int i = 0; i < m; i++) {
                float gap = fabsf(d[i] - first[i]);
                apart[i] = gap > apart[i] || gap != gap ? gap : apart[i];
            }
        }
        for (int i = 0; i < m; i++) {
            sure += apart[i] > 1e-15f; /* its square is no denormal float */
            doubt += apart[i] != 0.0f && !(apart[i] > 1e-15f);
        }
        if (doubt) {
            load_spread(b, spread, at, m, d);
            sure = 0;
            for (int i = 0; i < m; i++) sure += d[i] > 0.0f;
        }
        count += sure;
    }
    return count;
}

/* Sums that rules of masks follow from, over a chunk; all add to what is there.
 * sums: per expert {sum d^2 of what is selected} (SELECTED), or {sum |d_task|, sum |masked union|}
 * (UNIFIED). counts: per expert {shared, unique} (SHARED). */
void amalgam_mask_sums(const void *base, int base_type, const Expert *experts, int n_experts,
                       const Rule *rule, int64_t first, int64_t n, double *sums,
                       int64_t *counts) {
    ALIGNED float b[BLOCK], d[n_experts][BLOCK], merged[BLOCK];
    for (int64_t at = 0; at < n; at += BLOCK) {
        int m = n - at < BLOCK ? (int)(n - at) : BLOCK;
        load_pruned(base, base_type, experts, n_experts, first, at, m, b, d);
        if (rule->masks == SELECTED) {
            select_entries(d, n_experts, rule, first + at, at, m);
            for (int e = 0; e < n_experts; e++) {
                double lanes[16] = {0};
                int i = 0;
                for (; i + 16 <= m; i += 16)
                    for (int j = 0; j < 16; j++)
                        lanes[j] += (double)(d[e][i + j] * d[e][i + j]);
                for (; i < m; i++) lanes[0] += (double)(d[e][i] * d[e][i]);
                for (int j = 0; j < 16; j++) sums[e] += lanes[j];
            }
        } else if (rule->masks == UNIFIED) {
            weigh(d, experts, n_experts, m);
            unify(d, n_experts, rule, m, merged);
            ALIGNED float share[BLOCK];
            const float *own = d[rule->task];
            for (int i = 0; i < m; i++)
                share[i] = has_sign_of(own[i], merged[i]) ? merged[i] : merged[i] * 0.0f;
            double both[2] = {0.0, 0.0};
            add_sums(own, m, both);
            sums[0] += both[0];
            both[0] = 0.0;
            add_sums(share, m, both);
            sums[1] += both[0];
        } else {
            int32_t together[BLOCK] = {0};
            for (int e = 0; e < n_experts; e++)
                for (int i = 0; i < m; i++) together[i] += fabsf(d[e][i]) > rule->epsilon;
            for (int e = 0; e < n_experts; e++) {
                int shared = 0, active = 0;
                for (int i = 0; i < m; i++) {
                    int one = fabsf(d[e][i]) > rule->epsilon;
                    active += one;
                    shared += one && together[i] > 1;
                }
                counts[2 * e] += shared;
                counts[2 * e + 1] += active - shared;
            }
        }
    }
}
