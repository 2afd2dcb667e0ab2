"""What kernels do with elements: read them, order them by magnitude, draw for them, tell how much
models differ.

Products, sums and quotients round one by one (no fused multiply-add, IEEE division) as in
`merging.instructions`, but where a comment shows that the result is the same.
"""

from __future__ import annotations

import triton
import triton.language as tl

from merging.gpu import table
from merging.gpu.order import FIRST
from merging.selection.tied import BLOCK_BITS, MULTIPLIER, RUN, STEP, STRIPES

FEW = 4  # neighbours that one thread holds
TYPES = {"F32": tl.float32, "BF16": tl.bfloat16, "F16": tl.float16, "F64": tl.float64}
_STEP, _MULTIPLIER = tl.constexpr(STEP), tl.constexpr(MULTIPLIER - (1 << 32))
_LANE_BITS, _LANE_MASK = tl.constexpr(STRIPES.bit_length() - 1), tl.constexpr(STRIPES - 1)
_BLOCK_BITS, _BLOCK_MASK = tl.constexpr(BLOCK_BITS), tl.constexpr((1 << BLOCK_BITS) - 1)
_STRIDE = tl.constexpr((STEP << BLOCK_BITS) - RUN)
_FIRST, _FEW = tl.constexpr(FIRST), tl.constexpr(FEW)
_MODELS, _INDEX = tl.constexpr(table.MODELS), tl.constexpr(table.INDEX)


@triton.jit
def _places(numbers, index):
    """Places of some elements of a tensor, see `order`; numbers: its row of the table."""
    index += tl.load(numbers + _INDEX)
    block = (index >> _LANE_BITS) & _BLOCK_MASK
    turn = ((block * _MULTIPLIER) >> _BLOCK_BITS) & _LANE_MASK
    stripe = ((index + turn) * _STEP) & _LANE_MASK
    return ((stripe << _BLOCK_BITS) | block) ^ _FIRST


@triton.jit
def _places_of_stripes(numbers, start, lane):
    """As `_places`, of the elements start + lane, where STRIPES of them begin at a multiple of
    STRIPES: their block is one number, and their stripes follow each other at steps of STEP."""
    block = ((start + tl.load(numbers + _INDEX)) >> _LANE_BITS) & _BLOCK_MASK
    turn = ((block * _MULTIPLIER) >> _BLOCK_BITS) & _LANE_MASK
    return lane * _STRIDE + (turn * _STRIDE + block + _FIRST)


@triton.jit
def _key(bits, place, doubles: tl.constexpr):
    """64 bits that are larger the earlier an entry comes in the order: its magnitude's bits, then
    its place turned around. Read as doubles they order alike, and GPUs made for computing compare
    those as fast as floats."""
    key = (bits.to(tl.int64) << 32) | ((place ^ 0x7FFFFFFF).to(tl.int64) & 0xFFFFFFFF)
    if doubles:
        key = key.to(tl.float64, bitcast=True)
    return key


@triton.jit
def _key_at(bound, doubles: tl.constexpr):
    """The key of the bound at an address."""
    bits = tl.load(bound)
    key = _key(bits, tl.load(bound + 1), doubles)
    if doubles:
        key = tl.where(bits < 0, -1.0, key)  # all entries are before it
    return key


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
def _drawn(index, first, second):
    """As `merging.instructions.draws.draw_at`."""
    x = _mix(index ^ first)
    x = _mix(x + second)
    return (x >> 8) & 0xFFFFFF


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
def _factors(factors, count: tl.constexpr):
    """A tensor's factors, see `merging.gpu.table`."""
    result = ()
    for column in tl.static_range(tl.constexpr(count)):
        result += (tl.load(factors + column),)
    return result


@triton.jit
def _by_few(sizes):
    """Sums of so many neighbours each, which one thread holds, in double."""
    few = tl.reshape(sizes.to(tl.float64), [sizes.shape[0] // _FEW, _FEW])
    return tl.sum(few, 1)


@triton.jit
def _sources(addresses, kind: tl.constexpr):
    """Pointers to the models' values, base first."""
    result = ()
    for model in tl.static_range(len(kind.types)):
        address = tl.load(addresses + _MODELS + model)
        result += (tl.multiple_of(address.to(tl.pointer_type(kind.types[model])), 16),)
    return result


@triton.jit
def _over(x, count: tl.constexpr):
    """x / count, correctly rounded, in double; count up to EVENLY.

    Newton's method, as of `triton_kernels._share`. The product with 1 / count may be two units in
    the last place off, so there are two steps (tests/merging/gpu/test_elements.py); a division
    would take the long way for 0.
    """
    part = tl.full(x.shape, 1.0 / count, tl.float64)
    quotient = x * part
    if count & (count - 1) != 0:
        whole = tl.full(x.shape, -1.0 * count, tl.float64)
        quotient = tl.fma(tl.fma(whole, quotient, x), part, quotient)
        quotient = tl.fma(tl.fma(whole, quotient, x), part, quotient)
    return quotient


@triton.jit
def _variance(deltas):
    """As `merging.instructions.masks.variance`."""
    mean = tl.zeros(deltas[0].shape, tl.float64)
    squares = tl.zeros(deltas[0].shape, tl.float64)
    for e in tl.static_range(len(deltas)):
        delta = deltas[e].to(tl.float64)
        apart = delta - mean
        mean += _over(apart, e + 1)
        squares += apart * (delta - mean)
    return _over(squares, len(deltas)).to(tl.float32)


@triton.jit
def _changes(values):
    """The changes of all experts, as they are."""
    base = values[0].to(tl.float32)
    result = ()
    for e in tl.static_range(1, len(values)):
        result += (values[e].to(tl.float32) - base,)
    return result
