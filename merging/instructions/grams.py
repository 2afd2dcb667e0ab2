"""Inner products of a few tensors: all that methods which blend by angle need of them.

Lengths and angles of n points, and of whatever is combined from them, follow from their Gram matrix
G_ij = <x_i, x_j>. So such a method measures n (n + 1) / 2 sums in one pass, does its geometry on n
x n numbers in float64, and merges by n coefficients. Products of float32 values are exact in
float64; their sums are right to about 1e-16 of |x_i| |x_j|, which still tells a cosine of 1 - 1e-13
from 1.

Points that are changes against a base are subtracted first and multiplied then: G of changes taken
from G of models (x_i.x_j - x_i.b - b.x_j + b.b) would lose what the changes are smaller by,
squared. The other way round (`of_models`) loses nothing.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from merging.errors import NonFinite
from merging.instructions.elementary import NO_FLOAT64
from merging.later import torch


def gram(points: Sequence[torch.Tensor]) -> np.ndarray:
    """The Gram matrix of one chunk; adds up over the chunks of a tensor.

    Args:
        points: n tensors of one shape, float32.

    Returns:
        (n, n) float64.
    """
    return of_rows([point.reshape(1, -1) for point in points])[..., 0]


def of_rows(points: Sequence[torch.Tensor], along: int = 1) -> np.ndarray:
    """The Gram matrices of all rows, or of all columns.

    Args:
        points: n tensors, each (rows, columns) float32.
        along: 1 for rows. 0 for columns, which adds up over chunks of rows.

    Returns:
        (n, n, rows) or (n, n, columns) float64.
    """
    if points[0].device.type in NO_FLOAT64:
        points = [point.cpu() for point in points]
    doubles = [point.double() for point in points]
    result = np.zeros((len(points), len(points), points[0].shape[1 - along]))
    for i, left in enumerate(doubles):
        for j, right in enumerate(doubles[: i + 1]):
            result[i, j] = result[j, i] = (left * right).sum(dim=along).cpu().numpy()
    return result


def of_models(gram: np.ndarray) -> np.ndarray:
    """The Gram matrix of a base and its models from that of the base and the models' changes.

    Args:
        gram: (n, n, ...) float64, the base first.

    Returns:
        (n, n, ...) float64 of (b, b + d_1, ..., b + d_(n-1)).
    """
    total = gram.copy()
    total[1:] += gram[:1]
    total[:, 1:] += total[:, :1]
    return total


def lengths(gram: np.ndarray) -> np.ndarray:
    """The points' norms.

    Args:
        gram: (n, n, ...) float64.

    Returns:
        (n, ...) float64.

    Raises:
        NonFinite: a point holds NaN or infinity.
    """
    if not np.isfinite(gram).all():
        raise NonFinite("a value is NaN or infinite")
    return np.sqrt(np.maximum(np.einsum("ii...->i...", gram), 0.0))


def combine(points: Sequence[torch.Tensor], coefficients: np.ndarray) -> torch.Tensor:
    """sum_i c_i x_i, row by row or column by column.

    Args:
        points: n tensors, each (rows, columns) float32, not changed.
        coefficients: (n, rows, 1) or (n, 1, columns).

    Returns:
        (rows, columns) float32.
    """
    total = torch.zeros_like(points[0])
    for point, row in zip(points, coefficients, strict=True):
        total += torch.from_numpy(row.astype(np.float32)).to(point.device) * point
    return total
