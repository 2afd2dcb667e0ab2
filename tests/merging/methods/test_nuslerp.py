"""NuSLERP: whole tensors, rows and columns, with and without a base."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from merging.instructions import grams
from merging.methods.nuslerp import coefficients, columns, fraction, rows
from tests.shelf import Case, blend, cases


def flat(case: Case) -> bool:
    return case.parameters.get("nuslerp_flatten", True)


def by_column(case: Case) -> bool:
    return not flat(case) and case.parameters["nuslerp_row_wise"]


def by_row(case: Case) -> bool:
    return not flat(case) and not by_column(case)


@pytest.mark.parametrize("case", cases("nuslerp", flat))
def test_whole_tensors_are_blended_as_by_mergekit(case: Case) -> None:
    points = case.changes
    blended = coefficients(grams.gram(points), fraction(case.parameters["weight"]))
    assert case.close(case.from_base(blend(points, blended)))


@pytest.mark.parametrize("case", cases("nuslerp", by_row))
def test_rows_are_blended_as_by_mergekit(case: Case) -> None:
    points = [point.reshape(-1, point.shape[-1]) for point in case.changes]
    assert case.close(case.from_base(rows(points, fraction(case.parameters["weight"]))))


@pytest.mark.parametrize("case", cases("nuslerp", by_column))
def test_columns_are_blended_as_by_mergekit_whatever_the_chunks(case: Case) -> None:
    points = [point.reshape(point.shape[0], -1) for point in case.changes]
    sizes = [1, len(points[0]) - 1]

    def chunks() -> list[tuple[torch.Tensor, ...]]:
        return list(zip(*(point.split(sizes) for point in points), strict=True))

    merged = torch.cat(list(columns(chunks, fraction(case.parameters["weight"]))))
    assert case.close(case.from_base(merged))


def test_the_weights_say_how_far_to_go() -> None:
    assert fraction([1.0, 3.0]) == 0.75
    assert fraction([1.0, 0.0]) == 0.0
    assert fraction([1.0, -1.0]) == 0.5  # they cancel
    assert fraction([1.0, -0.5]) == -1.0


def test_right_angles_by_hand() -> None:
    # a third of the way along a quarter of a circle: 30 degrees
    first, second = coefficients(np.eye(2), 1 / 3)
    assert (first, second) == pytest.approx((math.cos(math.pi / 6), 0.5))


def test_opposite_points_are_blended_in_a_straight_line() -> None:
    a = torch.randn(5000, generator=torch.Generator().manual_seed(0)) * 0.02
    points = [a, -a]
    assert coefficients(grams.gram(points), 0.25) == (0.75, 0.25)
    assert torch.allclose(blend(points, (0.75, 0.25)), 0.5 * a)


def test_nearly_opposite_points_are_too_unless_mergekits_rule_is_asked_for() -> None:
    cosine = -1.0 + 1e-7  # what rounding to float32 leaves of -1
    gram = np.array([[1.0, cosine], [cosine, 1.0]])
    assert coefficients(gram, 0.25) == (0.75, 0.25)
    first, _ = coefficients(gram, 0.25, "mergekit")
    angle = math.acos(cosine)
    assert first == pytest.approx(math.sin(0.75 * angle) / math.sin(angle), rel=1e-6)
    assert first > 1000  # the arc there is hundreds of times longer than the points
    exact = np.array([[1.0, -1.0], [-1.0, 1.0]])
    assert coefficients(exact, 0.25, "mergekit") == (0.75, 0.25)


def test_a_wider_angle_than_that_takes_the_arc() -> None:
    cosine = -1.0 + 2e-6
    angle = math.acos(cosine)
    first, _ = coefficients(np.array([[1.0, cosine], [cosine, 1.0]]), 0.25)
    assert first == pytest.approx(math.sin(0.75 * angle) / math.sin(angle), rel=1e-9)


def test_rows_are_blended_one_by_one() -> None:
    # the first rows are at right angles, the second parallel, the third opposite
    a = torch.tensor([[1.0, 0.0], [1.0, 1.0], [2.0, 0.0]])
    b = torch.tensor([[0.0, 1.0], [3.0, 3.0], [-2.0, 0.0]])
    half = math.sqrt(0.5)
    assert torch.allclose(
        rows([a, b], 0.5), torch.tensor([[half, half], [2.0, 2.0], [0.0, 0.0]]), atol=1e-7
    )


def test_a_model_without_change_is_at_right_angles_to_the_other() -> None:
    first, second = coefficients(np.diag([0.0, 9.0]), 0.5)
    assert (first, second) == pytest.approx((math.sqrt(0.5), math.sqrt(0.5)))
