"""One try at a merge on one device: measure, write, read back, record, publish.

The work happens in a hidden folder beside the target. It appears once all is on the disk; whatever
goes wrong before that, it is removed, or left for a merge that goes on there.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from merging.checkpoints import Checkpoint, Entry, Family, ModelWriter, open_checkpoint
from merging.checkpoints.checkpoint import WIDTHS
from merging.checkpoints.checksum import checksum
from merging.checkpoints.output import in_words
from merging.declarations.retention import Retention, difference, total
from merging.engines.eager import MergedChunk, ProgressCallback, Stream, TensorReader
from merging.engines.residents import Residents
from merging.errors import MergeError, VerificationFailed
from merging.later import torch
from merging.recipe import Recipe
from merging.run import record
from merging.run.devices import engine_for
from merging.run.journal import Journal, Written, key_of, resumable
from merging.run.lowering import passes
from merging.run.measuring import Measured, measure
from merging.run.readback import ReadBack
from merging.run.stacks import drift
from merging.run.tensors import copy_rest, overflow, specs_of

_PATIENCE_S = 0.1  # between two looks at whether a stop was asked for while the disk works


@dataclass(frozen=True)
class Order:
    """What is to be merged, to where and how; the arguments of `merging.run.merge.merge`."""

    recipe: Recipe
    family: Family
    out: Path
    overwrite: bool
    shard_bytes: int
    resume: bool = False
    progress: ProgressCallback | None = None
    cancel: threading.Event | None = None
    engine: Callable[..., Stream] | None = None
    residents: Residents = field(default_factory=Residents)


@dataclass(frozen=True)
class Finished:
    """What an attempt leaves besides its files; see `merging.run.merge.Result`."""

    fingerprint: str
    engine: str
    drift: dict[int | str | None, float]
    retention: dict[str, Retention] = field(default_factory=dict)
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Draft:
    """A result in the making.

    Attributes:
        dtypes: of its tensors, by name (safetensors' names).
        back: reads finished tensors back.
        journal: the finished tensors, those of an earlier merge that is gone on with included.
    """

    order: Order
    stream: Stream
    writer: ModelWriter
    dtypes: dict[str, str]
    back: ReadBack
    journal: Journal

    def finish(self, entry: Entry, written: Written) -> None:
        """A merged tensor has been handed to the writer. May be called from any thread."""
        self.journal.note(entry.name, written)
        if entry.rows is None:  # else rows of the base are still to come
            self.back.submit(entry, written.checksum)


@dataclass(frozen=True)
class Published:
    """A model that was written, read back and published.

    Attributes:
        written: of every merged tensor, by its name.
        fingerprint: of all tensors as read back.
        begun: how much of it was there already.
        remarks: on what was copied.
    """

    written: dict[str, Written]
    fingerprint: str
    begun: str
    remarks: tuple[str, ...]


def attempt(order: Order, device: str, chunk: int | None, resident: bool) -> Finished:
    """Merges and publishes.

    Args:
        chunk: elements worked on at a time; None for what suits the device.
        resident: the family may stay in the device's memory, where it fits.
    """
    stream = _stream(order, device, chunk, resident)
    measured = measure(order.recipe, stream)
    own = f"{stream.engine} on {device}"
    done = publish(order, stream, own, lambda draft: _write(draft, measured))
    retention = _retention(measured, done.written, order.family)
    notes = [*([done.begun] if order.resume else []), *measured.lowering.notes, *done.remarks]
    notes += filter(None, (difference(name, part) for name, part in retention.items()))
    moved = drift(order.family, done.written)
    return Finished(done.fingerprint, stream.engine, moved, retention, tuple(dict.fromkeys(notes)))


def publish(
    order: Order, stream: Stream, engine: str, write: Callable[[Draft], dict[str, Written]]
) -> Published:
    """Writes a model, whoever has its merged tensors: in a hidden folder, read back, with its
    record, and then it appears.

    Args:
        engine: what a merge must run on that goes on with this one.
        write: writes the merged tensors into a draft, as `Draft.finish` says.

    Raises:
        MergeError: as a merge.
    """
    _check_unchanged(order.family)
    with _draft(order, stream, engine) as draft:
        begun = _how_it_began(draft)
        written = write(draft)
        copied, remarks = _copy(draft)
        digest = _read_back(draft, written, copied)
        _publish(draft, digest)
    return Published(written, digest, begun, tuple(remarks))


def _stream(order: Order, device: str, chunk: int | None, resident: bool) -> Stream:
    if device == "cuda":
        torch.cuda.reset_peak_memory_stats()
    engine = order.engine or engine_for(order.family, order.recipe, device)
    return engine(
        order.family,
        device=device,
        passes=passes(order.recipe) + 2,  # the last two merge and read back
        progress=order.progress,
        cancel=order.cancel,
        chunk=chunk,
        source=order.residents.source(order.family, device) if resident else None,
    )


@contextmanager
def _draft(order: Order, stream: Stream, engine: str) -> Iterator[Draft]:
    """A hidden folder with room for every tensor. Where the work on it fails it is discarded, or
    left where a later merge may go on with it."""
    specs = specs_of(order.family, order.recipe)
    key = key_of(order.recipe, order.family, order.shard_bytes, engine)
    writer = ModelWriter(
        order.out,
        specs,
        shard_bytes=order.shard_bytes,
        overwrite=order.overwrite,
        taken_up=resumable(order.out, key) if order.resume else None,
    )
    dtypes = {spec.name: spec.dtype for spec in specs}
    back = ReadBack(_opened(writer, order), writer.out, stream)
    try:
        yield Draft(order, stream, writer, dtypes, back, Journal(writer.folder, key))
    except BaseException as error:
        back.close()
        reason = in_words(error, order.out)
        # what is tried again at once, in smaller chunks or on the CPU, begins anew
        goes_on = isinstance(reason, MergeError) and not isinstance(reason, VerificationFailed)
        if order.resume and goes_on:
            writer.leave()
        else:
            writer.discard()
        if reason is not error:
            raise reason from error
        raise
    back.close()


def _opened(writer: ModelWriter, order: Order) -> Checkpoint:
    """The hidden folder as a model: every tensor there, of its type and shape."""
    try:
        record.write_config(writer.folder, order.recipe, order.family)
        opened = open_checkpoint(writer.folder, writer.out.name)
        for spec in specs_of(order.family, order.recipe):
            info = opened.tensors.get(spec.name)
            if info is None or info.shape != spec.shape or info.dtype != spec.dtype:
                raise VerificationFailed(f"{writer.out}: tensor {spec.name} did not read back")
    except BaseException:
        writer.discard()
        raise
    return opened


def _how_it_began(draft: Draft) -> str:
    """A note on what an earlier merge left of the result."""
    finished = len(draft.journal.finished)
    if not finished:
        return "nothing of it was there: begun anew"
    return f"{finished} of {len(draft.order.family.merged)} tensors were there already"


def _write(draft: Draft, measured: Measured) -> dict[str, Written]:
    """Merges what is not there yet; what was written of every merged tensor, by its name."""
    stream, finished = draft.stream, dict(draft.journal.finished)
    missing = []
    for entry in draft.order.family.merged:
        if entry.name not in finished:
            missing.append(entry)
            continue
        stream.advance("merge", entry, entry.numel)
        if entry.rows is None:
            draft.back.submit(entry, finished[entry.name].checksum)

    def take(reader: TensorReader, chunks: Iterable[MergedChunk]) -> Written:
        return _take(draft, reader, chunks, measured.retention(reader))

    written = stream.merge(missing, measured.decide, draft.dtypes, take)
    return finished | {e.name: parts for e, parts in zip(missing, written, strict=True)}


def _take(
    draft: Draft,
    reader: TensorReader,
    chunks: Iterable[MergedChunk],
    retention: tuple[Retention, ...],
) -> Written:
    """Writes one merged tensor. Called from any thread."""
    entry = reader.entry
    width = WIDTHS[draft.dtypes[entry.name]]
    changed, squared, bytes_sum = 0.0, 0.0, 0
    for chunk in chunks:
        if not chunk.finite:
            raise reader.culprit(overflow(entry.name))
        bytes_sum += checksum(chunk.values, chunk.start * width)
        draft.writer.write(entry.name, chunk.start, chunk.values)
        changed += chunk.changed
        squared += chunk.squared
    written = Written(changed, squared, bytes_sum, retention)
    draft.finish(entry, written)
    return written


def _copy(draft: Draft) -> tuple[dict[str, int], list[str]]:
    """Copies what is not merged, as `copy_rest`; progress goes on to reading back."""
    family = draft.order.family
    draft.back.phase = "verify"
    for entry in family.merged[-1:]:
        draft.stream.advance(draft.back.phase, entry, 0)
    return copy_rest(family, draft.dtypes, draft.writer)


def _read_back(draft: Draft, written: dict[str, Written], copied: dict[str, int]) -> str:
    """Waits until all is on the disk and reads back as it was written; its fingerprint.

    Args:
        copied: checksums of what was copied, by tensor.
    """
    flushed = draft.writer.flush()  # the disk works while the rest is read back
    for entry in draft.order.family.account:
        if entry.status == "left_out" or _is_submitted(entry):
            continue
        merged = written[entry.name].checksum if entry.name in written else 0
        draft.back.submit(entry, merged + copied.get(entry.name, 0))
    digest = draft.back.fingerprint()
    while not flushed.done(_PATIENCE_S):
        draft.stream.check_cancelled()
    return digest


def _is_submitted(entry: Entry) -> bool:
    """True where a tensor was read back when it was merged: all of it is."""
    return entry.status == "merged" and entry.rows is None


def _publish(draft: Draft, digest: str) -> None:
    """Writes the record; the model appears."""
    order = draft.order
    record.write_companions(draft.writer.folder, order.recipe, order.family, digest)
    _check_unchanged(order.family)  # else the record would vouch for other bytes

    def settled() -> None:
        draft.stream.check_cancelled()
        draft.journal.remove()

    draft.writer.publish(settled)


def _check_unchanged(family: Family) -> None:
    for model in family.models:
        model.check_unchanged()


def _retention(
    measured: Measured, written: dict[str, Written], family: Family
) -> dict[str, Retention]:
    """By the experts' names; empty where nothing is pruned by magnitude."""
    parts = measured.lowering.pruning.retention or total(
        tensor.retention for tensor in written.values()
    )
    return {model.name: part for model, part in zip(family.experts, parts, strict=False)}
