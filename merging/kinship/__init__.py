"""Which models belong together: configs, tokenizers, templates and tensors, compared as data.

`compare` needs the models' small files and headers alone, `account` a family that was matched. Both
return `Problem`s: errors where a merge would make no sense, warnings where the result may not be
what its experts are, notes for what is good to know.
"""

from __future__ import annotations

from collections.abc import Sequence

from merging.checkpoints import Checkpoint, Family, views
from merging.checkpoints.aliases import named_as, without_wrapper
from merging.declarations.schedules import Schedule
from merging.kinship import chat, configs, tensors, tokenizers
from merging.kinship.problem import Problem
from merging.recipe import Recipe


def compare(recipe: Recipe, base: Checkpoint, experts: Sequence[Checkpoint]) -> list[Problem]:
    """What the models of a recipe disagree in.

    Args:
        experts: in the order of the recipe's sources.
    """
    giver = giver_of(recipe, base, experts)
    originals = list(views.originals((base, *experts)))
    found = [*tensors.adapters(originals), *configs.compare(base, experts)]
    if base.parts:  # one by one, whatever is stacked on what
        base, *experts = views.members((base, *experts))
        giver = next(one for one in (base, *experts) if one.name == giver.name)
        found += configs.compare(base, experts)
    if not any(problem.severity == "error" for problem in found):
        root = without_wrapper(base)
        found += tensors.layers(root, [named_as(root, expert) for expert in experts])
    if errors := [problem for problem in found if problem.severity == "error"]:
        return errors  # of what is no family, more need not be said
    tuned = [expert for expert in experts if expert.folder != base.folder]
    found += tokenizers.compare(base, tuned, giver)
    found = list(dict.fromkeys(found))
    return [*found, *chat.compare(base, tuned, giver, recipe.chat_template)]


def account(recipe: Recipe, family: Family) -> list[Problem]:
    """What the matched tensors say: shapes, rows, what is missing, what the recipe leaves out."""
    return [*tensors.account(family), *_idle(recipe, family)]


def giver_of(recipe: Recipe, base: Checkpoint, experts: Sequence[Checkpoint]) -> Checkpoint:
    """The model whose tokenizer, templates and generation settings the result gets."""
    if recipe.blueprint is not None:
        named = (one for one in views.originals((base, *experts)) if one.name == recipe.tokenizer)
        return next(named, next(views.originals((base,))))
    pairs = zip(recipe.sources, experts, strict=True)
    return next((expert for source, expert in pairs if source.gives_tokenizer), base)


def _idle(recipe: Recipe, family: Family) -> list[Problem]:
    """Notes on values that are 0 for every tensor: what they hold for changes nothing."""
    entries = family.merged
    found = []

    def is_zero(schedule: Schedule) -> bool:
        return bool(entries) and not any(
            schedule.at(entry.name, entry.place.layer, entry.place.depth) for entry in entries
        )

    for source in recipe.sources:
        for key, value in (("weight", source.weight), ("density", source.density)):
            if is_zero(value):
                text = f"{key} is 0 for every tensor: nothing of it goes into the result"
                found.append(Problem("note", source.model, text))
        if not any(source.amplification):
            text = "amplification is 0 for every partition: nothing of it goes into the result"
            found.append(Problem("note", source.model, text))
    if is_zero(recipe.strength):
        found.append(Problem("note", "lambda", "lambda is 0: the result is the base"))
    elif found and len({problem.where for problem in found}) == len(recipe.sources):
        found.append(
            Problem("note", "models", "no model's changes are used: the result is the base")
        )
    return found


__all__ = ["Problem", "account", "compare", "giver_of"]
