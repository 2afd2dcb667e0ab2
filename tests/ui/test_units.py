"""Sizes and times as people read them."""

from __future__ import annotations

import pytest

from ui.units import amount, count, span


@pytest.mark.parametrize(
    ("size", "text"), [(0, "0 B"), (1536, "1.5 KiB"), (3 * 2**30, "3.0 GiB"), (2**45, "32.0 TiB")]
)
def test_amounts(size: int, text: str) -> None:
    assert amount(size) == text


@pytest.mark.parametrize(
    ("seconds", "text"), [(0.25, "0.25 s"), (42.4, "42 s"), (75, "1 min 15 s")]
)
def test_spans(seconds: float, text: str) -> None:
    assert span(seconds) == text


@pytest.mark.parametrize(
    ("number", "text"), [(999, "999"), (1500, "1.5 k"), (134_515_008, "134.5 M"), (8e9, "8.0 B")]
)
def test_counts(number: int, text: str) -> None:
    assert count(number) == text
