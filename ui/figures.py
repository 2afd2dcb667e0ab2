"""Results into plain plotly dictionaries and tables.

The browser fills the figures marked "live" from the packed histograms (`ui.bins`) while a slider
moves; what is declared here is everything that does not move. Percent exists from here on.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from merging.checkpoints.names import DEMO_PREFIX
from merging.sketches.plan import Plan
from merging.sketches.sketch import FamilySketch
from ui.bins import Cells
from ui.findings import cosines, percent
from ui.looks import Look

FONT = "system-ui, -apple-system, 'Segoe UI', Roboto, 'Helvetica Neue', sans-serif"
_SIDE_BY_SIDE = 20  # letters of names that fit below one another's columns
_FIXED = {"fixedrange": True, "zeroline": False}


def short(label: str) -> str:
    """A model's name without the prefix of the built-in family: "demo:add" is "add"."""
    return label.removeprefix(DEMO_PREFIX)


def _layout(**more: Any) -> dict[str, Any]:
    return {
        "paper_bgcolor": "rgba(0,0,0,0)",
        "plot_bgcolor": "rgba(0,0,0,0)",
        "font": {"family": FONT, "size": 12},
        "showlegend": False,
        "dragmode": False,
        "hovermode": "closest",
        "uirevision": "kept",
        **more,
    }


def map_figure(experts: Sequence[Look]) -> dict[str, Any]:
    """Live: one heatmap an expert, rows are layers, x is |delta|, with the cuts over it; the last
    heatmap, of no expert, is of the merged change."""
    data: list[dict[str, Any]] = []
    layout = _layout(annotations=[])
    for index in range(len(experts) + 1):
        suffix = "" if index == 0 else str(index + 1)
        axes = {"xaxis": f"x{suffix}", "yaxis": f"y{suffix}"}
        is_merged = index == len(experts)
        data.append(
            {
                "type": "heatmap",
                **axes,
                "meta": {"role": "merged" if is_merged else "heat", "expert": index},
                "showscale": False,
                "hoverongaps": False,
                "hovertemplate": "%{customdata}<extra></extra>",
            }
        )
        for role, width in () if is_merged else (("rings", 1.2), ("cut", 2.6)):
            data.append(
                {
                    "type": "scatter",
                    "mode": "lines",
                    **axes,
                    "hoverinfo": "skip",
                    "meta": {"role": role, "expert": index},
                    "line": {"width": width},
                }
            )
        layout[f"xaxis{suffix}"] = {
            **_FIXED,
            "type": "log",
            "anchor": f"y{suffix}",
            "showgrid": False,
            "ticks": "outside",
            "ticklen": 4,
        }
        layout[f"yaxis{suffix}"] = {
            **_FIXED,
            "anchor": f"x{suffix}",
            "showgrid": False,
            "showticklabels": False,
        }
    return {"data": data, "layout": layout}


def histogram_figure() -> dict[str, Any]:
    """Live: one expert's changes as bars over the logarithm of their size, the others' as lines."""
    layout = _layout(
        xaxis={**_FIXED, "fixedrange": False, "ticks": "outside", "ticklen": 4},
        yaxis=dict(_FIXED),
    )
    layout["xaxis"]["title"] = {"text": "|change|", "standoff": 6}
    return {"data": [], "layout": layout}


def retention_figure() -> dict[str, Any]:
    """Live: layer by module, share of entries, L1 or energy that is kept."""
    return _cells_figure()


def _cells_figure() -> dict[str, Any]:
    heat = {
        "type": "heatmap",
        "meta": {"role": "heat"},
        "showscale": False,
        "xgap": 2,
        "ygap": 2,
        "hovertemplate": "%{customdata}<extra></extra>",
    }
    axis = {**_FIXED, "showgrid": False, "ticks": "outside", "ticklen": 4}
    layout = _layout(
        margin={"l": 44, "r": 8, "t": 8, "b": 30},
        xaxis=dict(axis),
        yaxis={**axis, "title": {"text": "layer", "standoff": 6}},
    )
    return {"data": [heat], "layout": layout}


def energy_figure(experts: Sequence[Look]) -> dict[str, Any]:
    """Live: energy kept against pruning rate, one line an expert, a cursor at the slider."""
    data = [
        {
            "type": "scatter",
            "mode": "lines",
            "name": f"{expert.glyph} {expert.name}",
            "meta": {"role": "curve", "expert": index},
            "line": {"color": expert.colour, "dash": expert.dash, "width": 2},
            "hovertemplate": f"{expert.name}: rate %{{x:.2f}} keeps %{{y:.1%}}<extra></extra>",
        }
        for index, expert in enumerate(experts)
    ]
    layout = _layout(
        margin={"l": 48, "r": 14, "t": 8, "b": 44},
        showlegend=True,
        legend={"x": 0.03, "y": 0.05, "xanchor": "left", "yanchor": "bottom"},
        xaxis={**_FIXED, "range": [0, 1], "title": {"text": "pruning rate", "standoff": 8}},
        yaxis={**_FIXED, "range": [0, 1.03], "tickformat": ".0%", "nticks": 6},
    )
    return {"data": data, "layout": layout}


def _beside(names: Sequence[str]) -> int:
    """Pixels that names need at the left of a figure."""
    return min(max(96, 20 + 7 * max(map(len, names), default=0)), 180)


def cosine_figure(sketch: FamilySketch, experts: Sequence[Look]) -> dict[str, Any]:
    """Cosine between the experts' deltas, numbers in the cells, with the length of each delta."""
    values = np.round(cosines(sketch), 4)
    shown = [[None if np.isnan(v) else float(v) for v in row] for row in values]
    names = [f"{expert.glyph} {expert.name}" for expert in experts]
    are_short = sum(len(expert.name) for expert in experts) <= _SIDE_BY_SIDE
    change = np.sqrt(np.diag(sketch.dots.sum(axis=2)) / max(float(sketch.base_l2.sum()), 1e-30))
    heat = {
        "type": "heatmap",
        "y": names,
        "x": [expert.name if are_short else expert.glyph for expert in experts],
        "z": shown,
        "zmin": -1,
        "zmax": 1,
        "colorscale": [[0, "#D55E00"], [0.5, "#f4f6f9"], [1, "#0072B2"]],
        "showscale": False,
        "xgap": 2,
        "ygap": 2,
        "texttemplate": "%{z:.2f}",
        "hovertemplate": "%{y}, %{x}: %{z:.3f}<extra></extra>",
    }
    axis = {**_FIXED, "showgrid": False}
    layout = _layout(
        margin={"l": _beside(names), "r": 8, "t": 8, "b": 30},
        xaxis={**axis, "tickangle": 0},
        yaxis={**axis, "autorange": "reversed"},
        height=max(180, 54 * len(names) + 40),
    )
    rows = [
        [name, *("" if v is None else f"{v:.3f}" for v in row)]
        for name, row in zip(names, shown, strict=True)
    ]
    lengths = ", ".join(
        f"{expert.name} {percent(float(part))}"
        for expert, part in zip(experts, change, strict=True)
    )
    return {
        "figure": {"data": [heat], "layout": layout},
        "note": f"1: the same direction; 0: unrelated; \N{MINUS SIGN}1: opposite. Length of the "
        f"change against the base: {lengths}.",
        "table": {"head": ["expert", *names], "rows": rows},
    }


def exact(plan: Plan, sketch: FamilySketch, table: Cells) -> dict[str, Any]:
    """What is kept, from the plan itself: three lists of (E, C) shares, and `whole`, over all."""
    weights = {
        "entries": np.broadcast_to(sketch.numel.astype(np.float64), sketch.zeros.shape),
        "l1": sketch.l1.sum(axis=2),
        "l2": sketch.l2.sum(axis=2),
    }
    shares: dict[str, Any] = {"whole": dict(plan.summary)}
    for name, weight in weights.items():
        mass = table.pool(plan.retention(name) * weight)
        whole = table.pool(np.asarray(weight))
        share = np.divide(mass, whole, out=np.zeros_like(mass), where=whole > 0)
        shares[name] = np.round(share, 5).tolist()
    shares["clash"] = np.round(table.pool(plan.clash.T), 1).tolist()
    return shares


def clash_figure() -> dict[str, Any]:
    """Live: layer by module, share of what is kept that another kept change opposes."""
    return _cells_figure()


def drift_figure() -> dict[str, Any]:
    """Live: how far the merge moves each layer, with what the estimate may be off."""
    bar = {
        "type": "bar",
        "hovertemplate": "%{customdata}<extra></extra>",
        "error_y": {"type": "data", "visible": True, "thickness": 1.2, "width": 4},
    }
    layout = _layout(
        margin={"l": 56, "r": 14, "t": 8, "b": 44},
        xaxis={**_FIXED, "type": "category", "title": {"text": "layer", "standoff": 8}},
        yaxis={**_FIXED, "tickformat": ".1~%", "nticks": 6, "rangemode": "tozero"},
    )
    return {"data": [bar], "layout": layout}
