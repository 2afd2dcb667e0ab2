"""What one recipe has otherwise than another, in words."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

from merging.declarations.knobs import Knob
from merging.declarations.schedules import Schedule, is_number
from merging.declarations.values import Recipe
from merging.methods import PRUNERS, RULES

_VARIED = "varied along the model"
_OF_THE_RESULT: dict[str, Callable[[Recipe], str]] = {
    "type": lambda recipe: recipe.dtype or "the base's",
    "tokenizer": lambda recipe: recipe.tokenizer or "the base's",
    "chat template": lambda recipe: recipe.chat_template or "the tokenizer's",
    "tensors left as the base's": lambda recipe: ", ".join(recipe.keep_base) or "none",
}


def differences(
    first: Recipe, second: Recipe, called: Mapping[str, str] | None = None
) -> list[str]:
    """What the second has otherwise, a phrase each: "Density 0.2 instead of 0.3".

    A knob that the first's methods do not have is named only where it is not at its default.

    Args:
        called: what models are called, by reference; others by their reference.
    """
    names = called or {}
    return list(_phrases(first, second, lambda model: names.get(model, model)))


def _phrases(first: Recipe, second: Recipe, name: Any) -> Iterator[str]:
    if first.base != second.base:
        yield f"base {name(second.base)} instead of {name(first.base)}"
    ours, theirs = ({s.model: s for s in one.sources} for one in (first, second))
    if added := [name(model) for model in theirs if model not in ours]:
        yield f"with {', '.join(added)}"
    if gone := [name(model) for model in ours if model not in theirs]:
        yield f"without {', '.join(gone)}"
    for axes, before, after in (
        (PRUNERS, first.prune, second.prune),
        (RULES, first.consensus, second.consensus),
    ):
        if before != after:
            yield f"{axes[after].title} instead of {axes[before].title}"
    for word, read in _OF_THE_RESULT.items():
        before, after = read(first), read(second)
        if before != after:
            yield f"{word} {after} instead of {before}"
    for knob in _knobs(second):
        yield from _of_knob(knob, first.parameters, second.parameters, "")
        both = [model for model in theirs if model in ours]
        pairs = [(ours[model].values, theirs[model].values) for model in both]
        changes = {tuple(_text(values.get(knob.name)) for values in two) for two in pairs}
        if len(changes) == 1 and len(both) == len(theirs) == len(ours):  # the same of all
            yield from _of_knob(knob, *pairs[0], "")
            continue
        for model, two in zip(both, pairs, strict=True):
            yield from _of_knob(knob, *two, f" of {name(model)}")


def _of_knob(
    knob: Knob, first: Mapping[str, Any], second: Mapping[str, Any], owner: str
) -> Iterator[str]:
    if knob.name not in second:
        return
    after = _text(second[knob.name])
    before = _text(first.get(knob.name, knob.default))
    if before == after:
        return
    stood = f" instead of {before}" if knob.name in first else ""
    yield f"{knob.label[0].lower()}{knob.label[1:]}{owner} {after}{stood}"


def _knobs(recipe: Recipe) -> list[Knob]:
    knobs = (*PRUNERS[recipe.prune].knobs, *RULES[recipe.consensus].knobs)
    return list({knob.name: knob for knob in knobs}.values())


def _text(value: Any) -> str:
    if isinstance(value, Schedule):
        return _VARIED if value.constant is None else _text(value.constant)
    if isinstance(value, bool):
        return "on" if value else "off"
    if isinstance(value, list | tuple):
        return ", ".join(map(_text, value))
    return f"{value:.4g}" if is_number(value) else str(value)
