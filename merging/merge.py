"""A recipe becomes a model: preflight, run, verify, record.

`check` reads headers only and reports every problem it finds. `merge` streams the family through
the recipe's stages into a hidden folder, reads it back, and lets it appear.
"""

from __future__ import annotations

import resource
import shutil
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import torch

from merging import record
from merging.checkpoints import (
    Entry,
    Family,
    ModelWriter,
    TensorSpec,
    fingerprint,
    open_checkpoint,
    open_family,
    resolve,
)
from merging.checkpoints.writer import SHARD_BYTES, check_output
from merging.engine import (
    CHUNK,
    RESIDENT,
    ProgressCallback,
    Stream,
    TensorReader,
    pick_device,
)
from merging.errors import (
    MergeError,
    NonFinite,
    NotEnoughSpace,
    VerificationFailed,
)
from merging.recipe import Recipe
from merging.stages import ChunkFunction, Combine, make_consensus, make_pruner, pruned

TORCH_DTYPES = {
    "float32": torch.float32,
    "bfloat16": torch.bfloat16,
    "float16": torch.float16,
}


@dataclass(frozen=True)
class Problem:
    """One finding of the preflight.

    Attributes:
        severity: errors stop the merge, warnings do not.
        where: the recipe key, model or tensor it concerns.
    """

    severity: Literal["error", "warning"]
    where: str
    message: str


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
        drift: layer -> ||merged - base|| / ||base||; None for tensors outside the layers.
    """

    out: Path
    fingerprint: str
    seconds: float
    peak_bytes: int
    device: str
    engine: str
    account: tuple[Entry, ...] = field(repr=False)
    drift: dict[int | None, float] = field(repr=False)
    notes: tuple[str, ...] = ()


def open_recipe(recipe: Recipe) -> Family:
    """Opens the base and the experts that a recipe names. Raises what `open_family` raises."""
    base = open_checkpoint(resolve(recipe.base, recipe.folder), recipe.base)
    experts = [
        open_checkpoint(resolve(source.model, recipe.folder), source.model)
        for source in recipe.sources
    ]
    return open_family(base, experts)


def check(recipe: Recipe, out: Path | None = None, *, overwrite: bool = False) -> Report:
    """Preflight: every problem found, from headers alone.

    Args:
        out: where the merge would go, to check its disk; None to skip that.
    """
    problems = [Problem("warning", "recipe", note) for note in recipe.notes]
    try:
        family = open_recipe(recipe)
    except MergeError as error:
        problems.append(Problem("error", type(error).__name__, str(error)))
        return Report(tuple(problems), (), 0, 0)
    problems += _account_problems(family)
    disk = sum(spec.size_bytes for spec in _specs(family, recipe))
    if out is not None:
        problems += _output_problems(Path(out), disk, overwrite)
    return Report(tuple(problems), family.account, disk, _memory(family))


def merge(
    recipe: Recipe,
    out: Path,
    *,
    device: str = "auto",
    overwrite: bool = False,
    shard_bytes: int = SHARD_BYTES,
    chunk: int = CHUNK,
    progress: ProgressCallback | None = None,
    cancel: threading.Event | None = None,
) -> Result:
    """Runs a recipe and writes the merged model to `out`, complete or not at all.

    Args:
        device: auto, cpu or cuda.
        overwrite: replace an existing model folder once the new one is complete.
        shard_bytes: upper bound of one output file.
        chunk: elements worked on at a time.
        progress: called after every tensor.
        cancel: set it to stop within a chunk.

    Raises:
        MergeError: see `merging.errors`; nothing is left behind.
    """
    started = time.perf_counter()
    out = Path(out)
    check_output(out, overwrite)
    family = open_recipe(recipe)
    where = pick_device(device)
    pruner, consensus = make_pruner(recipe), make_consensus(recipe)
    stream = Stream(
        family, device=where, passes=pruner.passes + consensus.passes + 2,
        progress=progress, cancel=cancel, chunk=chunk,
    )  # fmt: skip
    _check_space(out, _specs(family, recipe))
    try:
        pruner.prepare(stream)
        consensus.prepare(stream, pruner)
    except NonFinite as error:
        raise _culprit(stream, error) from None
    writer = ModelWriter(out, _specs(family, recipe), shard_bytes=shard_bytes, overwrite=overwrite)
    try:
        moved = _Drift()
        for reader in stream.readers("merge"):
            prune = pruner.open(reader)
            combine = consensus.open(reader, prune)
            _merge_tensor(reader, recipe, stream, (prune, combine), writer, moved)
        _copy_rest(family, recipe, writer)
        writer.close()
        digest = _verify(writer, family, recipe, stream)
        record.write_companions(writer.folder, recipe, family, digest)
        stream.check_cancelled()
        writer.publish()
    except BaseException:
        writer.discard()
        raise
    return Result(
        out.resolve(), digest, time.perf_counter() - started, _peak_bytes(where), str(where),
        "eager", family.account, moved.shares(), recipe.notes,
    )  # fmt: skip


def merge_chunk(
    reader: TensorReader,
    recipe: Recipe,
    layers: int,
    stages: tuple[list[ChunkFunction], Combine],
    start: int,
    stop: int,
) -> tuple[torch.Tensor, torch.Tensor]:
    """The merged values of one chunk and the base's, both (n,) float32."""
    prune, combine = stages
    entry = reader.entry
    base = reader.base(start, stop)
    merged = combine(pruned(reader, prune, start, stop))
    strength = recipe.strength.at(entry.name, entry.place.layer, layers)
    if strength != 1.0:
        merged = merged * strength
    weight = _base_weight(recipe, reader, layers)
    return (base if weight == 1.0 else base * weight) + merged, base


class _Drift:
    """Sums of squares per layer: of the change and of the base."""

    def __init__(self) -> None:
        self._sums: dict[int | None, list[float]] = {}

    def add(self, layer: int | None, merged: torch.Tensor, base: torch.Tensor) -> None:
        sums = self._sums.setdefault(layer, [0.0, 0.0])
        sums[0] += (merged - base).square().sum(dtype=torch.float64).item()
        sums[1] += base.square().sum(dtype=torch.float64).item()

    def shares(self) -> dict[int | None, float]:
        order = sorted(self._sums, key=lambda layer: (layer is None, layer or 0))
        return {
            layer: (self._sums[layer][0] / self._sums[layer][1]) ** 0.5
            if self._sums[layer][1]
            else 0.0
            for layer in order
        }


def _merge_tensor(
    reader: TensorReader,
    recipe: Recipe,
    stream: Stream,
    stages: tuple[list[ChunkFunction], Combine],
    writer: ModelWriter,
    drift: _Drift,
) -> None:
    dtype = _output_dtype(recipe, stream.family, reader.entry.name)
    for start, stop in reader.spans():
        merged, base = merge_chunk(reader, recipe, stream.layers, stages, start, stop)
        rounded = merged.to(dtype)
        if not torch.isfinite(rounded).all():
            raise reader.blame(start, stop)
        writer.write(reader.entry.name, start, rounded.cpu())
        drift.add(reader.entry.place.layer, merged, base)


def _copy_rest(family: Family, recipe: Recipe, writer: ModelWriter) -> None:
    """Copies what is not merged: whole tensors, and the base's rows beyond the shared ones."""
    for entry in family.account:
        if entry.status == "left_out":
            continue
        start = entry.numel if entry.status == "merged" else 0
        stop = family.base.tensors[entry.name].numel
        dtype = _output_dtype(recipe, family, entry.name)
        for position in range(start, stop, CHUNK):
            values = family.base.read_flat(entry.name, position, min(position + CHUNK, stop))
            writer.write(entry.name, position, values.to(dtype))


def _verify(writer: ModelWriter, family: Family, recipe: Recipe, stream: Stream) -> str:
    """Reads the hidden folder back: every tensor there, of its type and shape. Its fingerprint."""
    record.write_config(writer.folder, family.base, recipe.dtype)
    written = open_checkpoint(writer.folder, writer.out.name)
    for spec in _specs(family, recipe):
        info = written.tensors.get(spec.name)
        if info is None or info.shape != spec.shape or info.torch_dtype != spec.dtype:
            raise VerificationFailed(f"{writer.out}: tensor {spec.name} did not read back")
    for entry in family.merged:
        stream.check_cancelled()
        stream.advance("verify", entry, entry.numel)
    digest = fingerprint(written, full=True)
    written.close()
    return digest


def _base_weight(recipe: Recipe, reader: TensorReader, layers: int) -> float:
    """Factor on the base: 1, but for an unnormalised `linear`, which sums whole models."""
    if recipe.method != "linear" or recipe.parameters.get("normalize", True):
        return 1.0
    entry = reader.entry
    return sum(s.weight.at(entry.name, entry.place.layer, layers) for s in recipe.sources)


def _output_dtype(recipe: Recipe, family: Family, name: str) -> torch.dtype:
    stored = family.base.tensors[name].torch_dtype
    if recipe.dtype is None or not stored.is_floating_point:
        return stored
    return TORCH_DTYPES[recipe.dtype]


def _specs(family: Family, recipe: Recipe) -> list[TensorSpec]:
    return [
        TensorSpec(entry.name, _output_dtype(recipe, family, entry.name), entry.shape)
        for entry in family.account
        if entry.status != "left_out"
    ]


def _account_problems(family: Family) -> list[Problem]:
    return [
        Problem("warning", entry.name, f"{entry.status.replace('_', ' ')}: {entry.reason}")
        for entry in family.account
        if entry.reason and not entry.reason.startswith("type ")
    ]


def _output_problems(out: Path, disk: int, overwrite: bool) -> list[Problem]:
    problems = []
    try:
        check_output(out, overwrite)
    except MergeError as error:
        problems.append(Problem("error", str(out), str(error)))
    free = shutil.disk_usage(_existing(out)).free
    if free < disk:
        problems.append(
            Problem("error", str(out), f"needs {disk / 1e9:.2f} GB, {free / 1e9:.2f} GB are free")
        )
    return problems


def _check_space(out: Path, specs: list[TensorSpec]) -> None:
    need = sum(spec.size_bytes for spec in specs)
    free = shutil.disk_usage(_existing(out)).free
    if free < need:
        raise NotEnoughSpace(
            f"{out}: the model needs {need / 1e9:.2f} GB and {free / 1e9:.2f} GB are free; "
            "free space or choose another disk"
        )


def _existing(path: Path) -> Path:
    path = path.resolve()
    while not path.exists():
        path = path.parent
    return path


def _memory(family: Family) -> int:
    """float32 chunks of base, experts and temporaries, plus what torch itself takes."""
    largest = max((entry.numel for entry in family.merged), default=0)
    models = len(family.models)
    return 4 * min(largest, max(RESIDENT, CHUNK)) * (2 * models + 6) + 350_000_000


def _culprit(stream: Stream, error: NonFinite) -> MergeError:
    for entry in stream.family.merged:
        reader = TensorReader(stream, entry)
        for start, stop in reader.spans():
            if not all(torch.isfinite(delta).all() for delta in reader.deltas(start, stop)):
                return reader.blame(start, stop)
    return error


def _peak_bytes(device: torch.device) -> int:
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
