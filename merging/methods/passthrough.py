"""Passthrough: one model's tensors, times a factor.

As mergekit 0.1.5, whose recipes stack layers of several models with it and scale some of their
tensors: merged = scale * x. Without a scale bytes are copied.
"""

from __future__ import annotations

from merging.declarations.knobs import Knob
from merging.declarations.measures import Reader
from merging.declarations.methods import Blend, Preset
from merging.declarations.values import Recipe
from merging.instructions import Outcome, Sum
from merging.later import torch


def scaled(values: torch.Tensor, scale: float | None) -> torch.Tensor:
    """One chunk times its factor; itself without one. (n,) float32."""
    return values if scale is None else values * scale


def decide(recipe: Recipe, reader: Reader, evidence: None) -> Outcome:
    """The model's tensor times its scale."""
    scale = recipe.sources[0].at("scale", reader.entry)
    if scale == 1.0 and recipe.sources[0].model == recipe.base:
        return Outcome(Sum((0.0,)))  # the base's own bytes
    return Outcome.of(lambda base, models, start: scaled(models[0], scale))


METHODS = (
    Blend(
        id="passthrough",
        title="Passthrough",
        summary="Take one model's tensors, times a factor.",
        formula="scale * model",
        words="Take its tensors as they are, times {scale}.",
        decide=decide,
        least=1,
        most=1,
        knobs=(
            Knob(
                "scale",
                "Scale",
                1.0,
                "Multiplies the model's tensors.",
                low=-10.0,
                high=10.0,
                step=0.05,
                unit="factor",
                per_model=True,
                scheduled=True,
            ),
        ),
    ),
)

PRESETS = (
    Preset(
        id="passthrough",
        title="Passthrough",
        group="sums",
        place=9,
        consensus="passthrough",
        summary="Takes tensors as they are; stacks layers of several models.",
        use_when="You stack layers, or scale one model's tensors.",
    ),
)
