"""NearSwap: take over what is close to the base, and of all else only a little.

Source: alchemonaut, https://huggingface.co/alchemonaut/QuartetAnemoi-70B-t0.0001, as mergekit 0.1.5
has it. For a change d of the one other model:

    merged = base + w d,   w = clip(t / max(|d|, 1e-6), 0, 1)

For t of 1e-6 and more that is a change cut off at t: entries that changed by up to t become the
other model's, all others move by t towards it. Element by element.
"""

from __future__ import annotations

from merging.declarations.knobs import Knob
from merging.declarations.measures import Reader
from merging.declarations.methods import Blend, Preset
from merging.declarations.values import Recipe
from merging.instructions import Outcome
from merging.later import torch

CLOSEST = 1e-6  # a change below this counts as this


def change(delta: torch.Tensor, t: float) -> torch.Tensor:
    """What is added to the base.

    Args:
        delta: (n,) float32, the other model's change, not changed.
        t: 0 or more, in units of the weights.

    Returns:
        (n,) float32.
    """
    closeness = torch.full_like(delta, t) / delta.abs().clamp(min=CLOSEST)
    return closeness.clamp(0.0, 1.0) * delta


def decide(recipe: Recipe, reader: Reader, evidence: None) -> Outcome:
    """The base and a cut-off change, element by element."""
    t = recipe.at("t", reader.entry)
    return Outcome.of(lambda base, models, start: base + change(models[0] - base, t))


METHODS = (
    Blend(
        id="nearswap",
        title="NearSwap",
        summary="Take over what is close to the base, and of all else only a little.",
        formula="base + clip(t / max(|delta|, 1e-6), 0, 1) * delta",
        paper="alchemonaut 2024, QuartetAnemoi",
        url="https://huggingface.co/alchemonaut/QuartetAnemoi-70B-t0.0001",
        words="Take over changes up to {t}, and of larger ones that much.",
        decide=decide,
        base="origin",
        least=1,
        most=1,
        unpredicted="Large changes are cut off at t; the map shows them whole.",
        knobs=(
            Knob(
                "t",
                "Largest change",
                0.001,
                "In units of the weights: larger changes are cut off there.",
                low=0.0,
                high=1.0,
                step=0.0001,
                scheduled=True,
            ),
        ),
    ),
)

PRESETS = (
    Preset(
        id="nearswap",
        title="NearSwap",
        group="elect",
        place=20,
        consensus="nearswap",
        summary="Cuts one model's changes off at a size.",
        use_when="You want a touch of another model, and nothing drastic.",
    ),
)
