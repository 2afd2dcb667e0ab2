"""A recipe lowered to instructions: what was measured over the model, then tensor by tensor."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from merging.declarations.measures import Passes, Reader
from merging.declarations.methods import Consensus, Evidence, Pruned, Pruning, Shares
from merging.declarations.values import Recipe
from merging.instructions import Decision, Outcome
from merging.methods import PRUNERS, RULES


def passes(recipe: Recipe) -> int:
    """How many times `lower` reads the model, at most."""
    return PRUNERS[recipe.prune].passes(recipe) + RULES[recipe.consensus].passes(recipe)


@dataclass(frozen=True)
class Lowering:
    """A recipe measured over one family.

    Attributes:
        pruning, evidence: what its two methods found out about the whole model.
    """

    recipe: Recipe
    pruning: Evidence
    evidence: Evidence

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
        return PRUNERS[self.recipe.prune].decide(self.recipe, reader, self.pruning.values)

    def combine(self, reader: Reader, decisions: Sequence[Decision]) -> Outcome:
        """How they become one tensor."""
        rule = RULES[self.recipe.consensus]
        if not isinstance(rule, Consensus):
            return rule.decide(self.recipe, reader, self.evidence.values)
        combination = rule.decide(self.recipe, reader, decisions, self.evidence.values)
        strength = (
            self.recipe.at("lambda", reader.entry) if "lambda" in self.recipe.parameters else 1.0
        )
        return Outcome(combination, strength)

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
