"""Parameter values that change along the model: mergekit's gradients and filters.

A value is a number, a switch or a word; a list of these (knots spread evenly over the layers); or a
list of {filter, layers, value} rules, of which the first wins whose filter is part of the tensor's
name and whose layers ([start, stop]) hold its layer. Layers are those of the stack that a tensor is
in. Between two knots a number is interpolated, and rounded where it counts something; a switch or
a word stays as it is until the next knot, as in mergekit.
"""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import zip_longest
from typing import Any, NamedTuple

from merging.checkpoints.layout import is_after_layers, is_tower, renumbered
from merging.errors import RecipeError, shown
from merging.system.lines import at_line, within

MAX_RULES = 1000  # each is looked for in the name of every tensor
MAX_KNOTS = 1000

Value = float | int | bool | str
"""What a knob holds for one tensor: a number, a count, a switch or a word."""
Read = Callable[[Any], Value | None]
"""What a recipe writes for one value -> the value; None where it is none."""


class Rule(NamedTuple):
    """One rule of a schedule.

    Attributes:
        filter: part of a tensor's name; "*" for every tensor.
        knots: values of one kind, spread evenly over the layers it holds for.
        layers: (start, stop): the layers it holds for; None for all and what is outside them.
            What a text meets before the layers goes with the first, what it meets after them
            with the last; towers for images and sound, which it never meets, with the first.
        shift: what leads from a layer's number in the result to that in the model whose value it
            is: a filter is looked for in that model's own names.
    """

    filter: str
    knots: tuple[Value, ...]
    layers: tuple[int, int] | None = None
    shift: int = 0

    @property
    def holds_everywhere(self) -> bool:
        """True for a rule after which no other is tried."""
        return self.filter == "*" and self.layers is None

    def holds(self, tensor: str, layer: int | None, n_layers: int) -> bool:
        """True where it says a tensor's value."""
        if self.filter != "*" and self.filter not in self.named(tensor):
            return False
        if self.layers is None:
            return True
        start, stop = self.layers
        if layer is None and is_after_layers(tensor):
            return start < n_layers <= stop
        return start <= (0 if layer is None or is_tower(tensor) else layer) < stop

    def named(self, tensor: str) -> str:
        """What the model whose value it is calls a tensor of the result."""
        return tensor if not self.shift or is_tower(tensor) else renumbered(tensor, self.shift)

    def at(self, tensor: str, layer: int | None, n_layers: int) -> Any:
        """Its value, of the kind of its knots, for a tensor that it holds for."""
        if len(self.knots) == 1 or layer is None:
            return self.knots[0]
        if self.layers is None or is_tower(tensor):
            return _between(self.knots, layer, n_layers)
        start, stop = self.layers
        return _between(self.knots, layer - start, stop - start)


@dataclass(frozen=True)
class Schedule:
    """Rules tried in order; the last one holds for every tensor."""

    rules: tuple[Rule, ...]

    def at(self, tensor: str, layer: int | None, n_layers: int) -> Any:
        """The value for one tensor: a Value, of the kind that the knob has.

        Knot position as mergekit: i / (n - 1) over the layers, the last knot for a model of one
        layer, the first knot for tensors outside the layers.

        Args:
            layer: its layer, counted in its own stack; None outside the layers.
            n_layers: the layers of its stack; outside the layers, of the stack for text.
        """
        if self.constant is not None:
            return self.constant
        for rule in self.rules:
            if rule.holds(tensor, layer, n_layers):
                return rule.at(tensor, layer, n_layers)
        raise AssertionError("a schedule ends with a rule for every tensor")

    @functools.cached_property
    def constant(self) -> Any:
        """The one value it always has, or None where it varies."""
        first = self.rules[0]
        return first.knots[0] if first.holds_everywhere and len(set(first.knots)) == 1 else None

    @property
    def values(self) -> tuple[Any, ...]:
        """Every knot that can be reached."""
        reached: list[Value] = []
        for rule in self.rules:
            reached.extend(rule.knots)
            if rule.holds_everywhere:
                break
        return tuple(reached)

    def to_yaml(self) -> Any:
        """The plain value a recipe would hold."""
        rules: list[dict[str, Any]] = []
        for rule in self.rules:
            value = rule.knots[0] if len(rule.knots) == 1 else list(rule.knots)
            if rule.holds_everywhere:
                return [*rules, {"value": value}] if rules else value
            entry: dict[str, Any] = {} if rule.filter == "*" else {"filter": rule.filter}
            if rule.layers is not None:
                entry["layers"] = list(rule.layers)
            rules.append({**entry, "value": value})
        return rules


def constant(value: Value) -> Schedule:
    """A schedule with one value everywhere."""
    return Schedule((Rule("*", (value,)),))


def before(first: Any, then: Any) -> Any:
    """One plain value of two levels of a recipe: `first`, and `then` where its filters let pass."""
    if is_silent(first) or is_silent(then):
        return then if is_silent(first) else first
    rules = [first] if isinstance(first, dict) else first
    if not isinstance(rules, list) or not all(isinstance(rule, dict) for rule in rules):
        return first
    if isinstance(then, dict):
        return [*rules, then]
    nested = isinstance(then, list) and dict in map(type, then)
    return [*rules, *(then if nested else [{"value": then}])]


def is_silent(level: Any) -> bool:
    """True for a value of a recipe that leaves it to the next level."""
    return level is None or level == []


def as_number(value: Any) -> float | None:
    """A number, also one written as text."""
    value = number(value)
    return float(value) if is_number(value) else None


def _accepted(value: Value) -> None:
    """Any value will do."""


def chain(
    levels: Sequence[Any],
    default: Value,
    where: str,
    read: Read = as_number,
    kind: str = "number",
    check: Callable[[Any], None] = _accepted,
    lines: Sequence[int | None] = (),
) -> Schedule:
    """One schedule from a recipe's levels, most specific first; None, or as in mergekit a list
    without values, for a silent level.

    Args:
        read: what one value is; it may raise an error of its own.
        kind: what an error calls one value.
        check: raises RecipeError for a value that may not be; told of those that can be reached.
        lines: of the levels, where they have any.

    Raises:
        RecipeError: a level is neither such a value, a list of them nor a list of rules.
    """
    rules: list[Rule] = []
    for level, line in zip_longest((*levels, default), lines):
        with at_line(line):
            for rule, source in () if is_silent(level) else _rules(level, where, read, kind):
                for index, knot in enumerate(rule.knots):
                    with within(source, index, "value"):
                        check(knot)
                rules.append(rule)
                if rule.holds_everywhere:
                    return Schedule(tuple(rules))
    raise AssertionError("the default matches every tensor")


def _rules(value: Any, where: str, read: Read, kind: str) -> list[tuple[Rule, Any]]:
    """The rules that a level holds, each with what its knots come from: a list of values, a mapping
    that has one, or a value."""
    if isinstance(value, dict):
        value = [value]
    if isinstance(value, list) and value and all(isinstance(item, dict) for item in value):
        if len(value) > MAX_RULES:
            raise RecipeError(
                f"{where}: {len(value)} rules, at most {MAX_RULES} are looked through"
            )
        return [_rule(item, where, read, kind) for item in value]
    return [(Rule("*", _knots(value, where, read, kind)), value)]


def _knots(value: Any, where: str, read: Read, kind: str) -> tuple[Value, ...]:
    knots = value if isinstance(value, list) else [value]
    if len(knots) > MAX_KNOTS:
        raise RecipeError(f"{where}: {len(knots)} values along the model, at most {MAX_KNOTS}")
    values: list[Value] = []
    for index, item in enumerate(knots):
        with within(value, index):
            one = None if isinstance(item, dict | list) else read(item)
            if one is None:
                raise _no_value(value, where, kind)
        values.append(one)
    if not values:
        raise _no_value(value, where, kind)
    return tuple(values)


def _no_value(value: Any, where: str, kind: str) -> RecipeError:
    return RecipeError(
        f"{where}: {shown(value)} is not a {kind}, a list of {kind}s or a list of "
        "{filter, value} rules"
    )


def _rule(item: dict[str, Any], where: str, read: Read, kind: str) -> tuple[Rule, Any]:
    keys = ("filter", "layers", "value")
    unknown = [key for key in item if key not in keys]
    with within(item, *unknown, *keys):
        if unknown or "value" not in item:
            raise RecipeError(
                f"{where}: a rule has the keys filter, layers and value, not {shown(list(item))}"
            )
    value, pattern = item["value"], item.get("filter")
    with within(item, "value"):
        if isinstance(value, dict) or (isinstance(value, list) and dict in map(type, value)):
            raise RecipeError(f"{where}: rules cannot be nested")
    with within(item, "filter"):
        if pattern is not None and not (isinstance(pattern, str) or is_number(pattern)):
            raise RecipeError(f"{where}: filter {shown(pattern)} is not a part of tensors' names")
    with within(item, "value"):
        knots = _knots(value, where, read, kind)
    with within(item, "layers"):
        span = _span(item.get("layers"), where)
    name = "*" if pattern in (None, "") else str(pattern)
    return Rule(name, knots, span), value if isinstance(value, list) else item


def _span(value: Any, where: str) -> tuple[int, int] | None:
    """A rule's layers."""
    if value is None:
        return None
    if isinstance(value, list) and [type(side) for side in value] == [int, int]:
        start, stop = value
        if 0 <= start < stop:
            return start, stop
    raise RecipeError(
        f"{where}: layers of a rule are [start, stop], such as [0, 12], not {shown(value)}"
    )


def number(value: Any) -> Any:
    """A number written as text ("0.5"), as mergekit takes it; anything else as it is."""
    if isinstance(value, list):
        return [number(item) for item in value]
    try:
        return float(value) if isinstance(value, str) else value
    except ValueError:
        return value


def is_number(value: Any) -> bool:
    """True for a number that a float can hold; False for true and false."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return False
    return isinstance(value, float) or abs(value) <= sys.float_info.max


def _between(knots: tuple[Value, ...], layer: int, n_layers: int) -> Value:
    """The value of one layer among knots, two or more."""
    position = layer / (n_layers - 1) if n_layers > 1 else 1.0
    scaled = position * (len(knots) - 1)
    if isinstance(knots[0], bool | str):
        return knots[int(scaled)]
    index = min(int(scaled), len(knots) - 2)
    share = scaled - index
    first, second = knots[index : index + 2]
    between = (1 - share) * first + share * second  # type: ignore[operator]
    return round(between) if isinstance(first, int) else between
