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

from merging.gpu.order import NEAR
from merging.gpu.table import BASE_WEIGHT, DIVISOR, MODELS, NUMEL, OUT, RING, STRENGTH, WEIGHTS

BLOCK = 2048  # elements that a program holds in registers at a time
ROUNDS = 4  # blocks of a program
WARPS = 8
TYPES = {"F32": tl.float32, "BF16": tl.bfloat16, "F16": tl.float16}
_AT_ONCE = tl.constexpr(64)  # entries ranked at a time
_INFINITE = tl.constexpr(0x7F800000)
_NEAR, _RING = tl.constexpr(NEAR), tl.constexpr(RING)
_NUMEL, _OUT, _MODELS = tl.constexpr(NUMEL), tl.constexpr(OUT), tl.constexpr(MODELS)
_STRENGTH, _BASE_WEIGHT = tl.constexpr(STRENGTH), tl.constexpr(BASE_WEIGHT)
_DIVISOR, _WEIGHTS = tl.constexpr(DIVISOR), tl.constexpr(WEIGHTS)


@triton.jit
def _before(bits, index, bound):
    """Which entries are before the bound at an address, see `order.Bracket`."""
    at_bits, at_index = tl.load(bound).to(tl.int32), tl.load(bound + 1).to(tl.int32)
    return (bits > at_bits) | ((bits == at_bits) & (index < at_index))


@triton.jit
def _mix(x):
    """As `merging.methods.random`."""
    x = x ^ ((x >> 16) & 0xFFFF)
    x = x * 0x7FEB352D
    x = x ^ ((x >> 15) & 0x1FFFF)
    x = x * (0x846CA68B - (1 << 32))
    return x ^ ((x >> 16) & 0xFFFF)


@triton.jit
def _read(row, model, index, mask, type: tl.constexpr, masked: tl.constexpr):
    """Elements of one model as float32."""
    address = tl.multiple_of(tl.load(row + _MODELS + model).to(tl.pointer_type(type)), 16)
    if masked:
        return tl.load(address + index, mask=mask, other=0.0).to(tl.float32)
    return tl.load(address + index).to(tl.float32)


@triton.jit
def _element(
    row, factors, final, index, mask,
    types: tl.constexpr, rings: tl.constexpr, rings_at: tl.constexpr, draws_at: tl.constexpr, factor_at: tl.constexpr,
    ring_at: tl.constexpr, election: tl.constexpr, settled: tl.constexpr, masked: tl.constexpr,
):  # fmt: skip
    """Merges some elements of one tensor.

    Args:
        row, factors: the tensor's row of the table, whole numbers and factors.
        final: where its settled bounds stand.
        settled: cut at those; else at the brackets' first bounds.

    Returns:
        base, merged; per ring of all experts, which elements lie inside its bracket, and the bits
        of their magnitudes.
    """
    base = _read(row, 0, index, mask, types[0], masked)
    pruned = ()
    inside = ()
    seen = ()
    for e in tl.static_range(len(rings)):
        delta = _read(row, e + 1, index, mask, types[e + 1], masked) - base
        by = factors + factor_at[e]
        if rings[e] == 0:
            delta = delta * tl.load(by)
        elif rings[e] < 0:
            at = row + draws_at[e]
            x = _mix(index ^ tl.load(at).to(tl.int32))
            x = _mix(x + tl.load(at + 1).to(tl.int32))
            keep = ((x >> 8) & 0xFFFFFF) < tl.load(at + 2).to(tl.int32)
            delta = tl.where(keep, delta * tl.load(by), delta * 0.0)
        else:
            bits = tl.abs(delta).to(tl.int32, bitcast=True)
            factor = tl.zeros_like(delta)
            taken = bits < 0
            for k in tl.static_range(rings[e]):
                bound = row + rings_at + _RING * (ring_at[e] + k)
                kept = _before(bits, index, bound)
                inside += (_before(bits, index, bound + 2) & (kept == 0),)
                seen += (bits,)
                if settled:
                    kept = _before(bits, index, final + 2 * (ring_at[e] + k))
                factor = tl.where(kept & (taken == 0), tl.load(by + k), factor)
                taken = taken | kept
            if rings[e] == 1:  # as `magnitude.amplify`: what is dropped is 0, or -0 at a factor
                nothing = tl.where(tl.load(by) == 1.0, 0.0, delta * 0.0)
                delta = tl.where(taken, delta * factor, nothing)
            else:
                delta = delta * factor
        pruned += (delta,)
    total = pruned[0] * tl.load(factors + _WEIGHTS)
    for e in tl.static_range(1, len(rings)):
        total += pruned[e] * tl.load(factors + _WEIGHTS + e)
    if election == 0:
        merged = tl.div_rn(total, tl.zeros_like(total) + tl.load(factors + _DIVISOR))
    else:
        positive = total >= 0.0
        if election & 4 == 0:
            positive = total > 0.0
        merged = tl.zeros_like(total)
        divisor = tl.zeros_like(total)
        for e in tl.static_range(len(rings)):
            weight = tl.load(factors + _WEIGHTS + e)
            weighted = pruned[e] * weight
            agrees = tl.where(positive, weighted > 0.0, weighted < 0.0)
            merged += tl.where(agrees, weighted, 0.0)
            divisor += tl.where(agrees, weight, 0.0)
        if election & 2 != 0:
            merged = tl.div_rn(merged, tl.where(divisor == 0.0, 1.0, divisor))
        merged += total * 0.0  # NaN has no sign, and must be seen
    merged = base * tl.load(factors + _BASE_WEIGHT) + merged * tl.load(factors + _STRENGTH)
    return base, merged, inside, seen


@triton.jit
def _sums(base, merged, rounded, counted):
    """Per element: 1 where it is not finite, (merged - base) squared, base squared."""
    bits = rounded.to(tl.float32).to(tl.int32, bitcast=True)
    bad = ((bits & _INFINITE) == _INFINITE) & counted
    change = tl.where(counted, merged - base, 0.0)
    kept = tl.where(counted, base, 0.0)
    return bad.to(tl.int32), change * change, kept * kept


@triton.jit
def _block(
    row, factors, final, listed, places, out, start, numel,
    types: tl.constexpr, rings: tl.constexpr, rings_at: tl.constexpr, draws_at: tl.constexpr, factor_at: tl.constexpr,
    ring_at: tl.constexpr, election: tl.constexpr, block: tl.constexpr, masked: tl.constexpr,
):  # fmt: skip
    """Merges a block of elements, writes them and lists those inside a bracket. Returns `_sums`."""
    index = start + tl.arange(0, block)
    mask = index < numel
    base, merged, inside, seen = _element(
        row, factors, final, index, mask,
        types, rings, rings_at, draws_at, factor_at, ring_at, election, False, masked,
    )  # fmt: skip
    rounded = merged.to(out.dtype.element_ty)
    if masked:
        tl.store(out + index, rounded, mask=mask)
    else:
        tl.store(out + index, rounded)
    counted = mask
    if len(inside) > 0:
        open = inside[0]
        for r in tl.static_range(1, len(inside)):
            open = open | inside[r]
        open = open & mask
        if tl.max(open.to(tl.int32), 0) > 0:
            for r in tl.static_range(len(inside)):
                mine = inside[r] & mask
                slot = tl.atomic_add(listed + r + tl.zeros_like(index), 1, mask=mine)
                place = places + (r * _NEAR + slot) * 2
                tl.store(place, seen[r], mask=mine & (slot < _NEAR))
                tl.store(place + 1, index, mask=mine & (slot < _NEAR))
        counted = mask & (open == 0)
    return _sums(base, merged, rounded, counted)


@triton.jit
def merge(
    whole, factors, final, listed, places, sums, programs,
    types: tl.constexpr, rings: tl.constexpr, rings_at: tl.constexpr, draws_at: tl.constexpr, factor_at: tl.constexpr,
    ring_at: tl.constexpr, election: tl.constexpr, output: tl.constexpr,
    block: tl.constexpr, rounds: tl.constexpr,
):  # fmt: skip
    """Merges tensor program_id(1), elements block * rounds * program_id(0) and on.

    Args:
        whole, factors: the table, int64 and float32.
        final: (T, R, 2) int64, not read here.
        listed: (T, R) int32, zeros: how many elements lie inside each ring's bracket.
        places: (T, R, NEAR, 2) int32: their bits and indices.
        sums: (T, programs, 3) float64, zeros: as of `_sums`, without those elements.
    """
    program, tensor = tl.program_id(0), tl.program_id(1)
    n: tl.constexpr = len(rings)
    row = whole + tensor * draws_at[n]
    numbers = factors + tensor * factor_at[n]
    final += tensor * ring_at[n] * 2
    listed += tensor * ring_at[n]
    places += tensor * ring_at[n] * _NEAR * 2
    numel = tl.load(row + _NUMEL).to(tl.int32)
    first = program * block * rounds
    if first < numel:
        out = tl.multiple_of(tl.load(row + _OUT).to(tl.pointer_type(output)), 16)
        bad = tl.zeros([block], tl.int32)
        changed = tl.zeros([block], tl.float32)
        squared = tl.zeros([block], tl.float32)
        for turn in range(rounds):
            start = first + turn * block
            if start + block <= numel:
                x, y, z = _block(
                    row, numbers, final, listed, places, out, start, numel,
                    types, rings, rings_at, draws_at, factor_at, ring_at, election, block, False,
                )  # fmt: skip
                bad, changed, squared = bad + x, changed + y, squared + z
            elif start < numel:
                x, y, z = _block(
                    row, numbers, final, listed, places, out, start, numel,
                    types, rings, rings_at, draws_at, factor_at, ring_at, election, block, True,
                )  # fmt: skip
                bad, changed, squared = bad + x, changed + y, squared + z
        told = sums + (tensor * programs + program) * 3
        tl.store(told, tl.sum(bad, 0).to(tl.float64))
        tl.store(told + 1, tl.sum(changed, 0).to(tl.float64))
        tl.store(told + 2, tl.sum(squared, 0).to(tl.float64))


@triton.jit
def settle(
    whole, final, listed, places, columns, rings_at: tl.constexpr, rings: tl.constexpr
):  # fmt: skip
    """Finds the cut of ring program_id(0) of tensor program_id(1) among the listed elements.

    Args:
        columns: of a row of the table.
    """
    ring, tensor = tl.program_id(0), tl.program_id(1)
    row = whole + tensor * columns + rings_at + ring * _RING
    cut = tensor * rings + ring
    count = tl.load(listed + cut)
    places += cut * _NEAR * 2
    rank = tl.load(row + 4).to(tl.int32)
    if count == 0:
        tl.store(final + cut * 2, tl.load(row))
        tl.store(final + cut * 2 + 1, tl.load(row + 1))
    elif rank >= count:
        tl.store(final + cut * 2, tl.load(row + 2))
        tl.store(final + cut * 2 + 1, tl.load(row + 3))
    else:
        slot = tl.arange(0, _NEAR)
        bits = tl.load(places + slot * 2, mask=slot < count, other=-1)
        index = tl.load(places + slot * 2 + 1, mask=slot < count, other=0)
        place = tl.zeros([_NEAR], tl.int32)
        for start in range(0, count, _AT_ONCE):
            other = start + tl.arange(0, _AT_ONCE)
            theirs = tl.load(places + other * 2, mask=other < count, other=-1)[None, :]
            there = tl.load(places + other * 2 + 1, mask=other < count, other=0)[None, :]
            above = theirs > bits[:, None]
            earlier = (theirs == bits[:, None]) & (there < index[:, None])
            place += tl.sum((above | earlier).to(tl.int32), 1)
        hit = (place == rank) & (slot < count)
        strict = tl.load(row + 5) != 0
        tl.store(final + cut * 2, tl.sum(tl.where(hit, bits, 0), 0).to(tl.int64))
        found = tl.sum(tl.where(hit, index, 0), 0).to(tl.int64)
        tl.store(final + cut * 2 + 1, tl.where(strict, 0, found))


@triton.jit
def mend(
    whole, factors, final, listed, places, sums,
    types: tl.constexpr, rings: tl.constexpr, rings_at: tl.constexpr, draws_at: tl.constexpr, factor_at: tl.constexpr,
    ring_at: tl.constexpr, election: tl.constexpr, output: tl.constexpr, block: tl.constexpr,
):  # fmt: skip
    """Merges the elements listed for ring program_id(0) of tensor program_id(1) again, with the
    settled cuts. An element listed for several rings counts in the first one's sums.

    Args:
        sums: (T, R, 3) float64.
    """
    ring, tensor = tl.program_id(0), tl.program_id(1)
    n: tl.constexpr = len(rings)
    row = whole + tensor * draws_at[n]
    numbers = factors + tensor * factor_at[n]
    cut = tensor * ring_at[n] + ring
    count = tl.load(listed + cut)
    places += cut * _NEAR * 2
    final += tensor * ring_at[n] * 2
    out = tl.load(row + _OUT).to(tl.pointer_type(output))
    bad = tl.zeros([block], tl.int32)
    changed = tl.zeros([block], tl.float32)
    squared = tl.zeros([block], tl.float32)
    for start in range(0, count, block):
        slot = start + tl.arange(0, block)
        mask = slot < count
        index = tl.load(places + slot * 2 + 1, mask=mask, other=0)
        base, merged, inside, seen = _element(
            row, numbers, final, index, mask,
            types, rings, rings_at, draws_at, factor_at, ring_at, election, True, True,
        )  # fmt: skip
        rounded = merged.to(output)
        tl.store(out + index, rounded, mask=mask)
        counted = mask
        for r in tl.static_range(len(inside)):
            counted = counted & ((inside[r] == 0) | (r >= ring))
        x, y, z = _sums(base, merged, rounded, counted)
        bad, changed, squared = bad + x, changed + y, squared + z
    told = sums + cut * 3
    tl.store(told, tl.sum(bad, 0).to(tl.float64))
    tl.store(told + 1, tl.sum(changed, 0).to(tl.float64))
    tl.store(told + 2, tl.sum(squared, 0).to(tl.float64))
