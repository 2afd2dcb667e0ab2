"""Singular values and directions against a full decomposition in float64."""

from __future__ import annotations

import pytest
import torch

from merging.instructions import spectra
from tests.matrices import A, changes, distance

SHAPES = [(12, 40), (40, 12), (16, 16), (1, 9), (9, 1), (1, 1)]


def decaying(rows: int, columns: int, values: torch.Tensor) -> torch.Tensor:
    """A matrix of these singular values, float64."""
    generator = torch.Generator().manual_seed(1)
    left = torch.linalg.qr(torch.randn(rows, len(values), generator=generator).double()).Q
    right = torch.linalg.qr(torch.randn(columns, len(values), generator=generator).double()).Q
    return (left * values) @ right.T


def test_a_matrix_worked_out_by_hand() -> None:
    # A^T A = [[1, 2], [2, 5]]: eigenvalues 3 +- sqrt 8, singular values sqrt 2 +- 1
    left, values, right = spectra.decompose(A)
    assert values.tolist() == pytest.approx([2**0.5 + 1, 2**0.5 - 1], abs=1e-12)
    assert distance((left * values.float()) @ right.T, A) < 1e-6
    # U V^T = (A + adj(A)^T) / (s_1 + s_2) for a determinant of 1
    flat, _ = spectra.isometry(A)
    assert distance(flat, torch.tensor([[2.0, 2.0], [-2.0, 2.0]]) / 8**0.5) < 1e-6


@pytest.mark.parametrize("shape", SHAPES)
def test_a_decomposition_equals_the_full_one(shape) -> None:
    (matrix,) = changes(1, *shape)
    full_left, full, full_right = torch.linalg.svd(matrix.double(), full_matrices=False)
    left, values, right = spectra.decompose(matrix)
    flat, all_values = spectra.isometry(matrix)
    assert left.shape == (shape[0], min(shape)) and right.shape == (shape[1], min(shape))
    assert float((values - full).abs().max()) < 1e-12 and torch.equal(all_values, values)
    assert distance((left * values.float()) @ right.T, matrix) < 1e-6
    assert distance(flat, full_left @ full_right) < 1e-6


@pytest.mark.parametrize("shape", [(30, 90), (90, 30)])
def test_values_far_below_the_largest_are_as_good(shape) -> None:
    values = torch.logspace(0, -5, 20, dtype=torch.float64)
    matrix = decaying(*shape, values).float()
    full = torch.linalg.svdvals(matrix.double())[:20]
    left, some, right = spectra.decompose(matrix, 20)
    assert float(((some - full) / full).abs().max()) < 1e-5
    for vectors in (left, right):
        assert distance(vectors.T @ vectors, torch.eye(20)) < 1e-5


def test_only_as_many_as_asked_for_and_no_direction_that_is_not_there() -> None:
    (matrix,) = changes(1, 20, 30, rank=4)
    assert spectra.decompose(matrix, 3)[0].shape == (20, 3)
    left, values, right = spectra.decompose(matrix, 9)
    assert (left.shape, values.shape, right.shape) == ((20, 4), (4,), (30, 4))
    flat, values = spectra.isometry(matrix)
    assert spectra.rank(values) == 4
    assert float(flat.norm()) == pytest.approx(2.0, abs=1e-5)  # the root of its rank


def test_directions_of_matrices_side_by_side() -> None:
    parts = changes(3, 15, 8)
    wide = torch.cat(parts, dim=1)
    for some in (parts, [part.repeat(4, 1) for part in parts]):  # wider and taller than 3 n
        left, values = spectra.directions(some)
        expected, full, _ = spectra.decompose(torch.cat(some, dim=1))
        assert float((values - full).abs().max()) < 1e-9
        assert distance(left @ left.T, expected @ expected.T) < 1e-5
    assert distance(spectra.gram(parts), wide.double() @ wide.double().T) < 1e-12


@pytest.mark.parametrize("shape", [(50, 70), (70, 50)])
def test_leading_directions_are_as_exact_as_told(shape) -> None:
    values = torch.tensor([3.0, 2.0, *[1.0 / (i + 1) for i in range(40)]], dtype=torch.float64)
    matrix = decaying(*shape, values).float()
    left, some, right, error = spectra.leading(matrix, 2)
    full_left, full, full_right = torch.linalg.svd(matrix.double(), full_matrices=False)
    head = (full_left[:, :2] * full[:2]) @ full_right[:2]
    assert 0 < error <= 1e-5
    assert float((some - full[:2]).abs().max()) < 1e-6
    assert distance((left * some.float()) @ right.T, head) < 2 * error + 1e-6


def test_leading_directions_that_hardly_differ_are_found_exactly() -> None:
    values = torch.ones(45, dtype=torch.float64)
    values[0] = 1.0001
    matrix = decaying(50, 60, values).float()
    left, some, right, error = spectra.leading(matrix, 1)
    full_left, full, full_right = torch.linalg.svd(matrix.double(), full_matrices=False)
    assert error == 0.0
    assert (
        distance((left * some.float()) @ right.T, full[0] * full_left[:, :1] @ full_right[:1])
        < 1e-5
    )


def test_leading_directions_are_drawn_alike_every_time() -> None:
    (matrix,) = changes(1, 60, 50, rank=30)
    torch.manual_seed(5)
    one = spectra.leading(matrix, 1)
    torch.manual_seed(6)
    assert all(
        torch.equal(a, b) for a, b in zip(one[:3], spectra.leading(matrix, 1)[:3], strict=True)
    )


@pytest.mark.parametrize("shape", [(0, 3), (3, 0), (0, 0), (2, 3), (60, 50)])
def test_nothing_to_decompose(shape) -> None:
    zero = torch.zeros(shape)
    left, values, right = spectra.decompose(zero)
    assert (left.shape, values.shape, right.shape) == ((shape[0], 0), (0,), (shape[1], 0))
    assert torch.equal(spectra.isometry(zero)[0], zero)
    assert spectra.leading(zero, 1)[0].shape == (shape[0], 0)


@pytest.mark.parametrize("shape", [(3, 5), (60, 50)])
def test_nan_is_seen(shape) -> None:
    (matrix,) = changes(1, *shape)
    matrix[1, 2] = torch.nan
    assert spectra.decompose(matrix)[0].isnan().all()
    assert spectra.isometry(matrix)[0].isnan().all()
    assert spectra.leading(matrix, 1)[0].isnan().all()
    assert spectra.directions([matrix, matrix])[0].isnan().all()
