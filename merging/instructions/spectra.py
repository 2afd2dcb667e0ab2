"""Singular values and directions of one change, for methods that merge whole matrices.

The singular values of an (m, n) matrix are the roots of the eigenvalues of its smaller Gram matrix,
A A^T or A^T A. That matrix is summed in float64, block by block, so that besides A only squares of
the smaller side are held (three of float64 at most). Its eigenvectors carry one side's directions;
the other side's are A^T U / s. Of real changes singular values come out to 1e-15 of the largest and
U V^T to 3e-8, where a singular value decomposition in float32 gives 5e-7 and 2e-6 to 3e-5 in more
than twice the time; of values at 1e-6 of the largest the error is 1e-10 of it.

Where we differ from code that calls a full decomposition: directions whose singular value is at
most `RANK` of the largest are not used. Such a decomposition completes them at random, and methods
that replace singular values would then add what no expert changed.
"""

from __future__ import annotations

from collections.abc import Iterator

from merging.later import torch

RANK = 1e-6  # singular values up to this share of the largest count as 0
_BLOCK = 1024  # columns that are held in float64 at a time
_OVERSAMPLING = 8
_ROUNDS = 24


def decompose(
    matrix: torch.Tensor, count: int | None = None
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """The largest singular values, with their directions.

    Args:
        matrix: (m, n) float32, not changed.
        count: how many at most; all where None.

    Returns:
        (m, k) float32, (k,) float64 and (n, k) float32: U, s and V with A ~ U diag(s) V^T, largest
        first; k is the number asked for, or that of singular values above `RANK` of the largest
        where it is smaller. A sign may stand on either side. All NaN where the matrix has a NaN.
    """
    if matrix.shape[0] > matrix.shape[1]:
        right, values, left = decompose(matrix.T, count)
        return left, values, right
    vectors, values = _eigen(gram([matrix]))
    k = min(rank(values), matrix.shape[0] if count is None else count)
    vectors, values = vectors[:, :k], values[:k]
    scaled = (vectors / values).T
    other = matrix.new_empty(matrix.shape[1], k)
    for columns, block in _blocks(matrix):
        other[columns] = (scaled @ block).T.float()
    return vectors.float(), values, other


def isometry(matrix: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """U V^T, the matrix with all its singular values made 1, and those it had.

    Returns:
        (m, n) float32 and (min(m, n),) float64, largest first. Directions up to `RANK` of the
        largest are left out: U V^T is 0 there.
    """
    if matrix.shape[0] > matrix.shape[1]:
        flat, values = isometry(matrix.T)
        return flat.T, values
    vectors, values = _eigen(gram([matrix]))
    k = rank(values)
    root = (vectors[:, :k] / values[:k]) @ vectors[:, :k].T
    flat = torch.empty_like(matrix)
    for columns, block in _blocks(matrix):
        flat[:, columns] = (root @ block).float()
    return flat, values


def directions(matrices: list[torch.Tensor]) -> tuple[torch.Tensor, torch.Tensor]:
    """Left singular directions of several matrices set side by side, [A_1 | ... | A_T].

    Args:
        matrices: T of (m, n) float32.

    Returns:
        (m, k) float32 U and (k,) float64 s, largest first, k singular values above `RANK` of the
        largest.
    """
    rows, columns = matrices[0].shape
    if rows > columns * len(matrices):
        left, values, _ = decompose(torch.cat(matrices, dim=1))
        return left, values
    vectors, values = _eigen(gram(matrices))
    k = rank(values)
    return vectors[:, :k].float(), values[:k]


def leading(
    matrix: torch.Tensor, count: int, tolerance: float = 1e-5
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, float]:
    """As `decompose` for a few directions, by subspace iteration from a seeded start.

    The error is estimated, and where it stays above the tolerance (singular values that hardly
    differ) the decomposition is made exactly. The draw does not depend on the device.

    Args:
        matrix: (m, n) float32, not changed.
        count: how many directions.
        tolerance: largest error of the directions, see below.

    Returns:
        U, s, V as `decompose`, and the error: max_i |A^T u_i - s_i v_i| over the distance from the
        count-th singular value to the next, about the sine of the angle between the subspaces that
        were found and the true ones. 0.0 where decomposed exactly.
    """
    width = count + _OVERSAMPLING
    if min(matrix.shape) <= 4 * width or not bool(torch.isfinite(matrix.sum())):
        return (*decompose(matrix, count), 0.0)
    generator = torch.Generator().manual_seed(0)
    start = torch.randn(matrix.shape[1], width, generator=generator)
    right = start.to(matrix.device)
    for _ in range(_ROUNDS):
        left = torch.linalg.qr(matrix @ right).Q
        images = matrix.T @ left
        small_left, values, small_right = torch.linalg.svd(images.T.double(), full_matrices=False)
        left = left @ small_left.float()
        right = small_right.T.float()
        gap = float(values[count - 1] - values[count])
        rest = matrix @ right[:, :count] - left[:, :count] * values[:count].float()
        error = float(rest.norm(dim=0).max()) / gap if gap > 0 else float("inf")
        if error <= tolerance:
            k = min(rank(values), count)
            return left[:, :k], values[:k], right[:, :k], error
    return (*decompose(matrix, count), 0.0)


def gram(matrices: list[torch.Tensor]) -> torch.Tensor:
    """sum_t A_t A_t^T of (m, n) float32 matrices: (m, m) float64."""
    rows = matrices[0].shape[0]
    total = matrices[0].new_zeros(rows, rows, dtype=torch.float64)
    for matrix in matrices:
        for _, block in _blocks(matrix):
            total.addmm_(block, block.T)
    return total


def rank(values: torch.Tensor) -> int:
    """How many singular values, largest first, count: those above `RANK` of the largest. NaN does,
    so that it is seen."""
    if not values.numel():
        return 0
    return int((~(values <= RANK * values[0])).sum())


def _eigen(square: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Eigenvectors and roots of the eigenvalues of a Gram matrix, largest first; NaN for NaN."""
    if not bool(torch.isfinite(square.diagonal()).all()):
        return torch.full_like(square, torch.nan), torch.full_like(square[0], torch.nan)
    values, vectors = torch.linalg.eigh(square)
    return vectors.flip(1), values.flip(0).clamp_min(0).sqrt()


def _blocks(matrix: torch.Tensor) -> Iterator[tuple[slice, torch.Tensor]]:
    """Slices of columns, and each as float64."""
    for start in range(0, matrix.shape[1], _BLOCK):
        columns = slice(start, min(start + _BLOCK, matrix.shape[1]))
        yield columns, matrix[:, columns].double()
