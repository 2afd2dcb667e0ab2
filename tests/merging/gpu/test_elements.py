"""Arithmetic on elements that is done in a way of its own."""

from __future__ import annotations

import random
from fractions import Fraction

import pytest

from merging.gpu import table


@pytest.mark.parametrize("count", [n for n in range(3, table.EVENLY + 1) if n & (n - 1)])
def test_a_double_over_a_count_is_a_correctly_rounded_quotient(count: int) -> None:
    """The steps of `_over`, each rounded once; those that a first step leaves wrong among them."""

    def fused(x: float, y: float, z: float) -> float:
        return float(Fraction(x) * Fraction(y) + Fraction(z))

    draws = random.Random(count)
    part, mended = 1.0 / count, 0
    for _ in range(4000):
        x = draws.randrange(1 << 52, 1 << 53) * 2.0 ** draws.randrange(-200, 100)
        quotient = x * part
        mended += quotient != x / count
        for _ in range(2):
            quotient = fused(fused(-count, quotient, x), part, quotient)
        assert quotient == x / count
    assert mended
