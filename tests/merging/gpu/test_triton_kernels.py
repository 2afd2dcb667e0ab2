"""Arithmetic that the kernels do in a way of their own."""

from __future__ import annotations

import numpy as np
import pytest

from merging.gpu import table


@pytest.mark.parametrize("count", range(2, table.EVENLY + 1))
def test_a_share_is_a_correctly_rounded_quotient(count: int) -> None:
    """Every significand, each step of `_share` rounded once; scaling by 2 changes nothing."""
    total = np.arange(1 << 23, 1 << 24, dtype=np.float64)
    part = np.float64(np.float32(1.0 / count))
    quotient = (total * part).astype(np.float32)
    rest = total - count * quotient.astype(np.float64)  # exact: few bits
    assert np.array_equal(rest, rest.astype(np.float32))
    share = (quotient + rest * part).astype(np.float32)
    assert np.array_equal(share, total.astype(np.float32) / np.float32(count))
