"""How far a merge moved each layer: what was measured, beside what was foreseen."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from ui.figures import FONT
from ui.findings import layer_name

Foreseen = Mapping[int | str | None, tuple[float, float]]
"""By layer, the drift that was foreseen, and by how much it may be off either way."""


def drift_value(
    drift: Mapping[int | str | None, float], foreseen: Foreseen | None = None
) -> dict[str, Any]:
    """What the drift panel draws: a bar per layer, what was foreseen over it, a sentence, and the
    same as a table."""
    names = ["rest" if layer is None else str(layer) for layer in drift]
    seen = [(foreseen or {}).get(layer) for layer in drift]
    if any(seen):
        return _beside_foreseen(drift, names, seen)
    values = [float(value) for value in drift.values()]
    sentence = drift_words(drift)
    return {
        "figure": drift_figure(names, values),
        "note": "Length of the change as a share of the base's own, layer by layer. " + sentence,
        "summary": sentence,
        "table": {
            "head": ["layer", "moved by"],
            "rows": [[name, f"{value:.1%}"] for name, value in zip(names, values, strict=True)],
        },
    }


def _beside_foreseen(
    drift: Mapping[int | str | None, float],
    names: Sequence[str],
    seen: Sequence[tuple[float, float] | None],
) -> dict[str, Any]:
    foreseen = [(m, s[0], s[1]) for m, s in zip(drift.values(), seen, strict=True) if s]
    within = sum(abs(measured - middle) <= off for measured, middle, off in foreseen)
    figure = drift_figure(names, list(drift.values()))
    figure["data"][0]["name"] = "measured"
    figure["data"].append(
        {
            "type": "scatter",
            "mode": "markers",
            "name": "predicted",
            "x": [name for name, one in zip(names, seen, strict=True) if one],
            "y": [middle for _, middle, _ in foreseen],
            "marker": {"symbol": "line-ew", "size": 22, "line": {"width": 2.5, "color": _FORESEEN}},
            "error_y": {
                "type": "data",
                "array": [off if math.isfinite(off) else 0.0 for *_, off in foreseen],
                "color": _FORESEEN,
                "thickness": 1.5,
            },
            "hovertemplate": "layer %{x}, predicted: %{y:.2%}<extra></extra>",
        }
    )
    figure["layout"] |= {"showlegend": True, "legend": {"orientation": "h", "y": 1.02, "x": 0}}
    figure["layout"]["legend"] |= {"yanchor": "bottom", "font": {"color": "#7d8ba1"}}
    figure["layout"]["margin"]["t"] = 30
    figure["layout"]["height"] = 250
    share = f"{within} of {len(foreseen)}"
    sentence = f"{drift_words(drift)} {share} lie within what was predicted from samples."
    rows = zip(names, drift.values(), seen, strict=True)
    return {
        "figure": figure,
        "note": "Length of the change as a share of the base's own, layer by layer. " + sentence,
        "summary": sentence,
        "table": {
            "head": ["layer", "moved by", "predicted", "may be off by"],
            "rows": [
                [name, f"{value:.1%}", *(f"{one:.2%}" for one in pair or ())]
                for name, value, pair in rows
            ],
        },
    }


_FORESEEN = "#e07b1a"
_BARS = "#2f7fd6"  # stands out from light and dark cards alike


def drift_figure(names: Sequence[str], values: Sequence[float]) -> dict[str, Any]:
    """Bars as a plain figure."""
    return {
        "data": [
            {
                "type": "bar",
                "x": list(names),
                "y": list(values),
                "marker": {"color": _BARS},
                "hovertemplate": "layer %{x}: %{y:.2%}<extra></extra>",
            }
        ],
        "layout": {
            "height": 220,
            "margin": {"l": 52, "r": 8, "t": 8, "b": 40},
            "bargap": 0.35,
            "paper_bgcolor": "rgba(0,0,0,0)",
            "plot_bgcolor": "rgba(0,0,0,0)",
            "xaxis": {
                "title": {"text": "layer"},
                "type": "category",
                "fixedrange": True,
                "automargin": True,
            },
            "yaxis": {
                "tickformat": ".0%" if max(values, default=0) >= 0.05 else ".2%",
                "nticks": 5,
                "rangemode": "tozero",
                "fixedrange": True,
                "gridcolor": "rgba(125,139,161,.25)",
            },
            "showlegend": False,
            "dragmode": False,
            "font": {"family": FONT, "size": 12},
        },
    }


def drift_words(drift: Mapping[int | str | None, float]) -> str:
    """The drift plot in a sentence."""
    if not drift:
        return "It is no single model: how far layers move is not told."
    most = max(drift, key=lambda layer: drift[layer])
    if drift[most] <= 0:
        return "No layer moved: the result is the base."
    return f"{place_of(most)} moved most: {drift[most]:.1%} of its own norm."


def place_of(title: int | str | None) -> str:
    """A layer in words, None being what is in none."""
    return "What is outside the layers" if title is None else layer_name(title)
