"""Arcee Fusion: take over the changes that matter most, where the rows' distributions differ most.

Source: arcee-ai's method as mergekit 0.1.5 computes it. For a base and one other model x, with
distributions p = softmax(x) + 1e-8 and q = softmax(base) + 1e-8 over every row (the last axis):

    importance = |x - base| * KL,   KL = sum_row p log(p / q)
    merged = x where importance >= median + 1.5 (Q3 - Q1), else base

Quartiles are over the tensor, the entry at rank int(q (n - 1)). Where most entries do not change,
all of the quartiles are 0, and so every entry is at or above the threshold.

Where we differ: quartiles are exact. mergekit takes them from a million entries drawn with
replacement, unseeded, where a tensor has more, so that two runs differ; and it writes float32
whatever type was asked for. `quartiles: mergekit` draws as it does, seeded by model and tensor.

The divergence is computed in float32, by torch's softmax and log, as in mergekit. Of small changes
it is mostly rounding, so that devices may differ in it, and with it in which entries pass.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence

import numpy as np

from merging.later import torch
from merging.selection.statistics import order_statistics

Chunks = Callable[[], Iterable[tuple["torch.Tensor", "torch.Tensor"]]]
"""Starts a pass: yields base and model chunk by chunk, each whole rows, (rows, columns) float32."""

LEAST = 1e-8  # added to every probability
SAMPLE = 1_000_000


def divergence(base: torch.Tensor, model: torch.Tensor) -> torch.Tensor:
    """KL of every row. base, model: (rows, columns) float32. Returns (rows, 1) float32."""
    p = torch.softmax(model, dim=-1) + LEAST
    q = torch.softmax(base, dim=-1) + LEAST
    return torch.sum(p * torch.log(p / q), dim=-1, keepdim=True)


def quartile_ranks(numel: int) -> list[int]:
    """Ascending ranks of Q1, median and Q3 among `numel` entries."""
    return [(numel - 1) * quarter // 4 for quarter in (1, 2, 3)]


def threshold(quartiles: Sequence[float]) -> float:
    """median + 1.5 (Q3 - Q1), in float32.

    Args:
        quartiles: Q1, median and Q3, float32.
    """
    first, median, third = (np.float32(one) for one in quartiles)
    return float(median + np.float32(1.5) * (third - first))


def merge(
    chunks: Chunks, numel: int, seed: int | None = None, sample: int = SAMPLE
) -> Iterator[torch.Tensor]:
    """The change that is added to the base, in up to four passes that hold one chunk each.

    Args:
        chunks: starts a pass over the tensor; the same chunks each time.
        numel: entries of the tensor.
        seed: of `quartiles: mergekit`; exact without.
        sample: entries that it draws, where the tensor has more.

    Yields:
        (rows, columns) float32, chunk by chunk.

    Raises:
        NonFinite: a value is NaN or infinite.
    """
    divergences = [divergence(base, model) for base, model in chunks()]

    def importances() -> Iterator[list[torch.Tensor]]:
        for (base, model), of_rows in zip(chunks(), divergences, strict=True):
            yield [((model - base).abs() * of_rows).flatten()]

    rows_of, count = importances, numel
    if seed is not None and numel > sample:
        drawn = _drawn(importances(), np.random.default_rng(seed).integers(0, numel, sample))
        rows_of, count = (lambda: iter([[drawn]])), sample
    quartiles = order_statistics(rows_of, [quartile_ranks(count)])[0]
    least = threshold([one.value for one in quartiles])
    for (base, model), (importance,) in zip(chunks(), importances(), strict=True):
        change = model - base
        yield change * (importance.view_as(change) >= least)


def _drawn(chunks: Iterable[list[torch.Tensor]], indices: np.ndarray) -> torch.Tensor:
    """The entries at some indices of a tensor that comes in chunks, (n,) float32, in any order."""
    ordered = np.sort(indices)
    parts, start = [], 0
    for (values,) in chunks:
        stop = start + values.numel()
        first, last = np.searchsorted(ordered, [start, stop])
        inside = torch.from_numpy(ordered[first:last] - start)
        parts.append(values[inside.to(values.device)].cpu())
        start = stop
    return torch.cat(parts)
