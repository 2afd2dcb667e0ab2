"""EMR-Merging: one unified change, and for every task a bit mask and one number.

Source: Huang et al., EMR-Merging: Tuning-Free High-Performance Model Merging, arXiv 2405.17461,
section 3 (elect, mask, rescale). For the changes tau_t of T experts:

    gamma  = sgn(sum_t tau_t)                                  the elected sign, per parameter
    u      = gamma * max over t with sgn(tau_t) = gamma of |tau_t|, 0 where there is none
    M_t    = [tau_t * u > 0]
    lambda_t = sum |tau_t| / sum |M_t * u|, over the whole model; 0 where the divisor is 0
    task t = base + lambda_t * M_t * u

`rescale` names what the sums run over. element: all parameters alike (the paper, and its code for
30 tasks). tensor_mean: the means of all tensors, each tensor alike whatever its size (the code
behind the paper's other tables). none: lambda_t = 1.

Where we differ: the released code takes a sum of 0 as negative, so that of exact opposites the
negative one survives; by default nobody is elected there, as in the paper, and
`zero_sign: negative` is the code's rule. A task equal to the base has lambda 0 (0 / 0 there).
Masks compare signs and multiply nothing, so that tiny changes do not vanish. A task is always made
from the base, never from another task, and rounded once.

The result is one task's model, or, with `container`, u, all masks and rescalers, from which
`amalgam materialise` makes any task's (`checkpoints.container`). u is kept in float32: every entry
is one of the changes, and a difference of bfloat16 numbers need not be one.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from merging.declarations.knobs import CONTAINER, LAMBDA, WEIGHT, Knob
from merging.declarations.measures import Passes, Reader
from merging.declarations.methods import Consensus, Evidence, Preset, Pruning, Shares
from merging.declarations.values import Recipe
from merging.errors import NonFinite
from merging.instructions import Decision, Unified, masks
from merging.later import torch
from merging.methods.tall import TASK, check_task

RESCALES = ("element", "tensor_mean", "none")
ZERO_SIGNS = ("none", "negative")


@dataclass(frozen=True)
class Sums:
    """What one tensor, or a chunk of it, adds to one task's rescaler."""

    change: float  # sum |tau_t|
    masked: float  # sum |M_t * u|
    count: int  # parameters

    def __add__(self, other: Sums) -> Sums:
        masked = self.masked + other.masked
        return Sums(self.change + other.change, masked, self.count + other.count)


def unified(changes: Sequence[torch.Tensor], zero_sign: str = "none") -> torch.Tensor:
    """u, the unified change of one chunk, see `masks.unified`; zero_sign: one of `ZERO_SIGNS`."""
    return masks.unified(changes, zero_sign == "negative")


def mask(change: torch.Tensor, union: torch.Tensor) -> torch.Tensor:
    """M_t: where a task's change has the sign of the unified change. bool, of the same shape."""
    return masks.has_sign_of(change, union)


def sums(change: torch.Tensor, union: torch.Tensor) -> Sums:
    """What one chunk adds to a task's rescaler, in float64: chunks add up by `+`.

    Args:
        change: tau_t; union: u of the same chunk, float32.
    """
    masked = mask(change, union) * union  # NaN * 0 is NaN
    return Sums(
        float(change.abs().sum(dtype=torch.float64)),
        float(masked.abs().sum(dtype=torch.float64)),
        change.numel(),
    )


def rescaler(tensors: Sequence[Sums], rescale: str = "element") -> float:
    """lambda_t of one task.

    Args:
        tensors: the sums of each of the model's merged tensors.
        rescale: one of `RESCALES`.

    Returns:
        A factor >= 0: below 1 as a rule, above 1 where the mask leaves much out; NaN for NaN.
    """
    if rescale == "none":
        return 1.0
    sizes = [1 if rescale == "element" else one.count for one in tensors]
    change = sum(one.change / size for one, size in zip(tensors, sizes, strict=True) if size)
    masked = sum(one.masked / size for one, size in zip(tensors, sizes, strict=True) if size)
    return change / masked if masked != 0 else 0.0


def task(
    base: torch.Tensor, union: torch.Tensor, bits: torch.Tensor, factor: float
) -> torch.Tensor:
    """One task's parameters: base + factor * M_t * u.

    Args:
        base, union: float32 of one shape, not changed.
        bits: M_t, bool of that shape.
        factor: lambda_t.

    Returns:
        float32 of that shape.
    """
    return base + bits * union * factor


def _share(recipe: Recipe, reader: Reader, task: int, scale: float = 1.0) -> Unified:
    negative = recipe.parameters["zero_sign"] == "negative"
    return Unified(recipe.weights_at(reader.entry), task, scale, negative)


def measure(recipe: Recipe, passes: Passes, pruning: Pruning) -> Evidence:
    """The task's rescaler, over the whole model."""
    return Evidence(_rescalers(recipe, passes, pruning, [recipe.parameters["task"] - 1])[0])


def share(recipe: Recipe, passes: Passes, pruning: Pruning) -> Shares:
    """The unified change, and every task's mask and rescaler."""
    zero_sign = recipe.parameters["zero_sign"]

    def split(
        reader: Reader, deltas: Sequence[torch.Tensor]
    ) -> tuple[torch.Tensor, list[torch.Tensor]]:
        weighted = masks.weigh(deltas, recipe.weights_at(reader.entry))
        union = unified(weighted, zero_sign)
        return union, [mask(change, union) for change in weighted]

    return Shares(_rescalers(recipe, passes, pruning, range(len(recipe.sources))), split)


def _rescalers(
    recipe: Recipe, passes: Passes, pruning: Pruning, tasks: Sequence[int]
) -> list[float]:
    """lambda_t of some tasks."""
    rescale = recipe.parameters["rescaler"]
    if rescale == "none":
        return [1.0] * len(tasks)

    def sums_of(reader: Reader) -> list[Sums]:
        decisions = pruning(reader)
        shares = [_share(recipe, reader, task) for task in tasks]
        return [Sums(*reader.unified_norms(decisions, one), reader.numel) for one in shares]

    tensors = passes.map(sums_of)
    factors = [rescaler(of_task, rescale) for of_task in zip(*tensors, strict=True)]
    if not np.isfinite(factors).all():
        raise NonFinite("a value is NaN or infinite")
    return factors


def decide(recipe: Recipe, reader: Reader, decisions: Sequence[Decision], scale: float) -> Unified:
    """The task's share of the unified change, rescaled."""
    return _share(recipe, reader, recipe.parameters["task"] - 1, scale)


METHODS = (
    Consensus(
        id="emr",
        title="EMR-Merging",
        summary="One unified change; each task takes its share of it, rescaled.",
        formula="lambda_t * [delta_t u > 0] * u, u the largest change with the elected sign",
        paper="Huang et al. 2024, EMR-Merging",
        url="https://arxiv.org/abs/2405.17461",
        words="Elect one unified change, and take {task}'s share of it.",
        passes=lambda recipe: int(recipe.parameters["rescaler"] != "none"),
        measure=measure,
        measures=lambda recipe: True,
        decide=decide,
        check=check_task,
        share=share,
        needs_all=True,
        unpredicted="What a task takes of the unified change, only the merge can tell.",
        knobs=(
            WEIGHT,
            LAMBDA,
            TASK,
            Knob(
                "rescaler",
                "Rescale",
                "element",
                "element: all parameters alike (paper). tensor_mean: all tensors alike. none.",
                choices=RESCALES,
            ),
            Knob(
                "zero_sign",
                "Exact opposites",
                "none",
                "none: nobody is elected. negative: the negative change is (authors' code).",
                choices=ZERO_SIGNS,
            ),
            CONTAINER,
        ),
    ),
)

PRESETS = (
    Preset(
        id="emr",
        title="EMR-Merging",
        group="apart",
        place=0,
        consensus="emr",
        summary="Keeps one unified change, a mask and a number per task.",
        use_when="Every task should stay as good as its expert.",
    ),
)
