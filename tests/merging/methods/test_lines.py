"""LiNeS: the line over the depth, and the strength it starts from."""

from __future__ import annotations

from pathlib import Path

import pytest

from merging.methods import lines
from tests.families import merged_one


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


def test_the_first_block_is_as_strong_as_an_average(tmp_path: Path) -> None:
    deltas = [[0.3, -0.6], [0.6, 0.0], [0.0, 0.9]]
    change = merged_one(tmp_path, "lines", [1.0, 2.0], deltas, parameters={"beta": 0.0})
    assert change.tolist() == pytest.approx([0.3, 0.1], abs=1e-6)  # (0.9, 0.3) / 3
    values = {"beta": 0.0, "average": False, "alpha": 0.5}
    change = merged_one(tmp_path, "lines", [1.0, 2.0], deltas, parameters=values)
    assert change.tolist() == pytest.approx([0.45, 0.15], abs=1e-6)
