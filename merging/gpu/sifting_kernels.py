"""One pass over many tensors that sifts scores of a competition: which surely lie above a bound,
which surely below, and which must be worked out.

`sift` works scores out roughly, with fused multiply-adds and a GPU's quick division, and knows how
wrong they may be. Elements whose score lies inside a bracket, or might, are listed; `weigh` works
out theirs as `merging.instructions` has it. No two programs add to one number but where they list:
those counters are many (`selecting.BUCKETS`), and few elements are listed.
"""

from __future__ import annotations

from typing import NamedTuple

import triton
import triton.language as tl

from merging.gpu import table
from merging.gpu.competition_kernels import rough_scores, scores
from merging.gpu.elements import _factors, _read, _sources

BLOCK = 512  # elements that a program holds in registers at a time
WARPS = 4
BLOCKS = 8  # of a program
WEIGHED = 128  # listed elements that a program of `weigh` looks at
COUNTS = 2  # of a bracket: elements surely above, and zeros that are not


class Sifted(NamedTuple):
    """What the kernels are compiled for.

    Attributes:
        types: the models' stored types, base first.
        rows: experts that compete.
        variant: of `table.VARIANTS`.
        brackets: of each row.
    """

    types: tuple
    rows: tuple
    variant: int
    brackets: int


_MODELS, _BOUND = tl.constexpr(table.MODELS), tl.constexpr(table.BOUND)
_COUNTS = tl.constexpr(COUNTS)


@triton.jit
def _deltas(values, kind: tl.constexpr):
    """The changes of those that compete."""
    base = values[0].to(tl.float32)
    result = ()
    for i in tl.static_range(len(kind.rows)):
        result += (values[kind.rows[i] + 1].to(tl.float32) - base,)
    return result


@triton.jit
def _sift(
    sources, factors, ends, listed, entries, room, tallies, first, start, numel, lane,
    kind: tl.constexpr, blocks: tl.constexpr, whole: tl.constexpr,
):  # fmt: skip
    """Sifts some blocks of elements.

    Args:
        ends: per row and bracket its lower and its upper end.
        listed, entries: where this program lists elements, `room` of each row and bracket.
        first: what the first of the elements is listed as.
        tallies: where the counts are written.
        whole: all elements lie in the tensor.
    """
    rows: tl.constexpr = len(kind.rows)
    brackets: tl.constexpr = tl.constexpr(kind.brackets)
    none = tl.zeros(lane.shape, tl.int32)
    counts = ()
    for _ in tl.static_range(rows * brackets * _COUNTS):
        counts += (none,)
    for turn in range(blocks):
        offset = turn * lane.shape[0] + lane
        mask = start + offset < numel
        deltas = _deltas(_read(sources, start + offset, mask, not whole), kind)
        score, doubt = rough_scores(deltas, factors, 0, kind.variant)
        more = ()
        for i in tl.static_range(rows):
            exact = doubt[i] == 0.0
            least, most = score[i] - doubt[i], score[i] + doubt[i]
            for k in tl.static_range(brackets):
                above = least > ends[(i * brackets + k) * 2 + 1]
                open = ((most < ends[(i * brackets + k) * 2]) | above) == 0  # NaN, too
                if not whole:
                    above = above & mask
                    open = open & mask
                more += (
                    counts[(i * brackets + k) * _COUNTS] + above.to(tl.int32),
                    counts[(i * brackets + k) * _COUNTS + 1] + (open & exact).to(tl.int32),
                )
                counters = listed + (i * brackets + k) + none
                mine = open & (exact == 0)
                slot = tl.atomic_add(counters, 1, mask=mine, sem="relaxed")
                place = entries + (i * brackets + k) * room + slot
                tl.store(place, first + offset, mask=mine & (slot < room))
        counts = more
    for i in tl.static_range(rows * brackets * _COUNTS):
        tl.store(tallies + i, tl.sum(counts[i], 0))


@triton.jit(do_not_specialize=["room", "buckets"])
def sift(
    addresses, numels, parts, factors, bounds, listed, entries, room, tallies, buckets,
    kind: tl.constexpr, block: tl.constexpr, blocks: tl.constexpr,
):  # fmt: skip
    """Sifts one part of a tensor, block * blocks elements.

    Args:
        addresses: (T, 1 + M) int64 as of the table (`merging.gpu.table`); numels: (T,) int32.
        parts: (P, 2) int32: a tensor, and the first of its elements.
        factors: per row, the numbers of `table.numbers_of`.
        bounds: (R, K, 2) float32: lower and upper end of every bracket.
        listed: (B, R, K) int32, zeros; part p lists in row p % B.
        entries: (B, R, K, room) int32: element i of part p as p // B * block * blocks + i.
        tallies: (P, R, K, COUNTS) int32.
    """
    part = tl.program_id(0)
    rows: tl.constexpr = len(kind.rows)
    brackets: tl.constexpr = tl.constexpr(kind.brackets)
    tensor = tl.load(parts + part * 2)
    start = tl.load(parts + part * 2 + 1)
    numel = tl.load(numels + tensor)
    sources = _sources(addresses + tensor * (_MODELS + len(kind.types)), kind)
    amounts = _factors(factors, _BOUND * rows)
    ends = _factors(bounds, 2 * rows * brackets)
    bucket = part % buckets
    first = part // buckets * (block * blocks)
    listed += bucket * (rows * brackets)
    entries += bucket.to(tl.int64) * (rows * brackets) * room
    tallies += part * (rows * brackets * _COUNTS)
    lane = tl.arange(0, block)
    if start + block * blocks <= numel:  # elements come several at a time
        _sift(
            sources, amounts, ends, listed, entries, room, tallies, first, start, numel, lane,
            kind, blocks, True,
        )  # fmt: skip
    else:
        _sift(
            sources, amounts, ends, listed, entries, room, tallies, first, start, numel, lane,
            kind, blocks, False,
        )  # fmt: skip


@triton.jit(do_not_specialize=["room", "buckets"])
def weigh(
    addresses, parts, factors, listed, entries, room, buckets,
    kind: tl.constexpr, step: tl.constexpr, block: tl.constexpr,
):  # fmt: skip
    """Replaces elements that are listed by their scores' bits, a block of them: those that list
    program_id(1) of program_id(0)'s bucket holds from block * program_id(2) on.

    Args:
        step: elements of a part; others as of `sift`.
    """
    bucket, which = tl.program_id(0), tl.program_id(1)
    brackets: tl.constexpr = tl.constexpr(kind.brackets)
    lists: tl.constexpr = len(kind.rows) * brackets
    count = tl.load(listed + bucket * lists + which)
    start = tl.program_id(2) * block
    if start < count:
        slot = start + tl.arange(0, block)
        mask = slot < count
        entries += (bucket.to(tl.int64) * lists + which) * room
        place = tl.load(entries + slot, mask=mask, other=0)
        part = place // step * buckets + bucket
        tensor = tl.load(parts + part * 2, mask=mask, other=0)
        index = tl.load(parts + part * 2 + 1, mask=mask, other=0) + place % step
        row = addresses + tensor * (_MODELS + len(kind.types)) + _MODELS
        values = ()
        for model in tl.static_range(len(kind.types)):
            source = tl.load(row + model, mask=mask, other=0)
            source = source.to(tl.pointer_type(kind.types[model]))
            values += (tl.load(source + index, mask=mask, other=0.0),)
        score = scores(
            _deltas(values, kind), _factors(factors, _BOUND * len(kind.rows)), 0, kind.variant
        )
        value = score[0]
        for i in tl.static_range(1, len(kind.rows)):
            value = tl.where(which // brackets == i, score[i], value)
        tl.store(entries + slot, (value + 0.0).to(tl.int32, bitcast=True), mask=mask)
