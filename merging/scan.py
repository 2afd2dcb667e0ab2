"""The one pass over a family that makes its sketch, and the cache that saves the next one.

Every tensor is read once (tensors too large to stay in memory a second time, for the outlier
counts). The sketch holds no weights; it is cached by the content of its inputs.
"""

from __future__ import annotations

import hashlib
import os
import threading
import time
import zipfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from merging.checkpoints import Entry, Family, fingerprint
from merging.engine import ProgressCallback, Stream, TensorReader
from merging.errors import NonFinite
from merging.sketch import (
    _SHIFT,
    FIRST_KEY,
    N_BINS,
    FamilySketch,
    SketchedTensor,
)

LAYER_OUTLIER, LINEAR_OUTLIER = 3.0, 5.0
SAMPLES = 1 << 15
_VERSION = 1
_ARRAYS = (
    "counts", "l1", "l2", "zeros", "max_abs", "layer_outliers", "linear_outliers", "dots",
    "base_l2", "sample", "sample_tensor",
)  # fmt: skip


def scan(
    family: Family,
    *,
    layer_outlier: float = LAYER_OUTLIER,
    linear_outlier: float = LINEAR_OUTLIER,
    progress: ProgressCallback | None = None,
    cancel: threading.Event | None = None,
    cache: Path | None = None,
    device: torch.device | None = None,
) -> FamilySketch:
    """Sketches every merged tensor of every expert.

    Args:
        layer_outlier, linear_outlier: multiples of the mean above which entries are counted.
        progress, cancel: as for a merge.
        cache: folder of sketches kept by content; None to always read.

    Raises:
        NonFinite: a delta is NaN or infinite; names the model and the tensor.
        Cancelled: `cancel` was set.
    """
    key = sketch_key(family, layer_outlier, linear_outlier)
    file = cache / f"{key.split(':')[1][:32]}.npz" if cache else None
    if file is not None and file.exists():
        try:
            return load(file, family, key)
        except (OSError, ValueError, KeyError, zipfile.BadZipFile):
            file.unlink(missing_ok=True)  # a damaged cache entry is only lost time
    started = time.perf_counter()
    stream = Stream(family, passes=1, progress=progress, cancel=cancel, device=device)
    builder = _Builder(family, layer_outlier, linear_outlier)
    for group in _groups(family.merged):
        readers = list(stream.readers("scan", group))
        for reader in readers:
            builder.add(reader)
        builder.count_outliers(readers)
    sketch = builder.finish(time.perf_counter() - started, key)
    if file is not None:
        save(sketch, file)
    return sketch


def sketch_key(family: Family, layer_outlier: float, linear_outlier: float) -> str:
    """The cache key: what the inputs hold and what was counted."""
    parts = [str(_VERSION), f"{layer_outlier:g}", f"{linear_outlier:g}", str(N_BINS), str(SAMPLES)]
    parts += [fingerprint(model) for model in family.models]
    return "sketch:" + hashlib.sha256("\0".join(parts).encode()).hexdigest()


def save(sketch: FamilySketch, file: Path) -> None:
    """Writes a sketch; the file appears complete or not at all."""
    file.parent.mkdir(parents=True, exist_ok=True)
    partial = file.with_name(f".{file.name}.{os.getpid()}-{os.urandom(3).hex()}.npz")
    meta = np.array([sketch.layer_outlier, sketch.linear_outlier, sketch.seconds])
    arrays = {name: getattr(sketch, name) for name in _ARRAYS}
    try:
        np.savez_compressed(partial, meta=meta, key=np.array(sketch.fingerprint), **arrays)
        partial.replace(file)
    finally:
        partial.unlink(missing_ok=True)


def load(file: Path, family: Family, key: str) -> FamilySketch:
    """Reads a sketch for `family`. Raises ValueError if it was made from other inputs."""
    with np.load(file, allow_pickle=False) as data:
        if str(data["key"]) != key:
            raise ValueError(f"{file}: made from other inputs")
        arrays = {name: data[name] for name in _ARRAYS}
        layer_outlier, linear_outlier, seconds = (float(value) for value in data["meta"])
    return FamilySketch(
        base=family.base.name,
        experts=tuple(expert.name for expert in family.experts),
        tensors=_sketched(family),
        layer_outlier=layer_outlier,
        linear_outlier=linear_outlier,
        exact=True,
        seconds=seconds,
        fingerprint=key,
        **arrays,
    )


def select_experts(sketch: FamilySketch, experts: Sequence[str]) -> FamilySketch:
    """The sketch of some of its experts, in the order given. No weights are read."""
    rows = [sketch.experts.index(name) for name in experts]
    by_expert = ("counts", "l1", "l2", "zeros", "max_abs", "layer_outliers", "linear_outliers")
    chosen = {name: getattr(sketch, name)[rows] for name in by_expert}
    return replace(
        sketch,
        experts=tuple(experts),
        dots=sketch.dots[np.ix_(rows, rows)],
        sample=sketch.sample[rows],
        **chosen,
    )


def _sketched(family: Family) -> tuple[SketchedTensor, ...]:
    return tuple(
        SketchedTensor(e.name, e.place.layer, e.place.module, e.place.is_linear, e.numel)
        for e in family.merged
    )


def _groups(entries: Sequence[Entry]) -> list[list[Entry]]:
    """Linears grouped by layer (their means are pooled); every other tensor by itself."""
    layers: dict[int, list[Entry]] = {}
    alone = []
    for entry in entries:
        if entry.place.is_linear and entry.place.layer is not None:
            layers.setdefault(entry.place.layer, []).append(entry)
        else:
            alone.append([entry])
    return [*alone, *(layers[layer] for layer in sorted(layers))]


class _Builder:
    """Accumulates the sketch's arrays; every accumulation is a sum, a maximum or a copy."""

    def __init__(self, family: Family, layer_outlier: float, linear_outlier: float) -> None:
        self._family = family
        self._multiples = (layer_outlier, linear_outlier)
        self._index = {entry.name: i for i, entry in enumerate(family.merged)}
        shape = (len(family.experts), len(family.merged))
        self.counts = np.zeros((*shape, N_BINS), dtype=np.int64)
        self.l1 = np.zeros((*shape, N_BINS))
        self.l2 = np.zeros((*shape, N_BINS))
        self.zeros = np.zeros(shape, dtype=np.int64)
        self.max_abs = np.zeros(shape)
        self.layer_outliers = np.zeros(shape, dtype=np.int64)
        self.linear_outliers = np.zeros(shape, dtype=np.int64)
        self.dots = np.zeros((shape[0], shape[0], shape[1]))
        self.base_l2 = np.zeros(shape[1])
        self._sample: dict[int, list[np.ndarray]] = {}
        total = sum(entry.numel for entry in family.merged)
        self._stride = max(1, total // SAMPLES) | 1  # odd, so that it walks through columns

    def add(self, reader: TensorReader) -> None:
        """Reads one tensor of every model."""
        at = self._index[reader.entry.name]
        for start, stop in reader.spans():
            deltas = reader.deltas(start, stop)
            if stop == start:
                continue
            for row, delta in enumerate(deltas):
                self._add_chunk(row, at, delta, reader, start)
            stacked = torch.stack(deltas)
            self.dots[:, :, at] += (stacked @ stacked.T).double().cpu().numpy()
            base = reader.base(start, stop)
            self.base_l2[at] += base.square().sum(dtype=torch.float64).item()
            first = -start % self._stride
            picked = stacked[:, first :: self._stride].cpu().numpy()
            self._sample.setdefault(at, []).append(picked)

    def _add_chunk(
        self, row: int, at: int, delta: torch.Tensor, reader: TensorReader, start: int
    ) -> None:
        magnitude = delta.abs()
        largest = magnitude.max().item()
        if not np.isfinite(largest):
            raise reader.culprit(NonFinite(f"tensor {reader.entry.name}: a change is not finite"))
        nonzero = magnitude[magnitude > 0]
        keys = ((nonzero.view(torch.int32) >> _SHIFT) - FIRST_KEY).clamp_(0, N_BINS - 1)
        double = nonzero.double()
        self.counts[row, at] += torch.bincount(keys, minlength=N_BINS).cpu().numpy()
        self.l1[row, at] += torch.bincount(keys, double, N_BINS).cpu().numpy()
        self.l2[row, at] += torch.bincount(keys, double.square_(), N_BINS).cpu().numpy()
        self.zeros[row, at] += delta.numel() - nonzero.numel()
        self.max_abs[row, at] = max(self.max_abs[row, at], largest)

    def count_outliers(self, readers: Sequence[TensorReader]) -> None:
        """Second look at one group of tensors, once their means are known."""
        columns = [self._index[reader.entry.name] for reader in readers]
        numels = np.array([reader.numel for reader in readers], dtype=np.float64)
        sums = self.l1[:, columns].sum(axis=2)
        pooled = sums.sum(axis=1) / max(numels.sum(), 1.0)
        for column, (at, reader) in enumerate(zip(columns, readers, strict=True)):
            for start, stop in reader.spans():
                for row, delta in enumerate(reader.deltas(start, stop)):
                    magnitude = delta.abs()
                    mean = sums[row, column] / max(reader.numel, 1)
                    bound = self._multiples[1] * mean
                    self.linear_outliers[row, at] += int((magnitude > bound).sum())
                    if reader.entry.place.is_linear:
                        bound = self._multiples[0] * pooled[row]
                        self.layer_outliers[row, at] += int((magnitude > bound).sum())

    def finish(self, seconds: float, key: str) -> FamilySketch:
        """The sketch of everything added."""
        order = sorted(self._sample)
        parts = [np.concatenate(self._sample[at], axis=1) for at in order]
        experts = len(self._family.experts)
        sample = np.concatenate(parts, axis=1) if parts else np.zeros((experts, 0), np.float32)
        tensor = np.repeat(order, [part.shape[1] for part in parts]).astype(np.int64)
        arrays = {name: getattr(self, name) for name in _ARRAYS if not name.startswith("sample")}
        return FamilySketch(
            base=self._family.base.name,
            experts=tuple(expert.name for expert in self._family.experts),
            tensors=_sketched(self._family),
            layer_outlier=self._multiples[0],
            linear_outlier=self._multiples[1],
            sample=sample.astype(np.float32),
            sample_tensor=tensor,
            exact=True,
            seconds=seconds,
            fingerprint=key,
            **arrays,
        )


__all__ = ["load", "save", "scan", "select_experts", "sketch_key"]
