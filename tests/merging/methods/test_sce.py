"""SCE: select, calculate, erase."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from merging.errors import NonFinite
from merging.methods.sce import erase, merge, selection, variance, weights
from tests.shelf import Case, cases


def merged(
    changes: list[torch.Tensor], select_topk: float, size: int = 40, small: str = "equal"
) -> torch.Tensor:
    flat = [change.flatten() for change in changes]

    def chunks() -> list[tuple[torch.Tensor, ...]]:
        return list(zip(*(change.split(size) for change in flat), strict=True))

    return torch.cat(list(merge(chunks, flat[0].numel(), select_topk, small)))


@pytest.mark.parametrize("case", cases("sce"))
def test_numbers_are_those_of_mergekit(case: Case) -> None:
    assert case.close(case.from_base(merged(case.changes, case.parameters["select_topk"])))


def test_a_worked_example() -> None:
    # variances 0.25, 0, 1, 2.25: of three that differ int(0.7 * 3) = 2 stay, entries 2 and 3.
    # mean squares (4 + 1) / 4 and (0 + 4) / 4: weights 5/9 and 4/9; entry 3 elects -.
    first = torch.tensor([1.0, 1.0, 2.0, 1.0])
    second = torch.tensor([2.0, 1.0, 0.0, -2.0])
    assert variance([first, second]).tolist() == [0.25, 0.0, 1.0, 2.25]
    assert merged([first, second], 0.7).tolist() == pytest.approx([0.0, 0.0, 2.0, -2.0])
    # everything stays: sums of squares 7 and 9, so entry 0 is (7 * 1 + 9 * 2) / 16
    assert merged([first, second], 1.0).tolist() == pytest.approx([25 / 16, 1.0, 2.0, -2.0])


def test_chunks_change_nothing() -> None:
    changes = list(torch.randn(3, 500, generator=torch.Generator().manual_seed(0)).unbind())
    whole = merged(changes, 0.3, size=500)
    assert torch.allclose(merged(changes, 0.3, size=150), whole, atol=1e-7)
    assert int((whole != 0).sum()) == 150


def test_of_equal_variances_exactly_as_many_stay_as_asked_for() -> None:
    generator = torch.Generator().manual_seed(1)
    changes = [torch.randint(0, 2, (40_000,), generator=generator).float() for _ in range(2)]
    differ = int((changes[0] != changes[1]).sum())
    left = merged(changes, 0.25, size=9_000)
    assert int((left != 0).sum()) == differ // 4


def test_equal_changes_have_no_variance() -> None:
    tenth = torch.full((5,), 0.1)
    assert not variance([tenth] * 3).any()
    assert not merged([tenth] * 3, 0.5).any()
    assert torch.allclose(merged([tenth] * 3, 1.0), tenth)


def test_the_order_of_the_models_makes_no_variance_larger() -> None:
    row = torch.tensor([0.1, -0.3, 0.7])
    values = [variance([row[i : i + 1], row[j : j + 1], row[k : k + 1]]).item()
              for i, j, k in ((0, 1, 2), (1, 2, 0), (2, 1, 0), (2, 0, 1))]  # fmt: skip
    assert values == [values[0]] * 4


def test_the_variance_is_that_of_torch_to_the_bit() -> None:
    changes = torch.randn(3, 2000, generator=torch.Generator().manual_seed(4))
    assert torch.equal(variance(changes.unbind()), changes.var(dim=0, correction=0))


def test_mean_squares_below_a_millionth_weigh_all_models_alike_unless_told_otherwise() -> None:
    energies = np.array([3e-5, 1e-5])
    assert weights(energies, 100) == (0.5, 0.5)
    assert weights(energies, 100, "weigh") == pytest.approx((0.75, 0.25))
    assert weights(energies * 10, 100) == pytest.approx((0.75, 0.25))
    assert weights(np.zeros(2), 100, "weigh") == (0.5, 0.5)


def test_an_exact_cancellation_elects_plus() -> None:
    assert erase([torch.tensor([0.6]), torch.tensor([-0.6])], (0.5, 0.5)).tolist() == [
        pytest.approx(0.6)
    ]


def test_selecting_nothing_gives_the_base() -> None:
    changes = [torch.tensor([1.0, 2.0]), torch.tensor([0.5, -1.0])]
    assert merged(changes, 0.0).tolist() == [0.0, 0.0]
    assert merged(changes, 0.4).tolist() == [0.0, 0.0]  # int(0.4 * 2) = 0


@pytest.mark.parametrize("select_topk", [0.5, 1.0])
def test_what_is_not_finite_is_an_error(select_topk: float) -> None:
    changes = [torch.tensor([1.0, float("nan")]), torch.tensor([0.5, 1.0])]
    with pytest.raises(NonFinite):
        merged(changes, select_topk)


def test_the_cut_counts_what_differs_only() -> None:
    values = torch.tensor([0.0] * 90 + [1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0, 9.0, 10.0])
    changes = [values, torch.zeros(100)]
    cut = selection(lambda: [changes], 100, 0.3)
    assert cut.value == 16.0  # three of ten: variances 25, 20.25 and 16
