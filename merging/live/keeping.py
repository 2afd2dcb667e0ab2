"""A live model becomes a folder: the tensors that answered are written, not merged again.

What is written has the bytes that a merge of the same recipe writes, through the same writer; the
folders differ in nothing.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import chain
from pathlib import Path

import torch

from merging.checkpoints import Entry, Family
from merging.checkpoints.checkpoint import MERGEABLE, WIDTHS, torch_dtype
from merging.checkpoints.checksum import checksum
from merging.checkpoints.fingerprint import combined, digest_of
from merging.checkpoints.output import check_output, located
from merging.checkpoints.writer import SHARD_BYTES
from merging.engines.eager import CHUNK, ProgressCallback, Stream
from merging.recipe import Recipe
from merging.run import space
from merging.run.attempt import Draft, Order, publish
from merging.run.journal import Written
from merging.run.merge import merge
from merging.run.tensors import specs_of

Places = Mapping[str, torch.Tensor]
"""The network's values, (n,) each, by the tensor's name; see `places.places_of`."""


@dataclass(frozen=True)
class Kept:
    """A live model that was written.

    Attributes:
        out: its folder.
        fingerprint: of its tensors as read back.
        seconds: until it appeared.
        is_merged_again: its tensors lay in memory in another type than a file has, so that they
            were merged once more.
    """

    out: Path
    recipe: Recipe
    fingerprint: str
    seconds: float
    is_merged_again: bool = False


def keep(
    places: Places,
    recipe: Recipe,
    family: Family,
    out: Path,
    *,
    overwrite: bool = False,
    shard_bytes: int = SHARD_BYTES,
    progress: ProgressCallback | None = None,
    cancel: threading.Event | None = None,
) -> Kept:
    """Writes what a recipe made of the network's values to `out`, complete or not at all.

    Args:
        places: nobody changes them meanwhile.
        overwrite: replace an existing model folder once the new one is complete.
        progress: called after every tensor.

    Raises:
        MergeError: as `merging.run.merge.merge`; nothing is left behind.
    """
    started = time.perf_counter()
    out = located(out)
    if not in_type(places, recipe, family):
        result = merge(recipe, out, overwrite=overwrite, progress=progress, cancel=cancel)
        return Kept(result.out, recipe, result.fingerprint, result.seconds, is_merged_again=True)
    check_output(out, overwrite)
    space.check_no_input(out, family.models)
    space.check_space(out, specs_of(family, recipe))
    order = Order(recipe, family, out, overwrite, shard_bytes, cancel=cancel)
    stream = Stream(family, passes=2, progress=progress, cancel=cancel)
    done = publish(order, stream, "memory", lambda draft: _write(draft, stream, places))
    return Kept(out.resolve(), recipe, done.fingerprint, time.perf_counter() - started)


def in_type(places: Places, recipe: Recipe, family: Family) -> bool:
    """True where every merged tensor lies in memory in the type that a file has it in: else its
    values were rounded once more there."""
    dtypes = {spec.name: torch_dtype(spec.dtype) for spec in specs_of(family, recipe)}
    return all(
        entry.name in places and places[entry.name].dtype == dtypes[entry.name]
        for entry in family.merged
    )


def fingerprint(places: Places, recipe: Recipe, family: Family) -> str:
    """The fingerprint that the model has where it is written, of the values in memory.

    Raises:
        ValueError: they are not `in_type`.
    """
    if not in_type(places, recipe, family):
        raise ValueError("a tensor lies in memory in another type than a file has it in")
    entries = {entry.name: entry for entry in family.account}
    digests = []
    for spec in sorted(specs_of(family, recipe), key=lambda spec: spec.name):
        entry = entries[spec.name]
        own = _blocks(places[spec.name], entry) if _is_merged(entry) else ()
        blocks = chain((data for _, data in own), _copied(family, entry, spec.dtype))
        digests.append(digest_of(spec.name, spec.dtype, spec.shape, blocks))
    return combined(digests)


def _write(draft: Draft, stream: Stream, places: Places) -> dict[str, Written]:
    """Writes the merged tensors as they lie in memory. Their sums are not counted: nobody asks."""
    written = {}
    for entry in draft.order.family.merged:
        width, bytes_sum = WIDTHS[draft.dtypes[entry.name]], 0
        for start, data in _blocks(places[entry.name], entry):
            stream.check_cancelled()
            bytes_sum += checksum(data, start * width)
            draft.writer.write(entry.name, start, data)
        written[entry.name] = Written(0.0, 0.0, bytes_sum)
        draft.finish(entry, written[entry.name])
        stream.advance("write", entry, entry.numel)
    return written


def _is_merged(entry: Entry) -> bool:
    return entry.status == "merged"


def _blocks(place: torch.Tensor, entry: Entry) -> Iterator[tuple[int, memoryview]]:
    """(first element, bytes) of what was merged of a tensor, chunk by chunk."""
    for start in range(0, entry.numel, CHUNK):
        values = place[start : min(start + CHUNK, entry.numel)].cpu()
        yield start, values.view(torch.uint8).numpy().data


def _copied(family: Family, entry: Entry, dtype: str) -> Iterator[memoryview]:
    """The bytes of a tensor that come from the base: all, or the rows beyond the merged ones."""
    stored = family.base.tensors[entry.name]
    if stored.dtype not in MERGEABLE:
        yield from (block for _, block in family.base.blocks(stored))
        return
    first = entry.numel if _is_merged(entry) else 0
    for start in range(first, stored.numel, CHUNK):
        values = family.base.read_flat(entry.name, start, min(start + CHUNK, stored.numel))
        yield values.to(torch_dtype(dtype)).view(torch.uint8).numpy().data


__all__ = ["Kept", "fingerprint", "in_type", "keep"]
