"""A recipe of several stages: each merged once what it needs is there, the last into its place.

The results of earlier stages lie in a hidden folder beside the last's, or in a folder that was
named for them. Before a weight is read every stage is checked over what the others promise: their
tensors' names, types and shapes follow from headers alone.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeVar

from merging import __version__
from merging.checkpoints import Checkpoint, Family, open_checkpoint, staging
from merging.checkpoints.output import check_output, in_words
from merging.engines.eager import Progress, ProgressCallback
from merging.errors import BadFile, MergeError, VerificationFailed
from merging.recipe import Recipe, dump
from merging.recipe.stages import needed_by
from merging.run import space
from merging.run.journal import key_of
from merging.run.lowering import passes
from merging.run.preflight import open_recipe
from merging.run.promises import promise
from merging.run.tensors import specs_of
from merging.system.documents import read_object

_KIND = "stages"
_KEY = ".key"
_SMALL = 100_000  # bytes of a file that holds a key

Results = Mapping[str, Checkpoint]
T = TypeVar("T")
MergeOne = Callable[[Recipe, Path, Results, bool, ProgressCallback | None], T]
"""(recipe, folder, results of earlier stages, overwrite, progress): one stage is merged."""


@dataclass(frozen=True)
class Ahead:
    """What one stage will be, from headers alone.

    Attributes:
        work: elements, all passes counted.
    """

    name: str
    recipe: Recipe
    family: Family
    work: int


def in_stages(
    recipe: Recipe,
    out: Path,
    merge_one: MergeOne[T],
    *,
    folder: Path | None,
    overwrite: bool,
    resume: bool,
    shard_bytes: int,
    progress: ProgressCallback | None,
) -> list[tuple[str, T]]:
    """Merges all stages of a recipe and what uses them.

    Args:
        out: absolute, where the last result goes.
        merge_one: merges one of them.
        folder: where the others' results go, and stay; None for a hidden folder, which is removed
            in the end (with `resume` it is left where the merge ends early).

    Returns:
        What `merge_one` returned of every stage that was not there already, by its name; the last
        is that of the recipe itself, "".

    Raises:
        MergeError: as `merge_one`, and before it whatever headers tell of any stage.
    """
    check_output(out, overwrite)
    plan = list(ahead(recipe))
    for one in plan:
        space.check_no_input(out, one.family.models)
    _check_space(plan, out, folder)
    bar = _Bar(progress, [one.work for one in plan])
    home: staging.Staging | None = None
    try:
        if folder is None:
            home = _taken_up(out, _key(recipe) if resume else None) or staging.new(out, _KIND)
            (home.folder / _KEY).write_text(_key(recipe))
        place = folder or (home.folder if home else out.parent)
        results: dict[str, Checkpoint] = {}
        finished: list[tuple[str, T]] = []
        for index, one in enumerate(plan[:-1]):
            target, mark = place / one.name, place / f".{one.name}.stage"
            key = _key_of(one, results, shard_bytes)
            if not resume or not _is_done(target, mark, key):
                done = merge_one(one.recipe, target, results, overwrite, bar.of(index))
                finished.append((one.name, done))
                mark.write_text(json.dumps({"key": key}))
            results[one.name] = open_checkpoint(target, one.name)
        last = merge_one(recipe, out, results, overwrite, bar.of(len(plan) - 1))
        if home is not None:
            home.remove()
        return [*finished, ("", last)]
    except BaseException as error:
        failure = in_words(error, out)
        goes_on = isinstance(failure, MergeError) and not isinstance(failure, VerificationFailed)
        if home is not None:
            if resume and goes_on:
                home.let_go()
            else:
                home.remove()
        if failure is not error:
            raise failure from error
        raise


def ahead(recipe: Recipe) -> Iterator[Ahead]:
    """Every stage of a recipe and the recipe itself, over what those before it promise.

    Raises:
        MergeError: a stage's models cannot be merged; its message names the stage.
    """
    promises: dict[str, Checkpoint] = {}
    for name, one in (*recipe.stages, ("", recipe)):
        try:
            family = open_recipe(one, _used(one, promises))
        except MergeError as error:
            reason = f"{name}: {error.reason}" if name else error.reason
            raise type(error)(reason, line=error.line) from None
        work = sum(entry.numel for entry in family.merged) * (passes(one) + 2)
        yield Ahead(name, one, family, work)
        if name:
            promises[name] = promise(name, one, family)


def _used(recipe: Recipe, results: Mapping[str, Checkpoint]) -> dict[str, Checkpoint]:
    return {name: results[name] for name in needed_by(recipe, results)}


def _check_space(plan: list[Ahead], out: Path, folder: Path | None) -> None:
    """Raises NotEnoughSpace where the disk does not hold all results at once."""
    specs = [specs_of(one.family, one.recipe) for one in plan]
    earlier = [spec for part in specs[:-1] for spec in part]
    if folder is None:
        space.check_space(out, [*earlier, *specs[-1]])
    else:
        space.check_space(folder, earlier)
        space.check_space(out, specs[-1])


def _key(recipe: Recipe) -> str:
    """What must be the same for stages that are done to stay: `_key_of` says it of their files."""
    return hashlib.sha256(f"{__version__}\n{dump(recipe)}".encode()).hexdigest()


def _key_of(one: Ahead, results: Results, shard_bytes: int) -> str:
    """What one stage is merged from, files included."""
    family = open_recipe(one.recipe, _used(one.recipe, results))
    return key_of(one.recipe, family, shard_bytes, "stage")


def _taken_up(out: Path, key: str | None) -> staging.Staging | None:
    """The hidden folder of the same stages whose merge ended early; those of others are removed."""
    same = None
    for remnant in staging.abandoned(out, _KIND):
        mark = remnant.folder / _KEY
        if same is None and mark.is_file() and mark.read_text()[:_SMALL] == key:
            same = remnant
        else:
            remnant.remove()
    return same


def _is_done(target: Path, mark: Path, key: str) -> bool:
    try:
        return target.is_dir() and read_object(mark, _SMALL).get("key") == key
    except BadFile:
        return False


class _Bar:
    """The progress of one stage as that of all: by the elements that each will work on."""

    def __init__(self, progress: ProgressCallback | None, work: list[int]) -> None:
        self._progress, self._work = progress, work
        self._seconds = 0.0

    def of(self, index: int) -> ProgressCallback | None:
        """What one stage calls."""
        tell = self._progress
        if tell is None:
            return None
        before, total, own = sum(self._work[:index]), sum(self._work), self._work[index]
        started = self._seconds

        def report(progress: Progress) -> None:
            done = before + own * progress.done // max(progress.total, 1)
            self._seconds = started + progress.seconds
            eta_s = self._seconds * (total - done) / done if done else None
            tell(replace(progress, done=done, total=total, seconds=self._seconds, eta_s=eta_s))

        return report
