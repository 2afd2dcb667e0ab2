/* Fused loops over flat chunks: what merging/methods does with torch, without the passes between.
 *
 * Compiled on first need by merging/kernels/__init__.py where a C compiler is present. Every
 * function computes in float32, one operation at a time in the order of its torch twin, with
 * contraction off, so both give the same bits (tests/merging/engines/test_fused.py holds them to it).
 * Inputs are raw tensors: float32, bfloat16, float16 or float64. Blocks stay in the first cache.
 */
#define _GNU_SOURCE
#include "checksum.h"
#include "files.h"
#include "merge.h"
#include "profile.h"
#include "ranked.h"
#include "select.h"
