"""Lines of a text, kept by what was read from it.

A mapping's key knows its line, and a list those of its items. Mappings are copied, put together and
taken apart while a recipe is read; their keys come along, so that whoever refuses a value can still
say where it stands. Anything else counts as standing where what holds it does.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from merging.errors import MergeError


class Lined(str):
    """A text that knows its line, from 1, and is otherwise that text: a key, or a remark."""

    line: int | None

    def __new__(cls, text: str, line: int | None = None) -> Lined:
        """The text, at a line; None where it has none."""
        lined = super().__new__(cls, text)
        lined.line = line
        return lined


class Items(list[Any]):
    """A list that knows the lines of its items, from 1."""

    def __init__(self) -> None:
        super().__init__()
        self.lines: list[int] = []


def line_of(text: object) -> int | None:
    """The line of a key or a remark; None where it has none."""
    return text.line if isinstance(text, Lined) else None


def line_in(inside: Any, key: Any) -> int | None:
    """The line of a mapping's key or of a list's item; None where it is not there or has none."""
    if isinstance(inside, Mapping):
        return line_of(next((one for one in inside if one == key), None))
    if isinstance(inside, Items) and isinstance(key, int) and key < len(inside.lines):
        return inside.lines[key]
    return None


def first_line(value: Any) -> int | None:
    """The line on which a mapping or a list begins; None where it has none."""
    if isinstance(value, Mapping):
        return line_of(next(iter(value), None))
    return line_in(value, 0)


@contextmanager
def at_line(line: int | None) -> Iterator[None]:
    """Gives a line to the error that ends the block, unless it has one: the inmost counts."""
    try:
        yield
    except MergeError as error:
        if error.line is None:
            error.line = line
        raise


@contextmanager
def within(inside: Any, *keys: Any) -> Iterator[None]:
    """As `at_line`, with that of the first of the keys that `inside` has; it is looked for only
    where there is an error."""
    try:
        yield
    except MergeError as error:
        if error.line is None:
            lines = (line_in(inside, key) for key in keys)
            error.line = next((line for line in lines if line is not None), None)
        raise
