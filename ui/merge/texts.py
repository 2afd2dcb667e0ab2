"""Recipes as texts: those that ship, what a page takes, and names for what they make."""

from __future__ import annotations

from pathlib import Path

from merging.errors import MergeError
from merging.methods import PRESETS
from merging.recipe import Recipe, parse
from merging.system import shipped
from ui.library import Library

MOST_CHARACTERS = 100_000
_NO_TEXT = "This is not a text file in UTF-8; open a YAML recipe."
FIRST = "add_sort"  # the first merge to make: keeps both skills


def shipped_recipes() -> dict[str, Path]:
    """Name -> file of every recipe that ships, the pair to begin with first."""
    files = shipped.recipes()
    return {name: files[name] for name in sorted(files, key=lambda name: (name != FIRST, name))}


def spoken(name: str) -> str:
    """A file's name as a label: "add_sort" -> "Add + sort", "all_ties" -> "All four: TIES"."""
    first, _, rest = name.partition("_")
    if first != "all":
        return name.replace("_", " + ").capitalize()
    names = {"average": "average", "learned": "learned weights"}
    return f"All four: {PRESETS[rest].title if rest in PRESETS else names.get(rest, rest)}"


def suggest_name(library: Library, text: str) -> str:
    """A free name for a recipe's result, after the shipped file or the method; "" for none."""
    if len(text or "") > MOST_CHARACTERS:
        return ""
    shipped = (stem for stem, file in shipped_recipes().items() if file.read_text() == text)
    try:
        return library.free_name(next(shipped, None) or parse(text or "").method)
    except MergeError:
        return ""


def resolved(library: Library, text: str) -> Recipe:
    """The recipe that a text spells, its models found in the library.

    Raises:
        MergeError: there is none, or none that this page takes.
    """
    if not text or not text.strip():
        raise MergeError("There is no recipe yet: press Merge in Explore, or paste one.")
    if len(text) > MOST_CHARACTERS:
        raise MergeError(_too_long(len(text), "characters"))
    return library.resolved(parse(text))


def decoded(content: bytes) -> str:
    """The text of a recipe file. Raises MergeError where it is too long or no text."""
    if len(content) > 4 * MOST_CHARACTERS:  # bytes of a character, at most
        raise MergeError(_too_long(len(content), "bytes"))
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise MergeError(_NO_TEXT) from error


def _too_long(size: int, unit: str) -> str:
    return (
        f"This recipe has {size:,} {unit}; a page takes {MOST_CHARACTERS:,} characters. "
        "Merge it on the command line."
    )
