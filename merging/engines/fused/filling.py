"""What the loops must know of decisions and outcomes, as C structures."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from merging import kernels
from merging.instructions import (
    Combination,
    Competition,
    Decision,
    Eager,
    Election,
    Outcome,
    Ranked,
    Relied,
    Rings,
    Selected,
    Shared,
    Sum,
    Unified,
    sums,
)
from merging.instructions.masks import Masks
from merging.selection.tied import RUN

_COMPETITIONS = {"reference": 1, "nlp": 1, "vision": 2, "pairwise": 3}
_MASKS: dict[type, int] = {Selected: 1, Unified: 2, Relied: 3, Shared: 4}


def fill_rings(expert: kernels.Expert, rings: Rings, start: int, stop: int) -> None:
    ((_, _, bounds),) = rings.pieces(start, stop)
    expert.rings = len(bounds)
    expert.parted = any(bound.ties for bound in bounds)
    expert.first = (rings.offset + start) % RUN
    for k, (bound, factor) in enumerate(zip(bounds, rings.factors, strict=True)):
        expert.lower[k], expert.upper[k], expert.ties[k] = bound
        expert.factor[k] = factor


def runs(decisions: Sequence[Decision] | None, outcome: Outcome | None = None) -> bool:
    """True where the loops have every step of a tensor's merge."""
    steps: list[object] = [*(decisions or ())]
    if outcome is not None:
        steps += [outcome.combination, outcome.blend]
    return not any(
        isinstance(step, Eager) or (isinstance(step, Ranked) and step.by_chance) for step in steps
    )


def offset_of(decisions: Sequence[Decision] | None) -> int:
    """Where the tensor begins in the scope of its cuts."""
    return max((one.offset for one in decisions or () if isinstance(one, Rings)), default=0)


def take_part(experts: Any, game: Competition) -> None:
    """Marks the active experts, with their bounds."""
    for index, bounds in zip(game.active, game.bounds, strict=True):
        expert = experts[index]
        expert.active, expert.low, expert.high = 1, bounds.low, bounds.high
        expert.threshold, expert.top = bounds.threshold, bounds.top


def rule_of(outcome: Outcome) -> kernels.Rule:
    combination: Combination = outcome.combination
    rule = kernels.Rule(
        zero_is_positive=1, divisor=1.0, strength=outcome.strength, base_weight=outcome.base_weight
    )
    if isinstance(combination, Election):
        rule.ties, rule.normalize = 1, int(combination.normalize)
        rule.zero_is_positive = int(combination.zero_is_positive)
    elif isinstance(combination, Sum):
        rule.divisor = sums.divisor(combination.weights, combination.normalize)
    elif isinstance(combination, Selected | Unified | Relied | Shared):
        _fill_masks(rule, combination)
    else:
        assert isinstance(combination, Competition)  # see `runs`
        rule.competition = _COMPETITIONS[combination.variant]
    return rule


def _fill_masks(rule: kernels.Rule, combination: Masks) -> None:
    rule.masks = _MASKS[type(combination)]
    if isinstance(combination, Unified):
        rule.task, rule.scale = combination.task, combination.scale
        rule.zero_is_negative = int(combination.zero_is_negative)
    elif isinstance(combination, Relied):
        rule.task = -1 if combination.task is None else combination.task
        rule.agreement = combination.agreement
    elif isinstance(combination, Shared):
        rule.epsilon = combination.epsilon
