"""Changes to matrices, for methods that merge whole ones."""

from __future__ import annotations

import torch

# two changes that are small enough to work out by hand
A = torch.tensor([[1.0, 2.0], [0.0, 1.0]])
B = torch.tensor([[0.0, 1.0], [1.0, -1.0]])


def changes(
    experts: int, rows: int, columns: int, rank: int | None = None, seed: int = 0
) -> list[torch.Tensor]:
    """Random changes of about 1e-2, (rows, columns) float32; of low rank where asked for."""
    generator = torch.Generator().manual_seed(seed)

    def draw(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=generator)

    if rank is None:
        return [1e-2 * draw(rows, columns) for _ in range(experts)]
    return [1e-2 * draw(rows, rank) @ draw(rank, columns) for _ in range(experts)]


def distance(one: torch.Tensor, other: torch.Tensor) -> float:
    """How far two matrices are apart, as a share of the second's norm."""
    return float((one.double() - other.double()).norm() / other.double().norm().clamp_min(1e-30))
