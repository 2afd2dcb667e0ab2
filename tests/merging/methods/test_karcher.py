"""The Karcher mean, on Gram matrices."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from merging.instructions import grams
from merging.methods.karcher import coefficients
from tests.shelf import Case, blend, case, cases


def merged(case: Case) -> torch.Tensor:
    return blend(case.points, coefficients(grams.gram(case.points), **case.parameters))


@pytest.mark.parametrize("case", cases("karcher", lambda case: case.inputs != "tiny"))
def test_numbers_are_those_of_mergekit(case: Case) -> None:
    assert case.close(merged(case))


def test_models_as_close_as_rounding_are_not_taken_for_one() -> None:
    # angles of 6e-4, some of which float32 takes for 0: there mergekit agrees in float64 only
    doubles = case("karcher", "tiny", [0, 1, 2, 3], dtype="float64")
    assert doubles.close(blend(doubles.points, coefficients(grams.gram(doubles.points))))


def on_circle(*degrees: float, lengths: list[float] | None = None) -> np.ndarray:
    angles = np.radians(degrees)
    points = np.stack([np.cos(angles), np.sin(angles)]) * np.array(lengths or [1.0] * len(angles))
    return points.T @ points


def angle_of(blended: tuple[float, ...], *degrees: float) -> float:
    angles = np.radians(degrees)
    return math.degrees(
        math.atan2(np.array(blended) @ np.sin(angles), np.array(blended) @ np.cos(angles))
    )


def test_on_a_circle_the_mean_is_the_mean_of_the_angles() -> None:
    blended = coefficients(on_circle(0, 10, 80), max_iter=50, tol=1e-8)
    assert angle_of(blended, 0, 10, 80) == pytest.approx(30, abs=1e-5)
    start = coefficients(on_circle(0, 10, 80), max_iter=0)
    assert angle_of(start, 0, 10, 80) == pytest.approx(28.2227, abs=1e-4)  # not so the chords


def test_the_length_is_the_mean_length() -> None:
    gram = on_circle(0, 40, lengths=[2.0, 6.0])
    blended = np.array(coefficients(gram))
    assert blended @ gram @ blended == pytest.approx(16.0, rel=1e-9)


def test_a_short_tensor_counts_for_the_length_alone() -> None:
    gram = np.diag([9.0, 1e-12])  # lengths 3 and 1e-6
    assert coefficients(gram) == pytest.approx((0.5, 0.0), abs=1e-6)
    assert coefficients(np.zeros((3, 3))) == (0.0, 0.0, 0.0)


def test_one_model_is_its_own_mean() -> None:
    assert coefficients(np.array([[7.0]])) == (1.0,)


def test_opposite_models_start_from_the_first_and_stay_there() -> None:
    assert coefficients(on_circle(0, 180)) == pytest.approx((1.0, 0.0))


def test_a_tolerance_finer_than_float64_ends_all_the_same() -> None:
    gram = on_circle(0, 1e-3, 2e-3)
    finest = coefficients(gram, max_iter=10**9, tol=1e-12)
    assert sum(finest) == pytest.approx(1.0, abs=1e-6)
    assert finest == coefficients(gram, max_iter=10**9, tol=1e-9)
