"""Triton kernels that merge many tensors of a family in one launch.

A launch handles T tensors of one `Shape`; what differs between them lies in a table on the device
(`merging.gpu.table`), so nothing waits for the host. `merge` merges all elements and lists the few
that lie inside a bracket (`merging.gpu.order`), `settle` finds the cut among those, `mend` merges
them again.

Products, sums and quotients round one by one (no fused multiply-add, IEEE division), as in
`merging.instructions`, so that the bytes are those of the other engines.
"""

from __future__ import annotations

from typing import NamedTuple

import triton
import triton.language as tl

from merging.gpu import table
from merging.gpu.competition_kernels import balanced
from merging.gpu.order import FIRST, NEAR
from merging.selection.tied import BLOCK_BITS, MULTIPLIER, STEP, STRIPES

BLOCK = 512  # elements that a program holds in registers at a time
WARPS = 4
BLOCKS = 8  # of a program
SETTLED, MENDED = 64, 128  # entries that a program of `settle` and `mend` looks at


class Kind(NamedTuple):
    """What kernels are compiled for: see `merging.gpu.table.Shape`."""

    types: tuple
    rings: tuple
    amplified: tuple
    combination: int
    output: tl.dtype
    ring_at: tuple
    factor_at: tuple
    draws_at: tuple
    factors: int
    variant: int
    active: tuple


TYPES = {"F32": tl.float32, "BF16": tl.bfloat16, "F16": tl.float16, "F64": tl.float64}
_NEAR, _RING = tl.constexpr(NEAR), tl.constexpr(table.RING)
_OUT, _MODELS = tl.constexpr(table.OUT), tl.constexpr(table.MODELS)
_NUMEL, _INDEX, _RINGS = (
    tl.constexpr(table.NUMEL), tl.constexpr(table.INDEX), tl.constexpr(table.RINGS)
)  # fmt: skip
_STEP, _MULTIPLIER = tl.constexpr(STEP), tl.constexpr(MULTIPLIER - (1 << 32))
_LANE_BITS, _LANE_MASK = tl.constexpr(STRIPES.bit_length() - 1), tl.constexpr(STRIPES - 1)
_BLOCK_BITS, _BLOCK_MASK = tl.constexpr(BLOCK_BITS), tl.constexpr((1 << BLOCK_BITS) - 1)
_FIRST = tl.constexpr(FIRST)
_STRENGTH, _BASE_WEIGHT = tl.constexpr(table.STRENGTH), tl.constexpr(table.BASE_WEIGHT)
_DIVISOR, _WEIGHTS = tl.constexpr(table.DIVISOR), tl.constexpr(table.WEIGHTS)
_ELECTED, _NORMALIZED = tl.constexpr(table.ELECTED), tl.constexpr(table.NORMALIZED)
_ZERO_IS_POSITIVE = tl.constexpr(table.ZERO_IS_POSITIVE)
_AVERAGED, _EVEN = tl.constexpr(table.AVERAGED), tl.constexpr(table.EVEN)
_FINITE = tl.constexpr(table.FINITE)


@triton.jit
def _places(numbers, index):
    """Places of some elements of a tensor, see `order`; numbers: its row of the table."""
    index += tl.load(numbers + _INDEX)
    block = (index >> _LANE_BITS) & _BLOCK_MASK
    turn = ((block * _MULTIPLIER) >> _BLOCK_BITS) & _LANE_MASK
    stripe = ((index + turn) * _STEP) & _LANE_MASK
    return ((stripe << _BLOCK_BITS) | block) ^ _FIRST


@triton.jit
def _before(bits, place, bound):
    """Which entries are before the bound at an address, see `order.Bracket`."""
    at_bits, at_place = tl.load(bound), tl.load(bound + 1)
    return (bits > at_bits) | ((bits == at_bits) & (place < at_place))


@triton.jit
def _inside(bits, place, bracket):
    """Which entries lie between the two bounds at an address."""
    return _before(bits, place, bracket + 2) & (_before(bits, place, bracket) == 0)


@triton.jit
def _bits(delta):
    return tl.abs(delta).to(tl.int32, bitcast=True)


@triton.jit
def _mix(x):
    """As `merging.instructions.draws`."""
    x = x ^ ((x >> 16) & 0xFFFF)
    x = x * 0x7FEB352D
    x = x ^ ((x >> 15) & 0x1FFFF)
    x = x * (0x846CA68B - (1 << 32))
    return x ^ ((x >> 16) & 0xFFFF)


@triton.jit
def _read(sources, index, mask, masked: tl.constexpr):
    """Elements of all models as stored, base first."""
    values = ()
    for model in tl.static_range(len(sources)):
        if masked:
            values += (tl.load(sources[model] + index, mask=mask, other=0.0),)
        else:
            values += (tl.load(sources[model] + index),)
    return values


@triton.jit
def _thresholds(numbers, which: tl.constexpr, rings: tl.constexpr):
    """Of each ring's bracket one of the two bounds, as three numbers: its place, the smallest
    magnitude before it for elements of lower places, and for the others."""
    found = ()
    for ring in tl.static_range(tl.constexpr(rings)):
        bracket = numbers + _RINGS + _RING * ring
        lower = tl.load(bracket + 2 * which).to(tl.float32, bitcast=True)
        upper = tl.load(bracket + 5 + which).to(tl.float32, bitcast=True)
        found += (tl.load(bracket + 2 * which + 1), lower, upper)
    return found


@triton.jit
def _reaches(delta, place, thresholds, ring: tl.constexpr):
    """Which elements are before a ring's bound, see `_thresholds`."""
    least = tl.where(
        place < thresholds[3 * ring], thresholds[3 * ring + 1], thresholds[3 * ring + 2]
    )
    return tl.abs(delta) >= least


@triton.jit
def _factors(factors, count: tl.constexpr):
    """A tensor's factors, see `merging.gpu.table`."""
    found = ()
    for column in tl.static_range(tl.constexpr(count)):
        found += (tl.load(factors + column),)
    return found


@triton.jit
def _sources(addresses, kind: tl.constexpr):
    """Pointers to the models' values, base first."""
    found = ()
    for model in tl.static_range(len(kind.types)):
        address = tl.load(addresses + _MODELS + model)
        found += (tl.multiple_of(address.to(tl.pointer_type(kind.types[model])), 16),)
    return found


@triton.jit
def _flip(value, mask):
    """Changes the sign where the mask has it set."""
    return (value.to(tl.int32, bitcast=True) ^ mask).to(tl.float32, bitcast=True)


@triton.jit
def _share(total, count, most: tl.constexpr):
    """total / count, correctly rounded, for whole counts up to `most` <= EVENLY; by 0 as by 1.

    One step of Newton's method on the product with 1 / count: exact for each of these counts and
    every significand (tests/merging/gpu/test_triton_kernels.py), and cheaper than a division.
    """
    part = tl.full(total.shape, 1.0, tl.float32)
    for n in tl.static_range(2, most + 1):
        part = tl.where(count == n, 1.0 / n, part)
    quotient = total * part
    return tl.fma(tl.fma(-count, quotient, total), part, quotient)


@triton.jit
def _element(
    values, numbers, factors, firsts, lasts, final, index,
    kind: tl.constexpr, settled: tl.constexpr, simple: tl.constexpr, certain: tl.constexpr,
):  # fmt: skip
    """Merges some elements of one tensor.

    Args:
        values, factors: from `_read` and `_factors`.
        numbers: the tensor's row of the table.
        final: where the tensor's settled bounds stand.
        settled: cut at those; else at the brackets' first bounds.
        simple: by `firsts` and `lasts` (`_thresholds`); else by what the row holds.
        certain: none lies inside a bracket.

    Returns:
        base, merged, and which elements lie inside any ring's bracket.
    """
    base = values[0].to(tl.float32)
    weighted = ()
    open = index < 0
    if kind.ring_at[len(kind.rings)] > 0:
        place = _places(numbers, index)
    for e in tl.static_range(len(kind.rings)):
        delta = values[e + 1].to(tl.float32) - base
        if kind.rings[e] == 0:
            delta = delta * factors[kind.factor_at[e]]
        elif kind.rings[e] < 0:
            at = numbers + kind.draws_at[e]
            x = _mix(index ^ tl.load(at))
            x = _mix(x + tl.load(at + 1))
            keep = ((x >> 8) & 0xFFFFFF) < tl.load(at + 2)
            delta = tl.where(keep, delta * factors[kind.factor_at[e]], delta * 0.0)
        else:
            bits = _bits(delta)
            factor = tl.zeros_like(delta)
            for back in tl.static_range(tl.constexpr(kind.rings[e])):
                last = kind.ring_at[e] + kind.rings[e] - 1
                bracket = numbers + _RINGS + _RING * (last - back)
                if settled:
                    kept = _before(bits, place, final + 2 * (last - back))
                elif simple:
                    kept = _reaches(delta, place, firsts, last - back)
                    if not certain:
                        open = open | (_reaches(delta, place, lasts, last - back) & (kept == 0))
                else:
                    kept = _before(bits, place, bracket)
                    open = open | (_before(bits, place, bracket + 2) & (kept == 0))
                if kind.amplified[e]:
                    own = factors[kind.factor_at[e] + kind.rings[e] - 1 - back]
                    factor = tl.where(kept, own, factor)
                else:
                    factor = tl.where(kept, delta, 0.0)
            delta = delta * factor if kind.amplified[e] else factor
        if _EVEN & kind.combination == 0:
            delta = delta * factors[_WEIGHTS + e]
        weighted += (delta,)
    total = weighted[0]
    for e in tl.static_range(1, len(kind.rings)):
        total += weighted[e]
    if kind.variant != 0:
        taus, weights = (), ()
        for i in tl.static_range(len(kind.active)):
            taus += (weighted[kind.active[i]],)
            weights += (factors[_WEIGHTS + kind.active[i]],)
        if len(kind.active) == 0:
            merged = tl.zeros_like(base)
        else:
            first: tl.constexpr = kind.factor_at[len(kind.rings)]
            merged = balanced(taus, weights, factors, first, kind.variant)
    elif _ELECTED & kind.combination == 0:
        merged = total
        if _NORMALIZED & kind.combination != 0:
            merged = tl.div_rn(total, tl.zeros_like(total) + factors[_DIVISOR])
    else:
        if _ZERO_IS_POSITIVE & kind.combination != 0:
            flip = total.to(tl.int32, bitcast=True) & -0x80000000  # -0 is a sum of nothing but -0
        else:
            flip = tl.where(total > 0.0, 0, -0x80000000)
        # with these signs flipped, those that agree are above 0
        merged = tl.zeros_like(total)
        divisor = tl.zeros_like(total)
        for e in tl.static_range(len(kind.rings)):
            agreeing = _flip(weighted[e], flip)
            merged += tl.maximum(agreeing, 0.0)
            if _EVEN & kind.combination != 0:
                divisor += tl.where(agreeing > 0.0, 1.0, 0.0)
            else:
                divisor += tl.where(agreeing > 0.0, factors[_WEIGHTS + e], 0.0)
        if _NORMALIZED & kind.combination != 0:
            if _EVEN & kind.combination != 0:
                merged = _share(merged, divisor, len(kind.rings))
            else:
                merged = tl.div_rn(merged, tl.where(divisor == 0.0, 1.0, divisor))
        merged = _flip(merged, flip) + 0.0  # where nobody agrees that is 0, not -0
        if _FINITE & kind.combination == 0:
            merged += total * 0.0  # NaN has no sign, and must be seen
    merged = merged * factors[_STRENGTH]
    if _AVERAGED & kind.combination != 0:
        merged = base * factors[_BASE_WEIGHT] + merged
    else:
        merged = base + merged
    return base, merged, open


@triton.jit
def _list(addresses, numbers, listed, entries, index, mask, kind: tl.constexpr):
    """Lists, per ring, the elements that lie inside its bracket. Rare: it reads anew, so that
    nothing is held in registers for it."""
    values = _read(_sources(addresses, kind), index, mask, True)
    base = values[0].to(tl.float32)
    place = _places(numbers, index)
    for e in tl.static_range(len(kind.rings)):
        if kind.rings[e] > 0:
            bits = _bits(values[e + 1].to(tl.float32) - base)
            for k in tl.static_range(tl.constexpr(kind.rings[e])):
                ring = kind.ring_at[e] + k
                mine = _inside(bits, place, numbers + _RINGS + _RING * ring) & mask
                counters = listed + ring + tl.zeros_like(index)
                slot = tl.atomic_add(counters, 1, mask=mine, sem="relaxed")
                entry = entries + (ring * _NEAR + slot) * 2
                tl.store(entry, bits, mask=mine & (slot < _NEAR))
                tl.store(entry + 1, index, mask=mine & (slot < _NEAR))


@triton.jit
def _blocks(
    sources, numbers, factors, firsts, lasts, final, out, start, lane,
    kind: tl.constexpr, blocks: tl.constexpr, certain: tl.constexpr,
):  # fmt: skip
    """Merges and writes some whole blocks of elements.

    Returns:
        Over all blocks the largest magnitude, the sum of (merged - base) squared, and whether an
        element lies inside a bracket.
    """
    largest = tl.zeros(lane.shape, tl.float32)
    changed = tl.zeros(lane.shape, tl.float32)
    open = lane < 0
    values = _read(sources, start + lane, lane >= 0, False)
    for turn in range(blocks):
        index = start + turn * lane.shape[0] + lane
        # the next block's are on their way while these are worked on
        more = tl.zeros(lane.shape, tl.int1) | (turn + 1 < blocks)
        following = _read(sources, index + lane.shape[0], more, True)
        base, merged, inside = _element(
            values, numbers, factors, firsts, lasts, final, index, kind, False, True, certain
        )
        tl.store(out + index, merged.to(kind.output))
        largest = tl.maximum(largest, tl.abs(merged))
        changed += (merged - base) * (merged - base)
        open = open | inside
        values = following
    return largest, changed, open


@triton.jit
def _tell(sums, merged, changed, kind: tl.constexpr):
    """Two sums: above 0 where a value may not be finite, and the squares.

    Args:
        merged: the largest magnitudes; read only where the output type is narrower than float32.
    """
    changed = tl.sum(changed, 0)
    doubtful = (changed - changed) != 0.0  # infinite or NaN
    if kind.output == tl.float16:
        doubtful |= tl.max(merged, 0) > 65504.0
    tl.store(sums, doubtful.to(tl.float64))
    tl.store(sums + 1, changed.to(tl.float64))


@triton.jit
def merge(
    addresses, numbers, factors, final, listed, entries, sums, width,
    kind: tl.constexpr, block: tl.constexpr, blocks: tl.constexpr,
):  # fmt: skip
    """Merges some blocks of tensor program_id(1), from blocks * program_id(0) on.

    Args:
        addresses, numbers, factors: the table, int64, int32 and float32.
        final: (T, R, 2) int32, not read here.
        listed: (T, R) int32, zeros: how many elements lie inside each ring's bracket.
        entries: (T, R, NEAR, 2) int32: their bits and indices.
        sums: (T, width, 2) float64, zeros: the first are as of `_tell`.
    """
    program, tensor = tl.program_id(0), tl.program_id(1)
    n: tl.constexpr = len(kind.rings)
    rings: tl.constexpr = kind.ring_at[n]
    addresses += tensor * (_MODELS + n + 1)
    numbers += tensor * kind.draws_at[n]
    final += tensor * rings * 2
    listed += tensor * rings
    entries += tensor * rings * _NEAR * 2
    numel = tl.load(numbers + _NUMEL)
    start = program * block * blocks
    stop = start + block * blocks
    if start < numel:
        sources = _sources(addresses, kind)
        amounts = _factors(factors + tensor * kind.factors, kind.factors)
        out = tl.multiple_of(tl.load(addresses + _OUT).to(tl.pointer_type(kind.output)), 16)
        lane = tl.arange(0, block)
        none = tl.zeros([block], tl.float32)
        if stop <= numel:  # elements come several at a time
            firsts = _thresholds(numbers, 0, rings)
            lasts = _thresholds(numbers, 1, rings)
            certain = True
            for ring in tl.static_range(tl.constexpr(rings)):
                certain = certain & (firsts[3 * ring] == lasts[3 * ring])
                certain = certain & (firsts[3 * ring + 2] == lasts[3 * ring + 2])
            if certain:
                largest, changed, open = _blocks(
                    sources, numbers, amounts, firsts, lasts, final, out, start, lane,
                    kind, blocks, True,
                )  # fmt: skip
            else:
                largest, changed, open = _blocks(
                    sources, numbers, amounts, firsts, lasts, final, out, start, lane,
                    kind, blocks, False,
                )  # fmt: skip
        else:
            largest, changed, open = none, none, lane < 0
            for turn in range(blocks):
                index = start + turn * block + lane
                mask = index < numel
                values = _read(sources, index, mask, True)
                base, merged, inside = _element(
                    values, numbers, amounts, (), (), final, index, kind, False, False, False
                )
                tl.store(out + index, merged.to(kind.output), mask=mask)
                largest = tl.maximum(largest, tl.where(mask, tl.abs(merged), 0.0))
                changed += tl.where(mask, (merged - base) * (merged - base), 0.0)
                open = open | (inside & mask)
        _tell(sums + (tensor * width + program) * 2, largest, changed, kind)
        if rings > 0:  # noqa: SIM102 - known when compiled, the other is not
            if tl.max(open.to(tl.int32), 0) > 0:
                for turn in range(blocks):
                    index = start + turn * block + lane
                    _list(addresses, numbers, listed, entries, index, index < numel, kind)


@triton.jit
def settle(
    numbers, final, listed, entries, columns, rings: tl.constexpr, block: tl.constexpr
):  # fmt: skip
    """Finds the cut of ring program_id(0) of tensor program_id(1) among the listed elements: the
    one that has `rank` of them before it. Every program looks at a block of them.

    Args:
        columns: of a row of the table.
    """
    ring, tensor = tl.program_id(0), tl.program_id(1)
    row = numbers + tensor * columns + _RINGS + ring * _RING
    cut = tensor * rings + ring
    final += cut * 2
    entries += cut * _NEAR * 2
    count = tl.load(listed + cut)
    rank = tl.load(row + 4)
    first = tl.program_id(2) * block
    if rank >= count:  # nothing is listed, or all of it is kept
        if first == 0:
            end = tl.where(count == 0, 0, 2)
            tl.store(final, tl.load(row + end))
            tl.store(final + 1, tl.load(row + end + 1))
    elif first < count:
        slot = first + tl.arange(0, block)
        bits = tl.load(entries + slot * 2, mask=slot < count, other=-1)
        index = tl.load(entries + slot * 2 + 1, mask=slot < count, other=0)
        place = _places(numbers + tensor * columns, index)
        ahead = tl.zeros([block], tl.int32)
        for start in range(0, count, block):
            other = start + tl.arange(0, block)
            theirs = tl.load(entries + other * 2, mask=other < count, other=-1)[None, :]
            there = tl.load(entries + other * 2 + 1, mask=other < count, other=0)[None, :]
            above = theirs > bits[:, None]
            there = _places(numbers + tensor * columns, there)
            earlier = (theirs == bits[:, None]) & (there < place[:, None])
            ahead += tl.sum((above | earlier).to(tl.int32), 1)
        hit = (ahead == rank) & (slot < count)
        tl.store(final + tl.zeros_like(slot), bits, mask=hit)
        tl.store(final + 1 + tl.zeros_like(slot), place, mask=hit)


@triton.jit
def mend(
    addresses, numbers, factors, final, listed, entries, sums, width, first,
    kind: tl.constexpr, block: tl.constexpr,
):  # fmt: skip
    """Merges the elements listed for ring program_id(0) of tensor program_id(1) again, with the
    settled cuts, and corrects the sums. An element listed for several rings counts for the first.

    Args:
        sums: as of `merge`; those of a tensor's mended elements stand from `first` on.
    """
    ring, tensor, part = tl.program_id(0), tl.program_id(1), tl.program_id(2)
    n: tl.constexpr = len(kind.rings)
    rings: tl.constexpr = kind.ring_at[n]
    addresses += tensor * (_MODELS + n + 1)
    numbers += tensor * kind.draws_at[n]
    final += tensor * rings * 2
    cut = tensor * rings + ring
    count = tl.load(listed + cut)
    if part * block < count:
        slot = part * block + tl.arange(0, block)
        mask = slot < count
        index = tl.load(entries + (cut * _NEAR + slot) * 2 + 1, mask=mask, other=0)
        sources = _sources(addresses, kind)
        amounts = _factors(factors + tensor * kind.factors, kind.factors)
        values = _read(sources, index, mask, True)
        place = _places(numbers, index)
        base, old, _ = _element(
            values, numbers, amounts, (), (), final, index, kind, False, False, False
        )
        base, merged, _ = _element(
            values, numbers, amounts, (), (), final, index, kind, True, False, False
        )
        out = tl.load(addresses + _OUT).to(tl.pointer_type(kind.output))
        tl.store(out + index, merged.to(kind.output), mask=mask)
        counted = mask
        for e in tl.static_range(n):
            if kind.rings[e] > 0:
                bits = _bits(values[e + 1].to(tl.float32) - base)
                for k in tl.static_range(tl.constexpr(kind.rings[e])):
                    other = kind.ring_at[e] + k
                    here = _inside(bits, place, numbers + _RINGS + _RING * other)
                    counted = counted & ((here == 0) | (other >= ring))
        change = (merged - base) * (merged - base) - (old - base) * (old - base)
        told = sums + (tensor * width + first + ring * (_NEAR // block) + part) * 2
        largest = tl.where(mask, tl.abs(merged), 0.0)
        _tell(told, largest, tl.where(counted, change, 0.0), kind)
