"""Multi-SLERP: mean direction, mean length."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from merging.instructions import grams
from merging.methods.multislerp import coefficients
from tests.shelf import Case, blend, case, cases


def merged(case: Case) -> torch.Tensor:
    values = case.parameters
    blended = coefficients(
        grams.gram(case.changes),
        values["weight"],
        normalize=values.get("normalize_weights", True),
        eps=values.get("eps", 1e-8),
    )
    return case.from_base(blend(case.changes, blended))


def several(case: Case) -> bool:
    return len(case.models) > 1 and case.expected is not None


@pytest.mark.parametrize("case", cases("multislerp", several))
def test_numbers_are_those_of_mergekit(case: Case) -> None:
    assert case.close(merged(case))


def test_right_angles_by_hand() -> None:
    # directions (0.75, 0.25) / sqrt(0.625), mean length 0.75 * 2 + 0.25 * 4 = 2.5
    first, second = coefficients(np.diag([4.0, 16.0]), [3.0, 1.0])
    size = np.sqrt(0.75**2 + 0.25**2)
    assert first * 2 == pytest.approx(2.5 * 0.75 / size, rel=1e-7)
    assert second * 4 == pytest.approx(2.5 * 0.25 / size, rel=1e-7)


def test_points_that_cancel_are_added_in_a_straight_line() -> None:
    one = case("multislerp", "antipodes", [1, 2, 3], weight=[1.0, 2.0, 1.0])
    assert one.more["error"].startswith("ValueError")  # a, -a, 2a: mergekit stops the merge
    a = one.models[0]
    assert torch.allclose(merged(one), (a - 2 * a + 2 * a) / 4)


def test_points_that_cancel_but_for_rounding_too() -> None:
    gram = np.array([[1.0, -1.0 + 1e-13], [-1.0 + 1e-13, 1.0]])
    assert coefficients(gram, [1.0, 1.0]) == (0.5, 0.5)


def test_a_tensor_that_nobody_changes_stays() -> None:
    one = case("multislerp", "zeros", [1, 2, 3], weight=[1.0, 1.0, 1.0])
    assert one.more["error"].startswith("ValueError")
    assert not merged(one).any()


def test_weights_that_sum_to_0_are_not_divided_by_it() -> None:
    first, second = coefficients(np.eye(2), [1.0, -1.0])
    assert np.isfinite([first, second]).all()


def test_a_common_factor_of_the_weights_changes_nothing_unless_they_are_used_as_given() -> None:
    gram = np.array([[1.0, 0.2], [0.2, 4.0]])
    assert coefficients(gram, [2.0, 1.0]) == pytest.approx(coefficients(gram, [4.0, 2.0]))
    doubled = coefficients(gram, [4.0, 2.0], normalize=False)
    once = coefficients(gram, [2.0, 1.0], normalize=False)
    assert doubled == pytest.approx([2 * value for value in once])
