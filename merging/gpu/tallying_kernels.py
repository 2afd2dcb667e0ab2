"""Passes over many tensors that measure their changes for a sketch: counted by the upper bits of
their magnitudes, added up, and counted above some bounds.

A part's changes are counted in a multiprocessor's own memory (`tl.histogram`); only the buckets
that are not empty, some hundreds, are added to the tensor's. To scan a family of E experts of N
elements, b bytes each, takes

    tally    read (1 + E) N b, the base once more for every expert, if not from a cache
    add      read (1 + E) N b
    above    read (1 + E) N b of the linears

predicted: three times the family's bytes. Compiled for sm_90 a change takes some 40 instructions to
be counted and 15 each to be added up and compared; an expert's part of 16384 takes as many counters
set to 0 and read again.
"""

from __future__ import annotations

from typing import NamedTuple

import triton
import triton.language as tl

from merging.gpu import table
from merging.gpu.elements import FEW, _bits, _by_few, _changes, _factors, _read, _sources

BLOCK = 1 << 14  # elements of a program, in registers
WARPS = 32
FEWER, BLOCKS = 512, 8  # likewise at a time, and how often, where no memory is shared
BINS = 1 << 14  # counters of an expert: two for each bucket of upper bits, a power of 2
FIRST = (127 - 40) << 7  # the first bucket: the upper bits of 2**-40
BUCKETS = 56 << 7  # and their number, up to 2**16


class Tallied(NamedTuple):
    """What the kernels are compiled for: the models' stored types, base first, and the bounds of
    every expert."""

    types: tuple
    bounds: int = 0


_MODELS, _BINS = tl.constexpr(table.MODELS), tl.constexpr(BINS)
_FIRST, _BUCKETS, _FEW = tl.constexpr(FIRST), tl.constexpr(BUCKETS), tl.constexpr(FEW)


@triton.jit
def _stored(source, index, mask, whole):
    """Elements of one model, (block,) float32."""
    if whole:  # noqa: SIM108 - elements come several at a time
        value = tl.load(source + index)
    else:
        value = tl.load(source + index, mask=mask, other=0.0)
    return value.to(tl.float32)


@triton.jit
def tally(addresses, numels, parts, counts, kind: tl.constexpr, block: tl.constexpr):
    """Counts one part of a tensor, for one expert; those of a part follow each other, so that the
    base is read from the device's memory once.

    Args:
        addresses, numels, parts: of `alike.Alike`.
        counts: (T, E, BINS) int32, zeros: entries other than 0 by bucket; those whose lower 16 bits
            are zero, then the others. The last one counts those that have no bucket.
    """
    experts: tl.constexpr = len(kind.types) - 1
    part, expert = tl.program_id(0) // experts, tl.program_id(0) % experts
    tensor = tl.load(parts + part * 2)
    start = tl.multiple_of(tl.load(parts + part * 2 + 1), 16)
    numel = tl.load(numels + tensor)
    sources = _sources(addresses + tensor * (_MODELS + len(kind.types)), kind)
    counts += (tensor.to(tl.int64) * experts + expert) * _BINS
    index = start + tl.arange(0, block)
    mask = index < numel
    whole = start + block <= numel
    delta = -_stored(sources[0], index, mask, whole)
    for e in tl.static_range(experts):
        if expert == e:
            delta += _stored(sources[e + 1], index, mask, whole)
    bits = _bits(delta)
    counter = 2 * ((bits >> 16) - _FIRST) + ((bits & 0xFFFF) != 0).to(tl.int32)
    counter = tl.where((counter >= 0) & (counter < 2 * _BUCKETS), counter, _BINS - 1)
    counted = tl.histogram(counter, _BINS, mask=bits != 0)
    bins = tl.arange(0, _BINS)
    tl.atomic_add(counts + bins, counted, mask=counted > 0, sem="relaxed")


@triton.jit
def _add(
    sources, cells, start, numel, lane,
    kind: tl.constexpr, blocks: tl.constexpr, whole: tl.constexpr,
):  # fmt: skip
    """Adds up some blocks of entries; arguments as of `add`."""
    experts: tl.constexpr = len(kind.types) - 1
    few = tl.zeros([lane.shape[0] // _FEW], tl.float64)
    largest = ()
    sums = (few,)
    for i in tl.static_range(experts):
        largest += (tl.zeros(lane.shape, tl.float32),)
        sums += (few,)
        for _ in tl.static_range(i, experts):
            sums += (few,)
    for turn in range(blocks):
        index = start + turn * lane.shape[0] + lane
        values = _read(sources, index, index < numel, not whole)
        base = values[0].to(tl.float32)
        deltas = _changes(values)
        more = (sums[0] + _by_few(base * base),)
        tops = ()
        for i in tl.static_range(experts):
            size = tl.abs(deltas[i])
            tops += (tl.maximum(largest[i], size),)
            more += (sums[len(more)] + _by_few(size),)
            for j in tl.static_range(i, experts):
                more += (sums[len(more)] + _by_few(deltas[i] * deltas[j]),)
        sums = more
        largest = tops
    for k in tl.static_range(len(sums)):
        tl.store(cells + k, tl.sum(sums[k], 0))
    for i in tl.static_range(experts):
        tl.store(cells + len(sums) + i, tl.max(largest[i], 0).to(tl.float64))


@triton.jit
def add(
    addresses, numels, parts, sums,
    kind: tl.constexpr, block: tl.constexpr, blocks: tl.constexpr,
):  # fmt: skip
    """Adds up one part of a tensor.

    Args:
        addresses, numels, parts: of `alike.Alike`.
        sums: (P, 1 + E (E + 3) / 2 + E) float64: the sum of the base's squares; of every expert the
            sum of magnitudes, and the inner products of its changes with themselves and with those
            of the experts after it; then the largest magnitudes.
    """
    part = tl.program_id(0)
    experts: tl.constexpr = len(kind.types) - 1
    tensor = tl.load(parts + part * 2)
    start = tl.multiple_of(tl.load(parts + part * 2 + 1), 16)
    numel = tl.load(numels + tensor)
    sources = _sources(addresses + tensor * (_MODELS + len(kind.types)), kind)
    cells = sums + part * (1 + experts * (experts + 3) // 2 + experts)
    lane = tl.arange(0, block)
    if start + block * blocks <= numel:  # elements come several at a time
        _add(sources, cells, start, numel, lane, kind, blocks, True)
    else:
        _add(sources, cells, start, numel, lane, kind, blocks, False)


@triton.jit
def _above(
    sources, ends, cells, start, numel, lane,
    kind: tl.constexpr, blocks: tl.constexpr, whole: tl.constexpr,
):  # fmt: skip
    """Counts some blocks of entries; arguments as of `above`."""
    experts: tl.constexpr = len(kind.types) - 1
    counts = ()
    for _ in tl.static_range(experts * kind.bounds):
        counts += (tl.zeros(lane.shape, tl.int32),)
    for turn in range(blocks):
        index = start + turn * lane.shape[0] + lane
        mask = index < numel
        deltas = _changes(_read(sources, index, mask, not whole))
        more = ()
        for i in tl.static_range(experts):
            for k in tl.static_range(tl.constexpr(kind.bounds)):
                above = (tl.abs(deltas[i]) > ends[i * kind.bounds + k]) & mask
                more += (counts[i * kind.bounds + k] + above.to(tl.int32),)
        counts = more
    for k in tl.static_range(experts * kind.bounds):
        tl.store(cells + k, tl.sum(counts[k], 0))


@triton.jit
def above(
    addresses, numels, parts, bounds, tallies,
    kind: tl.constexpr, block: tl.constexpr, blocks: tl.constexpr,
):  # fmt: skip
    """Counts one part of a tensor.

    Args:
        addresses, numels, parts: of `alike.Alike`.
        bounds: (T, E, B) float32.
        tallies: (P, E, B) int32: entries with |delta| above each.
    """
    part = tl.program_id(0)
    size: tl.constexpr = (len(kind.types) - 1) * kind.bounds
    tensor = tl.load(parts + part * 2)
    start = tl.multiple_of(tl.load(parts + part * 2 + 1), 16)
    numel = tl.load(numels + tensor)
    sources = _sources(addresses + tensor * (_MODELS + len(kind.types)), kind)
    ends = _factors(bounds + tensor * size, size)
    cells = tallies + part * size
    lane = tl.arange(0, block)
    if start + block * blocks <= numel:  # elements come several at a time
        _above(sources, ends, cells, start, numel, lane, kind, blocks, True)
    else:
        _above(sources, ends, cells, start, numel, lane, kind, blocks, False)
