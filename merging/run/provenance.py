"""What made a model that lies in a folder: the recipe and the fingerprint of its record."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from merging.checkpoints import Entry, Family, open_family
from merging.errors import MergeError
from merging.recipe import Recipe, parse
from merging.run.journal import Written
from merging.run.record import RECIPE_FILE
from merging.run.stacks import drift
from merging.system import bounded_yaml
from merging.system.documents import read_text

_CHUNK = 1 << 22  # elements that are compared at a time


@dataclass(frozen=True)
class Provenance:
    """A record as it was read.

    Attributes:
        text: of the file; "" where it cannot be read.
        recipe: None where the text is none.
        fingerprint: of the tensors, as recorded; "" where it is not.
        problem: what is wrong with the record, in one line; "" where nothing is.
    """

    text: str = ""
    recipe: Recipe | None = None
    fingerprint: str = ""
    problem: str = ""


def provenance(folder: Path) -> Provenance:
    """What the record in a model's folder says. Whatever lies there, this ends without an error."""
    try:
        text = read_text(folder / RECIPE_FILE)
    except MergeError as error:
        return Provenance(problem=str(error).replace(str(folder / RECIPE_FILE), RECIPE_FILE))
    try:
        recipe, fingerprint = parse(text), _fingerprint(text)
    except MergeError as error:
        return Provenance(text, problem=f"{RECIPE_FILE}: {error}")
    problem = "" if fingerprint else f"{RECIPE_FILE} holds no fingerprint of what it made"
    return Provenance(text, recipe, fingerprint, problem)


def _fingerprint(text: str) -> str:
    """The record stands in the last document of stages."""
    try:
        document = bounded_yaml.load(text)
    except MergeError:  # of several documents; the last has the record
        document = bounded_yaml.load(text.rpartition("\n---")[2])
    record = document.get("record") if isinstance(document, dict) else None
    result = record.get("result") if isinstance(record, dict) else None
    return result if isinstance(result, str) else ""


def moved(folder: Path, base: Path) -> dict[int | str | None, float]:
    """How far a model on the disk is from its base: layer -> ||model - base|| / ||base||.

    Both are read once; sums are in double. As the drift of a `merging.run.merge.Result`.

    Raises:
        MergeError: one of them cannot be read, or they are no family.
    """
    family = open_family(base, {"result": folder})
    return drift(family, {entry.name: _distance(family, entry) for entry in family.merged})


def _distance(family: Family, entry: Entry) -> Written:
    """The sums of one tensor that both have."""
    (model,), name = family.experts, entry.name
    changed = squared = 0.0
    for start in range(0, entry.numel, _CHUNK):
        stop = min(start + _CHUNK, entry.numel)
        before = family.base.read_flat(name, start, stop).double()
        after = model.read_flat(name, start, stop).double()
        changed += float((after - before).square().sum())
        squared += float(before.square().sum())
    return Written(changed, squared, 0)


__all__ = ["Provenance", "moved", "provenance"]
