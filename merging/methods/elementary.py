"""exp and tanh as fixed sequences of float32 operations, and sums in float64.

A library's exp differs in the last bit between processors, vector widths and versions. These do
not: every step is one correctly rounded operation, so the CPU, the GPU and the fused loops give
the same bits. Coefficients are those of Cephes' expf and tanhf (Moshier 1984); errors are below
2 units in the last place (tests/merging/methods/test_elementary.py).
"""

from __future__ import annotations

from merging.later import torch

NO_FLOAT64 = ("mps",)
EXP_LIMIT = 87.0
TANH_LIMIT = 9.1  # tanh is 1 in float32 from here on


def total(values: torch.Tensor) -> float:
    """The sum in float64; added up on the host where the device has no such type (Apple's)."""
    if values.device.type in NO_FLOAT64:
        values = values.cpu()
    return values.sum(dtype=torch.float64).item()


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
    magnitude = x.abs().clamp(max=TANH_LIMIT)
    large = 1.0 - 2.0 / (exp(magnitude + magnitude) + 1.0)
    z = x * x
    y = z * -5.70498872745e-3 + 2.06390887954e-2
    for coefficient in (-5.37397155531e-2, 1.33314422036e-1, -3.33332819422e-1):
        y = y * z + coefficient
    small = y * z * x + x
    return torch.where(magnitude < 0.625, small, torch.where(x < 0, -large, large))
