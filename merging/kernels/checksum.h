#pragma once
#include <stdint.h>

/* The sum of merging/checkpoints/checksum.py; `first` is the index of the first of n words. */
uint64_t amalgam_checksum(const int16_t *words, int64_t n, int64_t first) {
    enum { REGION = 128 };
    int16_t factor[REGION];
    for (int k = 0; k < REGION; k++) factor[k] = (int16_t)(2 * k + 1);
    uint64_t sum = 0;
    for (int64_t i = 0; i < n;) {
        int64_t at = first + i, begin = at % REGION;
        int64_t end = n - i < REGION - begin ? begin + n - i : REGION;
        const int16_t *word = words + i - begin;
        int32_t part = 0; /* below 2**29 */
        if (begin == 0 && end == REGION)
            for (int k = 0; k < REGION; k++) part += word[k] * factor[k];
        else
            for (int64_t k = begin; k < end; k++) part += word[k] * factor[k];
        sum += (uint64_t)(int64_t)part * (2 * (uint64_t)(at / REGION) + 1);
        i += end - begin;
    }
    return sum;
}
