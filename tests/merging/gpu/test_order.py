"""Marks in the order of magnitudes, and the brackets between them: held to plain sorting."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from merging.gpu import launching, order, table, triton_kernels
from merging.gpu.table import Shape
from merging.instructions import Ranks
from merging.selection.tied import END, KEEP_ALL, KEEP_NONE, RUN, Cut, upper_places

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"  # where kernels are interpreted
NEAR = 4
SHAPE = Shape(("F32", "F32"), (1,), (False,), (True,), True, 0, "F32")


@pytest.fixture(autouse=True)
def close_marks(monkeypatch) -> None:
    monkeypatch.setattr(order, "NEAR", NEAR)


def placed(count: int) -> np.ndarray:
    return upper_places(0, count, "cpu").numpy() + order.FIRST


def before(values: np.ndarray, bits: int, place: int) -> np.ndarray:
    own = np.abs(values).view(np.int32)
    return (own > bits) | ((own == bits) & (placed(values.size) < place))


def located(marks: torch.Tensor, count: int, numel: int) -> tuple[list[int], float]:
    """The bracket that a kernel reads from marks, as in a row of the table, and its doubt."""
    addresses = torch.tensor([0, 0, 0, marks.data_ptr()], device=DEVICE)
    row = table.whole_numbers(SHAPE, [numel], [[Ranks((count,), (1.0,))]])
    numbers = torch.from_numpy(row).to(DEVICE)
    found = torch.empty(triton_kernels.RECORD, dtype=torch.int32, device=DEVICE)
    sums = torch.empty(1, 2, dtype=torch.float64, device=DEVICE)
    kind = launching._kind(SHAPE, DEVICE)
    triton_kernels.locate[(1, 1, 1)](addresses, numbers, found, sums, 1, kind, order.NEAR)
    return numbers[0, table.RINGS :].tolist(), float(sums[0, 0])


def settled(values: np.ndarray, bracket: list[int]) -> np.ndarray:
    """What a bracket keeps once the entries inside it were sorted."""
    bits, place, last_bits, last_place, rank = bracket
    kept = before(values, bits, place)
    inside = before(values, last_bits, last_place) & ~kept
    assert inside.sum() <= NEAR
    places = placed(values.size)
    listed = sorted(np.flatnonzero(inside), key=lambda i: (-abs(values[i]), places[i]))
    kept[listed[:rank]] = True
    return kept


FEW_VALUES = st.lists(st.sampled_from([0.0, 0.5, -0.5, 1.0, -1.0, 2.0, 3.0]), min_size=1)
ANY_VALUES = st.lists(st.floats(-4, 4, width=32), min_size=1)


@settings(max_examples=60, deadline=None)
@given(st.one_of(FEW_VALUES, ANY_VALUES), st.data())
def test_a_bracket_keeps_what_sorting_would(values: list[float], data) -> None:
    order.NEAR = NEAR
    delta = np.array(values, dtype=np.float32)
    marks = order.marks(torch.zeros(delta.size, device=DEVICE), torch.from_numpy(delta).to(DEVICE))
    places = placed(delta.size)
    ranked = sorted(range(delta.size), key=lambda i: (-abs(delta[i]), places[i]))
    count = data.draw(st.integers(0, delta.size))
    bracket, doubt = located(marks, count, delta.size)
    kept = settled(delta, bracket)
    assert doubt == 0
    assert sorted(np.flatnonzero(kept)) == sorted(ranked[:count])


def test_marks_by_hand() -> None:
    expert = torch.tensor([1.0, -3.0, 2.0, 2.0, 2.0, -2.0, 0.5])
    bits = {value: int(np.float32(value).view(np.int32)) for value in (3.0, 2.0)}
    marks = order.marks(torch.zeros(7), expert).tolist()
    # in order: 3 at 1; the 2s at 2, 4, 3, 5 (stripes 82, 164, 379, 461); 1; 0.5
    one, five = (int(placed(6)[index]) for index in (1, 5))
    assert marks == [bits[3.0], one, bits[2.0], five, -1, order.FIRST]


def test_a_cut_that_is_known_is_a_bound() -> None:
    half, nine = int(np.float32(0.5).view(np.int32)), 9 - (1 << 31)
    assert order.bound_of(Cut(0.5, 9 << 32), 2) == (half, nine)
    assert order.bound_of(Cut(0.5, (9 << 32) + 1), RUN + 2).place == nine  # of the second run
    assert order.bound_of(Cut(0.5, END), 0) == (half - 1, order.FIRST)
    values = np.array([0.0, 1.0], dtype=np.float32)
    assert before(values, *order.bound_of(KEEP_ALL, 0)).all()
    assert not before(values, *order.bound_of(KEEP_NONE, 0)).any()


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_what_is_not_finite_is_doubted(value: float) -> None:
    expert = torch.tensor([1.0, value, 2.0], device=DEVICE)
    _, doubt = located(order.marks(torch.zeros_like(expert), expert), 1, 3)
    assert doubt > 1
