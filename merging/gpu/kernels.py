"""Triton kernels that merge many tensors of a family in one launch.

A launch handles T tensors of one `Shape`; what differs between them lies in a table on the device
(`merging.gpu.table`), so nothing waits for the host. `merge` merges all elements and lists the few
that lie inside a bracket (`merging.gpu.order`), `settle` finds the cut among those, `mend` merges
them again.

Products, sums and quotients round one by one (no fused multiply-add, IEEE division), as in
`merging.methods`, so that the bytes are those of the other engines.
"""

from __future__ import annotations

import triton
import triton.language as tl

from merging.gpu import table
from merging.gpu.order import NEAR

BLOCK = 2048  # elements that a program holds in registers at a time
WARPS = 8
SETTLED, MENDED = 64, 128  # entries that a program of `settle` and `mend` looks at
TYPES = {"F32": tl.float32, "BF16": tl.bfloat16, "F16": tl.float16, "F64": tl.float64}
_INFINITE, _MOST = tl.constexpr(0x7F800000), tl.constexpr(0x7FFFFFFF)
_NEAR, _RING = tl.constexpr(NEAR), tl.constexpr(table.RING)
_OUT, _MODELS = tl.constexpr(table.OUT), tl.constexpr(table.MODELS)
_NUMEL, _RINGS = tl.constexpr(table.NUMEL), tl.constexpr(table.RINGS)
_STRENGTH, _BASE_WEIGHT = tl.constexpr(table.STRENGTH), tl.constexpr(table.BASE_WEIGHT)
_DIVISOR, _WEIGHTS = tl.constexpr(table.DIVISOR), tl.constexpr(table.WEIGHTS)
_ELECTED, _NORMALIZED = tl.constexpr(table.ELECTED), tl.constexpr(table.NORMALIZED)
_ZERO_IS_POSITIVE = tl.constexpr(table.ZERO_IS_POSITIVE)
_AVERAGED = tl.constexpr(table.AVERAGED)


@triton.jit
def _before(bits, index, bound):
    """Which entries are before the bound at an address, see `order.Bracket`."""
    at_bits, at_index = tl.load(bound), tl.load(bound + 1)
    return (bits > at_bits) | ((bits == at_bits) & (index < at_index))


@triton.jit
def _inside(bits, index, bracket):
    """Which entries lie between the two bounds at an address."""
    return _before(bits, index, bracket + 2) & (_before(bits, index, bracket) == 0)


@triton.jit
def _bits(delta):
    return tl.abs(delta).to(tl.int32, bitcast=True)


@triton.jit
def _mix(x):
    """As `merging.methods.random`."""
    x = x ^ ((x >> 16) & 0xFFFF)
    x = x * 0x7FEB352D
    x = x ^ ((x >> 15) & 0x1FFFF)
    x = x * (0x846CA68B - (1 << 32))
    return x ^ ((x >> 16) & 0xFFFF)


@triton.jit
def _read(addresses, model, index, mask, type: tl.constexpr, masked: tl.constexpr):
    """Elements of one model as float32."""
    address = tl.multiple_of(tl.load(addresses + _MODELS + model).to(tl.pointer_type(type)), 16)
    if masked:
        return tl.load(address + index, mask=mask, other=0.0).to(tl.float32)
    return tl.load(address + index).to(tl.float32)


@triton.jit
def _threshold(bracket, which: tl.constexpr, start):
    """The smallest magnitude before one of the two bounds of a bracket, for elements that all stand
    before its index or all after it."""
    earlier = start < tl.load(bracket + 2 * which + 1)
    bits = tl.where(earlier, tl.load(bracket + 2 * which), tl.load(bracket + 6 + which))
    return bits.to(tl.float32, bitcast=True)


@triton.jit
def _straddles(bracket, start, stop):
    """True where elements [start, stop) stand on both sides of a bound's index."""
    first, last = tl.load(bracket + 1), tl.load(bracket + 3)
    return ((start < first) & (first < stop)) | ((start < last) & (last < stop))


@triton.jit
def _flip(value, mask):
    """Changes the sign where the mask has it set."""
    return (value.to(tl.int32, bitcast=True) ^ mask).to(tl.float32, bitcast=True)


@triton.jit
def _element(
    addresses, numbers, factors, final, start, index, mask,
    types: tl.constexpr, rings: tl.constexpr, draws_at: tl.constexpr,
    factor_at: tl.constexpr, ring_at: tl.constexpr, amplified: tl.constexpr, combination: tl.constexpr,
    settled: tl.constexpr, masked: tl.constexpr,
):  # fmt: skip
    """Merges some elements of one tensor.

    Args:
        addresses, numbers, factors: the tensor's row of the table.
        final: where its settled bounds stand.
        start: index of the first element; read where not masked, when no bound may be straddled.
        settled: cut at the settled bounds; else at the brackets' first ones.

    Returns:
        base, merged, and which elements lie inside any ring's bracket.
    """
    base = _read(addresses, 0, index, mask, types[0], masked)
    pruned = ()
    open = index < 0
    for e in tl.static_range(len(rings)):
        delta = _read(addresses, e + 1, index, mask, types[e + 1], masked) - base
        by = factors + factor_at[e]
        if rings[e] == 0:
            delta = delta * tl.load(by)
        elif rings[e] < 0:
            at = numbers + draws_at[e]
            x = _mix(index ^ tl.load(at))
            x = _mix(x + tl.load(at + 1))
            keep = ((x >> 8) & 0xFFFFFF) < tl.load(at + 2)
            delta = tl.where(keep, delta * tl.load(by), delta * 0.0)
        else:
            bits = _bits(delta)
            factor = tl.zeros_like(delta)
            for back in tl.static_range(tl.constexpr(rings[e])):
                k = tl.constexpr(rings[e] - 1 - back)
                bracket = numbers + _RINGS + _RING * (ring_at[e] + k)
                if settled:
                    kept = _before(bits, index, final + 2 * (ring_at[e] + k))
                elif masked:
                    kept = _before(bits, index, bracket)
                    open = open | (_before(bits, index, bracket + 2) & (kept == 0))
                else:
                    kept = tl.abs(delta) >= _threshold(bracket, 0, start)
                    open = open | ((tl.abs(delta) >= _threshold(bracket, 1, start)) & (kept == 0))
                if amplified[e]:
                    factor = tl.where(kept, tl.load(by + k), factor)
                else:
                    factor = tl.where(kept, delta, 0.0)
            delta = delta * factor if amplified[e] else factor
        pruned += (delta,)
    total = pruned[0] * tl.load(factors + _WEIGHTS)
    for e in tl.static_range(1, len(rings)):
        total += pruned[e] * tl.load(factors + _WEIGHTS + e)
    if _ELECTED & combination == 0:
        merged = total
        if _NORMALIZED & combination != 0:
            merged = tl.div_rn(total, tl.zeros_like(total) + tl.load(factors + _DIVISOR))
    else:
        positive = total >= 0.0
        if _ZERO_IS_POSITIVE & combination == 0:
            positive = total > 0.0
        flip = tl.where(positive, 0, -0x80000000)  # then those that agree are above 0
        merged = tl.zeros_like(total)
        divisor = tl.zeros_like(total)
        for e in tl.static_range(len(rings)):
            weight = tl.load(factors + _WEIGHTS + e)
            agreeing = _flip(pruned[e] * weight, flip)
            merged += tl.maximum(agreeing, 0.0)
            divisor += tl.where(agreeing > 0.0, weight, 0.0)
        if _NORMALIZED & combination != 0:
            merged = tl.div_rn(merged, tl.where(divisor == 0.0, 1.0, divisor))
        merged = _flip(merged, flip) + 0.0  # where nobody agrees that is 0, not -0
        merged += total * 0.0  # NaN has no sign, and must be seen
    merged = merged * tl.load(factors + _STRENGTH)
    if _AVERAGED & combination != 0:
        merged = base * tl.load(factors + _BASE_WEIGHT) + merged
    else:
        merged = base + merged
    return base, merged, open


@triton.jit
def _list(
    addresses, numbers, listed, places, index, mask,
    types: tl.constexpr, rings: tl.constexpr, ring_at: tl.constexpr,
):  # fmt: skip
    """Lists, per ring, the elements that lie inside its bracket."""
    base = _read(addresses, 0, index, mask, types[0], True)
    for e in tl.static_range(len(rings)):
        if rings[e] > 0:
            bits = _bits(_read(addresses, e + 1, index, mask, types[e + 1], True) - base)
            for k in tl.static_range(tl.constexpr(rings[e])):
                ring = ring_at[e] + k
                mine = _inside(bits, index, numbers + _RINGS + _RING * ring) & mask
                slot = tl.atomic_add(listed + ring + tl.zeros_like(index), 1, mask=mine, sem="relaxed")
                place = places + (ring * _NEAR + slot) * 2
                tl.store(place, bits, mask=mine & (slot < _NEAR))
                tl.store(place + 1, index, mask=mine & (slot < _NEAR))


@triton.jit
def _block(
    addresses, numbers, factors, final, listed, places, out, start, numel,
    types: tl.constexpr, rings: tl.constexpr, draws_at: tl.constexpr,
    factor_at: tl.constexpr, ring_at: tl.constexpr, amplified: tl.constexpr, combination: tl.constexpr, block: tl.constexpr,
    masked: tl.constexpr,
):  # fmt: skip
    """Merges a block of elements, writes them and lists those inside a bracket.

    Returns:
        Of all others the magnitudes of the results, and (merged - base) squared.
    """
    index = start + tl.arange(0, block)
    mask = index < numel
    base, merged, open = _element(
        addresses, numbers, factors, final, start, index, mask,
        types, rings, draws_at, factor_at, ring_at, amplified, combination, False, masked,
    )  # fmt: skip
    rounded = merged.to(out.dtype.element_ty)
    largest, changed = tl.abs(merged), (merged - base) * (merged - base)
    if masked:
        tl.store(out + index, rounded, mask=mask)
        open = open & mask
        largest, changed = tl.where(mask, largest, 0.0), tl.where(mask, changed, 0.0)
    else:
        tl.store(out + index, rounded)
    if tl.max(open.to(tl.int32), 0) > 0:
        _list(addresses, numbers, listed, places, index, open, types, rings, ring_at)
        largest, changed = tl.where(open, 0.0, largest), tl.where(open, 0.0, changed)
    return largest, changed


@triton.jit
def _tell(sums, largest, changed, output: tl.constexpr):
    """Two sums: 1 where a value does not fit the output type or is NaN, and the squares."""
    changed = tl.sum(changed, 0)
    largest = tl.max(largest, 0).to(output).to(tl.float32)
    bad = (_bits(largest) >= _INFINITE) | (changed != changed)
    tl.store(sums, bad.to(tl.float64))
    tl.store(sums + 1, changed.to(tl.float64))


@triton.jit
def merge(
    addresses, numbers, factors, final, listed, places, sums, programs,
    types: tl.constexpr, rings: tl.constexpr, draws_at: tl.constexpr, factor_at: tl.constexpr,
    ring_at: tl.constexpr, amplified: tl.constexpr, combination: tl.constexpr, output: tl.constexpr,
    block: tl.constexpr,
):  # fmt: skip
    """Merges block program_id(0) of tensor program_id(1).

    Args:
        addresses, numbers, factors: the table, int64, int32 and float32.
        final: (T, R, 2) int32, not read here.
        listed: (T, R) int32, zeros: how many elements lie inside each ring's bracket.
        places: (T, R, NEAR, 2) int32: their bits and indices.
        sums: (T, programs, 2) float64, zeros: as of `_tell`, without those elements.
    """
    program, tensor = tl.program_id(0), tl.program_id(1)
    n: tl.constexpr = len(rings)
    addresses += tensor * (_MODELS + n + 1)
    numbers += tensor * draws_at[n]
    factors += tensor * factor_at[n]
    final += tensor * ring_at[n] * 2
    listed += tensor * ring_at[n]
    places += tensor * ring_at[n] * _NEAR * 2
    numel = tl.load(numbers + _NUMEL)
    start = program * block
    stop = start + block
    if start < numel:
        out = tl.multiple_of(tl.load(addresses + _OUT).to(tl.pointer_type(output)), 16)
        simple = stop <= numel
        for ring in tl.static_range(tl.constexpr(ring_at[n])):
            simple &= not _straddles(numbers + _RINGS + _RING * ring, start, stop)
        if simple:  # elements come 16 bytes at a time, and one threshold holds for all
            largest, changed = _block(
                addresses, numbers, factors, final, listed, places, out, start, numel, types,
                rings, draws_at, factor_at, ring_at, amplified, combination, block, False,
            )  # fmt: skip
        else:
            largest, changed = _block(
                addresses, numbers, factors, final, listed, places, out, start, numel, types,
                rings, draws_at, factor_at, ring_at, amplified, combination, block, True,
            )  # fmt: skip
        _tell(sums + (tensor * programs + program) * 2, largest, changed, output)


@triton.jit
def settle(
    numbers, final, listed, places, columns, rings: tl.constexpr,
    block: tl.constexpr,
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
    places += cut * _NEAR * 2
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
        bits = tl.load(places + slot * 2, mask=slot < count, other=-1)
        index = tl.load(places + slot * 2 + 1, mask=slot < count, other=0)
        ahead = tl.zeros([block], tl.int32)
        for start in range(0, count, block):
            other = start + tl.arange(0, block)
            theirs = tl.load(places + other * 2, mask=other < count, other=-1)[None, :]
            there = tl.load(places + other * 2 + 1, mask=other < count, other=0)[None, :]
            above = theirs > bits[:, None]
            earlier = (theirs == bits[:, None]) & (there < index[:, None])
            ahead += tl.sum((above | earlier).to(tl.int32), 1)
        hit = (ahead == rank) & (slot < count)
        strict = tl.load(row + 5) != 0
        tl.store(final + tl.zeros_like(slot), bits, mask=hit)
        tl.store(final + 1 + tl.zeros_like(slot), tl.where(strict, 0, index), mask=hit)


@triton.jit
def mend(
    addresses, numbers, factors, final, listed, places, sums,
    types: tl.constexpr, rings: tl.constexpr, draws_at: tl.constexpr,
    factor_at: tl.constexpr, ring_at: tl.constexpr, amplified: tl.constexpr,
    combination: tl.constexpr, output: tl.constexpr, block: tl.constexpr,
):  # fmt: skip
    """Merges the elements listed for ring program_id(0) of tensor program_id(1) again, with the
    settled cuts. An element listed for several rings counts in the first one's sums.

    Args:
        sums: (T, R, NEAR / block, 2) float64, zeros: as of `_tell`.
    """
    ring, tensor, part = tl.program_id(0), tl.program_id(1), tl.program_id(2)
    n: tl.constexpr = len(rings)
    addresses += tensor * (_MODELS + n + 1)
    numbers += tensor * draws_at[n]
    cut = tensor * ring_at[n] + ring
    count = tl.load(listed + cut)
    if part * block < count:
        slot = part * block + tl.arange(0, block)
        mask = slot < count
        index = tl.load(places + (cut * _NEAR + slot) * 2 + 1, mask=mask, other=0)
        base, merged, _ = _element(
            addresses, numbers, factors + tensor * factor_at[n], final + tensor * ring_at[n] * 2,
            0, index, mask, types, rings, draws_at, factor_at, ring_at, amplified, combination,
            True, True,
        )  # fmt: skip
        out = tl.load(addresses + _OUT).to(tl.pointer_type(output))
        tl.store(out + index, merged.to(output), mask=mask)
        counted = mask
        for e in tl.static_range(n):
            if rings[e] > 0:
                bits = _bits(_read(addresses, e + 1, index, mask, types[e + 1], True) - base)
                for k in tl.static_range(tl.constexpr(rings[e])):
                    other = ring_at[e] + k
                    here = _inside(bits, index, numbers + _RINGS + _RING * other)
                    counted = counted & ((here == 0) | (other >= ring))
        change = tl.where(counted, merged - base, 0.0)
        told = sums + (cut * (_NEAR // block) + part) * 2
        _tell(told, tl.where(counted, tl.abs(merged), 0.0), change * change, output)
