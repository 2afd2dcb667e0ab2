"""A preset sets the controls, and the two axes decide which of them show."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import gradio as gr

from merging.methods import PRESETS, PRUNERS, RULES
from ui import controls
from ui.controls import MAX_PARTITIONS, Controls

_ANY = next(iter(PRESETS.values()))


def shape(prune: str, consensus: str, partitions: float, rate: float) -> list[Any]:
    """Which controls show: those that the two axes declare."""
    ranked = controls.has(PRUNERS[prune], "amplification")
    count = int(min(max(partitions, 1), MAX_PARTITIONS)) if ranked else 0
    labels = controls.amplification_labels(min(max(rate, 0.0), 1.0), count) if count else []
    return [
        controls.preset_of(prune, consensus) or "",
        gr.update(visible=controls.has(PRUNERS[prune], "density")),
        gr.update(visible=ranked),
        *(gr.update(visible=True, label=label) for label in labels),
        *[gr.update(visible=False)] * (MAX_PARTITIONS - count),
        *(gr.update(visible=axis in (prune, consensus)) for axis in _grouped()),
        *[gr.update(visible=not controls.has(PRUNERS[prune], "scope"))] * len(_scopes()),
        gr.update(visible=controls.has(RULES[consensus], "weight")),
        gr.update(visible=controls.has(RULES[consensus], "lambda")),
    ]


def shaped(parts: Controls) -> list[Any]:
    """Components of `shape`."""
    return [
        parts.presets,
        parts.rate,
        parts.partitions,
        *parts.amplification,
        *(parts.groups[axis] for axis in _grouped()),
        *(parts.knobs[axis, "scope"] for axis in _scopes()),
        parts.weighing,
        parts.strength,
    ]


def _grouped() -> list[str]:
    axes = (*PRUNERS.values(), *RULES.values())
    return [axis.id for axis in axes if controls.extra(axis)]


def _scopes() -> list[str]:
    """Consensus rules with a scope; a pruner's own scope takes its place."""
    return [axis.id for axis in RULES.values() if controls.has(axis, "scope")]


def movable(parts: Controls) -> list[Any]:
    """Components that keep what a person set when another preset is chosen."""
    return [parts.rate, parts.partitions, *parts.amplification, parts.strength]


def preset_outputs(parts: Controls) -> list[Any]:
    """Components of `preset`."""
    return [*movable(parts), *parts.knobs.values()]


def preset(chosen: str, before: str | None = None, moved: Sequence[Any] = ()) -> list[Any]:
    """Every control but the two axes at a preset's values; those that were moved stay.

    Args:
        before: the preset that the controls were at; None for a mix of their own.
        moved: values of `movable`; none where nothing is to stay.
    """
    usual = _usual(chosen)
    if moved:
        first = _usual(before) if before is not None else [None] * len(usual)
        rings = slice(1, 2 + MAX_PARTITIONS)  # their number and factors belong together
        for part in (slice(0, 1), rings, slice(rings.stop, rings.stop + 1)):
            if list(moved[part]) != first[part]:
                usual[part] = [gr.skip()] * len(usual[part])
    return [*usual, *controls.knob_values(PRESETS[chosen])]


def reset(prune: str, consensus: str) -> list[Any]:
    """Every control at the values of the preset that the axes are; all stay where they are none."""
    chosen = controls.preset_of(prune, consensus)
    if chosen is None:
        return [gr.skip()] * (3 + MAX_PARTITIONS + len(controls.knob_values(_ANY)))
    return preset(chosen)


def _usual(chosen: str) -> list[Any]:
    """A preset's values of `movable`."""
    values = controls.settings(PRESETS[chosen])
    factors = list(values.get("amplification", (1.0,)))
    return [
        round(1 - values.get("density", 1.0), 6),
        len(factors),
        *factors,
        *[1.0] * (MAX_PARTITIONS - len(factors)),
        values.get("lambda", 1.0),
    ]
