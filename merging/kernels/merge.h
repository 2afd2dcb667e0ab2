/* Merged tensors. */
#pragma once
#include "combine.h"
#include "masks.h"
#include "pcb.h"

/* Merges [0, n) of a chunk whose first element has index `first` in its tensor.
 * drift += {sum (merged - base)^2, sum base^2}. Returns how many results are not finite. */
int64_t amalgam_merge(const void *base, int base_type, const Expert *experts, int n_experts,
                      const Rule *rule, int64_t first, int64_t n, void *out, int out_type,
                      double *drift) {
    ALIGNED float b[BLOCK], d[n_experts][BLOCK], merged[BLOCK];
    int64_t bad = 0;
    for (int64_t at = 0; at < n; at += BLOCK) {
        int m = n - at < BLOCK ? (int)(n - at) : BLOCK;
        load_pruned(base, base_type, experts, n_experts, first, at, m, b, d);
        if (rule->masks)
            combine_masks(d, experts, n_experts, rule, first + at, at, m, merged);
        else if (rule->competition)
            combine_pcb(d, experts, n_experts, rule, m, merged);
        else if (rule->ties)
            combine_ties(d, experts, n_experts, rule, m, merged);
        else
            combine_sum(d, experts, n_experts, rule, m, merged);
        if (rule->strength != 1.0f)
            for (int i = 0; i < m; i++) merged[i] = merged[i] * rule->strength;
        float changed[16] = {0}, squared[16] = {0};
        ALIGNED float scaled[BLOCK];
        for (int i = 0; i < m; i++) scaled[i] = b[i];
        if (rule->base_weight != 1.0f)
            for (int i = 0; i < m; i++) scaled[i] = b[i] * rule->base_weight;
        for (int i = 0; i < m; i++) merged[i] = scaled[i] + merged[i];
        int i = 0;
        for (; i + 16 <= m; i += 16)
            for (int j = 0; j < 16; j++) {
                float moved = merged[i + j] - b[i + j];
                changed[j] += moved * moved;
                squared[j] += b[i + j] * b[i + j];
            }
        for (; i < m; i++) {
            float moved = merged[i] - b[i];
            changed[0] += moved * moved;
            squared[0] += b[i] * b[i];
        }
        for (int j = 0; j < 16; j++) {
            drift[0] += changed[j];
            drift[1] += squared[j];
        }
        bad += store(merged, out, out_type, at, m);
    }
    return bad;
}

/* -1, 0, +1 summed over the votes of a chunk: how many parameters elect + minus how many -. */
int64_t amalgam_balance(const void *base, int base_type, const Expert *experts, int n_experts,
                        int64_t first, int64_t n) {
    ALIGNED float b[BLOCK], d[n_experts][BLOCK], total[BLOCK];
    Rule plain = {.divisor = 1.0f, .strength = 1.0f, .base_weight = 1.0f};
    int64_t balance = 0;
    for (int64_t at = 0; at < n; at += BLOCK) {
        int m = n - at < BLOCK ? (int)(n - at) : BLOCK;
        load_pruned(base, base_type, experts, n_experts, first, at, m, b, d);
        combine_sum(d, experts, n_experts, &plain, m, total);
        int sum = 0;
        for (int i = 0; i < m; i++) sum += (total[i] > 0.0f) - (total[i] < 0.0f);
        balance += sum;
    }
    return balance;
}
