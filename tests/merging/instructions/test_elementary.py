"""exp and tanh against float64."""

from __future__ import annotations

import torch

from merging.instructions.elementary import EXP_LIMIT, exp, tanh, total


def ulps(ours: torch.Tensor, exact: torch.Tensor) -> float:
    spacing = torch.nextafter(exact.float().abs(), torch.tensor(torch.inf)) - exact.float().abs()
    return ((ours.double() - exact).abs() / spacing.double()).max().item()


def test_exp_is_within_two_units_in_the_last_place() -> None:
    x = torch.linspace(0, 80, 2_000_001)
    assert ulps(exp(x), x.double().exp()) < 2
    assert exp(torch.tensor([0.0])).item() == 1.0
    assert torch.isfinite(exp(torch.tensor([EXP_LIMIT, 1e6]))).all()


def test_tanh_is_within_four_parts_in_ten_million() -> None:
    x = torch.cat([torch.linspace(-10, 10, 2_000_001), torch.logspace(-30, 0, 10_001)])
    exact = x.double().tanh()
    error = (tanh(x).double() - exact).abs() / exact.abs().clamp(min=1e-300)
    assert error.max() < 4e-7
    assert tanh(torch.tensor([0.0, 50.0, -50.0])).tolist() == [0.0, 1.0, -1.0]
    assert tanh(torch.tensor([torch.nan])).isnan().all()


def test_results_do_not_depend_on_the_length_of_the_tensor() -> None:
    x = torch.randn(1003, generator=torch.Generator().manual_seed(0)).abs()
    whole = exp(x)
    assert all(torch.equal(exp(x[i : i + 1]), whole[i : i + 1]) for i in range(0, 1003, 17))


def test_sums_are_made_in_float64() -> None:
    values = torch.tensor([1e8, 1.0, -1e8, 0.25])
    assert total(values) == 1.25
    assert total(values[:0]) == 0.0
