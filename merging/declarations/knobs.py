"""What a method declares of itself: its paper, its formula in words, and its knobs.

Pruning and consensus are independent axes. A merge method's name ("ties", "dare_linear") is a
preset: one choice on each axis plus defaults. The screens and the recipe reader are built from
these declarations alone.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal


@dataclass(frozen=True)
class Knob:
    """One parameter of a method.

    Attributes:
        name: the key in a recipe.
        label: full words for a screen.
        default: used where the recipe is silent.
        low, high, step: bounds of a number, ends included; None for other kinds.
        unit: what the number counts ("share of entries kept").
        info: one line of help.
        per_model: True where each model of a recipe may have its own value.
        choices: the valid words of a choice; empty for numbers and booleans.
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
    choices: tuple[str, ...] = ()


Order = Literal["all", "random", "largest"]


@dataclass(frozen=True)
class Law:
    """Which changes a pruner keeps, as data: the plan here and the one in the browser execute it.

    Attributes:
        order: all of them, as many as asked for at random, or the largest.
        linears: True where only linears are pruned; `scale_dense` scales the change of the others.

    The knobs that a pruner declares say the rest: `density`, `scope`, `density_shift`, `tie_rule`,
    `amplification` with its `partition_mode`.
    """

    order: Order
    linears: bool = False


@dataclass(frozen=True)
class Axis:
    """One pruner or one consensus rule.

    Attributes:
        id: the word in a recipe ("dynamic", "ties").
        formula: what it computes, in plain text.
        paper: where it comes from.
        words: what a recipe does, in a sentence. In braces it names knobs, or `kept` (what a pruner
            keeps), `combine` ("add them up") and `join` ("add up").
        law: of a pruner, what it keeps.
    """

    id: str
    kind: Literal["prune", "consensus"]
    title: str
    summary: str
    formula: str
    paper: str
    url: str
    words: str
    law: Law | None = None
    knobs: tuple[Knob, ...] = ()


@dataclass(frozen=True)
class Preset:
    """A merge method by its usual name: a point on both axes.

    Attributes:
        defaults: values that differ from the knobs' own defaults; those of mergekit's methods are
            mergekit's.
        shown: values that a screen begins with, where a recipe's default would show nothing.
        use_when: one line of advice.
    """

    id: str
    title: str
    prune: str
    consensus: str
    summary: str
    use_when: str
    defaults: dict[str, Any] = field(default_factory=dict)
    shown: dict[str, Any] = field(default_factory=dict)


WEIGHT = Knob(
    "weight", "Weight", 1.0, "How much of this expert's change is added.",
    low=-2.0, high=3.0, step=0.05, unit="factor", per_model=True,
)  # fmt: skip
DENSITY = Knob(
    "density", "Density", 1.0, "Share of each expert's changes that is kept: 1 - pruning rate.",
    low=0.0, high=1.0, step=0.01, unit="share of entries kept", per_model=True,
)  # fmt: skip
AMPLIFICATION = Knob(
    "amplification", "Amplification", (1.0,),
    "One factor per partition of the kept changes, most important first.",
    low=0.0, high=4.0, step=0.1, unit="factor", per_model=True,
)  # fmt: skip
PARTITION_MODE = Knob(
    "partition_mode", "Partition rule", "ring",
    "ring: each factor on its own partition. max: a partition never below a later one's factor.",
    choices=("ring", "max"),
)  # fmt: skip
LAMBDA = Knob(
    "lambda", "Strength", 1.0, "Scales the merged change as a whole.",
    low=0.0, high=3.0, step=0.05, unit="factor",
)  # fmt: skip
NORMALIZE = Knob(
    "normalize", "Divide by the weights", False,
    "Divide by the sum of the weights that took part.",
)  # fmt: skip
SCOPE = Knob(
    "scope", "Scope", "tensor",
    "Rank changes within each tensor, or over the whole model.",
    choices=("tensor", "model"),
)  # fmt: skip
