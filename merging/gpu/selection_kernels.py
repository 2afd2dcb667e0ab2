"""One pass over many tensors that counts what lies above some bounds, and lists what lies between.

What is counted has a key: a signed number that orders as the value does. That is a magnitude, by
its bits, or a score of a competition. Nothing waits for the host, and no two programs add to one
number but where they list: those counters are many (`selecting.BUCKETS`), and few keys are listed.
"""

from __future__ import annotations

from typing import NamedTuple

import triton
import triton.language as tl

from merging.gpu import table
from merging.gpu.competition_kernels import scores
from merging.gpu.order import FIRST, MOST
from merging.gpu.triton_kernels import _bits, _factors, _read, _sources

BLOCK = 512  # elements that a program holds in registers at a time
WARPS = 4
BLOCKS = 8  # of a program
COUNTS = 3  # of a bracket: keys above its upper end, from that end on, from its lower end on


class Sought(NamedTuple):
    """What the kernel is compiled for.

    Attributes:
        types: the models' stored types, base first.
        rows: experts whose keys are counted; with a variant, those that compete.
        variant: of `table.VARIANTS`, of whose scores; 0 for magnitudes.
        brackets: of each row.
    """

    types: tuple
    rows: tuple
    variant: int
    brackets: int


_MODELS, _BOUND = tl.constexpr(table.MODELS), tl.constexpr(table.BOUND)
_COUNTS = tl.constexpr(COUNTS)
_MOST, _LEAST = tl.constexpr(MOST), tl.constexpr(FIRST)


@triton.jit
def _keys(values, factors, kind: tl.constexpr):
    """The keys of some elements, per row."""
    base = values[0].to(tl.float32)
    deltas = ()
    for i in tl.static_range(len(kind.rows)):
        deltas += (values[kind.rows[i] + 1].to(tl.float32) - base,)
    found = ()
    if kind.variant == 0:
        for i in tl.static_range(len(kind.rows)):
            found += (_bits(deltas[i]),)
    else:
        score = scores(deltas, factors, 0, kind.variant)
        for i in tl.static_range(len(kind.rows)):
            bits = (score[i] + 0.0).to(tl.int32, bitcast=True)  # -0 equals 0
            key = bits ^ ((bits >> 31) & 0x7FFFFFFF)
            found += (tl.where(score[i] == score[i], key, _MOST),)
    return found


@triton.jit
def _look(
    sources, factors, ends, listed, entries, room, told, start, numel, lane,
    kind: tl.constexpr, blocks: tl.constexpr, whole: tl.constexpr,
):  # fmt: skip
    """Counts and lists some blocks of elements.

    Args:
        ends: per row and bracket its lower and its upper end.
        listed, entries: where this program lists keys, `room` of each row and bracket.
        told: where the counts are written, and after them per row the largest key.
        whole: all elements lie in the tensor.
    """
    rows: tl.constexpr = len(kind.rows)
    none = tl.zeros(lane.shape, tl.int32)
    counts = ()
    for _ in tl.static_range(rows * kind.brackets * _COUNTS):
        counts += (none,)
    for _ in tl.static_range(rows):
        counts += (none + _LEAST,)
    for turn in range(blocks):
        index = start + turn * lane.shape[0] + lane
        mask = index < numel
        keys = _keys(_read(sources, index, mask, not whole), factors, kind)
        more = ()
        largest = ()
        for i in tl.static_range(rows):
            key = keys[i]
            if not whole:
                key = tl.where(mask, key, _LEAST)
            largest += (tl.maximum(counts[rows * kind.brackets * _COUNTS + i], key),)
            for k in tl.static_range(kind.brackets):
                low = ends[(i * kind.brackets + k) * 2]
                high = ends[(i * kind.brackets + k) * 2 + 1]
                more += (
                    counts[(i * kind.brackets + k) * _COUNTS] + (key > high).to(tl.int32),
                    counts[(i * kind.brackets + k) * _COUNTS + 1] + (key >= high).to(tl.int32),
                    counts[(i * kind.brackets + k) * _COUNTS + 2] + (key >= low).to(tl.int32),
                )
                inside = (key > low) & (key < high)
                counters = listed + (i * kind.brackets + k) + none
                slot = tl.atomic_add(counters, 1, mask=inside, sem="relaxed")
                place = entries + (i * kind.brackets + k) * room + slot
                tl.store(place, key, mask=inside & (slot < room))
        counts = more + largest
    for i in tl.static_range(rows * kind.brackets * _COUNTS):
        tl.store(told + i, tl.sum(counts[i], 0))
    for i in tl.static_range(rows):
        last = counts[rows * kind.brackets * _COUNTS + i]
        tl.store(told + rows * kind.brackets * _COUNTS + i, tl.max(last, 0))


@triton.jit
def count(
    addresses, numels, parts, factors, bounds, listed, entries, room, told, buckets,
    kind: tl.constexpr, block: tl.constexpr, blocks: tl.constexpr,
):  # fmt: skip
    """Counts and lists one part of a tensor.

    Args:
        addresses: (T, 1 + M) int64 as of the table (`merging.gpu.table`); numels: (T,) int32.
        parts: (P, 2) int32: a tensor, and the first of its elements.
        factors: per row, the numbers of `table.numbers_of`; not read for magnitudes.
        bounds: (R, K, 2) int32: lower and upper end of every bracket; all keys lie above FIRST.
        listed: (B, R, K) int32, zeros; entries: (B, R, K, room) int32: keys strictly between.
        told: (P, R K COUNTS + R) int32.
    """
    part = tl.program_id(0)
    rows: tl.constexpr = len(kind.rows)
    width: tl.constexpr = rows * kind.brackets * _COUNTS + rows
    tensor = tl.load(parts + part * 2)
    start = tl.load(parts + part * 2 + 1)
    numel = tl.load(numels + tensor)
    sources = _sources(addresses + tensor * (_MODELS + len(kind.types)), kind)
    amounts = ()
    if kind.variant != 0:
        amounts = _factors(factors, _BOUND * rows)
    ends = _factors(bounds, 2 * rows * kind.brackets)
    bucket = part % buckets
    listed += bucket * (rows * kind.brackets)
    entries += bucket.to(tl.int64) * (rows * kind.brackets) * room
    told += part * width
    lane = tl.arange(0, block)
    if start + block * blocks <= numel:  # elements come several at a time
        _look(
            sources, amounts, ends, listed, entries, room, told, start, numel, lane,
            kind, blocks, True,
        )  # fmt: skip
    else:
        _look(
            sources, amounts, ends, listed, entries, room, told, start, numel, lane,
            kind, blocks, False,
        )  # fmt: skip
