"""Values of a recipe's knobs, held to what the methods declare."""

from __future__ import annotations

import difflib
import math
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

from merging.declarations.knobs import Knob
from merging.declarations.methods import Consensus, Method
from merging.declarations.schedules import Schedule, chain, is_number, is_silent, number
from merging.errors import RecipeError, shown
from merging.system.lines import Lined, at_line, line_in, line_of, within

MAX_PARTITIONS = 16
_LONGEST_KEY = 64  # beyond that no valid one is near
SWITCHES = ("rescale", "normalize")
"""mergekit names them for every task-vector method."""
AXES = ("prune", "consensus")
HARMLESS = ("weight", "density", "int8_mask")  # without effect where a method has no such knob


def knobs_of(pruner: Method, rule: Method, defaults: Mapping[str, Any]) -> dict[str, Knob]:
    """The knobs of a recipe by name, the pruner's first: one that both have rules both.

    Args:
        defaults: of the preset.
    """
    knobs = {knob.name: knob for knob in (*rule.knobs, *pruner.knobs)}
    for name, value in defaults.items():
        if name in knobs:
            knobs[name] = Knob(**{**vars(knobs[name]), "default": value})
    return knobs


def renamed(parameters: Mapping[str, Any], knobs: Mapping[str, Knob]) -> dict[str, Any]:
    """A recipe's parameters, every knob by its first name."""
    result = dict(parameters)
    for knob in knobs.values():
        if knob.also is None or knob.also in knobs or knob.also not in result:
            continue
        line = line_in(result, knob.also)
        if knob.name in result:
            raise RecipeError(
                f"parameters: {knob.also} and {knob.name} are one here; give one of them", line=line
            )
        result[Lined(knob.name, line)] = result.pop(knob.also)
    return result


def check_names(
    values: Mapping[str, Any],
    knobs: Mapping[str, Knob],
    methods: Sequence[Method],
    everything: Sequence[Method],
    where: str,
) -> None:
    """Raises RecipeError for a parameter that a recipe's methods do not have.

    Args:
        methods: the recipe's pruner and rule.
        everything: all methods that there are.
    """
    pruner, rule = methods
    for key in values:
        if key in knobs or key in (*AXES, *HARMLESS, *SWITCHES):
            continue  # switches are checked with their values
        for method in everything:
            if any(knob.name == key for knob in method.knobs):
                raise RecipeError(
                    f"{where}: {key} belongs to {method.kind}: {method.id}; this recipe has "
                    f"prune: {pruner.id} and {rule.kind}: {rule.id}",
                    line=line_of(key),
                )
        near = nearest(key, [*knobs, *AXES])
        raise RecipeError(f"{where}: unknown parameter {shown(key)}{near}", line=line_of(key))


def check_switches(
    values: Mapping[str, Any], knobs: Mapping[str, Knob], pruner: Method, rule: Method
) -> None:
    """Where mergekit's switches would change the result and are no knob here, says so instead of
    ignoring them."""
    rescales = True in switches(values, "rescale", False)
    if "rescale" not in knobs and rescales and pruner.knobs:
        raise RecipeError(
            f"rescale: true is not supported with prune: {pruner.id}; use prune: random",
            line=line_in(values, "rescale"),
        )
    if "normalize" in knobs:
        return
    implied = rule.implied.get("normalize") if isinstance(rule, Consensus) else None
    others = [one for one in switches(values, "normalize", bool(implied)) if one != implied]
    if others and implied is not None:
        word = str(others[0]).lower()
        raise RecipeError(
            f"normalize: {word} is not supported with {rule.kind}: {rule.id}",
            line=line_in(values, "normalize"),
        )


def idle(values: Mapping[str, Any], knobs: Mapping[str, Knob], rule: Method) -> list[str]:
    """Remarks on parameters that change nothing, in mergekit or here."""
    remarks = []
    if "int8_mask" in values:
        remarks.append("int8_mask has no effect: it saves mergekit memory that is not taken here")
    silent = ("rescale", *rule.implied) if isinstance(rule, Consensus) else ()
    for key in SWITCHES:
        if key in values and key not in (*knobs, *silent):
            remarks.append(f"{key} has no effect with {rule.id}")
    return remarks


def value_of(knob: Knob, levels: Sequence[Mapping[str, Any]], where: str) -> Any:
    """A knob's value: a Schedule where it is scheduled, else a plain one.

    Args:
        levels: parameters by name, those of one model before those of all.

    Raises:
        RecipeError: it is of another kind, or out of bounds.
    """
    values = [level.get(knob.name) for level in levels]
    lines = [line_in(level, knob.name) for level in levels]
    if knob.scheduled:
        return _schedule(knob, values, lines, where)
    pairs = zip(values, lines, strict=True)
    first, line = next((pair for pair in pairs if pair[0] is not None), (knob.default, None))
    with at_line(line):
        return _factors(first, knob.name, where) if knob.is_factors else _plain(knob, first)


def placed(knob: Knob, parameters: Mapping[str, Any], names: Sequence[str]) -> dict[str, Any]:
    """A recipe's parameters, with a model's name as its place where the knob is one.

    Args:
        names: the recipe's models in order.

    Raises:
        RecipeError: no model, or more than one, has the name.
    """
    value = parameters.get(knob.name)
    if not (knob.is_place and isinstance(value, str)):
        return dict(parameters)
    with within(parameters, knob.name):
        return {**parameters, knob.name: _place(knob, value, names)}


def _place(knob: Knob, value: str, names: Sequence[str]) -> int:
    short = [name.rstrip("/").rpartition("/")[2] for name in names]
    places = [
        place for place, both in enumerate(zip(names, short, strict=True), 1) if value in both
    ]
    if len(places) == 1:
        return places[0]
    if places:
        raise RecipeError(
            f"{knob.name}: {len(places)} models are called {value}; write the place, from 1"
        )
    raise RecipeError(
        f"{knob.name}: {shown(value)} is no model of the recipe{nearest(value, short)}"
    )


def _schedule(
    knob: Knob, levels: Sequence[Any], lines: Sequence[int | None], where: str
) -> Schedule:
    label = knob.name if where == "parameters" else f"{where}: {knob.name}"
    if not _is_real(knob):
        return chain(levels, knob.default, label, partial(_plain, knob), "value", lines=lines)

    def check(value: float) -> None:
        if not math.isfinite(value):
            raise RecipeError(f"{label} {value} is not finite; give a number such as 0.5")
        if not knob.soft:
            _check_range(knob, value, where)

    return chain(levels, float(knob.default), label, check=check, lines=lines)


def _is_real(knob: Knob) -> bool:
    """True for a number that need not be whole."""
    return isinstance(knob.default, float)


def _factors(value: Any, name: str, where: str) -> tuple[float, ...]:
    factors = value if isinstance(value, list | tuple) else [value]
    if not factors or len(factors) > MAX_PARTITIONS:
        raise RecipeError(f"{where}: {name} has {len(factors)} factors, 1 to 16 are valid")
    for index, factor in enumerate(factors):
        with within(value, index):
            if not is_number(factor) or not factor >= 0:
                raise RecipeError(f"{where}: {name} factor {shown(factor)} is not a number >= 0")
            if not math.isfinite(factor):
                raise RecipeError(f"{where}: {name} factor {shown(factor)} is not finite")
    return tuple(float(factor) for factor in factors)


def _plain(knob: Knob, value: Any) -> Any:
    if knob.is_switch:
        return switch(value, knob.name)
    if knob.choices:
        return choice(value, knob.choices, knob.name)
    value = number(value)
    if not is_number(value):
        raise RecipeError(f"{knob.name}: {shown(value)} is not a number")
    _check_range(knob, value, "parameters")
    if isinstance(knob.default, int) and value != int(value):
        raise RecipeError(f"{knob.name}: {shown(value)} is not a whole number")
    return int(value) if isinstance(knob.default, int) else float(value)


def _check_range(knob: Knob, value: float, where: str) -> None:
    low, high = knob.low, knob.high
    if low is None or high is None:
        return
    if not low <= value <= high:
        raise RecipeError(f"{where}: {knob.name} {value:g} is outside {low:g} to {high:g}")


def switch(value: Any, name: str) -> bool:
    """True or false, also as mergekit's recipes write them: 1.0, "true", "yes"."""
    word = str(value).lower()
    if isinstance(value, bool | int | float | str) and word in ("true", "1", "1.0", "yes", "on"):
        return True
    if isinstance(value, bool | int | float | str) and word in ("false", "0", "0.0", "no", "off"):
        return False
    raise RecipeError(f"{name}: {shown(value)} is not true or false")


def switches(values: Mapping[str, Any], name: str, default: bool) -> tuple[bool, ...]:
    """Every value of a switch that may change along the model; none where a recipe is silent.

    Args:
        default: what holds where no rule does.
    """
    if is_silent(values.get(name)):
        return ()
    lines = [line_in(values, name)]
    read = partial(switch, name=name)
    return chain([values[name]], default, name, read, "value", lines=lines).values


def choice(value: Any, choices: Any, name: str) -> str:
    """A word that is one of the choices. Raises RecipeError with the nearest."""
    if not isinstance(value, str) or value not in choices:
        raise RecipeError(f"{name}: {shown(value)} is not known{nearest(value, choices)}")
    return value


def nearest(value: Any, choices: Any) -> str:
    """The end of an error: what was meant, or what is valid."""
    word = value.lower() if isinstance(value, str) and len(value) <= _LONGEST_KEY else ""
    names = list(map(str, choices))
    begun = [one for one in names if word.startswith(f"{one}_")]  # della_ties: della
    longer = [one for one in names if word and one.startswith(f"{word}_")]  # tall: tall_masks
    close = sorted(begun, key=len)[-1:] or longer or difflib.get_close_matches(word, names, n=1)
    if close:
        return f"; did you mean {' or '.join(close)}?"
    return f"; valid: {', '.join(names)}"
