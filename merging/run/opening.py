"""The models of a recipe, opened: each as it is, or stacked as the recipe's slices say."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from merging.checkpoints import Checkpoint, open_checkpoint, resolve, views
from merging.checkpoints.aliases import named_as, without_wrapper
from merging.checkpoints.checkpoint import Part
from merging.checkpoints.layout import depths, text_depths
from merging.errors import MergeError, RecipeError
from merging.recipe import Recipe
from merging.recipe.places import placed
from merging.recipe.references import models_of


def raised(reference: str, error: MergeError) -> None:
    """Raises what a model cannot be opened for."""
    raise error


def open_models(
    recipe: Recipe,
    models: Mapping[str, Checkpoint] | None = None,
    refuse: Callable[[str, MergeError], None] = raised,
) -> list[Checkpoint]:
    """The base and the experts that a recipe names, by their headers.

    Args:
        models: models that are open already, by reference.
        refuse: told of every model that cannot be opened. Where it does not raise, nothing is
            returned.

    Raises:
        BadCheckpoint, UnsafeFile, ModelNotFound: see `open_checkpoint`.
        RecipeError: slices name layers that a model lacks.
    """
    opened = dict(models or {})
    references = models_of(recipe)
    for reference in references:
        if reference in opened:
            continue
        try:
            opened[reference] = open_checkpoint(resolve(reference, recipe.folder), reference)
        except MergeError as error:
            error.line = recipe.lines.get(reference)
            refuse(reference, error)
    if any(reference not in opened for reference in references):
        return []
    with placed(recipe.lines):
        return _stacked(recipe, opened)


def check_layers(recipe: Recipe, base: Checkpoint) -> None:
    """Raises RecipeError where a slice of whole models names more layers than there are."""
    counts = _depths(base)
    if recipe.layers is None or recipe.layers in counts or base.parts:
        return
    layers = " and ".join(map(str, sorted(set(counts))))
    raise RecipeError(
        f"slices: layer_range [0, {recipe.layers}] is not all of {base.name}, which has "
        f"{layers} layers; write [0, {max(counts)}]",
        line=recipe.lines.get("slices"),
    )


def _stacked(recipe: Recipe, opened: Mapping[str, Checkpoint]) -> list[Checkpoint]:
    blueprint, names = recipe.blueprint, [recipe.base, *(one.model for one in recipe.sources)]
    if blueprint is None:
        models = [opened[name] for name in names]
        layers = recipe.layers or 0
        if not _leaves_layers_out(models[0], layers):
            return models
        models = _by_one_base(models)
        pairs = zip(names, models, strict=True)
        return [views.stacked(name, [Part(model, 0, layers)]) for name, model in pairs]
    models = _by_one_base([opened[name] for name in blueprint.models])
    by_name = dict(zip(blueprint.models, models, strict=True))
    columns = [blueprint.base]
    for column in blueprint.sources:  # what a slice does not list is there as the base has it
        columns.append(tuple(one or base for one, base in zip(column, blueprint.base, strict=True)))
    return [
        views.stacked(name, [Part(by_name[one.model], one.start, one.stop) for one in column])
        for name, column in zip(names, columns, strict=True)
    ]


def _by_one_base(models: list[Checkpoint]) -> list[Checkpoint]:
    """The models with their tensors under the names that the first has."""
    root = without_wrapper(models[0])
    return [root, *(named_as(root, model) for model in models[1:])]


def _leaves_layers_out(base: Checkpoint, layers: int) -> bool:
    counts = _depths(base)
    return 0 < layers < min(counts, default=0) and len(set(counts)) == 1


def _depths(base: Checkpoint) -> list[int]:
    """The numbers of layers that a slice of whole models may name."""
    return text_depths(depths(base.tensors)) or [0]
