"""Triton kernels that merge many tensors of a family in one launch.

A launch handles T tensors of one `Shape`; what differs between them lies in a table on the device
(`merging.gpu.table`), so nothing waits for the host. `locate` reads from the marks
(`merging.gpu.order`) in which bracket each cut lies, `merge` merges all elements and lists the few
that lie inside a bracket, `settle` finds the cut among those, `mend` merges them again.

A ring's record, RECORD int32, takes what is found of it on the way: how many elements are listed,
the settled bound (bits, place), then the listed elements (bits, index), at most NEAR.

Products, sums and quotients round one by one (no fused multiply-add, IEEE division), as in
`merging.instructions`, so that the bytes are those of the other engines.
"""

from __future__ import annotations

from typing import NamedTuple

import triton
import triton.language as tl

from merging.gpu import table
from merging.gpu.competition_kernels import balanced
from merging.gpu.elements import (
    _bits,
    _changes,
    _drawn,
    _factors,
    _key,
    _key_at,
    _places,
    _places_of_stripes,
    _read,
    _sources,
    _variance,
)
from merging.gpu.order import INFINITE, NEAR
from merging.gpu.ranking import ALIGNED
from merging.instructions.draws import RANGE
from merging.instructions.masks import SMALLEST
from merging.instructions.pruning import CLOSEST
from merging.selection.tied import STRIPES

BLOCK = 512  # elements that a program holds in registers at a time
BLOCKS = 8  # of a program
MANY, REGISTERS = (7, 16), 96  # so many rings' bounds take half the registers of a thread: with
# fewer than the compiler would take more programs run at a time, and nothing is spilled
SETTLED, MENDED = 64, 128  # entries that a program of `settle` and `mend` looks at
CUT, LISTED = 1, 3  # columns of a record; the first one counts
RECORD = LISTED + 2 * NEAR


class Kind(NamedTuple):
    """What kernels are compiled for: see `merging.gpu.table.Shape`; `doubles` where the device
    compares doubles as fast as floats, see `_key`; `word` is the type of a word of bits, and
    `rescaled` how many experts are."""

    types: tuple
    rings: tuple
    amplified: tuple
    located: tuple
    aligned: bool
    combination: int
    output: tl.dtype
    ring_at: tuple
    factor_at: tuple
    draws_at: tuple
    factors: int
    variant: int
    active: tuple
    doubles: bool
    bit_at: tuple
    planes_at: tuple
    rescaled: int
    word: tl.dtype
    selects: bool


_NEAR, _RING, _RANK = tl.constexpr(NEAR), tl.constexpr(table.RING), tl.constexpr(table.RANK)
_CUT, _LISTED, _RECORD = tl.constexpr(CUT), tl.constexpr(LISTED), tl.constexpr(RECORD)
_OUT, _MODELS = tl.constexpr(table.OUT), tl.constexpr(table.MODELS)
_NUMEL, _RINGS = tl.constexpr(table.NUMEL), tl.constexpr(table.RINGS)
_STRIPES, _INFINITE = tl.constexpr(STRIPES), tl.constexpr(INFINITE)
_STRENGTH, _BASE_WEIGHT = tl.constexpr(table.STRENGTH), tl.constexpr(table.BASE_WEIGHT)
_DIVISOR, _WEIGHTS = tl.constexpr(table.DIVISOR), tl.constexpr(table.WEIGHTS)
_ELECTED, _NORMALIZED = tl.constexpr(table.ELECTED), tl.constexpr(table.NORMALIZED)
_ZERO_IS_POSITIVE = tl.constexpr(table.ZERO_IS_POSITIVE)
_AVERAGED, _EVEN = tl.constexpr(table.AVERAGED), tl.constexpr(table.EVEN)
_FINITE = tl.constexpr(table.FINITE)
_SELECTED, _WEIGHED = tl.constexpr(table.SELECTED), tl.constexpr(table.WEIGHED)
_LEAST = tl.constexpr(SMALLEST)
_DRAWN, _CLIPPED = tl.constexpr(table.DRAWN), tl.constexpr(table.CLIPPED)
_RANKED, _CHANCED = tl.constexpr(table.RANKED), tl.constexpr(table.CHANCED)
_RANGE, _ALIGNED = tl.constexpr(float(RANGE)), tl.constexpr(ALIGNED)
_CLOSEST = tl.constexpr(CLOSEST)


@triton.jit
def _chance(index, at, upper, lower):
    """Which entries a draw by rank keeps (above 0), and the chance that each had.

    Args:
        at: where the numbers of the draw are, see `merging.gpu.table.RANK_DRAW`.
        upper, lower: their ranks, see `merging.gpu.ranking`.
    """
    low, span, divisor = tl.load(at + 2), tl.load(at + 3), tl.load(at + 4)
    twice = ((upper.to(tl.int32) << 8) | lower.to(tl.int32)) >> tl.load(at + 5)
    # the quotient of numbers below 2**41 and 2**17 never rounds up to a whole number
    share = (span.to(tl.int64) * twice).to(tl.float64)
    below = low + (share / divisor.to(tl.float64)).to(tl.int32)
    draw = _drawn(index, tl.load(at), tl.load(at + 1))
    return draw < below, tl.maximum(below, 1).to(tl.float32) / _RANGE


@triton.jit
def _bounds(first, step: tl.constexpr, kind: tl.constexpr):
    """The keys of bounds, one for each ring, that stand `step` numbers apart."""
    result = ()
    for ring in tl.static_range(tl.constexpr(kind.ring_at[len(kind.rings)])):
        result += (_key_at(first + step * ring, kind.doubles),)
    return result


@triton.jit
def _all_sources(addresses, numel, kind: tl.constexpr):
    """As `_sources`, and after the models what draws by rank need: the word that has a bit for
    every expert, and two planes of ranks for those that are divided by their chances."""
    n: tl.constexpr = len(kind.rings)
    result = _sources(addresses, kind)
    for e in tl.static_range(n):
        if kind.bit_at[e] == 0:
            word = tl.load(addresses + _MODELS + 1 + n + e).to(tl.pointer_type(kind.word))
            result += (tl.multiple_of(word, 16),)
    for e in tl.static_range(n):
        if kind.rings[e] == _CHANCED:
            plane = tl.load(addresses + _MODELS + 1 + n + e).to(tl.pointer_type(tl.uint8))
            plane = tl.multiple_of(plane, 16)
            second = tl.multiple_of(tl.cdiv(numel, _ALIGNED) * _ALIGNED, 16)
            result += (plane, plane + second)
    return result


@triton.jit
def _addresses(addresses, tensor, kind: tl.constexpr):
    """A tensor's row of addresses: of the result, the models and what is known of every expert."""
    return addresses + tensor * (_MODELS + 1 + 2 * len(kind.rings) + kind.selects)


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
def _erased(deltas, factors):
    """As `merging.instructions.masks.erase`, with a row of the table."""
    balance = tl.zeros_like(deltas[0])
    for e in tl.static_range(len(deltas)):
        balance += deltas[e]
    total = tl.zeros_like(balance)
    divisor = tl.zeros_like(balance)
    for e in tl.static_range(len(deltas)):
        agrees = tl.where(balance >= 0.0, deltas[e] > 0.0, deltas[e] < 0.0)
        total += tl.where(agrees, deltas[e] * factors[_WEIGHTS + e], 0.0)
        divisor += tl.where(agrees, factors[_WEIGHTS + e], 0.0)
    return tl.div_rn(total, tl.maximum(divisor, _LEAST)) + balance * 0.0


@triton.jit
def _element(
    values, numbers, factors, firsts, lasts, index, place, kind: tl.constexpr, settled: tl.constexpr
):  # fmt: skip
    """Merges some elements of one tensor.

    Args:
        values, factors: from `_read` and `_factors`.
        numbers: the tensor's row of the table.
        firsts, lasts: the keys of the rings' bounds (`_bounds`): what is before the first is kept.
        settled: nothing lies between the two.

    Returns:
        base, merged, and `open`: above 0 for elements that lie between the two bounds of any ring.
        Each ring sets another number, so that compilers select one; what they make of truth values
        takes twice the instructions.
    """
    base = values[0].to(tl.float32)
    weighted = ()
    open = tl.zeros_like(index)
    for e in tl.static_range(len(kind.rings)):
        delta = values[e + 1].to(tl.float32) - base
        if kind.rings[e] == 0:
            delta = delta * factors[kind.factor_at[e]]
        elif kind.rings[e] == _CLIPPED:
            limit = tl.zeros_like(delta) + factors[kind.factor_at[e]]
            close = tl.div_rn(limit, tl.maximum(tl.abs(delta), _CLOSEST))
            delta = tl.minimum(tl.maximum(close, 0.0), 1.0) * delta
        elif kind.rings[e] == _DRAWN:
            at = numbers + kind.draws_at[e]
            keep = _drawn(index, tl.load(at), tl.load(at + 1)) < tl.load(at + 2)
            delta = tl.where(keep, delta * factors[kind.factor_at[e]], delta * 0.0)
        elif kind.rings[e] == _CHANCED:
            upper, lower = values[kind.planes_at[e]], values[kind.planes_at[e] + 1]
            keep, chance = _chance(index, numbers + kind.draws_at[e], upper, lower)
            factor = tl.div_rn(tl.zeros_like(chance) + 1.0, chance) * factors[kind.factor_at[e]]
            delta = tl.where(keep, delta * factor, delta * 0.0)
        elif kind.rings[e] <= _RANKED:
            bit = (values[len(kind.types)].to(tl.int32) >> kind.bit_at[e]) & 1
            delta = tl.where(bit > 0, delta * factors[kind.factor_at[e]], delta * 0.0)
        else:
            key = _key(_bits(delta), place, kind.doubles)
            factor = tl.zeros_like(delta)
            for back in tl.static_range(tl.constexpr(kind.rings[e])):
                above = key > firsts[kind.ring_at[e] + kind.rings[e] - 1 - back]
                if kind.located[e] and not settled:
                    near = key > lasts[kind.ring_at[e] + kind.rings[e] - 1 - back]
                    open = tl.where(near & (above == 0), 1 + kind.rings[e] - back, open)
                if kind.amplified[e]:
                    own = factors[kind.factor_at[e] + kind.rings[e] - 1 - back]
                    factor = tl.where(above, own, factor)
                else:
                    factor = tl.where(above, delta, 0.0)
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
    elif _SELECTED & kind.combination != 0:
        if kind.selects:
            key = _key(_bits(_variance(weighted)), place, kind.doubles)
            above = key > firsts[kind.ring_at[len(kind.rings)] - 1]
            if not settled:
                near = key > lasts[kind.ring_at[len(kind.rings)] - 1]
                open = tl.where(near & (above == 0), 1, open)
            left = ()
            for e in tl.static_range(len(kind.rings)):
                left += (tl.where(above, weighted[e], weighted[e] * 0.0),)
            merged = _erased(left, factors)
        else:
            merged = _erased(weighted, factors)
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
def _inside(key, bracket, doubles: tl.constexpr):
    """Which entries lie between the two bounds at an address."""
    return (key > _key_at(bracket + 2, doubles)) & (key <= _key_at(bracket, doubles))


@triton.jit
def _append(record, bits, index, mine):
    """Appends some elements' bits and indices to a ring's record, as far as it has room."""
    slot = tl.atomic_add(record + tl.zeros_like(index), 1, mask=mine, sem="relaxed")
    entry = record + _LISTED + 2 * slot
    tl.store(entry, bits, mask=mine & (slot < _NEAR))
    tl.store(entry + 1, index, mask=mine & (slot < _NEAR))


@triton.jit
def _list(addresses, numbers, records, index, mask, kind: tl.constexpr):
    """Lists, per ring, the elements that lie inside its bracket. Rare: it reads anew, so that
    nothing is held in registers for it."""
    values = _read(_sources(addresses, kind), index, mask, True)
    base = values[0].to(tl.float32)
    place = _places(numbers, index)
    for e in tl.static_range(len(kind.rings)):
        if kind.rings[e] > 0:
            bits = _bits(values[e + 1].to(tl.float32) - base)
            key = _key(bits, place, kind.doubles)
            for k in tl.static_range(tl.constexpr(kind.rings[e])):
                ring = kind.ring_at[e] + k
                mine = _inside(key, numbers + _RINGS + _RING * ring, kind.doubles) & mask
                _append(records + _RECORD * ring, bits, index, mine)


@triton.jit
def _list_selected(addresses, numbers, records, index, mask, kind: tl.constexpr):
    """Lists, likewise, the elements whose variance lies inside its bracket."""
    values = _read(_sources(addresses, kind), index, mask, True)
    ring: tl.constexpr = kind.ring_at[len(kind.rings)] - 1
    bits = _bits(_variance(_changes(values)))
    key = _key(bits, _places(numbers, index), kind.doubles)
    mine = _inside(key, numbers + _RINGS + _RING * ring, kind.doubles) & mask
    _append(records + _RECORD * ring, bits, index, mine)


@triton.jit
def _blocks(
    sources, numbers, factors, firsts, lasts, out, start, lane,
    kind: tl.constexpr, blocks: tl.constexpr,
):  # fmt: skip
    """Merges and writes some whole blocks of elements.

    Returns:
        Over all blocks the largest magnitude, the sum of (merged - base) squared, and above 0 where
        an element lies inside a bracket.
    """
    largest = tl.zeros(lane.shape, tl.float32)
    changed = tl.zeros(lane.shape, tl.float32)
    open = tl.zeros_like(lane)
    values = _read(sources, start + lane, lane >= 0, False)
    for turn in range(blocks):
        first = start + turn * lane.shape[0]
        index = first + lane
        if kind.aligned and lane.shape[0] == _STRIPES:
            place = _places_of_stripes(numbers, first, lane)
        else:
            place = _places(numbers, index)
        # the next block's are on their way while these are worked on
        more = tl.zeros(lane.shape, tl.int1) | (turn + 1 < blocks)
        following = _read(sources, index + lane.shape[0], more, True)
        base, merged, inside = _element(
            values, numbers, factors, firsts, lasts, index, place, kind, False
        )
        tl.store(out + index, merged.to(kind.output))
        largest = tl.maximum(largest, tl.abs(merged))
        changed += (merged - base) * (merged - base)
        open = tl.maximum(open, inside)
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
def _bracket(marks, row, numel, near: tl.constexpr):
    """Fills in the bracket of a ring, at an address, that keeps as many as RANK says."""
    count = tl.load(row + _RANK)
    everything = count >= numel
    first = tl.where(everything, tl.cdiv(numel, near), count // near)
    rank = tl.where(everything, 0, count % near)
    last = tl.where(rank > 0, first + 1, first)
    tl.store(row, tl.load(marks + 2 * first))
    tl.store(row + 1, tl.load(marks + 2 * first + 1))
    tl.store(row + 2, tl.load(marks + 2 * last))
    tl.store(row + 3, tl.load(marks + 2 * last + 1))
    tl.store(row + _RANK, rank)


@triton.jit(do_not_specialize=["width"])
def locate(addresses, numbers, records, sums, width, kind: tl.constexpr, near: tl.constexpr):
    """Fills in the brackets of tensor program_id(0) that its marks tell, and starts the records.

    Args:
        near: entries between two marks.
        sums: as of `merge`; the last of a tensor is above 1 where a change is not finite.
    """
    tensor = tl.program_id(0)
    n: tl.constexpr = len(kind.rings)
    rings: tl.constexpr = kind.ring_at[n]
    addresses = _addresses(addresses, tensor, kind)
    numbers += tensor * kind.draws_at[n]
    numel = tl.load(numbers + _NUMEL)
    doubt = 0.0 * tensor
    for e in tl.static_range(n):
        for k in tl.static_range(tl.constexpr(kind.rings[e])):
            tl.store(records + (tensor * rings + kind.ring_at[e] + k) * _RECORD, 0)
        if kind.located[e]:
            marks = tl.load(addresses + _MODELS + 1 + n + e).to(tl.pointer_type(tl.int32))
            doubt = tl.where(tl.load(marks) >= _INFINITE, 2.0, doubt)
            for k in tl.static_range(tl.constexpr(kind.rings[e])):
                _bracket(marks, numbers + _RINGS + _RING * (kind.ring_at[e] + k), numel, near)
    if kind.selects:
        marks = tl.load(addresses + _MODELS + 1 + 2 * n).to(tl.pointer_type(tl.int32))
        doubt = tl.where(tl.load(marks) >= _INFINITE, 2.0, doubt)
        tl.store(records + (tensor * rings + rings - 1) * _RECORD, 0)
        _bracket(marks, numbers + _RINGS + _RING * (rings - 1), numel, near)
    tl.store(sums + (tensor * width + width - 1) * 2, doubt)
    tl.store(sums + (tensor * width + width - 1) * 2 + 1, 0.0)


@triton.jit(do_not_specialize=["width"])
def merge(
    addresses, numbers, factors, records, sums, width,
    kind: tl.constexpr, block: tl.constexpr, blocks: tl.constexpr,
):  # fmt: skip
    """Merges some blocks of tensor program_id(1), from blocks * program_id(0) on.

    Args:
        addresses, numbers, factors: the table, int64, int32 and float32.
        records: (T, R, RECORD) int32, records.
        sums: (T, width, 2) float64: the first are as of `_tell`.
    """
    program, tensor = tl.program_id(0), tl.program_id(1)
    n: tl.constexpr = len(kind.rings)
    rings: tl.constexpr = kind.ring_at[n]
    addresses = _addresses(addresses, tensor, kind)
    numbers += tensor * kind.draws_at[n]
    records += tensor * rings * _RECORD
    cell = sums + (tensor * width + program) * 2
    numel = tl.load(numbers + _NUMEL)
    start = program * block * blocks
    stop = start + block * blocks
    if start < numel:
        sources = _all_sources(addresses, numel, kind)
        amounts = _factors(factors + tensor * kind.factors, kind.factors)
        out = tl.multiple_of(tl.load(addresses + _OUT).to(tl.pointer_type(kind.output)), 16)
        lane = tl.arange(0, block)
        none = tl.zeros([block], tl.float32)
        if _WEIGHED & kind.combination != 0:  # cuts were settled before
            firsts = _bounds(records + _CUT, _RECORD, kind)
            lasts = firsts
        else:
            firsts = _bounds(numbers + _RINGS, _RING, kind)
            lasts = _bounds(numbers + _RINGS + 2, _RING, kind)
        if stop <= numel:  # elements come several at a time
            largest, changed, open = _blocks(
                sources, numbers, amounts, firsts, lasts, out, start, lane, kind, blocks
            )
        else:
            largest, changed, open = none, none, tl.zeros_like(lane)
            for turn in range(blocks):
                index = start + turn * block + lane
                mask = index < numel
                values = _read(sources, index, mask, True)
                place = _places(numbers, index)
                base, merged, inside = _element(
                    values, numbers, amounts, firsts, lasts, index, place, kind, False
                )
                tl.store(out + index, merged.to(kind.output), mask=mask)
                largest = tl.maximum(largest, tl.where(mask, tl.abs(merged), 0.0))
                changed += tl.where(mask, (merged - base) * (merged - base), 0.0)
                open = tl.maximum(open, tl.where(mask, inside, 0))
        _tell(cell, largest, changed, kind)
        if rings > 0:  # noqa: SIM102 - known when compiled, the other is not
            if tl.max(open, 0) > 0:
                for turn in range(blocks):
                    index = start + turn * block + lane
                    _list(addresses, numbers, records, index, index < numel, kind)
                    if kind.selects:
                        _list_selected(addresses, numbers, records, index, index < numel, kind)
    else:
        tl.store(cell, 0.0)
        tl.store(cell + 1, 0.0)


@triton.jit
def settle(
    numbers, records, columns: tl.constexpr, rings: tl.constexpr, block: tl.constexpr
):  # fmt: skip
    """Finds the cut of ring program_id(0) of tensor program_id(1) among the listed elements: the
    one that has `rank` of them before it. Every program looks at a block of them.

    Args:
        columns: of a row of whole numbers; this and the number of rings is all that it depends on,
            so that many kinds share it.
    """
    ring, tensor = tl.program_id(0), tl.program_id(1)
    numbers += tensor * columns
    row = numbers + _RINGS + ring * _RING
    records += (tensor * rings + ring) * _RECORD
    final, entries = records + _CUT, records + _LISTED
    count = tl.load(records)
    rank = tl.load(row + _RANK)
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
        place = _places(numbers, index)
        ahead = tl.zeros([block], tl.int32)
        for start in range(0, count, block):
            other = start + tl.arange(0, block)
            theirs = tl.load(entries + other * 2, mask=other < count, other=-1)[None, :]
            there = tl.load(entries + other * 2 + 1, mask=other < count, other=0)[None, :]
            above = theirs > bits[:, None]
            there = _places(numbers, there)
            earlier = (theirs == bits[:, None]) & (there < place[:, None])
            ahead += tl.sum((above | earlier).to(tl.int32), 1)
        hit = (ahead == rank) & (slot < count)
        tl.store(final + tl.zeros_like(slot), bits, mask=hit)
        tl.store(final + 1 + tl.zeros_like(slot), place, mask=hit)


@triton.jit(do_not_specialize=["width", "first"])
def mend(
    addresses, numbers, factors, records, sums, width, first,
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
    addresses = _addresses(addresses, tensor, kind)
    numbers += tensor * kind.draws_at[n]
    records += tensor * rings * _RECORD
    record = records + ring * _RECORD
    cell = sums + (tensor * width + first + ring * (_NEAR // block) + part) * 2
    count = tl.load(record)
    if part * block < count:
        slot = part * block + tl.arange(0, block)
        mask = slot < count
        index = tl.load(record + _LISTED + 2 * slot + 1, mask=mask, other=0)
        sources = _all_sources(addresses, tl.load(numbers + _NUMEL), kind)
        amounts = _factors(factors + tensor * kind.factors, kind.factors)
        values = _read(sources, index, mask, True)
        place = _places(numbers, index)
        firsts = _bounds(numbers + _RINGS, _RING, kind)
        cuts = _bounds(records + _CUT, _RECORD, kind)
        base, old, _ = _element(values, numbers, amounts, firsts, firsts, index, place, kind, True)
        base, merged, _ = _element(values, numbers, amounts, cuts, cuts, index, place, kind, True)
        out = tl.load(addresses + _OUT).to(tl.pointer_type(kind.output))
        tl.store(out + index, merged.to(kind.output), mask=mask)
        counted = mask
        for e in tl.static_range(n):
            if kind.rings[e] > 0:
                bits = _bits(values[e + 1].to(tl.float32) - base)
                key = _key(bits, place, kind.doubles)
                for k in tl.static_range(tl.constexpr(kind.rings[e])):
                    other = kind.ring_at[e] + k
                    here = _inside(key, numbers + _RINGS + _RING * other, kind.doubles)
                    counted = counted & ((here == 0) | (other >= ring))
        change = (merged - base) * (merged - base) - (old - base) * (old - base)
        largest = tl.where(mask, tl.abs(merged), 0.0)
        _tell(cell, largest, tl.where(counted, change, 0.0), kind)
    else:
        tl.store(cell, 0.0)
        tl.store(cell + 1, 0.0)
