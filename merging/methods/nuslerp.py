"""NuSLERP: SLERP by weights, of two models or of their changes, whole tensors or row by row.

Source: mergekit's nuslerp (Goddard 2024); SLERP of changes as in WARP (Rame et al., arXiv
2406.16768). With t = w_2 / (w_1 + w_2), or 1/2 where the weights cancel, and theta the
angle between a and b:

    merged = [sin((1 - t) theta) a + sin(t theta) b] / sin(theta)   (+ base)

The points a, b are the two models, or where a base is given their changes against it. As mergekit
0.1.5: lengths are not evened out, a length below 1e-7 counts as 1e-7 (so no change and b are at
right angles). `nuslerp_flatten` takes a tensor as one vector. Otherwise every row is a vector (the
last axis), and with `nuslerp_row_wise` every column (the first axis): its name says the contrary,
its numbers are these. A vector stays whole either way.

Where we differ: opposite points have no arc between them, and mergekit means to blend them in a
straight line. It tells opposite points by 1 - cos^2 <= 1e-16 in float32, which rounding nearly
never meets: for a and -a at t = 0.25 it gives 0.71 a, or noise many times larger, where the line
gives 0.5 a. With `antipodes: line`, the default, points within 1e-6 of |cos| = 1 are blended in a
straight line; closer than that, float32 weights do not say in which direction the arc goes.
`antipodes: mergekit` has the line up to 1 - cos^2 = 1e-16 only, with cosines from float64.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

import numpy as np

from merging.declarations.knobs import WEIGHT, Knob
from merging.declarations.measures import Reader
from merging.declarations.methods import Blend, Preset
from merging.declarations.values import Recipe
from merging.evidence.points import combined, gram_of
from merging.instructions import Outcome, grams
from merging.instructions.eager import Needs
from merging.later import torch

SHORTEST = 1e-7  # a length below this counts as this
LIMITS = {"line": 1e-6, "mergekit": 0.5e-16}
"""1 - |cos| up to which points are blended in a straight line."""


def fraction(weights: Sequence[float]) -> float:
    """t: the second point's share of the two weights; 1/2 where they sum to (nearly) 0."""
    total = weights[0] + weights[1]
    return 0.5 if abs(total) < 1e-6 else weights[1] / total


def coefficients(gram: np.ndarray, t: float, antipodes: str = "line") -> tuple[float, float]:
    """What the two points are multiplied with.

    Args:
        gram: (2, 2) float64, of the two models' tensors, or of their changes.
        t: from `fraction`.
        antipodes: a key of LIMITS.

    Raises:
        NonFinite: a tensor holds NaN or infinity.
    """
    first, second = arcs(gram, t, antipodes)
    return float(first), float(second)


def arcs(gram: np.ndarray, t: float, antipodes: str = "line") -> np.ndarray:
    """As `coefficients`, of many pairs at once.

    Args:
        gram: (2, 2, ...) float64.

    Returns:
        (2, ...) float64.
    """
    first, second = np.maximum(grams.lengths(gram), SHORTEST)
    cosine = np.clip(gram[0, 1] / (first * second), -1.0, 1.0)
    straight = 1.0 - np.abs(cosine) <= LIMITS[antipodes]
    angle = np.arccos(np.where(straight, 0.0, cosine))
    arc = np.stack([np.sin((1.0 - t) * angle), np.sin(t * angle)]) / np.sin(angle)
    line = np.array([1.0 - t, t]).reshape(2, *[1] * np.ndim(cosine))
    return np.where(straight, line, arc)


def rows(points: Sequence[torch.Tensor], t: float, antipodes: str = "line") -> torch.Tensor:
    """Blends row by row.

    Args:
        points: two tensors, each (rows, columns) float32, all columns of some rows: of the models,
            or their changes.

    Returns:
        (rows, columns) float32.
    """
    return grams.combine(points, arcs(grams.of_rows(points), t, antipodes)[:, :, None])


def columns(
    chunks: Callable[[], Iterable[Sequence[torch.Tensor]]], t: float, antipodes: str = "line"
) -> Iterable[torch.Tensor]:
    """Blends column by column, in two passes.

    Args:
        chunks: starts a pass; yields the points of some rows after those of others, each
            (rows, columns) float32.

    Yields:
        (rows, columns) float32, chunk by chunk.
    """
    total: np.ndarray | float = 0.0
    for points in chunks():
        total = total + grams.of_rows(points, along=0)
    blend = arcs(np.asarray(total), t, antipodes)[:, None, :]
    for points in chunks():
        yield grams.combine(points, blend)


def decide(recipe: Recipe, reader: Reader, evidence: None) -> Outcome:
    """The two points' sum; along rows or columns, a function of whole tensors."""
    entry = reader.entry
    t, antipodes = fraction(recipe.weights_at(entry)), recipe.at("antipodes", entry)
    if recipe.at("nuslerp_flatten", entry):
        return combined(recipe, coefficients(gram_of(recipe, reader), t, antipodes))
    along_columns = recipe.at("nuslerp_row_wise", entry) and len(entry.shape) > 1

    def blend(base: torch.Tensor, models: Sequence[torch.Tensor], start: int) -> torch.Tensor:
        points = [model - base for model in models] if recipe.origin else list(models)
        shape = points[0].shape
        if along_columns:
            flat = [point.reshape(shape[0], -1) for point in points]
            (merged,) = columns(lambda: [flat], t, antipodes)
        else:
            merged = rows([point.reshape(-1, shape[-1]) for point in points], t, antipodes)
        return base + merged.reshape(shape) if recipe.origin else merged.reshape(shape)

    needs: Needs = "tensor" if along_columns else "rows"
    return Outcome.of(blend, needs)


METHODS = (
    Blend(
        id="nuslerp",
        title="NuSLERP",
        summary="Go from one model to another along the arc between them, by their weights.",
        formula="SLERP of the models, or of their changes, at t = w_2 / (w_1 + w_2)",
        paper="Goddard 2024, mergekit's nuslerp",
        url="https://github.com/arcee-ai/mergekit",
        words="Turn one into the other along the arc between them, by their weights.",
        decide=decide,
        base="either",
        least=2,
        most=2,
        unpredicted="What a blend along an arc leaves, only the merge can tell.",
        knobs=(
            WEIGHT,
            Knob(
                "nuslerp_flatten",
                "Whole tensors",
                True,
                "Take every tensor as one vector; off, every row.",
                scheduled=True,
            ),
            Knob(
                "nuslerp_row_wise",
                "Columns",
                False,
                "Where tensors are not taken whole: every column instead of every row.",
                scheduled=True,
            ),
            Knob(
                "antipodes",
                "Opposite points",
                "line",
                "line: a straight line where they point apart. mergekit: its narrower limit.",
                choices=("line", "mergekit"),
                scheduled=True,
            ),
        ),
    ),
)

PRESETS = (
    Preset(
        id="nuslerp",
        title="NuSLERP",
        group="spheres",
        place=1,
        consensus="nuslerp",
        summary="Turns one model, or its change, towards another by weights.",
        use_when="As SLERP, of changes against a base, or row by row.",
    ),
)
