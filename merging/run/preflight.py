"""Everything that can be said of a recipe before a weight is read, from headers alone."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from merging import kinship
from merging.checkpoints import Checkpoint, Entry, Family, open_family
from merging.checkpoints.output import located
from merging.declarations.schedules import Rule
from merging.errors import FamilyMismatch, MergeError, RecipeError
from merging.kinship import Problem
from merging.methods import PRUNERS, RULES
from merging.recipe import Recipe
from merging.recipe.places import line_about, placed
from merging.recipe.stages import needed
from merging.run import space
from merging.run.container import specs_of
from merging.run.opening import check_layers, open_models
from merging.run.promises import promise
from merging.sketches.foresight import foresee


@dataclass(frozen=True)
class Report:
    """The preflight's result.

    Attributes:
        account: one entry per tensor; empty where the family could not be opened.
        disk_bytes: bytes the output will take.
        memory_bytes: estimated peak memory of the merge.
    """

    problems: tuple[Problem, ...]
    account: tuple[Entry, ...] = field(repr=False)
    disk_bytes: int
    memory_bytes: int

    @property
    def ok(self) -> bool:
        """True where nothing stops the merge."""
        return not any(problem.severity == "error" for problem in self.problems)


def open_recipe(recipe: Recipe, results: Mapping[str, Checkpoint] | None = None) -> Family:
    """Opens the base and the experts that a recipe names.

    Args:
        results: models that are open already, by reference.

    Raises:
        FamilyMismatch: they do not belong together (see `merging.kinship`).
        BadCheckpoint, UnsafeFile, ModelNotFound, RecipeError: as `check` says them.
    """
    stages = needed(recipe).stages
    if stages and not results:
        named = ", ".join(name for name, _ in stages)
        raise RecipeError(
            f"the recipe uses the results of others ({named}): merge it first (amalgam merge)"
        )
    base, *experts = open_models(recipe, results)
    with placed(recipe.lines):
        _refuse(recipe, kinship.compare(recipe, base, experts))
        family = open_family(base, experts, recipe.keep_base)
        _refuse(recipe, kinship.account(recipe, family))
        check_layers(recipe, family.base)
        _check_methods(recipe, family)
    return family


def check(
    recipe: Recipe,
    out: Path | None = None,
    *,
    overwrite: bool = False,
    sketches: Path | None = None,
) -> Report:
    """Preflight: every problem there is, from headers alone. Stages that the result does not depend
    on are not looked at.

    Args:
        out: where the merge would go, to check its disk; None to skip that.
        sketches: folder of what scans kept, to foresee what is kept; None to skip that.
    """
    problems: list[Problem] = []
    promises: dict[str, Checkpoint] = {}
    disk = memory = 0
    recipe = needed(recipe)
    for name, stage in recipe.stages:
        remarks, _, family = _looked_at(stage, promises, None)
        problems += [replace(one, where=f"{name}: {one.where}") for one in remarks]
        if family is None:
            return Report(tuple(dict.fromkeys(problems)), (), disk, memory)
        disk += space.disk_bytes(specs_of(family, stage))
        memory = max(memory, space.memory_bytes(family, stage))
        promises[name] = promise(name, stage, family)
    remarks, models, family = _looked_at(recipe, promises, None if promises else sketches)
    problems += remarks
    if family is not None:
        disk += space.disk_bytes(specs_of(family, recipe))
        memory = max(memory, space.memory_bytes(family, recipe))
    if out is not None:
        problems += space.output_problems(located(out), models, disk, overwrite)
    account = family.account if family else ()
    return Report(tuple(dict.fromkeys(problems)), account, disk, memory)


def _looked_at(
    recipe: Recipe, results: Mapping[str, Checkpoint], sketches: Path | None
) -> tuple[list[Problem], list[Checkpoint], Family | None]:
    """What there is to say of one recipe, its models, and its family; None where it has none."""
    problems = [
        Problem("warning", "recipe", note, line=line_about(recipe.lines, note))
        for note in recipe.notes
    ]

    def refuse(reference: str, error: MergeError) -> None:
        problems.append(Problem("error", reference, error.reason, "models", error.line))

    models: list[Checkpoint] = []
    try:
        models = open_models(recipe, results, refuse)
    except MergeError as error:
        refuse("models", error)
    if not models:
        return problems, models, None
    family, remarks = _family_and_remarks(recipe, models, sketches)
    return [*problems, *(_placed(recipe, one) for one in remarks)], models, family


def _placed(recipe: Recipe, problem: Problem) -> Problem:
    """The problem with the line of the model or the key that it is about."""
    line = problem.line or recipe.lines.get(problem.where)
    if line is None and problem.kind in ("recipe", "models"):
        line = line_about(recipe.lines, problem.message)
    return replace(problem, line=line)


def idle_filters(recipe: Recipe, family: Family) -> tuple[str, ...]:
    """A note for every filter of the recipe that no merged tensor answers to."""
    names = [entry.name for entry in family.merged]
    rules: dict[tuple[str, int], Rule] = {}
    for schedule in recipe.schedules:
        rules |= {(rule.filter, rule.shift): rule for rule in schedule.rules if rule.filter != "*"}
    answered = {
        rule.filter
        for rule in rules.values()
        if any(rule.filter in rule.named(name) for name in names)
    }
    return tuple(
        f"filter {text!r} is in no merged tensor's name: its values are never used"
        for text in dict.fromkeys(text for text, _ in rules)
        if text not in answered
    )


def _refuse(recipe: Recipe, problems: Iterable[Problem]) -> None:
    """Raises FamilyMismatch for the first error."""
    for problem in problems:
        if problem.severity == "error":
            problem = _placed(recipe, problem)
            raise FamilyMismatch(problem.text, line=problem.line)


def _family_and_remarks(
    recipe: Recipe, models: list[Checkpoint], sketches: Path | None
) -> tuple[Family | None, list[Problem]]:
    """The family, None where the models are none, and what there is to say of it."""
    remarks: list[Problem] = []
    try:
        remarks += kinship.compare(recipe, models[0], models[1:])
        if any(problem.severity == "error" for problem in remarks):
            return None, remarks
        family = open_family(models[0], models[1:], recipe.keep_base)
        remarks += kinship.account(recipe, family)
        check_layers(recipe, family.base)
    except MergeError as error:
        return None, [*remarks, Problem("error", "models", error.reason, "models", error.line)]
    try:
        _check_methods(recipe, family)
        remarks += [Problem("warning", "recipe", note) for note in idle_filters(recipe, family)]
        remarks += foresee(recipe, family, sketches) if sketches else []
    except MergeError as error:
        remarks.append(Problem("error", "recipe", error.reason, line=error.line))
    return family, remarks


def _check_methods(recipe: Recipe, family: Family) -> None:
    """Raises RecipeError where the recipe's methods cannot work on these tensors."""
    for method in (PRUNERS[recipe.prune], RULES[recipe.consensus]):
        method.check(recipe, family.merged)
