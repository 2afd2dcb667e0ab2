"""What arrives: the merged change that methods foresee on a sketch's sample, for the browser."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping
from typing import Any

import numpy as np

from merging.errors import MergeError
from merging.recipe import Recipe
from merging.sketches.sketch import FamilySketch
from ui import bins, figures
from ui.findings import percent

_EDGES: OrderedDict[str, list[float]] = OrderedDict()  # of the latest families: they stay
_MOST = 8


def foreseen(recipe: Recipe, sketch: FamilySketch, values: Mapping[str, Any]) -> dict[str, Any]:
    """The drift of every layer and the histogram of the merged change of every cell.

    Args:
        values: the controls' values; they go back with the answer, so that the browser can tell an
            answer to an older move.

    Returns:
        `arrival`, None where the recipe cannot be foreseen, and a note that says how good it is,
        or why there is none.
    """
    from merging.run.forecast import energy, forecast  # torch comes with it

    asked = dict(values)
    try:
        made = forecast(recipe, sketch)
    except MergeError as error:
        return {**panel(), "note": _sentence(str(error)), "asked": asked}
    table = bins.cells(sketch.tensors)
    layers = len(table.layers)
    rows = {title: row for row, title in enumerate(table.layers)}
    row = np.array(
        [rows.get(t.title if t.title is not None else "", layers) for t in sketch.tensors]
    )
    estimate = energy(made, sketch, row, layers + 1)
    seen = np.isfinite(estimate.error)
    names = [str(layer) for layer in table.layers] + ["rest"]
    sampled = estimate.sampled[:layers]
    typical = np.median(
        (estimate.error / np.maximum(estimate.drift, 1e-30))[seen & (estimate.drift > 0)]
    )
    arrival = {
        **bins.pack_change(made.change, sketch.sample_tensor, table, _edges(sketch, table)),
        "rows": names,
        "drift": [float(f"{value:.6g}") for value in estimate.drift],
        "error": [
            float(f"{e:.3g}") if s else None for e, s in zip(estimate.error, seen, strict=True)
        ],
    }
    off = f", \N{PLUS-MINUS SIGN} {percent(float(typical))} of each bar" if seen.any() else ""
    note = f"Estimate from about {int(np.median(sampled)):,} sampled entries a layer{off}."
    return {**panel(), "arrival": arrival, "note": note, "asked": asked}


def panel() -> dict[str, Any]:
    """The drift's panel before anything is foreseen."""
    return {
        "figure": figures.drift_figure(),
        "arrival": None,
        "note": "Being estimated from sampled entries\N{HORIZONTAL ELLIPSIS}",
        "summary": "How far the merge moves each layer, as a share of the base's length.",
    }


def _edges(sketch: FamilySketch, table: bins.Cells) -> list[float]:
    key = f"{sketch.fingerprint} {' '.join(sketch.experts)}"
    if not sketch.exact:
        return bins.bounds_of(sketch, table)
    if key not in _EDGES:
        _EDGES[key] = bins.bounds_of(sketch, table)
        while len(_EDGES) > _MOST:
            _EDGES.popitem(last=False)
    return _EDGES[key]


def _sentence(text: str) -> str:
    return text[:1].upper() + text[1:].rstrip(".") + "."
