"""Parameter values that change along the model: mergekit's gradients and filters.

A value is a number, a list of numbers (knots spread evenly over the layers), or a list of
{filter, value} rules of which the first whose filter is part of the tensor's name wins.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from typing import Any

from merging.errors import RecipeError


@dataclass(frozen=True)
class Schedule:
    """Rules tried in order; the last one matches every tensor.

    Attributes:
        rules: (filter, knots) pairs; filter "*" matches every tensor.
    """

    rules: tuple[tuple[str, tuple[float, ...]], ...]

    def at(self, tensor: str, layer: int | None, n_layers: int) -> float:
        """The value for one tensor.

        Knot position as mergekit: i / (n - 1) over the layers, the last knot for a model of one
        layer, the first knot for tensors outside the layers.
        """
        for pattern, knots in self.rules:
            if pattern == "*" or pattern in tensor:
                if len(knots) == 1:
                    return knots[0]
                return _interpolate(knots, layer, n_layers)
        raise AssertionError("a schedule ends with a rule for every tensor")

    @property
    def constant(self) -> float | None:
        """The one value it always has, or None where it varies."""
        pattern, knots = self.rules[0]
        return knots[0] if pattern == "*" and len(set(knots)) == 1 else None

    @property
    def values(self) -> tuple[float, ...]:
        """Every knot that can be reached."""
        reached: list[float] = []
        for pattern, knots in self.rules:
            reached.extend(knots)
            if pattern == "*":
                break
        return tuple(reached)

    @property
    def filters(self) -> tuple[str, ...]:
        """What tensors' names are looked through for."""
        return tuple(pattern for pattern, _ in self.rules if pattern != "*")

    def to_yaml(self) -> Any:
        """The plain value a recipe would hold."""
        rules: list[dict[str, Any]] = []
        for pattern, knots in self.rules:
            value = knots[0] if len(knots) == 1 else list(knots)
            if pattern == "*":
                return [*rules, {"value": value}] if rules else value
            rules.append({"filter": pattern, "value": value})
        return rules


def constant(value: float) -> Schedule:
    """A schedule with one value everywhere."""
    return Schedule((("*", (float(value),)),))


def before(first: Any, then: Any) -> Any:
    """One plain value of two levels of a recipe: `first`, and `then` where its filters let pass."""
    rules = [first] if isinstance(first, dict) else first
    if not isinstance(rules, list) or not all(isinstance(rule, dict) for rule in rules):
        return first
    if isinstance(then, dict):
        return [*rules, then]
    nested = isinstance(then, list) and dict in map(type, then)
    return [*rules, *(then if nested else [{"value": then}])]


def chain(levels: list[Any], default: float, where: str) -> Schedule:
    """One schedule from a recipe's levels, most specific first; None for a silent level.

    Raises:
        RecipeError: a value is neither a number, a list of numbers nor a list of rules.
    """
    rules: list[tuple[str, tuple[float, ...]]] = []
    for level in (*levels, float(default)):
        for rule in _rules(level, where) if level is not None else ():
            rules.append(rule)
            if rule[0] == "*":
                return Schedule(tuple(rules))
    raise AssertionError("the default matches every tensor")


def _rules(value: Any, where: str) -> list[tuple[str, tuple[float, ...]]]:
    value = _number(value)
    if is_number(value):
        return [("*", (float(value),))]
    if isinstance(value, list) and value and all(is_number(item) for item in value):
        return [("*", tuple(float(item) for item in value))]
    if isinstance(value, dict):
        value = [value]
    if isinstance(value, list) and value and all(isinstance(item, dict) for item in value):
        return [_rule(item, where) for item in value]
    raise RecipeError(
        f"{where}: {value!r} is not a number, a list of numbers or a list of "
        "{filter, value} rules"
    )


def _rule(item: dict[str, Any], where: str) -> tuple[str, tuple[float, ...]]:
    unknown = set(item) - {"filter", "value"}
    if unknown or "value" not in item:
        raise RecipeError(f"{where}: a rule has the keys filter and value, not {sorted(item)}")
    value, pattern = item["value"], item.get("filter")
    if isinstance(value, dict) or (isinstance(value, list) and dict in map(type, value)):
        raise RecipeError(f"{where}: rules cannot be nested")
    ((_, knots),) = _rules(value, where)
    return "*" if pattern in (None, "") else str(pattern), knots


def _number(value: Any) -> Any:
    """A number written as text ("0.5"), as mergekit takes it; anything else as it is."""
    if isinstance(value, list):
        return [_number(item) for item in value]
    try:
        return float(value) if isinstance(value, str) else value
    except ValueError:
        return value


def is_number(value: Any) -> bool:
    """True for a number that a float can hold; False for true and false."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return False
    return isinstance(value, float) or abs(value) <= sys.float_info.max


def _interpolate(knots: tuple[float, ...], layer: int | None, n_layers: int) -> float:
    if layer is None:
        return knots[0]
    position = layer / (n_layers - 1) if n_layers > 1 else 1.0
    scaled = position * (len(knots) - 1)
    left = min(int(scaled), len(knots) - 2)
    share = scaled - left
    return (1 - share) * knots[left] + share * knots[left + 1]
