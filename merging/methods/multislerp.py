"""Multi-SLERP: the weighted mean direction of any number of models, at their weighted mean length.

Source: Goddard, https://goddard.blog/posts/multislerp-wow-what-a-cool-idea, as mergekit 0.1.5
computes it. With unit vectors u_i = x_i / (|x_i| + eps) and m = sum_i w_i u_i:

    merged = m / |m| * sum_i w_i |x_i|   (+ base)

mergekit then moves m / |m| along the sphere by the weighted sum of the u_i's tangents there. That
sum is m - (m . m/|m|) m/|m| = 0 for any points and weights: its value is rounding, and left out
here.

The points are the models, or where a base is given their changes. One model alone stays as it is,
with a base too, whatever its weight.

Where we differ: where the u_i cancel (|m| up to `eps`, or to 1e-6 of the weights, below which
float32 weights do not say where m points) there is no direction, and the points are added in a
straight line, sum_i w_i x_i. mergekit does so for two; for more it ends the merge, also where no
model changes a tensor. Weights that sum to 0 are left as they are, where mergekit divides by 0.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from merging.declarations.knobs import WEIGHT, Knob
from merging.declarations.measures import Reader
from merging.declarations.methods import Blend, Preset
from merging.declarations.values import Recipe
from merging.evidence.points import combined, gram_of
from merging.instructions import Outcome, grams

VANISHING = 1e-6  # |m| up to this share of the weights is rounding
CANCELLED = 1e-8  # weights that sum to less cannot be normalised


def coefficients(
    gram: np.ndarray, weights: Sequence[float], *, normalize: bool = True, eps: float = 1e-8
) -> tuple[float, ...]:
    """What the n points are multiplied with.

    Args:
        gram: (n, n) float64, of the models' tensors, or of their changes.
        weights: n factors.
        normalize: divide the weights by their sum (`normalize_weights`).
        eps: added to lengths.

    Raises:
        NonFinite: a tensor holds NaN or infinity.
    """
    length = grams.lengths(gram)
    shares = np.asarray(weights, dtype=np.float64)
    if normalize and abs(shares.sum()) >= CANCELLED:
        shares = shares / shares.sum()
    units = shares / (length + eps)
    size = float(np.sqrt(max(units @ gram @ units, 0.0)))
    if size <= max(eps, VANISHING * np.abs(shares).sum()):
        return tuple(shares.tolist())
    return tuple((units / size * (shares @ length)).tolist())


def decide(recipe: Recipe, reader: Reader, evidence: None) -> Outcome:
    """All points' sum, with weights by tensor."""
    weights = recipe.weights_at(reader.entry)
    if len(weights) == 1:
        return combined(recipe, (1.0,))
    shares = coefficients(
        gram_of(recipe, reader),
        weights,
        normalize=recipe.at("normalize_weights", reader.entry),
        eps=recipe.at("eps", reader.entry),
    )
    return combined(recipe, shares)


METHODS = (
    Blend(
        id="multislerp",
        title="Multi-SLERP",
        summary="Take the weighted mean direction of all models, at their mean length.",
        formula="m / |m| * sum_i w_i |x_i|, m = sum_i w_i x_i / |x_i|",
        paper="Goddard 2025, multislerp",
        url="https://goddard.blog/posts/multislerp-wow-what-a-cool-idea",
        words="Take the mean of their directions, at the mean of their lengths.",
        decide=decide,
        base="either",
        unpredicted="What a blend of directions leaves, only the merge can tell.",
        knobs=(
            WEIGHT,
            Knob(
                "normalize_weights",
                "Divide by the weights",
                True,
                "Divide the weights by their sum.",
                scheduled=True,
            ),
            Knob(
                "eps",
                "Smallest length",
                1e-8,
                "Added to lengths.",
                low=0.0,
                high=1e-3,
                step=1e-8,
                scheduled=True,
            ),
        ),
    ),
)

PRESETS = (
    Preset(
        id="multislerp",
        title="Multi-SLERP",
        group="spheres",
        place=2,
        consensus="multislerp",
        summary="Averages directions and lengths apart.",
        use_when="Three models or more that point apart.",
    ),
)
