"""Inner products of a few tensors: all that methods which blend by angle need of them.

Lengths and angles of n points, and of whatever is combined from them, follow from their Gram matrix
G_ij = <x_i, x_j>. So such a method measures n (n + 1) / 2 sums in one pass, does its geometry on n
x n numbers in float64, and merges by n coefficients. Products of float32 values are exact in
float64; their sums are right to about 1e-16 of |x_i| |x_j|, which still tells a cosine of 1 - 1e-13
from 1.

Sums of floats depend on their order, and what is merged depends on these. So the order is fixed: a
tensor is cut into blocks of 512 elements, `sums_of_blocks` adds up each in the order in which
`kernels/profile.h` does, and blocks are added one after the other. Every engine, chunk size and
device gets the same bits, as long as chunks hold whole blocks.

Points that are changes against a base are subtracted first and multiplied then: G of changes taken
from G of models (x_i.x_j - x_i.b - b.x_j + b.b) would lose what the changes are smaller by,
squared. The other way round (`of_models`) loses nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from merging.errors import NonFinite
from merging.instructions.elementary import NO_FLOAT64
from merging.later import torch

BLOCK = 512  # elements whose products are added up by themselves, as BLOCK of kernels/values.h
_LANES = 32


def gram(points: Sequence[torch.Tensor]) -> np.ndarray:
    """The Gram matrix of a whole tensor.

    Args:
        points: n tensors of one shape, float32.

    Returns:
        (n, n) float64.
    """
    return added(np.zeros((len(points), len(points))), points)


def added(total: np.ndarray, points: Sequence[torch.Tensor]) -> np.ndarray:
    """The Gram matrix of the chunks before, and of one that follows.

    Args:
        total: (n, n) float64, of chunks that held multiples of BLOCK elements.
        points: n tensors of one shape, float32.

    Returns:
        (n, n) float64.
    """
    size = points[0].numel()
    short = -size % BLOCK
    blocks = [torch.nn.functional.pad(point.flatten(), (0, short)) for point in points]
    count = (size + short) // BLOCK
    sums = _products([one.view(count, BLOCK) for one in blocks], sums_of_blocks)
    rows = np.concatenate([total[..., None], sums], axis=-1)
    return np.add.accumulate(rows, axis=-1)[..., -1]


def of_rows(points: Sequence[torch.Tensor], along: int = 1) -> np.ndarray:
    """The Gram matrices of all rows, or of all columns.

    Args:
        points: n tensors, each (rows, columns) float32; for rows all columns of some, for columns
            all of the tensor.
        along: 1 for rows, 0 for columns.

    Returns:
        (n, n, rows) or (n, n, columns) float64.
    """
    return _products(points, lambda product: _folded(product, along))


def _products(
    points: Sequence[torch.Tensor], add: Callable[[torch.Tensor], torch.Tensor]
) -> np.ndarray:
    """(n, n, k) float64: `add` of the products of all pairs; it may overwrite them."""
    if points[0].device.type in NO_FLOAT64:
        points = [point.cpu() for point in points]
    doubles = [point.double() for point in points]
    count = len(points)
    pairs = [(i, j) for i in range(count) for j in range(i + 1)]
    products = torch.stack([add(doubles[i] * doubles[j]) for i, j in pairs])  # one wait for a GPU
    sums = dict(zip(pairs, products.cpu().numpy(), strict=True))
    return np.stack(
        [np.stack([sums[max(i, j), min(i, j)] for j in range(count)]) for i in range(count)]
    )


def sums_of_blocks(products: torch.Tensor) -> torch.Tensor:
    """Sums of blocks: 32 lanes of every 32nd element, whose halves are added to each other.

    Args:
        products: (blocks, BLOCK) float64.

    Returns:
        (blocks,) float64.
    """
    lanes = products.view(len(products), BLOCK // _LANES, _LANES)
    total = lanes[:, 0].clone()
    for row in range(1, lanes.shape[1]):
        total += lanes[:, row]
    return _folded(total, 1)


def _folded(values: torch.Tensor, along: int) -> torch.Tensor:
    """Sums along an axis: its second half is added to its first until one is left."""
    if not values.shape[along]:
        return values.sum(dim=along)
    while (size := values.shape[along]) > 1:
        half = (size + 1) // 2
        values.narrow(along, 0, size - half).add_(values.narrow(along, half, size - half))
        values = values.narrow(along, 0, half)
    return values.select(along, 0)


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
