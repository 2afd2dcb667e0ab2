"""A recipe lowered to instructions: what was measured over the model, then tensor by tensor."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass, field

from merging.declarations.measures import Passes, Reader
from merging.declarations.methods import (
    Blend,
    Consensus,
    Evidence,
    Method,
    Pruned,
    Pruning,
    Shares,
)
from merging.declarations.values import Recipe
from merging.instructions import Decision, Outcome
from merging.methods import PRUNERS, RULES


def passes(recipe: Recipe) -> int:
    """How many times `lower` reads the model, at most."""
    return PRUNERS[recipe.prune].passes(recipe) + RULES[recipe.consensus].passes(recipe)


@dataclass(frozen=True)
class Lowering:
    """A recipe measured over one family.

    What becomes of tensors that are alike (`Method.uniform`) is decided once, and is one object.

    Attributes:
        pruning, evidence: what its two methods found out about the whole model.
    """

    recipe: Recipe
    pruning: Evidence
    evidence: Evidence
    _pruned: dict[int, Pruned] = field(default_factory=dict, repr=False)
    _outcomes: list[Outcome] = field(default_factory=list, repr=False)

    @property
    def notes(self) -> tuple[str, ...]:
        """What the user should know of this family."""
        methods = PRUNERS[self.recipe.prune], RULES[self.recipe.consensus]
        both = zip(methods, (self.pruning, self.evidence), strict=True)
        return tuple(
            note for method, one in both for note in (*one.notes, *method.afterwards(one.values))
        )

    def prune(self, reader: Reader) -> Pruned:
        """What becomes of every expert's changes of one tensor."""
        pruner = PRUNERS[self.recipe.prune]
        if not (reader.finds_cuts and self._is_uniform(pruner)):
            return pruner.decide(self.recipe, reader, self.pruning.values)
        if reader.numel not in self._pruned:
            pruned = pruner.decide(self.recipe, reader, self.pruning.values)
            self._pruned[reader.numel] = pruned
        return self._pruned[reader.numel]

    def combine(self, reader: Reader, decisions: Sequence[Decision]) -> Outcome:
        """How they become one tensor."""
        rule = RULES[self.recipe.consensus]
        if not self._is_uniform(rule):
            return self._combined(rule, reader, decisions)
        if not self._outcomes:
            self._outcomes.append(self._combined(rule, reader, decisions))
        return self._outcomes[0]

    def _combined(
        self, rule: Consensus | Blend, reader: Reader, decisions: Sequence[Decision]
    ) -> Outcome:
        if not isinstance(rule, Consensus):
            return rule.decide(self.recipe, reader, self.evidence.values)
        combination = rule.decide(self.recipe, reader, decisions, self.evidence.values)
        strength = (
            self.recipe.at("lambda", reader.entry) if "lambda" in self.recipe.parameters else 1.0
        )
        return Outcome(combination, strength)

    def _is_uniform(self, method: Method) -> bool:
        return self._is_constant and method.uniform(self.recipe)

    @functools.cached_property
    def _is_constant(self) -> bool:
        return all(schedule.constant is not None for schedule in self.recipe.schedules)

    def decide(self, reader: Reader) -> tuple[Sequence[Decision], Outcome]:
        """Everything the merge of one tensor needs to know."""
        decisions = self.prune(reader).decisions
        return decisions, self.combine(reader, decisions)


def lower(recipe: Recipe, family: Passes) -> Lowering:
    """Measures what a recipe's methods need to know of the whole model.

    Raises:
        NonFinite: a value is NaN or infinite.
    """
    pruner, rule = PRUNERS[recipe.prune], RULES[recipe.consensus]
    family.cuts_may_wait = not (isinstance(rule, Consensus) and rule.measures(recipe))
    pruned = pruner.measure(recipe, family)
    if isinstance(rule, Consensus):
        at_work = _at_work(recipe, pruned)
        return Lowering(recipe, pruned, rule.measure(recipe, family, at_work))
    return Lowering(recipe, pruned, rule.measure(recipe, family))


def lower_shares(recipe: Recipe, family: Passes) -> tuple[Pruning, Shares]:
    """As `lower`, where a recipe asks for a container: how changes are pruned, and what becomes of
    them."""
    rule = RULES[recipe.consensus]
    assert isinstance(rule, Consensus) and rule.share is not None
    family.cuts_may_wait = False
    at_work = _at_work(recipe, PRUNERS[recipe.prune].measure(recipe, family))
    return at_work, rule.share(recipe, family, at_work)


def _at_work(recipe: Recipe, pruned: Evidence) -> Pruning:
    pruner = PRUNERS[recipe.prune]
    return Pruning(pruner.law, lambda reader: pruner.decide(recipe, reader, pruned.values))
