"""The knobs of methods: parameters of a recipe with their bounds, defaults and one line of help."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Knob:
    """One parameter of a method.

    Attributes:
        name: the key in a recipe.
        label: full words for a screen.
        default: used where the recipe is silent. Its type is the knob's kind: True or False, a
            whole number, a number, or a tuple of factors (one per partition).
        info: one line of help.
        low, high, step: bounds of a number, ends included; None for other kinds, and where any
            finite number is valid.
        unit: what the number counts ("share of entries kept").
        per_model: True where each model of a recipe may have its own value.
        scheduled: True where it may change along the model, whatever its kind but factors.
        choices: the valid words of a choice; empty for numbers and booleans.
        also: another key that means it, where no other knob of a recipe has that name.
        soft: True where the bounds are those of a slider: a recipe may go beyond.
        is_place: True for a model's place among the recipe's, counted from 1; a recipe may write
            the model's name instead.
    """

    name: str
    label: str
    default: Any
    info: str
    low: float | None = None
    high: float | None = None
    step: float | None = None
    unit: str = ""
    per_model: bool = False
    scheduled: bool = False
    choices: tuple[str, ...] = ()
    also: str | None = None
    soft: bool = False
    is_place: bool = False

    @property
    def is_switch(self) -> bool:
        """True for a knob that is on or off."""
        return isinstance(self.default, bool)

    @property
    def is_factors(self) -> bool:
        """True for a knob that holds one factor per partition."""
        return isinstance(self.default, tuple)


WEIGHT = Knob(
    "weight",
    "Weight",
    1.0,
    "How much of this expert's change is added.",
    low=-2.0,
    high=3.0,
    step=0.05,
    unit="factor",
    per_model=True,
    scheduled=True,
    soft=True,
)
DENSITY = Knob(
    "density",
    "Density",
    1.0,
    "Share of each expert's changes that is kept: 1 - pruning rate.",
    low=0.0,
    high=1.0,
    step=0.01,
    unit="share of entries kept",
    per_model=True,
    scheduled=True,
)
AMPLIFICATION = Knob(
    "amplification",
    "Amplification",
    (1.0,),
    "One factor per partition of the kept changes, most important first.",
    low=0.0,
    high=4.0,
    step=0.1,
    unit="factor",
    per_model=True,
)
PARTITION_MODE = Knob(
    "partition_mode",
    "Partition rule",
    "ring",
    "ring: each factor on its own partition. max: a partition never below a later one's factor.",
    choices=("ring", "max"),
)
LAMBDA = Knob(
    "lambda",
    "Strength",
    1.0,
    "Scales the merged change as a whole.",
    low=0.0,
    high=3.0,
    step=0.05,
    unit="factor",
    scheduled=True,
    soft=True,
)
NORMALIZE = Knob(
    "normalize",
    "Divide by the weights",
    False,
    "Divide by the sum of the weights that took part.",
    scheduled=True,
)
RESCALE = Knob(
    "rescale",
    "Rescale",
    False,
    "Multiply what is kept of a tensor so that the sum of its magnitudes stays.",
    scheduled=True,
)
SCOPE = Knob(
    "scope",
    "Scope",
    "tensor",
    "Rank changes within each tensor, or over the whole model.",
    choices=("tensor", "model"),
)
CONTAINER = Knob(
    "container",
    "All tasks in a container",
    False,
    "Write the shared change and every task's mask; amalgam materialise makes a model of any.",
)
SEED = Knob("seed", "Seed", 0, "Same seed, same draw.", low=0, high=2**31 - 1, step=1)
