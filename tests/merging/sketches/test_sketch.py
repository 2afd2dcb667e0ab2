"""The sketch's bins: where they lie and what falls into them."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from merging.sketches.sketch import (
    _SHIFT,
    FIRST_KEY,
    HIGH_EXPONENT,
    LOW_EXPONENT,
    N_BINS,
    bin_edges,
)


def bin_of(value: float) -> int:
    key = (torch.tensor(value, dtype=torch.float32).view(torch.int32).item() >> _SHIFT) - FIRST_KEY
    return min(max(key, 0), N_BINS - 1)


def test_edges_ascend_by_at_most_an_eighth() -> None:
    edges = bin_edges()
    assert edges.shape == (N_BINS + 1,)
    assert edges[0] == 2.0**LOW_EXPONENT
    assert edges[-1] == 2.0**HIGH_EXPONENT
    ratios = edges[1:] / edges[:-1]
    assert ratios.min() > 1.06
    assert ratios.max() == 1.125


@pytest.mark.parametrize("value", [2.0**-40, 1e-9, 3.3e-4, 0.001, 0.4999, 0.5, 1.0, 7.7, 65535.0])
def test_a_value_falls_between_its_bin_s_edges(value: float) -> None:
    edges, index = bin_edges(), bin_of(value)
    assert edges[index] <= np.float32(value) < edges[index + 1]


@pytest.mark.parametrize(("value", "index"), [(1e-45, 0), (1e-13, 0), (65536.0, -1), (3e38, -1)])
def test_the_ends_take_everything_beyond(value: float, index: int) -> None:
    assert bin_of(value) == index % N_BINS


def test_every_edge_opens_its_own_bin() -> None:
    edges = bin_edges()[:-1]
    assert [bin_of(float(edge)) for edge in edges] == list(range(N_BINS))
