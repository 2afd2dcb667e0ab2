"""Model Stock: how far to go from the base to the models' mean, by how well their changes agree.

Source: Jang et al., Model Stock, arXiv 2403.19522. With n changes d_i = x_i - base and c
the mean cosine of all pairs of them:

    t = n c / (1 + (n - 1) c),   merged = base + t * mean_i d_i

As mergekit 0.1.5: per tensor, or with `filter_wise` per row (a vector is one row); a product of two
lengths below 1e-6 counts as 1e-6, so that tensors that hardly change (lengths below 1e-3) stay
nearer to the base than their cosines say. Two changes at least.

Where we differ: where changes oppose each other (c < 0) t leads away from the models, and near
c = -1 / (n - 1) without end: -2 for two changes with c = -0.5. `opposed` says what then happens.
`bounded` (the default): the formula as long as t >= -n, which is c >= -1/n: changes of one length
give no longer one. Beyond, the base stays, as it does in mergekit where the divisor is below 1e-6.
`base`: the base stays wherever c < 0; the paper's geometry has t in [0, 1] only. `mergekit`: the
formula down to that divisor.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from merging.declarations.knobs import Knob
from merging.declarations.measures import Reader
from merging.declarations.methods import Blend, Preset
from merging.declarations.values import Recipe
from merging.evidence.points import combined, gram_of
from merging.instructions import Outcome, grams
from merging.later import torch

SMALLEST = 1e-6  # a product of two lengths below this counts as this
SINGULAR = 1e-6  # a divisor below this leaves the base
LOWEST = {"bounded": -1.0, "base": 0.0, "mergekit": -np.inf}
"""t / n below this leaves the base."""


def coefficients(gram: np.ndarray, opposed: str = "bounded") -> tuple[float, ...]:
    """What the n changes are multiplied with: t / n each.

    Args:
        gram: (n, n) float64, of the changes; n at least 2.
        opposed: a key of LOWEST.

    Raises:
        NonFinite: a tensor holds NaN or infinity.
    """
    return (float(ratio(gram, opposed)) / len(gram),) * len(gram)


def ratio(gram: np.ndarray, opposed: str = "bounded") -> np.ndarray:
    """t, of one tensor or of many rows at once.

    Args:
        gram: (n, n, ...) float64, of the changes.

    Returns:
        (...) float64, at most 1.
    """
    count = len(gram)
    length = grams.lengths(gram)
    pairs = np.triu_indices(count, 1)
    products = np.maximum(length[pairs[0]] * length[pairs[1]], SMALLEST)
    cosine = np.clip(gram[pairs] / products, -1.0, 1.0).mean(axis=0)
    divisor = 1.0 + (count - 1) * cosine
    singular = np.abs(divisor) < SINGULAR
    t = count * cosine / np.where(singular, 1.0, divisor)
    return np.where(singular | (t < LOWEST[opposed] * count), 0.0, t)


def rows(changes: Sequence[torch.Tensor], opposed: str = "bounded") -> torch.Tensor:
    """The merged change, row by row (`filter_wise`).

    Args:
        changes: n tensors, each (rows, columns) float32, all columns of some rows.

    Returns:
        (rows, columns) float32.
    """
    shares = ratio(grams.of_rows(changes), opposed) / len(changes)
    return grams.combine(
        changes, np.broadcast_to(shares[:, None], (len(changes), *shares.shape, 1))
    )


def decide(recipe: Recipe, reader: Reader, evidence: None) -> Outcome:
    """The base and a share of the mean change."""
    opposed = recipe.at("opposed", reader.entry)
    if not recipe.at("filter_wise", reader.entry):
        return combined(recipe, coefficients(gram_of(recipe, reader), opposed))

    def blend(base: torch.Tensor, models: Sequence[torch.Tensor], start: int) -> torch.Tensor:
        return base + rows([model - base for model in models], opposed)

    return Outcome.of(blend, "rows")


METHODS = (
    Blend(
        id="model_stock",
        title="Model Stock",
        summary="Go from the base to the models' mean as far as their changes agree.",
        formula="base + t * mean_i delta_i, t = n c / (1 + (n - 1) c), c the mean cosine",
        paper="Jang et al. 2024, Model Stock",
        url="https://arxiv.org/abs/2403.19522",
        words="Go from the base towards their mean, as far as their changes agree.",
        decide=decide,
        base="origin",
        least=2,
        unpredicted="How far each tensor goes, only the merge can tell.",
        knobs=(
            Knob(
                "filter_wise",
                "Row by row",
                False,
                "A share for every row, not every tensor.",
                scheduled=True,
            ),
            Knob(
                "opposed",
                "Opposed changes",
                "bounded",
                "bounded: the formula, until it leads farther away than the models are. base: the "
                "base stays where changes oppose each other. mergekit: the formula, without end.",
                choices=("bounded", "base", "mergekit"),
                scheduled=True,
            ),
        ),
    ),
)

PRESETS = (
    Preset(
        id="model_stock",
        title="Model Stock",
        group="spheres",
        place=4,
        consensus="model_stock",
        summary="Averages changes and takes as much of the mean as they agree on.",
        use_when="Several fine-tunes of one base for the same thing.",
    ),
)
