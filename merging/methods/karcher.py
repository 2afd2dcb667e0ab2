"""Karcher mean: the point of the sphere that is nearest to all models, at their mean length.

Source: Karcher, Riemannian Center of Mass and Mollifier Smoothing, CPAM 30 (1977); for models arXiv
2603.04972. As mergekit 0.1.5 computes it, each tensor taken as one vector, all n models alike: unit
vectors u_i; a start m = sum_i u_i / n, made a unit vector; then up to `max_iter` times

    theta_i = arccos(m . u_i),   T = sum_i (1/n) theta_i / sin(theta_i) (u_i - (m . u_i) m)
    m <- cos|T| m + sin|T| T / |T|,   until |T| < tol

and merged = m * mean_i |x_i|. The points are the models themselves; a base among them or named
beside them is one more. Models whose tensor is shorter than `tol` count for the length, not for the
direction; where all are, the result is 0. Where the mean is shorter than `tol`, the first point is
the start.

m stays a combination of the u_i, so all of it runs on the Gram matrix, in float64, and a step costs
nothing. mergekit runs it on float32 tensors, where angles below 3e-4 may round to 0: it then leaves
such a point out of a step, which moves the result by up to that angle. A `tol` below 1e-8 is taken
as 1e-8: smaller steps are rounding.
"""

from __future__ import annotations

import numpy as np

from merging.declarations.knobs import Knob
from merging.declarations.measures import Reader
from merging.declarations.methods import Blend, Preset
from merging.declarations.values import Recipe
from merging.evidence.points import combined, gram_of
from merging.instructions import Outcome, grams

FINEST = 1e-8  # steps below this are rounding: the root of what float64 tells of a cosine


def coefficients(gram: np.ndarray, max_iter: int = 10, tol: float = 1e-5) -> tuple[float, ...]:
    """What the n models are multiplied with.

    Args:
        gram: (n, n) float64, of the models' tensors.
        max_iter: most steps; 0 gives the normalised mean of the directions.
        tol: smallest step, angle and length that count.

    Raises:
        NonFinite: a tensor holds NaN or infinity.
    """
    length = grams.lengths(gram)
    if len(length) == 1:
        return (1.0,)
    result = np.zeros(len(length))
    used = np.flatnonzero(length > tol)
    if used.size:
        cosines = gram[np.ix_(used, used)] / np.outer(length[used], length[used])
        result[used] = direction(cosines, max_iter, tol) / length[used] * length.mean()
    return tuple(result.tolist())


def direction(cosines: np.ndarray, max_iter: int, tol: float) -> np.ndarray:
    """The mean as a combination of unit vectors.

    Args:
        cosines: (n, n) float64, the Gram matrix of the unit vectors.

    Returns:
        (n,) float64.
    """
    count = len(cosines)
    finest = max(tol, FINEST)
    mean = np.full(count, 1.0 / count)
    size = _size(mean, cosines)
    mean = mean / size if size >= tol else np.eye(count)[0]
    for _ in range(max_iter):
        cosine = np.clip(cosines @ mean, -1.0, 1.0)
        angle = np.arccos(cosine)
        counted = (angle >= tol) & (np.sin(angle) > 0.0)
        pull = np.where(counted, angle / np.where(counted, np.sin(angle), 1.0), 0.0) / count
        step = pull - (pull @ cosine) * mean
        size = _size(step, cosines)
        if size < finest:
            break
        mean = np.cos(size) * mean + np.sin(size) / size * step
        mean = mean / _size(mean, cosines)
    return mean


def _size(combination: np.ndarray, cosines: np.ndarray) -> float:
    return float(np.sqrt(max(combination @ cosines @ combination, 0.0)))


def decide(recipe: Recipe, reader: Reader, evidence: None) -> Outcome:
    """The models' sum."""
    steps, tol = (recipe.at(knob, reader.entry) for knob in ("max_iter", "tol"))
    return combined(recipe, coefficients(gram_of(recipe, reader), steps, tol))


METHODS = (
    Blend(
        id="karcher",
        title="Karcher mean",
        summary="Take the point of the sphere that is nearest to all models.",
        formula="argmin_m sum_i angle(m, x_i)^2, at the mean length",
        paper="Karcher 1977, Riemannian Center of Mass and Mollifier Smoothing",
        url="https://doi.org/10.1002/cpa.3160300502",
        words="Take the point of the sphere that is nearest to all of them, all alike.",
        decide=decide,
        adds_base=lambda document, models: document.get("base_model") is not None,
        unpredicted="What a blend of directions leaves, only the merge can tell.",
        knobs=(
            Knob(
                "max_iter",
                "Most steps",
                10,
                "Steps to the mean.",
                low=0,
                high=100_000,
                step=1,
                scheduled=True,
            ),
            Knob(
                "tol",
                "Smallest step",
                1e-5,
                "Smaller steps, angles and lengths do not count.",
                low=0.0,
                high=1.0,
                step=1e-5,
                scheduled=True,
            ),
        ),
    ),
)

PRESETS = (
    Preset(
        id="karcher",
        title="Karcher mean",
        group="spheres",
        place=3,
        consensus="karcher",
        summary="Averages directions on the sphere, all models alike.",
        use_when="Several models that are all worth the same; it has no weights.",
    ),
)
