"""exp and tanh as fixed sequences of float32 operations, and sums in float64.

A library's exp differs in the last bit between processors, vector widths and versions. These do
not: every step is one correctly rounded operation, so the CPU, the GPU and the fused loops give
the same bits. exp is that of Cephes (expf, Moshier 1984), within 2 units in the last place; tanh
is the quotient of two polynomials that Eigen uses for float, within 4e-7 of its value
(tests/merging/instructions/test_elementary.py).
"""

from __future__ import annotations

from merging.later import torch

NO_FLOAT64 = ("mps",)
EXP_LIMIT = 87.0
TANH_LIMIT = 7.90531110763549805  # tanh is 1 in float32 from here on
_NUMERATOR = (
    2.00018790482477e-13, -8.60467152213735e-11, 5.12229709037114e-08,
    1.48572235717979e-05, 6.37261928875436e-04, 4.89352455891786e-03,
)  # fmt: skip
_DENOMINATOR = (2.26843463243900e-03, 4.89352518554385e-03)
_NOTHING = 1e-20  # squares below say the same, and their multiples would be denormal, which is slow


def total(values: torch.Tensor) -> float:
    """The sum in float64; added up on the host where the device has no such type (Apple's)."""
    if values.device.type in NO_FLOAT64:
        values = values.cpu()
    return values.sum(dtype=torch.float64).item()


def divide(x: torch.Tensor, number: float) -> torch.Tensor:
    """x / number, correctly rounded everywhere: by a plain number a GPU multiplies with 1 / number.
    (n,) float32."""
    return x / torch.full((), number, dtype=x.dtype, device=x.device)


def exp(x: torch.Tensor) -> torch.Tensor:
    """e**x for x in [0, EXP_LIMIT]; larger x count as the limit. (n,) float32."""
    x = x.clamp(max=EXP_LIMIT)
    power = torch.floor(x * 1.44269504088896341 + 0.5)
    x = x - power * 0.693359375
    x = x - power * -2.12194440e-4
    y = x * 1.9875691500e-4 + 1.3981999507e-3
    for coefficient in (8.3334519073e-3, 4.1665795894e-2, 1.6666665459e-1, 5.0000001201e-1):
        y = y * x + coefficient
    y = y * (x * x) + x + 1.0
    return y * ((power.to(torch.int32) + 127) << 23).view(torch.float32)


def tanh(x: torch.Tensor) -> torch.Tensor:
    """tanh(x). (n,) float32."""
    x = x.clamp(-TANH_LIMIT, TANH_LIMIT)
    z = (x * x).clamp(min=_NOTHING)
    over = z * -2.76076847742355e-16 + _NUMERATOR[0]
    for coefficient in _NUMERATOR[1:]:
        over = over * z + coefficient
    under = z * 1.19825839466702e-06 + 1.18534705686654e-04
    for coefficient in _DENOMINATOR:
        under = under * z + coefficient
    return over * x / under
