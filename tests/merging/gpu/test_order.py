"""Marks in the order of magnitudes, and the brackets between them: held to plain sorting."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from merging.errors import NonFinite
from merging.gpu import order
from merging.selection.tied import END, KEEP_ALL, KEEP_NONE, RUN, Cut, upper_places

NEAR = 4


@pytest.fixture(autouse=True)
def close_marks(monkeypatch) -> None:
    monkeypatch.setattr(order, "NEAR", NEAR)


def placed(count: int) -> np.ndarray:
    return upper_places(0, count, "cpu").numpy() + order.FIRST


def before(values: np.ndarray, bits: int, place: int) -> np.ndarray:
    own = np.abs(values).view(np.int32)
    return (own > bits) | ((own == bits) & (placed(values.size) < place))


def settled(values: np.ndarray, found: order.Bracket) -> np.ndarray:
    """What a bracket keeps once the entries inside it were sorted."""
    kept = before(values, found.first_bits, found.first_place)
    inside = before(values, found.last_bits, found.last_place) & ~kept
    assert inside.sum() <= NEAR
    places = placed(values.size)
    listed = sorted(np.flatnonzero(inside), key=lambda i: (-abs(values[i]), places[i]))
    kept[listed[: found.rank]] = True
    return kept


FEW_VALUES = st.lists(st.sampled_from([0.0, 0.5, -0.5, 1.0, -1.0, 2.0, 3.0]), min_size=1)
ANY_VALUES = st.lists(st.floats(-4, 4, width=32), min_size=1)


@settings(max_examples=300, deadline=None)
@given(st.one_of(FEW_VALUES, ANY_VALUES), st.data())
def test_a_bracket_keeps_what_sorting_would(values: list[float], data) -> None:
    order.NEAR = NEAR
    delta = np.array(values, dtype=np.float32)
    marks = order.marks(torch.zeros(delta.size), torch.from_numpy(delta))
    places = placed(delta.size)
    ranked = sorted(range(delta.size), key=lambda i: (-abs(delta[i]), places[i]))
    count = data.draw(st.integers(0, delta.size))
    kept = settled(delta, order.bracket(marks, count, delta.size))
    assert sorted(np.flatnonzero(kept)) == sorted(ranked[:count])


def test_marks_by_hand() -> None:
    expert = torch.tensor([1.0, -3.0, 2.0, 2.0, 2.0, -2.0, 0.5])
    bits = {value: int(np.float32(value).view(np.int32)) for value in (3.0, 2.0)}
    marks = order.marks(torch.zeros(7), expert).tolist()
    # in order: 3 at 1; the 2s at 2, 4, 3, 5 (stripes 82, 164, 379, 461); 1; 0.5
    one, five = (int(placed(6)[index]) for index in (1, 5))
    assert marks == [bits[3.0], one, bits[2.0], five, -1, order.FIRST]


def test_a_cut_that_is_known_is_a_bracket_of_nothing() -> None:
    half, nine = int(np.float32(0.5).view(np.int32)), 9 - (1 << 31)
    assert order.given(Cut(0.5, 9 << 32), 2) == order.Bracket(half, nine, half, nine)
    assert order.given(Cut(0.5, (9 << 32) + 1), RUN + 2).first_place == nine  # of the second run
    every_tie = order.given(Cut(0.5, END), 0)
    assert (every_tie.first_bits, every_tie.first_place) == (half - 1, order.FIRST)
    values = np.array([0.0, 1.0], dtype=np.float32)
    assert settled(values, order.given(KEEP_ALL, 0)).all()
    assert not settled(values, order.given(KEEP_NONE, 0)).any()


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_what_is_not_finite_has_no_order(value: float) -> None:
    with pytest.raises(NonFinite):
        order.marks(torch.zeros(3), torch.tensor([1.0, value, 2.0]))
