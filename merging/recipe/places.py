"""Where a recipe's text names its models and its keys: what is said of them later gets a line.

Whatever is said begins with what it is about: "models: expert0: ...", "task: 3 is asked for...".
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from merging.errors import MergeError
from merging.recipe.references import reference
from merging.system.lines import line_in, line_of


def places_of(document: Mapping[str, Any]) -> dict[str, int]:
    """The line, from 1, of every model by its reference and of every key by its name: of the first
    place where it stands. Empty where the document was no text.

    Args:
        document: of a recipe that was read without an error.
    """
    places: dict[str, int] = {}
    for name, line in (*_models(document), *_keys(document)):
        if line is not None:
            places[name] = min(line, places.get(name, line))
    return places


def line_about(places: Mapping[str, int], message: str) -> int | None:
    """The line of what a message is about: of the last of the names that it begins with.

    Args:
        places: as `places_of`.
    """
    line = line_of(message)
    for part in () if line is not None else message.split(": "):
        name = part if part in places else part.partition(" ")[0]
        if name not in places:
            break
        line = places[name]
    return line


@contextmanager
def placed(places: Mapping[str, int]) -> Iterator[None]:
    """Gives the error that ends the block the line of what it is about, unless it has one."""
    try:
        yield
    except MergeError as error:
        if error.line is None:
            error.line = line_about(places, error.reason)
        raise


def _parts(document: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    """The recipe, its only module, and their slices."""
    modules = document.get("modules") or {}
    for part in (document, *modules.values()):
        yield part
        yield from part.get("slices") or ()


def _models(document: Mapping[str, Any]) -> Iterator[tuple[str, int | None]]:
    for part in _parts(document):
        if part.get("base_model") is not None:
            yield reference(part["base_model"], "base_model"), line_in(part, "base_model")
        for key in ("models", "sources"):
            for index, item in enumerate(part.get(key) or ()):
                is_map = isinstance(item, Mapping)
                model, line = (item["model"], line_in(item, "model")) if is_map else (item, None)
                yield reference(model, key), line or line_in(part[key], index)


def _keys(document: Mapping[str, Any]) -> Iterator[tuple[str, int | None]]:
    for part in _parts(document):
        items = [item for key in ("models", "sources") for item in part.get(key) or ()]
        models = [item for item in items if isinstance(item, Mapping)]
        for one in (part, *models):
            for key in (*one, *(one.get("parameters") or ())):
                yield str(key), line_of(key)
