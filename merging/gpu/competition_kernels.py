"""A competition (`merging.instructions.competitions`) as steps of Triton kernels.

Every product, sum and quotient rounds by itself, in the order that the instructions have; exp and
tanh are those of `merging.instructions.elementary`, step by step. The bounds are numbers of the
table (`merging.gpu.table.numbers_of`): what moves with a slider compiles nothing.
"""

from __future__ import annotations

import triton
import triton.language as tl

from merging.gpu import table

SHORT_TANH = (
    0.999992847442627, -0.332973837852478, 0.1303347796201706, -0.044764984399080276,
    0.009010406211018562,
)  # fmt: skip
"""tanh(x) / x by powers of x squared, |x| <= 1: interpolated at five Chebyshev points."""

_SHORT_TANH = tl.constexpr(SHORT_TANH)
_BOUND = tl.constexpr(table.BOUND)
_LOW, _HIGH, _SPAN = tl.constexpr(table.LOW), tl.constexpr(table.HIGH), tl.constexpr(table.SPAN)
_THRESHOLD, _TOP = tl.constexpr(table.THRESHOLD), tl.constexpr(table.TOP)
_REACH, _LEAST = tl.constexpr(table.REACH), tl.constexpr(table.LEAST)
_SUM = tl.constexpr(table.VARIANTS["reference"])
_NORMALIZED = tl.constexpr(table.VARIANTS["vision"])
_PAIRWISE = tl.constexpr(table.VARIANTS["pairwise"])
_DOUBT, _TINY = tl.constexpr(2.0**-12), tl.constexpr(1e-30)


@triton.jit
def _exp(x):
    """exp for x in [0, 87]."""
    x = tl.minimum(x, 87.0)
    power = tl.floor(x * 1.44269504088896341 + 0.5)
    x = x - power * 0.693359375
    x = x - power * -2.12194440e-4
    y = x * 1.9875691500e-4 + 1.3981999507e-3
    y = y * x + 8.3334519073e-3
    y = y * x + 4.1665795894e-2
    y = y * x + 1.6666665459e-1
    y = y * x + 5.0000001201e-1
    y = y * (x * x) + x + 1.0
    return y * ((power.to(tl.int32) + 127) << 23).to(tl.float32, bitcast=True)


@triton.jit
def _quotient(x, y):
    """x / y. A zero takes the long way through a GPU's division, and most shares are 0."""
    nothing = x == 0.0
    return tl.where(nothing, x, tl.div_rn(tl.where(nothing, y, x), y))


@triton.jit
def _tanh(x, rough: tl.constexpr):
    x = tl.minimum(tl.maximum(x, -7.90531110763549805), 7.90531110763549805)
    z = tl.maximum(x * x, 1e-20)
    over = z * -2.76076847742355e-16 + 2.00018790482477e-13
    over = over * z + -8.60467152213735e-11
    over = over * z + 5.12229709037114e-08
    over = over * z + 1.48572235717979e-05
    over = over * z + 6.37261928875436e-04
    over = over * z + 4.89352455891786e-03
    under = z * 1.19825839466702e-06 + 1.18534705686654e-04
    under = under * z + 2.26843463243900e-03
    under = under * z + 4.89352518554385e-03
    if rough:  # noqa: SIM108 - known when compiled
        result = over * x / under
    else:
        result = _quotient(over * x, under)
    return result


@triton.jit
def _short_tanh(x):
    """tanh(x) for x in [-1, 1], see `SHORT_TANH`."""
    z = x * x
    y = z * _SHORT_TANH[4] + _SHORT_TANH[3]
    for k in tl.static_range(1, 4):
        y = y * z + _SHORT_TANH[3 - k]
    return y * x


@triton.jit
def _with_sign_of(size, value):
    """A size >= 0 with the sign of a value; 0 counts as of either sign."""
    sign = value.to(tl.int32, bitcast=True) & -0x80000000
    return (size.to(tl.int32, bitcast=True) ^ sign).to(tl.float32, bitcast=True)


@triton.jit
def _clamped(value, low, high):
    return tl.minimum(tl.maximum(value, low), high)


@triton.jit
def scores(taus, factors, first: tl.constexpr, variant: tl.constexpr):
    """b_i of every expert that takes part.

    Args:
        taus: their changes.
        factors: a row of the table, whose numbers of the first of them begin at `first`.
        variant: of `table.VARIANTS`.
    """
    count: tl.constexpr = len(taus)
    signed = ()
    for i in tl.static_range(count):
        low, span = factors[first + _BOUND * i + _LOW], factors[first + _BOUND * i + _SPAN]
        above = _clamped(tl.abs(taus[i]), low, factors[first + _BOUND * i + _HIGH]) - low
        size = tl.where(span > 0.0, _quotient(above, tl.zeros_like(above) + span), 0.0)
        signed += (_with_sign_of(size, taus[i]),)
    agreed = ()
    if variant == _PAIRWISE:
        pairs = ()  # (i, j) at i * count + j; of each two the first is worked out
        for i in tl.static_range(count):
            for j in tl.static_range(count):
                if j < i:
                    pairs += (pairs[j * count + i],)
                else:
                    pairs += (_tanh(signed[i] * signed[j], False),)
        for i in tl.static_range(count):
            total = pairs[i * count]
            for j in tl.static_range(1, count):
                total += pairs[i * count + j]
            agreed += (total,)
    else:
        if variant == _NORMALIZED:  # noqa: SIM108 - known when compiled
            added = signed
        else:
            added = taus
        total = added[0]
        for i in tl.static_range(1, count):
            total += added[i]
        for i in tl.static_range(count):
            agreed += (_tanh(taus[i] * total, False),)
    result = ()
    for i in tl.static_range(count):
        result += (_exp(signed[i] * (count * 1.0) * signed[i]) * agreed[i],)
    return result


@triton.jit
def rough_scores(taus, factors, first: tl.constexpr, variant: tl.constexpr):
    """b_i of every expert that takes part, and how far from `scores` each may be; arguments as
    there. For kernels that may fuse multiplications and additions.

    A score is exp(x) times a sum of tanh(y z). With at most 16 experts x is wrong by less than
    2**-18, and tanh by 2**-17 of |y z|: the polynomial by 2**-17.1 (tests/merging/gpu/
    test_selecting.py), y and z by 2**-21 of themselves. All of it is less than 2**-14 of
    exp(x) |y| sum |z|; four times that is granted, and what may vanish below the smallest numbers.
    Where the score is 0 whatever is rounded, there is no doubt.
    """
    count: tl.constexpr = len(taus)
    signed = ()
    nothing = ()
    for i in tl.static_range(count):
        low, span = factors[first + _BOUND * i + _LOW], factors[first + _BOUND * i + _SPAN]
        above = _clamped(tl.abs(taus[i]), low, factors[first + _BOUND * i + _HIGH]) - low
        per_span = tl.where(span > 0.0, 1.0 / span, 0.0)
        signed += (_with_sign_of(above * per_span, taus[i]),)
        if variant == _PAIRWISE:
            nothing += (tl.where(span > 0.0, above, 0.0) == 0.0,)
        else:
            nothing += (taus[i] == 0.0,)
    if variant == _SUM:  # noqa: SIM108 - known when compiled
        added = taus
    else:
        added = signed
    total = added[0]
    most = tl.abs(added[0])
    for i in tl.static_range(1, count):
        total += added[i]
        most += tl.abs(added[i])
    result = ()
    doubts = ()
    for i in tl.static_range(count):
        if variant == _PAIRWISE:
            own = signed[i]
            agreed = _short_tanh(own * signed[0])
            for j in tl.static_range(1, count):
                agreed += _short_tanh(own * signed[j])
        else:
            own = taus[i]
            agreed = _tanh(own * total, True)
        weight = tl.exp2(signed[i] * (count * 1.44269504088896341) * signed[i])
        result += (weight * agreed,)
        doubts += (tl.where(nothing[i], 0.0, weight * tl.abs(own) * most * _DOUBT + _TINY),)
    return result, doubts


@triton.jit
def balanced(taus, weights, factors, first: tl.constexpr, variant: tl.constexpr):
    """The merged change, see `merging.instructions.competitions.balance`; arguments as `scores`."""
    score = scores(taus, factors, first, variant)
    numerator = tl.zeros_like(taus[0])
    denominator = tl.zeros_like(taus[0])
    for i in tl.static_range(len(taus)):
        threshold, reach = (
            factors[first + _BOUND * i + _THRESHOLD],
            factors[first + _BOUND * i + _REACH],
        )
        above = _clamped(score[i], threshold, factors[first + _BOUND * i + _TOP]) - threshold
        share = _quotient(above, tl.zeros_like(above) + reach)
        share = tl.where(
            reach > 0.0, share, tl.where(score[i] >= factors[first + _BOUND * i + _LEAST], 1.0, 0.0)
        )
        size = _clamped(
            tl.abs(taus[i]), factors[first + _BOUND * i + _LOW], factors[first + _BOUND * i + _HIGH]
        )
        clipped = tl.where(taus[i] == 0.0, 0.0, _with_sign_of(size, taus[i]))
        numerator += clipped * weights[i] * share
        denominator += share
    return _quotient(numerator, tl.maximum(denominator, 1e-12))
