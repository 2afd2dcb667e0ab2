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

from collections.abc import Iterable, Iterator, Sequence

import numpy as np

from merging.declarations.knobs import Knob
from merging.declarations.measures import Reader
from merging.declarations.methods import Blend, Preset, in_torch
from merging.declarations.values import Recipe
from merging.instructions import Outcome
from merging.later import torch
from merging.methods.random import draw_keys
from merging.selection.statistics import Rows, order_statistics

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


def least_importance(
    importances: Rows, numel: int, seed: int | None = None, sample: int = SAMPLE
) -> float:
    """The importance from which on changes are taken over, in up to three passes.

    Args:
        importances: starts a pass over the tensor; yields a list of one chunk's, (n,) float32.
        numel: entries of the tensor.
        seed: of `quartiles: mergekit`; exact without.
        sample: entries that it draws, where the tensor has more.

    Raises:
        NonFinite: a value is NaN or infinite.
    """
    if not numel:
        return 0.0
    rows_of, count = importances, numel
    if seed is not None and numel > sample:
        indices = np.random.default_rng(seed).integers(0, numel, sample)
        drawn = _drawn(importances(), indices)
        rows_of, count = (lambda: iter([[drawn]])), sample
    quartiles = order_statistics(rows_of, [quartile_ranks(count)])[0]
    return threshold([quartile.value for quartile in quartiles])


def importance(base: torch.Tensor, model: torch.Tensor) -> torch.Tensor:
    """Of every entry of some rows. base, model and the result: (rows, columns) float32."""
    return (model - base).abs() * divergence(base, model)


def _drawn(chunks: Iterable[Sequence[torch.Tensor]], indices: np.ndarray) -> torch.Tensor:
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


def decide(recipe: Recipe, reader: Reader, evidence: None) -> Outcome:
    """Row by row, once the tensor's quartiles are there."""
    least = _least(recipe, reader)

    def blend(base: torch.Tensor, models: Sequence[torch.Tensor], start: int) -> torch.Tensor:
        return base + (models[0] - base) * (importance(base, models[0]) >= least)

    return Outcome.of(blend, "rows")


def _least(recipe: Recipe, reader: Reader) -> float:
    def importances() -> Iterator[list[torch.Tensor]]:
        for start, stop in reader.spans("rows"):
            pair = reader.base(start, stop), reader.model(0, start, stop)
            base, model = (values.reshape(-1, reader.columns) for values in pair)
            yield [importance(base, model).flatten()]

    seed = None
    if recipe.at("quartiles", reader.entry) == "sample":
        seed = draw_keys(0, recipe.sources[0].model, reader.entry.name)[0] & 0xFFFFFFFF
    return least_importance(importances, reader.numel, seed)


METHODS = (
    Blend(
        id="arcee_fusion",
        title="Arcee Fusion",
        summary="Take over the changes that matter most to each row's distribution.",
        formula="x where |x - base| * KL(row) >= median + 1.5 (Q3 - Q1), else base",
        paper="Arcee AI 2025, mergekit's arcee_fusion",
        url="https://github.com/arcee-ai/mergekit",
        words="Take over the changes of outstanding importance, and leave the rest.",
        memory=in_torch,
        decide=decide,
        base="origin",
        least=1,
        most=1,
        unpredicted="Which changes are of importance, only the merge can tell.",
        knobs=(
            Knob(
                "quartiles",
                "Quartiles",
                "exact",
                "exact: over the tensor. sample: of a million entries, as mergekit, but seeded.",
                choices=("exact", "sample"),
                scheduled=True,
            ),
        ),
    ),
)

PRESETS = (
    Preset(
        id="arcee_fusion",
        title="Arcee Fusion",
        group="elect",
        place=21,
        consensus="arcee_fusion",
        summary="Takes over what stands out of one model's changes.",
        use_when="One expert, of which you want the decisive changes only.",
    ),
)
