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
from merging.kinship.fit import misfit, other_vocabulary
from merging.kinship.problem import Problem
from merging.recipe import Recipe


def compare(recipe: Recipe, base: Checkpoint, experts: Sequence[Checkpoint]) -> list[Problem]:
    """What the models of a recipe disagree in.

    Args:
        experts: in the order of the recipe's sources.
    """
    giver = giver_of(recipe, base, experts)
    originals = list(views.originals((base, *experts)))
    problems = [*tensors.adapters(originals), *configs.compare(base, experts)]
    if base.parts:  # one by one, whatever is stacked on what
        base, *experts = views.members((base, *experts))
        giver = next(model for model in (base, *experts) if model.name == giver.name)
        problems += configs.compare(base, experts)
    if not any(problem.severity == "error" for problem in problems):
        root = without_wrapper(base)
        problems += tensors.layers(root, [named_as(root, expert) for expert in experts])
    if errors := [problem for problem in problems if problem.severity == "error"]:
        return errors  # of what is no family, more need not be said
    tuned = [expert for expert in experts if expert.folder != base.folder]
    problems += tokenizers.compare(base, tuned, giver)
    problems = list(dict.fromkeys(problems))
    return [*problems, *chat.compare(base, tuned, giver, recipe.chat_template)]


def account(recipe: Recipe, family: Family) -> list[Problem]:
    """What the matched tensors say: shapes, rows, what is missing, what the recipe leaves out."""
    return [*tensors.account(family), *_idle(recipe, family)]


def giver_of(recipe: Recipe, base: Checkpoint, experts: Sequence[Checkpoint]) -> Checkpoint:
    """The model whose tokenizer, templates and generation settings the result gets."""
    if recipe.blueprint is not None:
        named = (
            model for model in views.originals((base, *experts)) if model.name == recipe.tokenizer
        )
        return next(named, next(views.originals((base,))))
    pairs = zip(recipe.sources, experts, strict=True)
    return next((expert for source, expert in pairs if source.gives_tokenizer), base)


def _idle(recipe: Recipe, family: Family) -> list[Problem]:
    """Notes on values that are 0 for every tensor: what they hold for changes nothing."""
    entries = family.merged
    notes = []

    def is_zero(schedule: Schedule) -> bool:
        return bool(entries) and not any(
            schedule.at(entry.name, entry.place.layer, entry.place.depth) for entry in entries
        )

    for source in recipe.sources:
        for key, value in (("weight", source.weight), ("density", source.density)):
            if is_zero(value):
                text = f"{key} is 0 for every tensor: nothing of it goes into the result"
                notes.append(Problem("note", source.model, text))
        if not any(source.amplification):
            text = "amplification is 0 for every partition: nothing of it goes into the result"
            notes.append(Problem("note", source.model, text))
    if is_zero(recipe.strength):
        notes.append(Problem("note", "lambda", "lambda is 0: the result is the base"))
    elif notes and len({problem.where for problem in notes}) == len(recipe.sources):
        notes.append(
            Problem("note", "models", "no model's changes are used: the result is the base")
        )
    return notes


__all__ = ["Problem", "account", "compare", "giver_of", "misfit", "other_vocabulary"]
