"""NearSwap: take over what is close to the base, and of all else only a little.

Source: alchemonaut, https://huggingface.co/alchemonaut/QuartetAnemoi-70B-t0.0001, as mergekit 0.1.5
has it. For a change d of the one other model:

    merged = base + w d,   w = clip(t / max(|d|, 1e-6), 0, 1)

For t of 1e-6 and more that is a change cut off at t: entries that changed by up to t become the
other model's, all others move by t towards it. Element by element.
"""

from __future__ import annotations

from collections.abc import Sequence

from merging.checkpoints import Entry
from merging.declarations.knobs import Knob
from merging.declarations.laws import Law
from merging.declarations.measures import Reader
from merging.declarations.methods import Preset, Pruned, Pruner
from merging.declarations.values import Recipe
from merging.instructions import Clip


def decide(recipe: Recipe, reader: Reader, evidence: None) -> Pruned:
    """Every expert's changes, cut off at t."""
    return Pruned([Clip(recipe.at("t", reader.entry))] * reader.experts)


def remarks(recipe: Recipe, entries: Sequence[Entry]) -> Sequence[str]:
    """mergekit's NearSwap knows one model beside the base."""
    if entries or len(recipe.sources) < 2:
        return ()
    return ("nearswap: more than one model is cut off at t and added; mergekit takes one",)


METHODS = (
    Pruner(
        id="nearswap",
        title="Cut off",
        summary="Keep every change up to a size, and of larger ones that much.",
        formula="clip(t / max(|delta|, 1e-6), 0, 1) * delta",
        paper="alchemonaut 2024, QuartetAnemoi (NearSwap)",
        url="https://huggingface.co/alchemonaut/QuartetAnemoi-70B-t0.0001",
        words="Keep changes up to {t} as they are, and cut larger ones off there.",
        law=Law("all"),
        place=6,
        decide=decide,
        uniform=lambda recipe: True,
        check=remarks,
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
        prune="nearswap",
        consensus="sum",
        summary="Limits the size of every change.",
        use_when="You want a touch of another model, and nothing drastic.",
    ),
)
