"""What a merge will change, foreseen from a sketch's sample by the methods themselves.

The recipe is lowered over the sampled entries and merged there, as the real merge does it, so every
knob counts. What is then said of all entries is an estimate, and its error is told.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from merging.errors import MergeError
from merging.instructions import Eager
from merging.later import torch
from merging.recipe import Recipe
from merging.run.measuring import measure
from merging.run.thinned import thinned
from merging.sketches.sketch import FamilySketch

ERRORS = 2.5  # standard errors on both sides, for what methods measure is read off the sample too
_LEAST = 1e-3  # of a drift: what rounding and the bins may make


class Unforeseen(MergeError):
    """A sample does not tell what the merge will do."""


@dataclass(frozen=True)
class Forecast:
    """The merged change at the sampled entries.

    Attributes:
        change: (S,) float32, merged minus base, in the order of the sketch's sample.
        scale: (S,) float64, entries of the tensor that each sampled one stands for.
    """

    change: np.ndarray = field(repr=False)
    scale: np.ndarray = field(repr=False)


@dataclass(frozen=True)
class Energy:
    """Of some groups of tensors, what the merge adds to them.

    Attributes:
        drift: (G,) float64, ||merged - base|| / ||base||.
        error: (G,) float64, by how much it may be off either way, 19 times of 20; infinity where
            too little was sampled.
        sampled: (G,) int64, entries it is read off.
    """

    drift: np.ndarray
    error: np.ndarray
    sampled: np.ndarray


def forecast(recipe: Recipe, sketch: FamilySketch) -> Forecast:
    """Merges the sampled entries.

    Raises:
        Unforeseen: the recipe works on whole rows or matrices, which a sample does not hold.
        MergeError: the recipe cannot be merged.
    """
    stream = thinned(sketch, recipe)
    change = np.zeros(sketch.sample.shape[1], dtype=np.float32)
    with torch.inference_mode():
        measured = measure(recipe, stream)
        for entry in stream.family.merged:
            reader = stream.open(entry)
            decisions, outcome = measured.decide(reader)
            for step in (*decisions, outcome.combination, outcome.blend):
                if isinstance(step, Eager) and step.needs != "chunk":
                    what = "rows" if step.needs == "rows" else "matrices"
                    raise Unforeseen(f"not predicted: this method works on whole {what}")
            first = stream.spans[entry.name][0]
            for start, base, merged in reader.merged(decisions, outcome):
                here = slice(first + start, first + start + merged.numel())
                change[here] = (merged - base).numpy()
    sampled = np.bincount(sketch.sample_tensor, minlength=len(sketch.tensors))
    scales = sketch.numel / np.maximum(sampled, 1)
    return Forecast(change, scales[sketch.sample_tensor])


def foreseen_drift(
    recipe: Recipe, sketch: FamilySketch
) -> dict[int | str | None, tuple[float, float]]:
    """By layer, as `run.merge.Result.drift`: the drift, and by how much it may be off. Raises as
    `forecast`."""
    titles = [tensor.title for tensor in sketch.tensors]
    layers = list(dict.fromkeys(titles))
    group = np.array([layers.index(title) for title in titles])
    foreseen = energy(forecast(recipe, sketch), sketch, group, len(layers))
    pairs = zip(foreseen.drift.tolist(), foreseen.error.tolist(), strict=True)
    return dict(zip(layers, pairs, strict=True))


def energy(foreseen: Forecast, sketch: FamilySketch, group: np.ndarray, count: int) -> Energy:
    """The drift of groups of tensors, by a ratio: the merged energy per energy of the experts'
    changes in the sample, times the latter, which the sketch holds in full.

    Args:
        group: (T,) int, the group of each tensor; -1 for none.
        count: G.
    """
    of = group[sketch.sample_tensor]
    chosen, of = of >= 0, of[of >= 0]
    scale = foreseen.scale[chosen]
    merged = scale * np.square(foreseen.change[chosen].astype(np.float64))
    given = scale * np.square(sketch.sample[:, chosen].astype(np.float64)).sum(axis=0)

    def sums(values: np.ndarray) -> np.ndarray:
        return np.bincount(of, values, count)

    inside = group >= 0
    whole = np.bincount(group[inside], sketch.l2.sum(axis=(0, 2))[inside], count)
    numel = np.bincount(group[inside], sketch.numel[inside].astype(np.float64), count)
    base = np.bincount(group[inside], sketch.base_l2[inside], count)
    n, total = np.bincount(of, minlength=count), sums(given)
    ratio = np.divide(sums(merged), total, out=np.zeros(count), where=total > 0)
    spread = sums(np.square(merged - ratio[of] * given)) * n / np.maximum(n - 1, 1)
    spread *= np.clip(1 - n / np.maximum(numel, 1), 0, 1)  # all entries sampled: nothing is guessed
    off = np.divide(np.sqrt(spread), total, out=np.zeros(count), where=total > 0)
    drift = np.sqrt(np.divide(ratio * whole, base, out=np.zeros(count), where=base > 0))
    relative = np.divide(off, 2 * ratio, out=np.zeros(count), where=ratio > 0)
    error = np.where(n > 1, np.maximum(ERRORS * relative, _LEAST) * drift, np.inf)
    return Energy(drift, np.where(numel > 0, error, 0.0), n)
