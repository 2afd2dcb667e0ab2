"""Weights by what the variance selects: a pass that adds up the squares of the changes selected.

The cut among the variances is known but for the entries between two marks (`merging.gpu.order`);
these are listed, `triton_kernels.settle` finds the cut among them, and `weigh_listed` adds theirs.
A variance of three experts takes some 30 steps in double, at half the rate of floats on GPUs made
for computing.

To merge a family of E experts of N elements, b bytes each, where weights follow from what is left

    weigh    read (1 + E) N b
    merge    read (1 + E) N b    write N b

predicted: 1.8 times what one merging pass by itself moves, for three experts. Where all count alike
there is the merging pass alone. Compiled for sm_90 the two take some 70 and 120 instructions for an
element of three experts.
"""

from __future__ import annotations

import triton
import triton.language as tl

from merging.gpu import table
from merging.gpu.elements import (
    FEW,
    _bits,
    _by_few,
    _changes,
    _key,
    _key_at,
    _places,
    _read,
    _sources,
    _variance,
)
from merging.gpu.triton_kernels import CUT, LISTED, RECORD, _addresses, _list_selected

BLOCK = 512  # elements that a program holds in registers at a time
BLOCKS = 8  # of a program

_NUMEL, _RINGS, _RING = (
    tl.constexpr(table.NUMEL), tl.constexpr(table.RINGS), tl.constexpr(table.RING)
)  # fmt: skip
_CUT, _LISTED, _RECORD = tl.constexpr(CUT), tl.constexpr(LISTED), tl.constexpr(RECORD)
_FEW = tl.constexpr(FEW)


@triton.jit
def _weigh(
    sources, numbers, cells, start, numel, lane,
    kind: tl.constexpr, blocks: tl.constexpr, whole: tl.constexpr,
):  # fmt: skip
    """Adds up some blocks of entries, and writes the sums; above 0 where one lies inside the
    bracket of the cut."""
    n: tl.constexpr = len(kind.rings)
    open = tl.zeros_like(lane)
    sums = ()
    for _ in tl.static_range(n):
        sums += (tl.zeros([lane.shape[0] // _FEW], tl.float64),)
    if kind.selects:
        ring: tl.constexpr = kind.ring_at[n] - 1
        first = _key_at(numbers + _RINGS + _RING * ring, kind.doubles)
        last = _key_at(numbers + _RINGS + _RING * ring + 2, kind.doubles)
    for turn in range(blocks):
        index = start + turn * lane.shape[0] + lane
        mask = index < numel
        deltas = _changes(_read(sources, index, mask, not whole))
        above = mask
        if kind.selects:
            key = _key(_bits(_variance(deltas)), _places(numbers, index), kind.doubles)
            above = key > first
            open = tl.where((key > last) & (above == 0) & mask, 1, open)
        more = ()
        for e in tl.static_range(n):
            left = tl.where(above, deltas[e], deltas[e] * 0.0)
            more += (sums[e] + _by_few(left * left),)
        sums = more
    for e in tl.static_range(n):
        tl.store(cells + e, tl.sum(sums[e], 0))
    return open


@triton.jit(do_not_specialize=["width"])
def weigh(
    addresses, numbers, records, sums, width,
    kind: tl.constexpr, block: tl.constexpr, blocks: tl.constexpr,
):  # fmt: skip
    """Adds up some blocks of tensor program_id(1), from blocks * program_id(0) on.

    Args:
        addresses, numbers, records: as of `triton_kernels.merge`.
        sums: (T, width, E) float64, sums of squares of the changes selected.
    """
    program, tensor = tl.program_id(0), tl.program_id(1)
    n: tl.constexpr = len(kind.rings)
    addresses = _addresses(addresses, tensor, kind)
    numbers += tensor * kind.draws_at[n]
    records += tensor * kind.ring_at[n] * _RECORD
    cells = sums + (tensor * width + program) * n
    numel = tl.load(numbers + _NUMEL)
    start = program * block * blocks
    if start < numel:
        sources = _sources(addresses, kind)
        lane = tl.arange(0, block)
        if start + block * blocks <= numel:  # elements come several at a time
            open = _weigh(sources, numbers, cells, start, numel, lane, kind, blocks, True)
        else:
            open = _weigh(sources, numbers, cells, start, numel, lane, kind, blocks, False)
        if kind.selects:  # noqa: SIM102 - known when compiled, the other is not
            if tl.max(open, 0) > 0:
                for turn in range(blocks):
                    index = start + turn * block + lane
                    _list_selected(addresses, numbers, records, index, index < numel, kind)
    else:
        for e in tl.static_range(n):
            tl.store(cells + e, 0.0)


@triton.jit(do_not_specialize=["width", "first"])
def weigh_listed(
    addresses, numbers, records, sums, width, first, kind: tl.constexpr, block: tl.constexpr
):
    """Adds up the entries of tensor program_id(0) that are listed, and inside the settled cut.

    Args:
        sums: as of `weigh`; these of a tensor stand from `first` on.
    """
    tensor, part = tl.program_id(0), tl.program_id(1)
    n: tl.constexpr = len(kind.rings)
    rings: tl.constexpr = kind.ring_at[n]
    addresses = _addresses(addresses, tensor, kind)
    numbers += tensor * kind.draws_at[n]
    record = records + (tensor * rings + rings - 1) * _RECORD
    cells = sums + (tensor * width + first + part) * n
    slot = part * block + tl.arange(0, block)
    mask = slot < tl.load(record)
    bits = tl.load(record + _LISTED + 2 * slot, mask=mask, other=0)
    index = tl.load(record + _LISTED + 2 * slot + 1, mask=mask, other=0)
    key = _key(bits, _places(numbers, index), kind.doubles)
    inside = (key > _key_at(record + _CUT, kind.doubles)) & mask
    deltas = _changes(_read(_sources(addresses, kind), index, inside, True))
    for e in tl.static_range(n):
        tl.store(cells + e, tl.sum((deltas[e] * deltas[e]).to(tl.float64), 0))
