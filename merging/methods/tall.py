"""TALL-masks and consensus merging: which parameters a task, or several, rely on.

Source: Wang et al., Localizing Task Information for Improved Model Merging and Compression, arXiv
2405.07813, sections 4 and 5. For the changes tau_t of T experts and a merged change m, their sum
or that of TIES (signs elected, agreeing ones added):

    M_t       = [|tau_t| > threshold * |m - tau_t|]
    task t    = base + M_t * m                                 (TALL-masks: one model per task)
    consensus = base + lambda * [sum_t M_t >= agreement] * m   (one model)

agreement 0 keeps everything, 1 drops what no task relies on (catastrophic weights), 2 also what
only one relies on (selfish weights), which is the paper's rule. The paper picks each task's
threshold among 0.2, 0.3, 0.4, 0.5 and 0.6 by validation, and lambda as task arithmetic does.

Where we differ: the released code compares models, |theta_0 - theta_t| with |theta_0 + m -
theta_t|, which rounds once more than the changes do; masks differ where both sides are equal but
for that rounding.
"""

from __future__ import annotations

from collections.abc import Sequence

from merging.checkpoints import Entry
from merging.declarations.knobs import CONTAINER, LAMBDA, WEIGHT, Knob
from merging.declarations.measures import Passes, Reader
from merging.declarations.methods import Consensus, Preset, Pruning, Shares
from merging.declarations.values import Recipe
from merging.errors import RecipeError
from merging.instructions import Decision, Relied, masks
from merging.instructions.sums import add_up
from merging.later import torch

THRESHOLDS = (0.2, 0.3, 0.4, 0.5, 0.6)  # what the paper searches


def mask(change: torch.Tensor, merged: torch.Tensor, threshold: float) -> torch.Tensor:
    """M_t, what task t relies on.

    Args:
        change: tau_t; merged: m; float32 of one shape, not changed.
        threshold: at least 0; the higher, the fewer stay.

    Returns:
        bool of that shape.
    """
    return masks.relies(change, merged, threshold)


def task(
    base: torch.Tensor, merged: torch.Tensor, change: torch.Tensor, threshold: float
) -> torch.Tensor:
    """One task's parameters: base + M_t * m. float32 of one shape; NaN in m is seen."""
    return base + mask(change, merged, threshold) * merged


def consensus(
    changes: Sequence[torch.Tensor],
    thresholds: Sequence[float],
    agreement: int = 2,
    merged: torch.Tensor | None = None,
) -> torch.Tensor:
    """The merged change where enough tasks rely on it.

    Args:
        changes: T changes, each of one shape, float32, not changed.
        thresholds: one per expert.
        agreement: how many tasks must rely on a parameter, 0 to T; more than T keeps none.
        merged: m; the sum of the changes where None.

    Returns:
        float32 of the same shape, before lambda; NaN where m is NaN.
    """
    if merged is None:
        merged = add_up(changes, [1.0] * len(changes))
    votes = torch.zeros_like(merged, dtype=torch.int32)
    for change, threshold in zip(changes, thresholds, strict=True):
        votes += mask(change, merged, threshold)
    return merged * (votes >= agreement)


THRESHOLD = Knob(
    "threshold",
    "Threshold",
    0.4,
    "The higher, the fewer parameters a task relies on; the paper tries 0.2 to 0.6.",
    low=0.0,
    high=2.0,
    step=0.05,
    per_model=True,
    scheduled=True,
)
TASK = Knob(
    "task",
    "Task",
    1,
    "Which expert's task the result is for.",
    low=1,
    high=256,
    step=1,
    unit="place in the recipe, from 1",
    is_place=True,
)


def decide(recipe: Recipe, reader: Reader, decisions: Sequence[Decision], evidence: None) -> Relied:
    """Consensus merging, element by element; the sum is weighted."""
    weights = recipe.weights_at(reader.entry)
    thresholds = [source.at("threshold", reader.entry) for source in recipe.sources]
    agreement = recipe.parameters["agreement"]
    return Relied(weights, tuple(thresholds), agreement)


def decide_task(
    recipe: Recipe, reader: Reader, decisions: Sequence[Decision], evidence: None
) -> Relied:
    """One task's share of the sum, element by element."""
    index = recipe.parameters["task"] - 1
    weights = recipe.weights_at(reader.entry)
    thresholds = tuple(source.at("threshold", reader.entry) for source in recipe.sources)
    return Relied(weights, thresholds, 1, index)


def share(recipe: Recipe, passes: Passes, pruning: Pruning) -> Shares:
    """The sum times lambda, and every task's mask."""

    def split(
        reader: Reader, deltas: Sequence[torch.Tensor]
    ) -> tuple[torch.Tensor, list[torch.Tensor]]:
        entry = reader.entry
        merged = add_up(deltas, recipe.weights_at(entry))
        masks = [
            mask(delta, merged, source.at("threshold", entry))
            for delta, source in zip(deltas, recipe.sources, strict=True)
        ]
        return merged * recipe.at("lambda", entry), masks

    return Shares([1.0] * len(recipe.sources), split)


def check_task(recipe: Recipe, entries: Sequence[Entry]) -> Sequence[str]:
    """The task is one of the recipe's models."""
    asked, count = recipe.parameters["task"], len(recipe.sources)
    if asked > count:
        raise RecipeError(
            f"task: {asked} is asked for, the recipe has {count} models; count from 1"
        )
    if asked > 1 and recipe.parameters[CONTAINER.name]:
        return (f"task: {asked} has no effect, a container holds every task",)
    return ()


_PAPER = "Wang et al. 2024, Localizing Task Information (TALL-masks)"
_URL = "https://arxiv.org/abs/2405.07813"
METHODS = (
    Consensus(
        id="consensus_ta",
        title="Consensus",
        summary="Add changes, but only where enough experts rely on the sum.",
        formula="[sum_t M_t >= agreement] * m, M_t = |delta_t| > threshold |m - delta_t|",
        paper=_PAPER,
        url=_URL,
        words="Add them up where at least {agreement} of them rely on the sum.",
        decide=decide,
        needs_all=True,
        unpredicted="Who relies on what, only the merge can tell.",
        knobs=(
            WEIGHT,
            LAMBDA,
            THRESHOLD,
            Knob(
                "agreement",
                "Agreement",
                2,
                "How many experts must rely on a parameter: 2 in the paper, 1 for two or three.",
                low=0,
                high=256,
                step=1,
            ),
        ),
    ),
    Consensus(
        id="tall_masks",
        title="TALL-masks",
        summary="Take from the sum what one task relies on.",
        formula="M_t * sum_t delta_t, M_t = |delta_t| > threshold |m - delta_t|",
        paper=_PAPER,
        url=_URL,
        words="Add them up, and keep what {task} relies on.",
        decide=decide_task,
        check=check_task,
        share=share,
        needs_all=True,
        unpredicted="What a task relies on, only the merge can tell.",
        knobs=(WEIGHT, LAMBDA, THRESHOLD, TASK, CONTAINER),
    ),
)

PRESETS = (
    Preset(
        id="consensus_ta",
        title="Consensus merging",
        group="apart",
        place=2,
        consensus="consensus_ta",
        summary="Drops what only one expert relies on, adds the rest.",
        use_when="Many experts in one model; strength about 0.4, of few experts with agreement 1.",
        shown={"lambda": 0.4, "agreement": 1},
    ),
    Preset(
        id="tall_masks",
        title="TALL-masks",
        group="apart",
        place=1,
        consensus="tall_masks",
        summary="Takes one task's share out of the sum of all.",
        use_when="One model per task, all from one merged change.",
    ),
)
