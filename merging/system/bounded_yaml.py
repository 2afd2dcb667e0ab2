"""YAML text as plain values, in bounded time and memory whatever the text is.

libyaml reads the text as events; the values are built here. An alias shares what it stands for,
and is counted as if it were written out, so that nothing which walks through the values later
walks far. Keys and lists know their lines (`merging.system.lines`). What a recipe cannot mean is
refused with its line: an alias that holds itself, a key given twice, a second document, tags that
make objects. Keys are text as it stands there. Dates are text too: a folder may be called
2026-01-31.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import yaml

from merging.errors import BadFile, shown
from merging.system.documents import MOST_LEVELS
from merging.system.lines import Items, Lined

MOST_CHARACTERS = 4_000_000
MOST_VALUES = 100_000  # a text counts as one more for every 40 characters
_CHARACTERS_PER_VALUE = 40
_MOST_DIRECTIVES = 16  # libyaml compares each one with all before it
_MOST_DIGITS = 64
_PARSER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
_TAG = "tag:yaml.org,2002:"
_PLAIN = ("null", "bool", "int", "float")  # what a scalar without quotes may be besides text


class _Resolver(yaml.resolver.BaseResolver):
    """Which plain scalars are no text: YAML 1.1's numbers and switches, and 1e-3."""


_Resolver.yaml_implicit_resolvers = {
    first: [(tag, form) for tag, form in forms if tag.removeprefix(_TAG) in _PLAIN]
    for first, forms in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
_Resolver.add_implicit_resolver(
    _TAG + "float",
    re.compile(r"^[-+]?[0-9]+(\.[0-9]*)?[eE][-+]?[0-9]+$"),
    list("-+0123456789"),
)
_RESOLVER = _Resolver()
_MAKER = yaml.constructor.SafeConstructor()
_MAKERS: dict[str, tuple[str, Callable[[yaml.ScalarNode], Any]]] = {
    _TAG + "str": ("text", lambda node: node.value),
    _TAG + "null": ("null", lambda _: None),
    _TAG + "bool": ("true or false", _MAKER.construct_yaml_bool),
    _TAG + "int": ("a whole number", _MAKER.construct_yaml_int),
    _TAG + "float": ("a number", _MAKER.construct_yaml_float),
}
_NO_KEY, _MERGE = object(), object()


def load(text: str) -> Any:
    """The value of the one document in `text`; None where there is none.

    Raises:
        BadFile: it is no YAML, means nothing for a recipe, or is too large; the line is named.
    """
    return next(iter(_documents(text, 1)), None)


def load_all(text: str, most: int) -> list[Any]:
    """The values of all documents in `text`, of which there are at most `most`, empty ones left
    out. Raises as `load`."""
    return [value for value in _documents(text, most) if value is not None]


def _documents(text: str, most: int) -> list[Any]:
    if len(text) > MOST_CHARACTERS:
        raise BadFile(f"it has more than {MOST_CHARACTERS:,} characters")
    if text.count("\n%") >= _MOST_DIRECTIVES:
        raise BadFile(f"it has {_MOST_DIRECTIVES} directives (lines that begin with %) or more")
    builder = _Builder(most)
    try:
        for event in yaml.parse(text.removeprefix("\ufeff"), Loader=_PARSER):
            builder.take(event)
    except yaml.MarkedYAMLError as error:
        raise _bad_file(error, text) from None
    except yaml.reader.ReaderError as error:
        raise BadFile(f"{error.reason} (character {error.position + 1})") from None
    except (yaml.YAMLError, UnicodeError):
        raise BadFile("it holds a character that is none") from None
    return builder.values


@dataclass
class _Open:
    """A list or mapping whose end has not come yet.

    Attributes:
        before: how many values had been counted where it begins.
        line: where it begins, from 1.
        key: of a mapping: the key whose value comes next, or _NO_KEY.
        keys: of a mapping: those that it had so far.
        merged: of a mapping: the mappings that `<<` names, the first before all others.
    """

    value: Items | dict[Any, Any]
    anchor: str | None
    before: int
    line: int
    key: Any
    keys: set[Any] = field(default_factory=set)
    merged: list[dict[str, Any]] = field(default_factory=list)


class _Builder:
    """Takes events in order; `values` are the documents' once all are taken."""

    def __init__(self, most: int) -> None:
        self.values: list[Any] = []
        self._most = most
        self._open: list[_Open] = []
        self._anchors: dict[str, tuple[Any, int]] = {}
        self._count = 0
        self._documents = 0

    def take(self, event: yaml.Event) -> None:
        """Takes the next event. Raises BadFile."""
        match event:
            case yaml.DocumentStartEvent():
                self._documents += 1
                self._anchors = {}
                if self._documents > self._most:
                    what = "a second document" if self._most == 1 else f"document {self._documents}"
                    most = "one recipe" if self._most == 1 else f"at most {self._most} recipes"
                    raise _bad(f"{what} (---) begins; give {most}", event.start_mark)
            case yaml.ScalarEvent():
                self._scalar(event)
            case yaml.AliasEvent():
                self._alias(event)
            case yaml.SequenceStartEvent() | yaml.MappingStartEvent():
                self._begin(event)
            case yaml.SequenceEndEvent() | yaml.MappingEndEvent():
                self._end(event)

    def _scalar(self, event: yaml.ScalarEvent) -> None:
        size = 1 + len(event.value) // _CHARACTERS_PER_VALUE
        self._add(size, event)
        value = _scalar(event)
        if event.anchor is not None:
            self._anchors[event.anchor] = (value, size)
        if self._wants_key():
            self._key(event)
        else:
            self._place(value, event, _line(event.start_mark))

    def _wants_key(self) -> bool:
        """True where what comes next is a key of the mapping that is open."""
        return bool(self._open) and self._open[-1].key is _NO_KEY

    def _key(self, event: yaml.ScalarEvent) -> None:
        inside, key = self._open[-1], event.value
        is_merge = key == "<<" and event.implicit[0]
        inside.key = _MERGE if is_merge else Lined(key, _line(event.start_mark))
        if inside.key in inside.keys:
            raise _bad(f"the key {shown(key)} is given twice", event.start_mark)
        inside.keys.add(inside.key)

    def _alias(self, event: yaml.AliasEvent) -> None:
        name = event.anchor
        if any(node.anchor == name for node in self._open):
            raise _bad(f"{shown('*' + name)} stands inside of itself", event.start_mark)
        if name not in self._anchors:
            raise _bad(f"{shown('*' + name)} stands for nothing above it", event.start_mark)
        value, size = self._anchors[name]
        self._add(size, event)
        self._place(value, event, _line(event.start_mark))

    def _begin(self, event: yaml.CollectionStartEvent) -> None:
        is_map = isinstance(event, yaml.MappingStartEvent)
        if event.tag not in (None, "!", _TAG + ("map" if is_map else "seq")):
            raise _bad(_refused(event.tag), event.start_mark)
        if len(self._open) >= MOST_LEVELS:
            raise _bad(f"it is nested deeper than {MOST_LEVELS} levels", event.start_mark)
        if self._wants_key():
            raise _bad("a key is a list or a mapping; write text", event.start_mark)
        key = _NO_KEY if is_map else None
        value: Items | dict[Any, Any] = {} if is_map else Items()
        line = _line(event.start_mark)
        self._open.append(_Open(value, event.anchor, self._count, line, key))
        self._add(1, event)

    def _end(self, event: yaml.Event) -> None:
        done = self._open.pop()
        if isinstance(done.value, dict):
            for mapping in done.merged:
                for key, value in mapping.items():
                    done.value.setdefault(key, value)
        if done.anchor is not None:
            self._anchors[done.anchor] = (done.value, self._count - done.before)
        self._place(done.value, event, done.line)

    def _place(self, value: Any, event: yaml.Event, line: int) -> None:
        """Puts a value, which begins on a line, where it belongs."""
        if not self._open:
            self.values.append(value)
            return
        inside = self._open[-1]
        if isinstance(inside.value, Items):
            inside.value.append(value)
            inside.value.lines.append(line)
        elif inside.key is _NO_KEY:
            raise _bad("a key is an alias; write text", event.start_mark)
        elif inside.key is _MERGE:
            mappings = value if isinstance(value, list) else [value]
            if not all(isinstance(mapping, dict) for mapping in mappings):
                raise _bad("<< takes a mapping, or a list of mappings", event.start_mark)
            inside.merged += mappings
            inside.key = _NO_KEY
        else:
            inside.value[inside.key] = value
            inside.key = _NO_KEY

    def _add(self, size: int, event: yaml.Event) -> None:
        self._count += size
        if self._count > MOST_VALUES:
            raise _bad(
                f"it holds more than {MOST_VALUES:,} values, aliases written out", event.start_mark
            )


def _scalar(event: yaml.ScalarEvent) -> Any:
    tag = event.tag
    if tag is None:
        tag = _RESOLVER.resolve(yaml.ScalarNode, event.value, event.implicit)
    elif tag == "!":
        tag = _TAG + "str"
    if tag not in _MAKERS:
        raise _bad(_refused(tag), event.start_mark)
    kind, make = _MAKERS[tag]
    if kind != "text" and len(event.value) > _MOST_DIGITS:
        raise _bad(f"a number has {len(event.value)} digits", event.start_mark)
    try:
        return make(yaml.ScalarNode(tag, event.value))
    except (ValueError, KeyError, IndexError, OverflowError):
        raise _bad(f"{shown(event.value)} is not {kind}", event.start_mark) from None


def _refused(tag: str) -> str:
    return f"the tag {shown(tag.replace(_TAG, '!!'))} has no place here; write plain values"


def _bad_file(error: yaml.MarkedYAMLError, text: str) -> BadFile:
    """What the parser found, with the line it stands on."""
    lines = text.split("\n")
    mark = error.problem_mark
    line = min(mark.line, len(lines) - 1) if mark else 0  # a text that ends too early: its last
    problem = error.problem or "it is not YAML"
    if "cannot start any token" in problem and lines[line].lstrip(" ").startswith("\t"):
        problem = "the line is indented with a tab; use spaces"
    return BadFile(problem, line=line + 1)


def _bad(problem: str, mark: Any) -> BadFile:
    return BadFile(problem, line=_line(mark))


def _line(mark: Any) -> int:
    """From 1."""
    return mark.line + 1
