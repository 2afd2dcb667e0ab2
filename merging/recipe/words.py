"""A recipe in a few sentences of plain words."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping

from merging.checkpoints.names import short_names
from merging.declarations.methods import Blend, Consensus
from merging.declarations.schedules import Schedule, is_number
from merging.declarations.values import Recipe, Source
from merging.methods import PRUNERS, RULES
from merging.recipe.references import models_of, with_models

_SOMEWHERE = "{} (in parts of the model: average)"
"""How changes are joined, where that varies along the model."""


def describe(recipe: Recipe, called: Mapping[str, str] | None = None) -> str:
    """The recipe in a few sentences.

    Args:
        called: what each model is called, by its reference; by default the shortest names that
            tell the recipe's own models apart.
    """
    recipe = _by_names(recipe, called)
    names = [source.model for source in recipe.sources]
    listed = names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"
    rule = RULES[recipe.consensus]
    if isinstance(rule, Blend):
        parts = [f"Take {listed}."]
    else:
        parts = [f"Start from {recipe.base} and take the changes of {listed}.", *_pruning(recipe)]
    if recipe.blueprint is not None:
        parts.insert(0, recipe.blueprint.words)
    divides = recipe.values_of("normalize") or (_implied(rule),)
    join, combine = ("average", "Average them") if all(divides) else ("add up", "Add them up")
    if len(set(divides)) > 1:
        join, combine = _SOMEWHERE.format(join), _SOMEWHERE.format(combine)
    parts.append(rule.words.format(**_values(recipe), join=join, combine=combine))
    if any(source.weight.constant != 1 for source in recipe.sources):
        weights = _each(recipe, lambda source: _factor(source.weight))
        varied = all(source.weight.constant is None for source in recipe.sources)
        parts.append("Their weights vary along the model." if varied else f"Weights: {weights}.")
    if recipe.strength.constant != 1:
        parts.append(f"Scale the result by {_factor(recipe.strength)}.")
    return " ".join(parts)


def _implied(rule: Blend | Consensus) -> bool:
    """True where a rule divides by the weights without being told to."""
    return isinstance(rule, Consensus) and rule.implied.get("normalize", False)


def _pruning(recipe: Recipe) -> list[str]:
    share = _each(recipe, lambda source: _share(source.density))
    if " of " not in share:
        share += " of each"
    parts = [PRUNERS[recipe.prune].words.format(**_values(recipe), kept=share)]
    if any(factor != 1 for source in recipe.sources for factor in source.amplification):
        factors = _each(recipe, lambda source: ", ".join(f"{f:g}" for f in source.amplification))
        parts.append(f"Amplify the partitions by {factors}, most important first.")
    if recipe.parameters.get("scale_dense") == "none":
        parts.append("Leave embeddings, norms and the head as the base has them.")
    return parts


def _values(recipe: Recipe) -> dict[str, object]:
    """What words may name in braces: the recipe's knobs, and those of its models; of a knob that is
    a model's place, the model."""
    values = {
        name: _factor(value) if isinstance(value, Schedule) else value
        for name, value in recipe.parameters.items()
    }
    for knob in (*PRUNERS[recipe.prune].knobs, *RULES[recipe.consensus].knobs):
        if knob.is_place:
            values[knob.name] = recipe.sources[recipe.parameters[knob.name] - 1].model
    for name, value in recipe.sources[0].values.items():
        if isinstance(value, Schedule):
            values[name] = _each(recipe, functools.partial(_factor_of, name))
    return values


def _factor_of(knob: str, source: Source) -> str:
    return _factor(source.values[knob])


def _by_names(recipe: Recipe, called: Mapping[str, str] | None) -> Recipe:
    references = models_of(recipe)
    names = called or dict(zip(references, short_names(references, recipe.folder), strict=True))
    return with_models(recipe, names)


def _each(recipe: Recipe, tell: Callable[[Source], str]) -> str:
    """What holds of each model: said once where it is the same for all."""
    texts = [tell(source) for source in recipe.sources]
    if len(set(texts)) == 1:
        return texts[0]
    of = zip(texts, (source.model for source in recipe.sources), strict=True)
    return "; ".join(f"{text} of {model}" for text, model in of)


def _share(schedule: Schedule) -> str:
    value = schedule.constant
    return "a share that varies by layer" if value is None else f"{100 * value:.3g}%"


def _factor(schedule: Schedule) -> str:
    value = schedule.constant
    if value is None:
        return "a value that varies along the model"
    return f"{value:g}" if is_number(value) else str(value)
