"""One pass over many tensors that draws by rank: which entries stay, and how much of each change.

An entry stays where its draw is below low + floor(span * twice / divisor), which no division need
tell: where (draw - low + 1) * divisor <= span * twice. Twice its rank is known to 8 bits from the
first plane of ranks (`merging.gpu.ranking`), which puts the limit between two numbers; the second
is read where the draw lies between them, one entry in some hundreds.

To merge a family of E experts of N elements, b bytes each, rescaled as their sums ask for, takes

    draw     read (1 + E) N b and E N ranks    write N
    merge    read (1 + E) N b and N            write N b

predicted: 23 bytes an element for three experts of two bytes, where one merging pass by itself
moves 10. What is not rescaled is drawn from ranks alone: 15 bytes; where survivors are divided by
their chances one pass does all: 16. Compiled for sm_90 the draws of three experts take some 165
instructions an element.
"""

from __future__ import annotations

import triton
import triton.language as tl

from merging.gpu import table
from merging.gpu.elements import FEW, _by_few, _drawn, _factors, _read, _sources
from merging.gpu.ranking import ALIGNED
from merging.gpu.triton_kernels import _addresses

BLOCK = 512  # elements that a program holds in registers at a time
WARPS = 4
BLOCKS = 8  # of a program
HELD = 4  # experts up to which the numbers of their draws stay in registers

_OUT, _NUMEL, _MODELS = (
    tl.constexpr(table.OUT), tl.constexpr(table.NUMEL), tl.constexpr(table.MODELS)
)  # fmt: skip
_ALIGNED, _FEW = tl.constexpr(ALIGNED), tl.constexpr(FEW)
_HELD = tl.constexpr(HELD)
_FRACTION = tl.constexpr(table.FRACTION)
_RESCALED, _RANK_DRAW = tl.constexpr(table.RESCALED), tl.constexpr(table.RANK_DRAW)


@triton.jit
def _stays(upper, lowers, numbers, index, mask):
    """Which entries of one expert stay.

    Args:
        upper: of the first plane of ranks.
        lowers: where the second one lies.
        numbers: RANK_DRAW of the table.
    """
    low, span, divisor, shift = numbers[2], numbers[3], numbers[4], numbers[5]
    upper = upper.to(tl.int32)
    draw = _drawn(index, numbers[0], numbers[1])
    above = draw - (low + ((upper * numbers[6]) >> _FRACTION))
    open = (above >= 0) & (above < numbers[7]) & mask
    lower = tl.load(lowers + index, mask=open, other=0).to(tl.int32)
    twice = ((upper << 8) | lower) >> shift
    return (draw - low + 1).to(tl.int64) * divisor <= span.to(tl.int64) * twice


@triton.jit
def _draw(
    sources, planes, numbers, out, second, cells, start, numel, lane,
    kind: tl.constexpr, blocks: tl.constexpr, whole: tl.constexpr,
):  # fmt: skip
    """Draws for some blocks of entries; arguments as of `draw`."""
    n: tl.constexpr = len(kind.rings)
    sums = ()
    for _ in tl.static_range(kind.rescaled):
        sums += (tl.zeros([lane.shape[0] // _FEW], tl.float64),)
    rules = ()
    if len(planes) <= _HELD:
        for e in tl.static_range(n):
            if kind.bit_at[e] >= 0:
                rules += (_factors(numbers + kind.draws_at[e], _RANK_DRAW),)
    for turn in range(blocks):
        index = start + turn * lane.shape[0] + lane
        mask = index < numel
        uppers = _read(planes, index, mask, not whole)  # all reads before the first is needed
        values = _read(sources, index, mask, not whole)
        word = tl.zeros(lane.shape, tl.int32)
        more = ()
        for e in tl.static_range(n):
            if kind.bit_at[e] >= 0:
                lowers = planes[kind.bit_at[e]] + second
                if len(planes) <= _HELD:
                    rule = rules[kind.bit_at[e]]
                else:
                    rule = _factors(numbers + kind.draws_at[e], _RANK_DRAW)
                stays = _stays(uppers[kind.bit_at[e]], lowers, rule, index, mask)
                word = word | (stays.to(tl.int32) << kind.bit_at[e])
                if kind.rings[e] == _RESCALED:
                    size = tl.abs(values[e + 1].to(tl.float32) - values[0].to(tl.float32))
                    more += (sums[len(more)] + _by_few(tl.where(stays, size, size * 0.0)),)
        sums = more
        tl.store(out + index, word.to(kind.word), mask=mask)
    for k in tl.static_range(len(sums)):
        tl.store(cells + k, tl.sum(sums[k], 0))


@triton.jit(do_not_specialize=["width"])
def draw(
    addresses, numbers, sums, width,
    kind: tl.constexpr, block: tl.constexpr, blocks: tl.constexpr,
):  # fmt: skip
    """Draws for some blocks of tensor program_id(1), from blocks * program_id(0) on.

    Args:
        addresses, numbers: the table; here the result is a word for every entry, with a bit set for
            every expert (`table.Shape.bit_at`) whose change stays.
        sums: (T, width, R) float64: of every expert that is rescaled, the sum of magnitudes of the
            entries that stay.
    """
    program, tensor = tl.program_id(0), tl.program_id(1)
    n: tl.constexpr = len(kind.rings)
    rescaled: tl.constexpr = kind.rescaled
    addresses = _addresses(addresses, tensor, kind)
    numbers += tensor * kind.draws_at[n]
    cells = sums + (tensor * width + program) * rescaled
    numel = tl.load(numbers + _NUMEL)
    start = program * block * blocks
    if start < numel:
        sources = ()
        if kind.rescaled > 0:
            sources = _sources(addresses, kind)
        planes = ()
        for e in tl.static_range(n):
            if kind.bit_at[e] >= 0:
                plane = tl.load(addresses + _MODELS + 1 + n + e).to(tl.pointer_type(tl.uint8))
                planes += (tl.multiple_of(plane, 16),)
        second = tl.cdiv(numel, _ALIGNED) * _ALIGNED
        out = tl.multiple_of(tl.load(addresses + _OUT).to(tl.pointer_type(kind.word)), 16)
        lane = tl.arange(0, block)
        if start + block * blocks <= numel:  # elements come several at a time
            _draw(
                sources, planes, numbers, out, second, cells, start, numel, lane,
                kind, blocks, True,
            )  # fmt: skip
        else:
            _draw(
                sources, planes, numbers, out, second, cells, start, numel, lane,
                kind, blocks, False,
            )  # fmt: skip
    else:
        for k in tl.static_range(rescaled):
            tl.store(cells + k, 0.0)
