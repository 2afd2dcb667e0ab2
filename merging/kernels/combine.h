/* Sums and elections of pruned deltas. */
#pragma once
#include "prune.h"

static void combine_sum(float (*d)[BLOCK], const Expert *experts, int n_experts, const Rule *rule,
                        int m, float *restrict merged) {
    for (int i = 0; i < m; i++) merged[i] = d[0][i] * experts[0].weight;
    for (int e = 1; e < n_experts; e++) {
        float weight = experts[e].weight;
        for (int i = 0; i < m; i++) merged[i] = merged[i] + d[e][i] * weight;
    }
    if (rule->divisor != 1.0f)
        for (int i = 0; i < m; i++) merged[i] = merged[i] / rule->divisor;
}

/* As below with a known number of experts: everything stays in registers. */
static inline __attribute__((always_inline)) void ties_of(
    const int n_experts, float (*restrict d)[BLOCK], const Expert *experts, const Rule *rule, int m,
    float *restrict merged) {
    float weight[4];
    for (int e = 0; e < n_experts; e++) weight[e] = experts[e].weight;
    int zero_is_positive = rule->zero_is_positive, normalize = rule->normalize;
    for (int i = 0; i < m; i++) {
        float v[4];
        for (int e = 0; e < n_experts; e++) v[e] = d[e][i] * weight[e];
        float total = v[0];
        for (int e = 1; e < n_experts; e++) total = total + v[e];
        int positive = zero_is_positive ? total >= 0.0f : total > 0.0f;
        float sign = positive ? 1.0f : -1.0f, sum = 0.0f, divisor = 0.0f;
        for (int e = 0; e < n_experts; e++) {
            int agrees = v[e] * sign > 0.0f;
            sum = sum + (agrees ? v[e] : 0.0f);
            divisor = divisor + (agrees ? weight[e] : 0.0f);
        }
        divisor = divisor == 0.0f || !normalize ? 1.0f : divisor;
        merged[i] = sum / divisor + total * 0.0f; /* NaN has no sign, and must be seen */
    }
}

static void combine_ties(float (*d)[BLOCK], const Expert *experts, int n_experts, const Rule *rule,
                         int m, float *restrict merged) {
    if (n_experts == 2) return ties_of(2, d, experts, rule, m, merged);
    if (n_experts == 3) return ties_of(3, d, experts, rule, m, merged);
    if (n_experts == 4) return ties_of(4, d, experts, rule, m, merged);
    ALIGNED float total[BLOCK], divisor[BLOCK];
    for (int e = 0; e < n_experts; e++) {
        float weight = experts[e].weight;
        for (int i = 0; i < m; i++) d[e][i] = d[e][i] * weight;
    }
    for (int i = 0; i < m; i++) total[i] = d[0][i];
    for (int e = 1; e < n_experts; e++)
        for (int i = 0; i < m; i++) total[i] = total[i] + d[e][i];
    /* flip signs so that the elected one is always +: comparing is then the same for both */
    ALIGNED float unseen[BLOCK]; /* NaN has no sign, and must be seen */
    for (int i = 0; i < m; i++) {
        int positive = rule->zero_is_positive ? total[i] >= 0.0f : total[i] > 0.0f;
        unseen[i] = total[i] * 0.0f;
        total[i] = positive ? 1.0f : -1.0f;
        merged[i] = 0.0f;
        divisor[i] = 0.0f;
    }
    for (int e = 0; e < n_experts; e++) {
        float weight = experts[e].weight;
        for (int i = 0; i < m; i++) {
            int agrees = d[e][i] * total[i] > 0.0f;
            merged[i] = merged[i] + (agrees ? d[e][i] : 0.0f);
            divisor[i] = divisor[i] + (agrees ? weight : 0.0f);
        }
    }
    if (rule->normalize)
        for (int i = 0; i < m; i++)
            merged[i] = merged[i] / (divisor[i] == 0.0f ? 1.0f : divisor[i]);
    for (int i = 0; i < m; i++) merged[i] = merged[i] + unseen[i];
}
