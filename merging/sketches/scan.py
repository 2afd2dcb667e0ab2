"""The pass over a family that makes its sketch, and the cache that saves the next one.

Every tensor is read once, linears a second time to count the outliers of layers whose mean is
then known. The sketch holds no weights; it is cached by the content of its inputs.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import logging
import os
import threading
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from merging.checkpoints import Entry, Family, fingerprint
from merging.engines import fused
from merging.engines.eager import Profile, ProgressCallback, Stream, TensorReader
from merging.engines.sources import KeptFamily, RawTensors
from merging.errors import NonFinite
from merging.evidence.outliers import Nearby, count_outliers, leave_out_others, likely_bounds
from merging.evidence.whole_model import model_offsets
from merging.gpu import stream as gpu
from merging.selection.statistics import HALF
from merging.sketches.sketch import (
    FIRST_KEY,
    N_BINS,
    N_FINE,
    FamilySketch,
    SketchedTensor,
)
from merging.system.documents import opened
from merging.system.freed import handed_back

log = logging.getLogger(__name__)

LAYER_OUTLIER, LINEAR_OUTLIER = 3.0, 5.0
SAMPLES = 1 << 16
INFINITE = 0x7F80  # upper bits of infinity; NaN lies above
_VERSION = 6
_NOTHING = np.zeros((0, 0), dtype=np.int64)  # histograms once they are binned
BY_TENSOR = (
    "counts",
    "l1",
    "l2",
    "fine",
    "ties",
    "zeros",
    "max_abs",
    "layer_outliers",
    "linear_outliers",
)
"""Arrays of a sketch that have a row per expert and a column per tensor."""
_ARRAYS = (*BY_TENSOR, "dots", "base_l2", "sample", "sample_base", "sample_tensor")


def scan(
    family: Family,
    *,
    layer_outlier: float = LAYER_OUTLIER,
    linear_outlier: float = LINEAR_OUTLIER,
    progress: ProgressCallback | None = None,
    cancel: threading.Event | None = None,
    cache: Path | None = None,
    device: str = "cpu",
    engine: type[Stream] | None = None,
    source: RawTensors | None = None,
) -> FamilySketch:
    """Sketches every merged tensor of every expert.

    Args:
        layer_outlier, linear_outlier: multiples of the mean above which entries are counted.
        progress, cancel: as for a merge.
        cache: folder of sketches kept by content; None to always read.
        engine: whose readers measure; None for the one that suits the device.
        source: where raw tensors come from, such as the family in a GPU's memory; their files if
            None.

    Raises:
        NonFinite: a delta is NaN or infinite; names the model and the tensor.
        BadCheckpoint: a model's files changed meanwhile.
        Cancelled: `cancel` was set.
    """
    multiples = (layer_outlier, linear_outlier)
    key = sketch_key(family, *multiples) if cache is not None else ""
    if cache is not None and (sketch := cached(family, cache, key)) is not None:
        return sketch
    started = time.perf_counter()
    kind = engine or _engine_for(family, device, source)
    with handed_back():
        arrays = _measure(
            kind(
                family,
                passes=2,
                progress=progress,
                cancel=cancel,
                device=device,
                source=source,
            ),
            multiples,
        )
        for model in family.models:
            model.check_unchanged()  # else it would be a sketch of some bytes of each
        sketch = assemble(family, key, arrays, multiples, started)
        if cache is not None:
            try:
                save(sketch, _file(cache, key))
            except OSError as error:
                log.warning("the sketch could not be kept in %s: %s", cache, error)
    return sketch


def _engine_for(family: Family, device: str, source: RawTensors | None) -> type[Stream]:
    if isinstance(source, KeptFamily) and gpu.is_worthwhile(family, device):
        return gpu.KernelStream
    fast = device == "cpu" and fused.is_worthwhile(family, 1)
    return fused.FusedStream if fast else Stream


def cached(family: Family, cache: Path, key: str = "") -> FamilySketch | None:
    """A family's sketch from the cache; None where it is not there.

    Args:
        key: the family's key, if it is known already; by default that of the usual multiples.
    """
    key = key or sketch_key(family, LAYER_OUTLIER, LINEAR_OUTLIER)
    file = _file(cache, key)
    if not file.exists():
        return None
    try:
        return load(file, family, key)
    except Exception:  # numpy raises a dozen kinds: a damaged cache entry is only lost time
        with contextlib.suppress(OSError):
            file.unlink()
        return None


def _file(cache: Path, key: str) -> Path:
    return cache / f"{key.split(':')[1][:32]}.npz"


def sketch_key(family: Family, layer_outlier: float, linear_outlier: float) -> str:
    """The cache key: what the inputs hold and what was counted.

    Of a large model, whose fingerprint is of samples, the files' stamps count too: other bytes of
    the same size and time have another change time, or lie in another file.
    """
    parts = [str(_VERSION), f"{layer_outlier:g}", f"{linear_outlier:g}", str(N_BINS), str(SAMPLES)]
    for model in family.models:
        parts.append(fingerprint(model))
        if parts[-1].startswith("sampled:"):
            parts += [str(tuple(one or ())) for one in model.stamps.values()]
    parts += [f"{e.name} {e.numel} {e.place}" for e in family.merged]
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
    with (
        opened(file) as handle,
        os.fdopen(handle, "rb", closefd=False) as raw,
        np.load(raw, allow_pickle=False) as data,
    ):
        if str(data["key"]) != key:
            raise ValueError(f"{file}: made from other inputs")
        arrays = {name: data[name] for name in _ARRAYS}
        layer_outlier, linear_outlier, seconds = (float(value) for value in data["meta"])
    sketch = assemble(family, key, arrays, (layer_outlier, linear_outlier), 0.0)
    return replace(sketch, seconds=seconds)


def select_experts(sketch: FamilySketch, experts: Sequence[str]) -> FamilySketch:
    """The sketch of some of its experts, in the order given. No weights are read."""
    rows = [sketch.experts.index(name) for name in experts]
    chosen = {name: getattr(sketch, name)[rows] for name in BY_TENSOR}
    return replace(
        sketch,
        experts=tuple(experts),
        dots=sketch.dots[np.ix_(rows, rows)],
        sample=sketch.sample[rows],
        **chosen,
    )


def _sketched(family: Family) -> tuple[SketchedTensor, ...]:
    return tuple(
        SketchedTensor(
            entry.name,
            where.layer,
            where.module,
            where.is_linear,
            entry.numel,
            where.stack,
            where.depth,
        )
        for entry in family.merged
        for where in [entry.place]
    )


def assemble(
    family: Family,
    key: str,
    arrays: dict[str, np.ndarray],
    multiples: tuple[float, float],
    started: float,
    *,
    exact: bool = True,
) -> FamilySketch:
    """The sketch that the arrays make up, by the names of its fields."""
    return FamilySketch(
        base=family.base.name,
        experts=tuple(expert.name for expert in family.experts),
        tensors=_sketched(family),
        layer_outlier=multiples[0],
        linear_outlier=multiples[1],
        exact=exact,
        seconds=time.perf_counter() - started,
        fingerprint=key,
        **arrays,
    )


def _measure(stream: Stream, multiples: tuple[float, float]) -> dict[str, np.ndarray]:
    """The sketch's arrays: one pass over every tensor, one over the linears for outliers."""
    merged = stream.family.merged
    linears = _linears(merged)
    leave_out_others(stream, linears, times=1)
    likely = likely_bounds(stream, linears, *multiples)
    nearby = Nearby(linears, len(stream.family.experts), multiples)
    starts, total = model_offsets(stream.family)
    stride = max(1, total // SAMPLES) | 1  # odd, so that it walks through columns

    def profile(reader: TensorReader) -> tuple[Profile, dict[str, np.ndarray]]:
        name = reader.entry.name
        sums = reader.profile(stride, -starts[name] % stride, likely.get(name))
        if sums.histogram[:, max(INFINITE - sums.first, 0) :].any():
            raise reader.culprit(NonFinite(f"tensor {reader.entry.name}: a change is not finite"))
        nearby.add(reader.entry, sums.l1, sums.near)
        return slim(sums)

    pairs = stream.map(profile, "scan", order=nearby.order)
    profiles = [one for one, _ in pairs]
    arrays = stacked(profiles, [bins for _, bins in pairs], merged)
    del pairs
    outliers = count_outliers(stream, linears, nearby.limits, nearby.counts)
    for name, counts in zip(("layer_outliers", "linear_outliers"), outliers, strict=True):
        arrays[name] = np.zeros((len(stream.family.experts), len(merged)), dtype=np.int64)
        arrays[name][:, linear_columns(merged)] = counts
    samples = [np.concatenate(p.sample, axis=1) for p in profiles if p.sample]
    together = np.concatenate(samples, axis=1).astype(np.float32)
    arrays["sample_base"], arrays["sample"] = together[0], together[1:]
    sizes = [sum(part.shape[1] for part in p.sample) for p in profiles]
    arrays["sample_tensor"] = np.repeat(np.arange(len(merged)), sizes).astype(np.int64)
    return arrays


def slim(profile: Profile) -> tuple[Profile, dict[str, np.ndarray]]:
    """A profile without its histograms, and their bins: a tensor's take a megabyte or more."""
    bins = binned(profile)
    return replace(profile, histogram=_NOTHING, coarse=_NOTHING, near=[]), bins


def stacked(
    profiles: Sequence[Profile], bins: Sequence[dict[str, np.ndarray]], merged: Sequence[Entry]
) -> dict[str, np.ndarray]:
    """The sketch's arrays of what adds up tensor by tensor. `bins`: of `binned`."""
    numels = np.array([entry.numel for entry in merged], dtype=np.int64)
    names = ("counts", "fine", "ties", "l1", "l2")
    arrays = {name: np.stack([one[name] for one in bins], axis=1) for name in names}
    return arrays | {
        "zeros": numels - np.stack([p.nonzero for p in profiles], axis=1),
        "max_abs": np.stack([p.largest for p in profiles], axis=1),
        "dots": np.stack([p.dots for p in profiles], axis=2),
        "base_l2": np.array([p.base_l2 for p in profiles]),
    }


def linear_columns(merged: Sequence[Entry]) -> list[int]:
    return [index for index, entry in enumerate(merged) if entry.place.is_linear]


def _linears(merged: Sequence[Entry]) -> tuple[Entry, ...]:
    return tuple(merged[index] for index in linear_columns(merged))


@functools.cache
def _bucket_means() -> tuple[np.ndarray, np.ndarray]:
    """Mean value and mean square of entries that lie evenly in each bucket of upper bits."""
    keys = np.arange(HALF, dtype=np.int64)
    with np.errstate(invalid="ignore", over="ignore"):  # the last buckets are infinity and NaN
        low = (keys << 16).astype(np.int32).view(np.float32).astype(np.float64)
        high = np.append(low[1:], np.inf)
        mean = np.nan_to_num((low + high) / 2, nan=0.0, posinf=0.0)
        square = np.nan_to_num((low * low + low * high + high * high) / 3, nan=0.0, posinf=0.0)
    mean[0] = square[0] = 0.0  # where zeros are counted
    return mean, square


def binned(profile: Profile) -> dict[str, np.ndarray]:
    """Counts, L1 and L2 per bin (E, B...) of one tensor from its histograms by upper bits.

    The counts are exact. Inside one bucket of the histogram (1/128 of an octave) entries count as
    lying evenly; the tensor's bins are then scaled so that they add up to its exact L1 and L2.
    """
    fine, ties = (
        _binned_counts(profile.histogram, profile.first),
        _binned_counts(profile.coarse, profile.first),
    )
    fine[:, 0, 0] -= profile.histogram.sum(1) - profile.nonzero  # exact zeros have no bin
    most = np.iinfo(np.int32).max
    result = {
        "counts": fine.sum(axis=2),
        "fine": np.minimum(fine, most).astype(np.int32),
        "ties": np.minimum(ties, most).astype(np.int32),
    }
    here = slice(profile.first, profile.first + profile.histogram.shape[1])
    for name, value, exact in zip(
        ("l1", "l2"), _bucket_means(), (profile.l1, profile.l2), strict=True
    ):
        sums = _binned_counts(profile.histogram * value[here], profile.first).sum(axis=2)
        total = sums.sum(1)
        scale = np.divide(exact, total, out=np.zeros_like(total), where=total > 0)
        result[name] = sums * scale[:, None]
    return result


def _binned_counts(histogram: np.ndarray, first: int) -> np.ndarray:
    """(E, N_BINS, N_FINE) of a histogram by upper bits; what lies outside falls into the ends.

    Args:
        histogram: (E, n), from the bucket `first` on.
    """
    start = first - FIRST_KEY * N_FINE  # of the histogram among the fine bins
    size = N_BINS * N_FINE
    below, inside = max(-start, 0), size - start
    fine = np.zeros((histogram.shape[0], size), dtype=histogram.dtype)
    inner = histogram[:, below : max(inside, 0)]
    fine[:, max(start, 0) : max(start, 0) + inner.shape[1]] = inner
    fine[:, 0] += histogram[:, :below].sum(1)
    fine[:, -1] += histogram[:, max(inside, 0) :].sum(1)
    return fine.reshape(histogram.shape[0], N_BINS, N_FINE)


__all__ = [
    "assemble",
    "binned",
    "cached",
    "linear_columns",
    "load",
    "save",
    "scan",
    "select_experts",
    "sketch_key",
    "slim",
    "stacked",
]
