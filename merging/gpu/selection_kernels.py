"""One pass over many tensors that counts the magnitudes above some bounds, and lists those between.

Magnitudes are compared by their bits, here called keys. Nothing waits for the host, and no two
programs add to one number but where they list: those counters are many (`selecting.BUCKETS`), and
few keys are listed.
"""

from __future__ import annotations

from typing import NamedTuple

import triton
import triton.language as tl

from merging.gpu import table
from merging.gpu.elements import _bits, _factors, _read, _sources
from merging.gpu.order import FIRST

BLOCK = 512  # elements that a program holds in registers at a time
WARPS = 4
BLOCKS = 8  # of a program
COUNTS = 3  # of a bracket: keys above its upper end, from that end on, from its lower end on


class Sought(NamedTuple):
    """What the kernel is compiled for.

    Attributes:
        types: the models' stored types, base first.
        brackets: of each row; a row is an expert.
    """

    types: tuple
    brackets: int


_MODELS, _COUNTS = tl.constexpr(table.MODELS), tl.constexpr(COUNTS)
_LEAST = tl.constexpr(FIRST)


@triton.jit
def _look(
    sources, ends, listed, entries, room, tallies, start, numel, lane,
    kind: tl.constexpr, blocks: tl.constexpr, whole: tl.constexpr,
):  # fmt: skip
    """Counts and lists some blocks of elements.

    Args:
        ends: per row and bracket its lower and its upper end.
        listed, entries: where this program lists keys, `room` of each row and bracket.
        tallies: where the counts are written, and after them per row the largest key.
        whole: all elements lie in the tensor.
    """
    rows: tl.constexpr = len(kind.types) - 1
    brackets: tl.constexpr = tl.constexpr(kind.brackets)
    none = tl.zeros(lane.shape, tl.int32)
    counts = ()
    for _ in tl.static_range(rows * brackets * _COUNTS):
        counts += (none,)
    for _ in tl.static_range(rows):
        counts += (none + _LEAST,)
    for turn in range(blocks):
        index = start + turn * lane.shape[0] + lane
        mask = index < numel
        values = _read(sources, index, mask, not whole)
        base = values[0].to(tl.float32)
        more = ()
        largest = ()
        for i in tl.static_range(rows):
            key = _bits(values[i + 1].to(tl.float32) - base)
            if not whole:
                key = tl.where(mask, key, _LEAST)
            largest += (tl.maximum(counts[rows * brackets * _COUNTS + i], key),)
            for k in tl.static_range(brackets):
                low = ends[(i * brackets + k) * 2]
                high = ends[(i * brackets + k) * 2 + 1]
                more += (
                    counts[(i * brackets + k) * _COUNTS] + (key > high).to(tl.int32),
                    counts[(i * brackets + k) * _COUNTS + 1] + (key >= high).to(tl.int32),
                    counts[(i * brackets + k) * _COUNTS + 2] + (key >= low).to(tl.int32),
                )
                inside = (key > low) & (key < high)
                counters = listed + (i * brackets + k) + none
                slot = tl.atomic_add(counters, 1, mask=inside, sem="relaxed")
                place = entries + (i * brackets + k) * room + slot
                tl.store(place, key, mask=inside & (slot < room))
        counts = more + largest
    for i in tl.static_range(rows * brackets * _COUNTS):
        tl.store(tallies + i, tl.sum(counts[i], 0))
    for i in tl.static_range(rows):
        last = counts[rows * brackets * _COUNTS + i]
        tl.store(tallies + rows * brackets * _COUNTS + i, tl.max(last, 0))


@triton.jit(do_not_specialize=["room", "buckets"])
def count(
    addresses, numels, parts, bounds, listed, entries, room, tallies, buckets,
    kind: tl.constexpr, block: tl.constexpr, blocks: tl.constexpr,
):  # fmt: skip
    """Counts and lists one part of a tensor.

    Args:
        addresses: (T, 1 + M) int64 as of the table (`merging.gpu.table`); numels: (T,) int32.
        parts: (P, 2) int32: a tensor, and the first of its elements.
        bounds: (R, K, 2) int32: lower and upper end of every bracket; all keys lie above FIRST.
        listed: (B, R, K) int32, zeros; entries: (B, R, K, room) int32: keys strictly between.
        tallies: (P, R K COUNTS + R) int32.
    """
    part = tl.program_id(0)
    rows: tl.constexpr = len(kind.types) - 1
    brackets: tl.constexpr = tl.constexpr(kind.brackets)
    width: tl.constexpr = rows * brackets * _COUNTS + rows
    tensor = tl.load(parts + part * 2)
    start = tl.load(parts + part * 2 + 1)
    numel = tl.load(numels + tensor)
    sources = _sources(addresses + tensor * (_MODELS + len(kind.types)), kind)
    ends = _factors(bounds, 2 * rows * brackets)
    bucket = part % buckets
    listed += bucket * (rows * brackets)
    entries += bucket.to(tl.int64) * (rows * brackets) * room
    tallies += part * width
    lane = tl.arange(0, block)
    if start + block * blocks <= numel:  # elements come several at a time
        _look(
            sources, ends, listed, entries, room, tallies, start, numel, lane,
            kind, blocks, True,
        )  # fmt: skip
    else:
        _look(
            sources, ends, listed, entries, room, tallies, start, numel, lane,
            kind, blocks, False,
        )  # fmt: skip
