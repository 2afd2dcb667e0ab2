"""LiNeS: the line over the depth, and the strength it starts from."""

from __future__ import annotations

import pytest

from merging.methods import lines


def test_a_line_from_the_first_block_to_the_last() -> None:
    factors = [lines.factor(layer, 5, 0.2, 0.8) for layer in range(5)]
    assert factors == pytest.approx([0.2, 0.4, 0.6, 0.8, 1.0])
    assert lines.factor(None, 5, 0.2, 0.8) == 0.2


def test_twelve_blocks_as_the_authors_print_them() -> None:
    factors = [lines.factor(layer, 12, 0.1, 0.9) for layer in range(3)]
    assert factors == pytest.approx([0.1, 0.18181818181818182, 0.26363636363636367], abs=1e-15)


def test_no_slope_and_one_block() -> None:
    assert {lines.factor(layer, 7, 0.5, 0.0) for layer in [*range(7), None]} == {0.5}
    assert lines.factor(0, 1, 0.25, 0.75) == 1.0


def test_the_first_block_is_as_strong_as_an_average() -> None:
    assert lines.average_strength(12.0, 12.0, 3) == pytest.approx(1 / 3)  # a merge by sum
    assert lines.average_strength(12.0, 4.0, 3) == 1.0  # a mean is left as it is
    assert lines.average_strength(12.0, 0.0, 3) == 0.0
