"""A recipe becomes a model: preflight, run, verify, record.

`check` reads headers only and reports every problem it finds. `merge` streams the family through
the recipe's stages into a hidden folder, reads it back, and lets it appear.
"""

from __future__ import annotations

import gc
import resource
import shutil
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from merging import kinship
from merging.checkpoints import (
    Checkpoint,
    Entry,
    Family,
    ModelWriter,
    TensorSpec,
    open_checkpoint,
    open_family,
    resolve,
)
from merging.checkpoints.checkpoint import MERGEABLE, WIDTHS, torch_dtype
from merging.checkpoints.checksum import checksum
from merging.checkpoints.layout import depths, text_depths
from merging.checkpoints.output import check_output, in_words, located
from merging.checkpoints.writer import SHARD_BYTES
from merging.declarations.retention import Kept, difference, total
from merging.engines import fused
from merging.engines.eager import (
    CHUNK,
    GPU_CHUNK,
    RESIDENT,
    MergedChunk,
    ProgressCallback,
    Stream,
    TensorReader,
    pick_device,
)
from merging.engines.sources import release, source_for
from merging.errors import (
    FamilyMismatch,
    MergeError,
    NonFinite,
    NotEnoughSpace,
    OutputExists,
    RecipeError,
    VerificationFailed,
)
from merging.gpu import stream as gpu
from merging.instructions import Decision, Outcome
from merging.kinship import Problem
from merging.later import is_loaded, torch
from merging.recipe import Recipe
from merging.run import record
from merging.run.journal import Journal, Written, key_of, resumable
from merging.run.readback import ReadBack
from merging.sketches.foresight import foresee
from merging.stages import decide, make_consensus, make_pruner, value_at

_PATIENCE_S = 0.1  # between two looks at whether a stop was asked for while the disk works
SMALLEST_CHUNK = 1 << 17  # elements; below that the CPU is the better place
STORED = {"float32": "F32", "bfloat16": "BF16", "float16": "F16"}
"""safetensors' names of the recipes' types."""


@dataclass(frozen=True)
class Report:
    """The preflight's result.

    Attributes:
        account: one entry per tensor; empty where the family could not be opened.
        disk_bytes: bytes the output will take.
        memory_bytes: estimated peak memory of the merge.
    """

    problems: tuple[Problem, ...]
    account: tuple[Entry, ...] = field(repr=False)
    disk_bytes: int
    memory_bytes: int

    @property
    def ok(self) -> bool:
        """True where nothing stops the merge."""
        return not any(problem.severity == "error" for problem in self.problems)


@dataclass(frozen=True)
class Result:
    """A finished merge.

    Attributes:
        fingerprint: of the merged tensors as read back.
        seconds: from start to published.
        peak_bytes: peak memory of the process (of the GPU on cuda).
        engine: how the arithmetic ran.
        drift: layer -> ||merged - base|| / ||base||; None for tensors outside the layers. Of a
            model of several stacks, "decoder 3".
        kept: per expert, what was asked for and kept of its changes; empty where nothing is pruned
            by magnitude.
    """

    out: Path
    fingerprint: str
    seconds: float
    peak_bytes: int
    device: str
    engine: str
    account: tuple[Entry, ...] = field(repr=False)
    drift: dict[int | str | None, float] = field(repr=False)
    kept: dict[str, Kept] = field(repr=False, default_factory=dict)
    notes: tuple[str, ...] = ()


def open_recipe(recipe: Recipe) -> Family:
    """Opens the base and the experts that a recipe names.

    Raises:
        FamilyMismatch: they do not belong together (see `merging.kinship`).
        BadCheckpoint, UnsafeFile, ModelNotFound, RecipeError: as `check` says them.
    """
    base = open_checkpoint(resolve(recipe.base, recipe.folder), recipe.base)
    experts = [
        open_checkpoint(resolve(source.model, recipe.folder), source.model)
        for source in recipe.sources
    ]
    _refuse(kinship.compare(recipe, base, experts))
    family = open_family(base, experts, recipe.keep_base)
    _refuse(kinship.account(recipe, family))
    _check_layers(recipe, family)
    _check_weights(recipe, family)
    return family


class _Unrelated(Exception):
    """The models are no family, for a reason that is known already."""


def _refuse(problems: Iterable[Problem]) -> None:
    """Raises FamilyMismatch for the first error."""
    for problem in problems:
        if problem.severity == "error":
            raise FamilyMismatch(problem.line)


def check(
    recipe: Recipe,
    out: Path | None = None,
    *,
    overwrite: bool = False,
    sketches: Path | None = None,
) -> Report:
    """Preflight: every problem found, from headers alone.

    Args:
        out: where the merge would go, to check its disk; None to skip that.
        sketches: folder of what scans kept, to foresee what is kept; None to skip that.
    """
    problems = [Problem("warning", "recipe", note) for note in recipe.notes]
    models = []
    for reference in (recipe.base, *(source.model for source in recipe.sources)):
        try:
            models.append(open_checkpoint(resolve(reference, recipe.folder), reference))
        except MergeError as error:
            problems.append(Problem("error", reference, str(error), "models"))
    account: tuple[Entry, ...] = ()
    disk = memory = 0
    if len(models) == 1 + len(recipe.sources):
        try:
            related = kinship.compare(recipe, models[0], models[1:])
            problems += related
            if any(problem.severity == "error" for problem in related):
                raise _Unrelated
            family = open_family(models[0], models[1:], recipe.keep_base)
            problems += kinship.account(recipe, family)
            _check_layers(recipe, family)
            _check_weights(recipe, family)
            problems += [Problem("warning", "recipe", t) for t in _idle_filters(recipe, family)]
            problems += foresee(recipe, family, sketches) if sketches else []
            disk = sum(spec.size_bytes for spec in _specs(family, recipe))
            account, memory = family.account, _memory(family, recipe)
        except _Unrelated:
            pass  # said above
        except MergeError as error:
            problems.append(Problem("error", "models", str(error), "models"))
    if out is not None:
        problems += _output_problems(located(out), models, disk, overwrite)
    return Report(tuple(dict.fromkeys(problems)), account, disk, memory)


def merge(
    recipe: Recipe,
    out: Path,
    *,
    device: str = "auto",
    overwrite: bool = False,
    shard_bytes: int = SHARD_BYTES,
    chunk: int | None = None,
    resume: bool = False,
    progress: ProgressCallback | None = None,
    cancel: threading.Event | None = None,
) -> Result:
    """Runs a recipe and writes the merged model to `out`, complete or not at all.

    Where a GPU's memory is too small the merge starts again in smaller chunks, then on the CPU;
    the result's notes say so.

    Args:
        device: auto, cpu, cuda or mps.
        overwrite: replace an existing model folder once the new one is complete.
        shard_bytes: upper bound of one output file.
        chunk: elements worked on at a time; None for what suits the device.
        resume: go on where a merge of the same recipe to `out` ended early, and keep what is done
            if this one does.
        progress: called after every tensor.
        cancel: set it to stop within a chunk.

    Raises:
        MergeError: see `merging.errors`; nothing is left behind (with `resume`, a hidden folder).
    """
    started = time.perf_counter()
    out = located(out)
    check_output(out, overwrite)
    family = open_recipe(recipe)
    _check_no_input(out, family.models)
    _check_space(out, _specs(family, recipe))
    run = Run(recipe, family, out, overwrite, shard_bytes, resume, progress, cancel)
    finished, where, notes = with_memory(run, _device_for(device, family, recipe), chunk)
    return Result(
        out.resolve(), finished.fingerprint, time.perf_counter() - started, _peak_bytes(where),
        where, finished.engine, family.account, finished.drift, finished.kept,
        (*recipe.notes, *_idle_filters(recipe, family), *finished.notes, *notes),
    )  # fmt: skip


@dataclass(frozen=True)
class Run:
    """One merge, ready to be tried on a device."""

    recipe: Recipe
    family: Family
    out: Path
    overwrite: bool
    shard_bytes: int
    resume: bool
    progress: ProgressCallback | None
    cancel: threading.Event | None

    def __call__(self, device: str, chunk: int | None, kept: bool) -> Finished:
        """Merges and publishes.

        Args:
            kept: the family may stay in the device's memory, where it fits.
        """
        recipe, family = self.recipe, self.family
        pruner, consensus = make_pruner(recipe), make_consensus(recipe)
        if device == "cuda":
            torch.cuda.reset_peak_memory_stats()
        stream = _stream_class(family, recipe, device)(
            family, device=device, passes=pruner.passes + consensus.passes + 2,
            progress=self.progress, cancel=self.cancel, chunk=chunk,
            source=source_for(family, device) if kept else None,
        )  # fmt: skip
        try:
            pruner.prepare(stream)
            consensus.prepare(stream, pruner)
            for model in family.models:
                model.check_unchanged()
        except NonFinite as error:
            raise _culprit(stream, error) from None
        specs = _specs(family, recipe)
        key = key_of(recipe, family, self.shard_bytes, f"{stream.engine} on {device}")
        writer = ModelWriter(
            self.out, specs, shard_bytes=self.shard_bytes, overwrite=self.overwrite,
            taken_up=resumable(self.out, key) if self.resume else None,
        )  # fmt: skip
        dtypes = {spec.name: spec.dtype for spec in specs}
        back = ReadBack(_opened(writer, family, recipe), writer.out, stream)

        def decided(reader: TensorReader) -> tuple[list[Decision], Outcome]:
            try:
                return decide(recipe, pruner, consensus, reader)
            except NonFinite as error:
                raise reader.culprit(error) from None

        def take(reader: TensorReader, pieces: Iterable[MergedChunk]) -> Written:
            name = reader.entry.name
            changed, squared, bytes_sum = 0.0, 0.0, 0
            for piece in pieces:
                if not piece.finite:
                    raise reader.culprit(_overflow(name))
                bytes_sum += checksum(piece.values, piece.start * WIDTHS[dtypes[name]])
                writer.write(name, piece.start, piece.values)
                changed += piece.changed
                squared += piece.squared
            written = Written(changed, squared, bytes_sum, tuple(pruner.kept.get(name, ())))
            journal.note(name, written)
            if reader.entry.rows is None:  # else rows of the base are still to come
                back.submit(reader.entry, bytes_sum)
            return written

        try:
            journal = Journal(writer.folder, key)
            resumed = (
                f"{len(journal.finished)} of {len(family.merged)} tensors were there already"
                if journal.finished
                else "nothing of it was there: begun anew"
            )
            left = []
            for entry in family.merged:
                if entry.name not in journal.finished:
                    left.append(entry)
                    continue
                stream.advance("merge", entry, entry.numel)
                if entry.rows is None:
                    back.submit(entry, journal.finished[entry.name].checksum)
            made = zip(left, stream.merge(left, decided, dtypes, take), strict=True)
            written = journal.finished | {entry.name: one for entry, one in made}
            drift = _drift(family, written)
            retained = _kept(
                pruner.kept.get("") or total(row.kept for row in written.values()), family
            )
            back.phase = "verify"
            for entry in family.merged[-1:]:
                stream.advance(back.phase, entry, 0)
            copied, notes = _copy_rest(family, dtypes, writer)
            flushed = writer.flush()  # the disk works while the rest is read back
            for entry in family.account:
                if entry.status == "copied" or (
                    entry.status == "merged" and entry.rows is not None
                ):
                    begun = written[entry.name].checksum if entry.name in written else 0
                    back.submit(entry, begun + copied.get(entry.name, 0))
            digest = back.fingerprint()
            while not flushed.done(_PATIENCE_S):
                stream.check_cancelled()
            record.write_companions(writer.folder, recipe, family, digest)
            for model in family.models:
                model.check_unchanged()  # else the record would vouch for other bytes

            def settled() -> None:
                stream.check_cancelled()
                journal.remove()

            writer.publish(settled)
        except BaseException as error:
            back.close()
            told = in_words(error, self.out)
            # what is tried again at once, in smaller chunks or on the CPU, begins anew
            goes_on = isinstance(told, MergeError) and not isinstance(told, VerificationFailed)
            if self.resume and goes_on:
                writer.leave()
            else:
                writer.discard()
            if told is not error:
                raise told from error
            raise
        back.close()
        notes = [*([resumed] if self.resume else []), *pruner.notes, *consensus.notes, *notes]
        notes += filter(None, (difference(name, one) for name, one in retained.items()))
        return Finished(digest, stream.engine, drift, retained, tuple(dict.fromkeys(notes)))


@dataclass(frozen=True)
class Finished:
    """What a run leaves besides its files."""

    fingerprint: str
    engine: str
    drift: dict[int | str | None, float]
    kept: dict[str, Kept] = field(default_factory=dict)
    notes: tuple[str, ...] = ()


def with_memory(
    run: Callable[[str, int | None, bool], Finished], device: str, chunk: int | None
) -> tuple[Finished, str, list[str]]:
    """Runs on a device; where its memory is short, in smaller chunks, then on the CPU.

    Returns:
        What the run returned, the device it ended on, and a note for every step down.
    """
    if device == "cpu":
        return run(device, chunk, False), device, []
    notes: list[str] = []
    size = chunk or GPU_CHUNK
    kept = True
    while kept or size >= SMALLEST_CHUNK:
        try:
            return run(device, size, kept), device, notes
        except RuntimeError as error:
            if not _is_out_of_memory(error):
                raise
            notes.append(
                f"the memory of {device} was short with chunks of {size} elements"
                + (" and the models kept there" if kept else "")
            )
        gc.collect()  # outside the handler: the error held the tensors of where it was raised
        release(device)
        size, kept = (size if kept else size // 8), False
    notes.append(f"merged on the CPU: the memory of {device} was too small")
    return run("cpu", chunk, False), "cpu", notes


def _is_out_of_memory(error: RuntimeError) -> bool:
    """True where a device's memory was short. Apple's says it in words only."""
    return isinstance(error, torch.OutOfMemoryError) or "out of memory" in str(error)


def _device_for(wanted: str, family: Family, recipe: Recipe) -> str:
    """The device a merge runs on. Where torch is not in memory yet, loading it and waking a GPU
    takes longer than the CPU's loops take for the merge."""
    if wanted == "auto" and not is_loaded() and fused.would_run(family, recipe.partitions):
        return "cpu"
    return pick_device(wanted)


def _stream_class(family: Family, recipe: Recipe, device: str) -> type[Stream]:
    """The engine that is predicted to be faster; both write the same bytes."""
    if device == "cpu" and fused.is_worthwhile(family, recipe.partitions):
        return fused.FusedStream
    if gpu.is_worthwhile(family, device):
        return gpu.KernelStream
    return Stream


def _overflow(tensor: str) -> NonFinite:
    return NonFinite(
        f"tensor {tensor}: the result does not fit the output type; use a smaller strength or "
        "amplification, or dtype: float32"
    )


def _kept(parts: Sequence[Kept], family: Family) -> dict[str, Kept]:
    """By the experts' names; empty where nothing is pruned by magnitude."""
    return {model.name: one for model, one in zip(family.experts, parts, strict=False)}


def layers_of(account: Sequence[Entry]) -> tuple[int | str, ...]:
    """What the layers of a family are called, stacks and layers in order."""
    titles = (entry.place.title for entry in sorted(account, key=_in_the_stack))
    return tuple(dict.fromkeys(title for title in titles if title is not None))


def _in_the_stack(entry: Entry) -> tuple[bool, str, int]:
    """What puts tensors in the order of their stacks and layers, the rest last."""
    where = entry.place
    return where.layer is None, where.stack, where.layer or 0


def _drift(family: Family, written: dict[str, Written]) -> dict[int | str | None, float]:
    """Layer -> ||merged - base|| / ||base||, stacks and layers in order, the rest last."""
    totals: dict[int | str | None, list[float]] = {}
    for entry in family.merged:
        total = totals.setdefault(entry.place.title, [0.0, 0.0])
        total[0] += written[entry.name].changed
        total[1] += written[entry.name].squared
    order = dict.fromkeys(entry.place.title for entry in sorted(family.merged, key=_in_the_stack))
    return {
        layer: (totals[layer][0] / totals[layer][1]) ** 0.5 if totals[layer][1] else 0.0
        for layer in order
    }


def _copy_rest(
    family: Family, dtypes: dict[str, str], writer: ModelWriter
) -> tuple[dict[str, int], list[str]]:
    """Copies what is not merged: whole tensors, and the base's rows beyond the shared ones.

    Returns:
        The checksums of what was copied, by tensor, and notes on values that are NaN.
    """
    sums: dict[str, int] = {}
    notes = []
    for entry in family.account:
        if entry.status == "left_out":
            continue
        stored = family.base.tensors[entry.name]
        if stored.dtype not in MERGEABLE:
            for start, block in family.base.blocks(stored):
                sums[entry.name] = sums.get(entry.name, 0) + checksum(block, start)
                writer.write(entry.name, start // stored.width, block)
            continue
        start = entry.numel if entry.status == "merged" else 0
        stop = family.base.tensors[entry.name].numel
        for position in range(start, stop, CHUNK):
            values = family.base.read_flat(entry.name, position, min(position + CHUNK, stop))
            rounded = values.to(torch_dtype(dtypes[entry.name]))
            if rounded.dtype != values.dtype and (rounded.isinf() & ~values.isinf()).any():
                raise _overflow(entry.name)
            if values.isnan().any():
                notes.append(f"{family.base.name}: tensor {entry.name}, which is copied, holds NaN")
            data, width = rounded.view(torch.uint8).numpy().data, WIDTHS[dtypes[entry.name]]
            sums[entry.name] = sums.get(entry.name, 0) + checksum(data, position * width)
            writer.write(entry.name, position, data)
    return sums, notes


def _opened(writer: ModelWriter, family: Family, recipe: Recipe) -> Checkpoint:
    """The hidden folder as a model: every tensor there, of its type and shape."""
    try:
        record.write_config(writer.folder, recipe, family)
        written = open_checkpoint(writer.folder, writer.out.name)
        for spec in _specs(family, recipe):
            info = written.tensors.get(spec.name)
            if info is None or info.shape != spec.shape or info.dtype != spec.dtype:
                raise VerificationFailed(f"{writer.out}: tensor {spec.name} did not read back")
    except BaseException:
        writer.discard()
        raise
    return written


def _output_dtype(recipe: Recipe, family: Family, name: str) -> str:
    stored = family.base.tensors[name].dtype
    if recipe.dtype is None or stored not in MERGEABLE:
        return stored
    return STORED[recipe.dtype]


def _specs(family: Family, recipe: Recipe) -> list[TensorSpec]:
    """The tensors of the result; the widest types first, so that all are aligned in the file."""
    specs = [
        TensorSpec(entry.name, _output_dtype(recipe, family, entry.name), entry.shape)
        for entry in family.account
        if entry.status != "left_out"
    ]
    return sorted(specs, key=lambda spec: -WIDTHS[spec.dtype])


def _check_layers(recipe: Recipe, family: Family) -> None:
    """Raises RecipeError where a slice names fewer or more layers than the models have."""
    counts = text_depths(depths(family.base.tensors)) or [0]
    if recipe.layers is None or recipe.layers in counts:
        return
    told = " and ".join(map(str, sorted(set(counts))))
    raise RecipeError(
        f"slices: layer_range [0, {recipe.layers}] is not all of {family.base.name}, which has "
        f"{told} layers; layers cannot be left out, write [0, {max(counts)}]"
    )


def _check_weights(recipe: Recipe, family: Family) -> None:
    """Raises RecipeError where an average's weights, which vary along the model, sum to 0."""
    if recipe.consensus != "mean" or not recipe.parameters.get("normalize", True):
        return
    for entry in family.merged:
        at = [value_at(source.weight, entry) for source in recipe.sources]
        if abs(sum(at)) < 1e-8:
            raise RecipeError(
                f"tensor {entry.name}: the weights {', '.join(f'{w:g}' for w in at)} sum to 0, "
                "so there is no average; change one, or use task_arithmetic"
            )


def _idle_filters(recipe: Recipe, family: Family) -> tuple[str, ...]:
    """A note for every filter of the recipe that no merged tensor answers to."""
    schedules = [recipe.strength]
    for source in recipe.sources:
        schedules += [source.weight, source.density]
    names = [entry.name for entry in family.merged]
    filters = dict.fromkeys(text for schedule in schedules for text in schedule.filters)
    return tuple(
        f"filter {text!r} is in no merged tensor's name: its values are never used"
        for text in filters
        if not any(text in name for name in names)
    )


def _check_no_input(out: Path, models: Sequence[Checkpoint]) -> None:
    for model in models:
        if not out.exists() or not model.folder.resolve().is_relative_to(out.resolve()):
            continue
        where = "is" if out.samefile(model.folder) else "holds"
        raise OutputExists(
            f"{out} {where} {model.name}, which the recipe reads; give another name for the result"
        )


def _output_problems(
    out: Path, models: Sequence[Checkpoint], disk: int, overwrite: bool
) -> list[Problem]:
    try:
        check_output(out, overwrite)
        _check_no_input(out, models)
    except MergeError as error:
        return [Problem("error", str(out), str(error))]
    problems = []
    free = shutil.disk_usage(_existing(out)).free
    if free < disk:
        problems.append(Problem("error", str(out), f"needs {_size(disk)}, {_size(free)} are free"))
    return problems


def _check_space(out: Path, specs: list[TensorSpec]) -> None:
    need = sum(spec.size_bytes for spec in specs)
    free = shutil.disk_usage(_existing(out)).free
    if free < need:
        raise NotEnoughSpace(
            f"{out}: the model needs {_size(need)} and {_size(free)} are free; "
            "free space or choose another disk"
        )


def _size(count: int) -> str:
    """Bytes for people: 5_500_000 -> "5.5 MB"."""
    return f"{count / 1e6:.1f} MB" if count < 1e9 else f"{count / 1e9:.2f} GB"


def _existing(path: Path) -> Path:
    path = path.resolve()
    while not path.exists():
        path = path.parent
    return path


def _memory(family: Family, recipe: Recipe) -> int:
    """What the engine that will run holds at its peak, the interpreter and libraries included."""
    largest = max((entry.numel for entry in family.merged), default=0)
    if fused.would_run(family, recipe.partitions):
        keys = min(8 * largest * len(family.experts), fused.KEYS_BYTES)
        return 120_000_000 + keys + fused.workers() * 2 * fused.PIECE_BYTES
    models = len(family.models)
    return 350_000_000 + 4 * min(largest, max(RESIDENT, CHUNK)) * (2 * models + 6)


def _culprit(stream: Stream, error: NonFinite) -> MergeError:
    """The error that names the model and tensor behind a non-finite measurement."""
    for entry in stream.family.merged:
        found = stream.open(entry).culprit(error)
        if found is not error:
            return found
    return error


def _peak_bytes(device: str) -> int:
    if device == "cuda":
        return torch.cuda.max_memory_allocated(device)
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
