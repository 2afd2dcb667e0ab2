"""One task of a container as an ordinary model.

It has the bytes that a merge for that task alone would have written: base + factor * mask * change
in float32, rounded once.
"""

from __future__ import annotations

import shutil
import threading
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from merging import recipe as recipes
from merging.checkpoints import (
    Checkpoint,
    Entry,
    Family,
    ModelWriter,
    container,
    fingerprint,
    open_checkpoint,
    resolve,
)
from merging.checkpoints.aliases import without_wrapper
from merging.checkpoints.checkpoint import torch_dtype
from merging.checkpoints.checksum import checksum
from merging.checkpoints.container import CHANGE, Container
from merging.checkpoints.layout import place, places
from merging.checkpoints.output import check_output, in_words, located
from merging.checkpoints.writer import SHARD_BYTES
from merging.engines.eager import CHUNK, ProgressCallback, Stream
from merging.errors import BadCheckpoint, FamilyMismatch, MergeError, VerificationFailed
from merging.later import torch
from merging.recipe import Recipe
from merging.run import companions, record, space
from merging.run.tensors import copy_rest, overflow, specs_of


@dataclass(frozen=True)
class Materialised:
    """A task's model.

    Attributes:
        fingerprint: of its tensors, as read back.
    """

    out: Path
    task: str
    fingerprint: str
    seconds: float
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class _Parts:
    """What a task is made of: one entry's change and mask lie under its name."""

    change: Checkpoint
    mask: Checkpoint
    factor: float


def materialise(
    folder: Path,
    task: str,
    out: Path,
    *,
    base: str | None = None,
    overwrite: bool = False,
    shard_bytes: int = SHARD_BYTES,
    progress: ProgressCallback | None = None,
    cancel: threading.Event | None = None,
) -> Materialised:
    """Writes the model of one task to `out`, complete or not at all.

    Args:
        folder: the container.
        task: its name, or its number from 1.
        base: the base, where it is no longer where the recipe says.

    Raises:
        RecipeError: no such task.
        FamilyMismatch: the base is another model than the container was made with.
        BadCheckpoint, ModelNotFound: the container or the base cannot be read.
        MergeError: as a merge.
    """
    started = time.perf_counter()
    out = located(out)
    check_output(out, overwrite)
    opened = container.open_container(folder)
    number, chosen = opened.task(task)
    recipe = _recipe_of(opened, number)
    root = _base(opened, recipe, base)
    parts = _Parts(
        container.open_file(folder, CHANGE), container.open_file(folder, chosen.file), chosen.factor
    )
    family = _family(opened, root, parts)
    space.check_no_input(out, [root, parts.change])
    space.check_space(out, specs_of(family, recipe))
    stream = Stream(family, passes=3, progress=progress, cancel=cancel)
    _check_files(opened, parts, stream)
    digest, notes = _write(opened, recipe, family, parts, stream, out, overwrite, shard_bytes)
    seconds = time.perf_counter() - started
    return Materialised(out.resolve(), chosen.name, digest, seconds, tuple(notes))


def _recipe_of(opened: Container, number: int) -> Recipe:
    """The recipe that makes this task's model directly."""
    recipe = recipes.load(opened.folder / record.RECIPE_FILE)
    return replace(recipe, parameters={**recipe.parameters, "container": False, "task": number})


def _base(opened: Container, recipe: Recipe, choice: str | None) -> Checkpoint:
    """The base, held against the fingerprint of the one that the container was made with."""
    reference = choice or opened.base
    try:
        base = open_checkpoint(resolve(reference, None if choice else recipe.folder), reference)
    except MergeError as error:
        raise type(error)(error if choice else f"{error} (or name the base: --base)") from None
    own = fingerprint(base)
    if own != opened.base_fingerprint:
        raise FamilyMismatch(
            f"{reference} is another model than the base of {opened.folder}: its fingerprint is "
            f"{own}, the base's is {opened.base_fingerprint}; give that one ({opened.base}): --base"
        )
    return without_wrapper(base)


def _family(opened: Container, base: Checkpoint, parts: _Parts) -> Family:
    """The base's tensors, those of the change as merged, the others as copied or left out.

    Raises:
        BadCheckpoint: the change or the mask does not fit the base.
    """
    changes = parts.change.tensors
    where = places({name: info.shape for name, info in base.tensors.items()})
    account = [
        Entry(name, "left_out", reason, (), "F32", place(name, ()))
        for name, reason in opened.left_out.items()
    ]
    for name, info in base.tensors.items():
        if name in changes:
            shape = changes[name].shape
            rows = shape[0] if shape and shape != info.shape else None
            account.append(Entry(name, "merged", "", info.shape, info.dtype, where[name], rows))
        elif name not in opened.left_out:
            reason = opened.copied.get(name, "")
            account.append(Entry(name, "copied", reason, info.shape, info.dtype, where[name]))
    family = Family(base, (), tuple(sorted(account, key=lambda entry: entry.name)))
    fitting = {entry.name for entry in family.merged if _fits(entry, parts)}
    if wrong := sorted(changes.keys() ^ fitting):
        raise BadCheckpoint(
            f"{opened.folder}: tensor {wrong[0]} does not fit its mask or the base; copy the "
            "container again"
        )
    return family


def _fits(entry: Entry, parts: _Parts) -> bool:
    change, mask = parts.change.tensors[entry.name], parts.mask.tensors.get(entry.name)
    return (
        mask is not None
        and (change.dtype, mask.dtype) == ("F32", "U8")
        and (change.numel, mask.numel) == (entry.numel, -(-entry.numel // 8))
        and change.shape[1:] == entry.shape[1:]
    )


def _check_files(opened: Container, parts: _Parts, stream: Stream) -> None:
    """Raises BadCheckpoint where a file is not as it was written."""
    entries = {entry.name: entry for entry in stream.family.merged}

    def see(counts: int, name: str, block: memoryview, start: int) -> None:
        stream.check_cancelled()
        if name in entries:
            stream.advance("check", entries[name], counts * len(block) // 4)

    for file, counts in ((parts.change, 1), (parts.mask, 0)):
        own = container.combined(container.digests(file, partial(see, counts)))
        if own != opened.files.get(file.name):
            raise BadCheckpoint(
                f"{opened.folder / file.name} is damaged: its fingerprint is {own}, written was "
                f"{opened.files.get(file.name)}; copy the container again"
            )


def _write(
    opened: Container,
    recipe: Recipe,
    family: Family,
    parts: _Parts,
    stream: Stream,
    out: Path,
    overwrite: bool,
    shard_bytes: int,
) -> tuple[str, list[str]]:
    """Writes, reads back and publishes; the fingerprint, and notes."""
    specs = specs_of(family, recipe)
    dtypes = {spec.name: spec.dtype for spec in specs}
    writer = ModelWriter(out, specs, shard_bytes=shard_bytes, overwrite=overwrite)
    sums: Counter[str] = Counter()
    try:
        for reader in stream.readers("merge"):
            name = reader.entry.name
            dtype = torch_dtype(dtypes[name])
            for start, values in _pieces(family.base, parts, reader.entry, stream):
                rounded = values.to(dtype)
                if not bool(torch.isfinite(rounded).all()):
                    raise overflow(name)
                data = rounded.view(torch.uint8).numpy().data
                writer.write(name, start, data)
                sums[name] += checksum(data, start * rounded.element_size())
        copied, notes = copy_rest(family, dtypes, writer)
        sums.update(copied)
        shutil.copyfile(opened.folder / "config.json", writer.folder / "config.json")
        writer.flush()  # the disk works while all is read back
        digest = _read_back(writer, sums, stream)
        _beside(opened, recipe, family, writer.folder, digest)
        for model in (family.base, parts.change, parts.mask):
            model.check_unchanged()
        writer.publish(stream.check_cancelled)
    except BaseException as error:
        writer.discard()
        raise in_words(error, out) from error
    return digest, notes


def _pieces(
    base: Checkpoint, parts: _Parts, entry: Entry, stream: Stream
) -> Iterator[tuple[int, torch.Tensor]]:
    """(start, base + factor * mask * change) of one tensor, chunk by chunk, float32."""
    for start in range(0, entry.numel, CHUNK):
        stream.check_cancelled()
        stop = min(start + CHUNK, entry.numel)
        change = parts.change.read_flat(entry.name, start, stop)
        data = parts.mask.read_flat(entry.name, start // 8, -(-stop // 8))
        bits = container.unpacked(data, stop - start)
        yield start, base.read_flat(entry.name, start, stop).float() + bits * change * parts.factor


def _read_back(writer: ModelWriter, sums: Counter[str], stream: Stream) -> str:
    """The fingerprint of the model in the hidden folder, every byte of it.

    Args:
        sums: checksums of what was handed to the writer, by tensor.

    Raises:
        VerificationFailed: a tensor reads back otherwise than it was written.
    """
    written = open_checkpoint(writer.folder, writer.out.name)
    entries = {entry.name: entry for entry in stream.family.merged}
    totals: Counter[str] = Counter()

    def see(name: str, block: memoryview, start: int) -> None:
        stream.check_cancelled()
        totals[name] += checksum(block, start)
        if name in entries:
            stream.advance("verify", entries[name], len(block) // written.tensors[name].width)

    digest = container.combined(container.digests(written, see))
    for name in written.tensors:
        if (totals[name] - sums[name]) % (1 << 64):
            raise VerificationFailed(
                f"{writer.out}: tensor {name} reads back otherwise than it was written; the disk "
                "or the memory is at fault: choose another disk"
            )
    return digest


def _beside(opened: Container, recipe: Recipe, family: Family, folder: Path, digest: str) -> None:
    """What stands beside the tensors: what the container holds of it, and the record."""
    for name in companions.names(opened.folder):
        (folder / name).parent.mkdir(exist_ok=True)
        shutil.copyfile(opened.folder / name, folder / name)
    record.write_record(folder, recipe, family, digest, opened.inputs)


__all__ = ["Materialised", "materialise"]
