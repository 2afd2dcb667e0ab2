"""What arrives: the merged change that methods foresee on a sketch's sample, for the browser."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from merging.errors import MergeError
from merging.methods import PRUNERS
from merging.recipe import Recipe
from merging.sketches.sketch import FamilySketch
from ui import bins, figures, findings
from ui.findings import percent

if TYPE_CHECKING:
    from merging.run.forecast import Forecast

_EDGES: OrderedDict[str, list[float]] = OrderedDict()  # of the latest families: they stay
_MOST = 8


def foreseen(recipe: Recipe, sketch: FamilySketch, values: Mapping[str, Any]) -> dict[str, Any]:
    """The drift of every layer and the histogram of the merged change of every cell.

    Args:
        values: the controls' values; they go back with the answer, so that the browser can tell an
            answer to an older move.

    Returns:
        `arrival`, None where the recipe cannot be foreseen; a note that says how good it is, or
        why there is none; `moves`, how far the merge moves as a whole, in a sentence.
    """
    from merging.run.forecast import energy, forecast  # torch comes with it

    asked = dict(values)
    try:
        made = forecast(recipe, sketch)
    except MergeError as error:
        note = _sentence(str(error))
        return {
            **panel(),
            "note": note,
            "moves": f"How far the merge moves: {note[:1].lower()}{note[1:]}",
            "asked": asked,
        }
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
    moved = seen & (estimate.drift > 0)
    typical = np.median(estimate.error[moved] / estimate.drift[moved]) if moved.any() else 0.0
    arrival = {
        **bins.pack_change(made.change, sketch.sample_tensor, table, _edges(sketch, table)),
        "rows": names,
        "drift": [float(f"{value:.6g}") for value in estimate.drift],
        "error": [
            float(f"{e:.3g}") if s else None for e, s in zip(estimate.error, seen, strict=True)
        ],
    }
    off = f", \N{PLUS-MINUS SIGN} {percent(float(typical))} of each bar" if moved.any() else ""
    note = f"Estimate from about {int(np.median(sampled)):,} sampled entries a layer{off}."
    moves = _moves(recipe, sketch, made, values)
    return {**panel(), "arrival": arrival, "note": note, "moves": moves, "asked": asked}


def _moves(recipe: Recipe, sketch: FamilySketch, made: Forecast, values: Mapping[str, Any]) -> str:
    """How far the merge moves what the recipe prunes, beside how far its experts do."""
    from merging.run.forecast import energy

    of_linears = PRUNERS[recipe.prune].law.linears
    inside = np.array([tensor.is_linear or not of_linears for tensor in sketch.tensors])
    whole = energy(made, sketch, np.where(inside, 0, -1), 1)
    base = max(float(sketch.base_l2[inside].sum()), 1e-30)
    alone = np.sqrt(sketch.l2.sum(axis=2)[:, inside].sum(axis=1) / base)
    return findings.moves(
        "linear layers" if of_linears else "the model",
        float(whole.drift[0]),
        float(whole.error[0]),
        alone.tolist(),
    )


def panel() -> dict[str, Any]:
    """The drift's panel before anything is foreseen."""
    return {
        "figure": figures.drift_figure(),
        "arrival": None,
        "moves": "",
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
