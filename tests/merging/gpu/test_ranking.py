"""Ranks that stay in a GPU's memory, and the limits that their upper halves tell."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from merging.gpu import ranking, table
from merging.instructions.ranked import Ranked, limits, twice_ranks


@pytest.mark.parametrize("columns", [1, 2, 37, 129, 32768])
def test_planes_hold_twice_the_ranks(columns: int, monkeypatch) -> None:
    monkeypatch.setattr(ranking, "_AT_ONCE", 100)  # a row or two at a time
    generator = torch.Generator().manual_seed(columns)
    base, expert = torch.zeros(2, 3 * columns)
    expert = (torch.randn(3 * columns, generator=generator) * 20).round()  # many are equal
    planes = ranking.planes(base, expert, columns).to(torch.int64)
    second = -(-base.numel() // ranking.ALIGNED) * ranking.ALIGNED
    both = planes[: base.numel()] << 8 | planes[second:]
    expected = twice_ranks(expert.view(3, -1)) if columns > 1 else torch.zeros(3, 1)
    assert torch.equal(both >> ranking.shift(columns), expected.flatten().to(torch.int64))
    assert int(both.max()) < 1 << 16


@pytest.mark.parametrize("columns", [1, 2, 3, 65, 300, 2048, 5632, 32768])
@pytest.mark.parametrize("low, high", [(0, 1 << 24), (5_033_165, 8_388_608), (77, 77)])
def test_the_upper_half_of_a_rank_puts_its_limit_between_two_numbers(
    columns: int, low: int, high: int
) -> None:
    drawn = Ranked((1, 2), low, high, (low + high) // 2)
    row = table._by_rank(drawn, columns)
    *keys, first, span, divisor, shift, step, most = row
    assert len(row) == table.RANK_DRAW and keys == [1, 2] and max(row) < 1 << 31
    delta = torch.arange(columns, dtype=torch.float32).view(1, -1)
    twice = np.arange(columns) * 2
    exact = first + span * twice // divisor
    assert np.array_equal(exact, limits(delta, drawn).numpy()[0])
    upper = twice << shift >> 8
    at_least = first + (upper * step >> table.FRACTION)
    assert int((upper * step).max()) < 1 << 31
    assert (at_least <= exact).all()
    assert (exact < at_least + most).all()
