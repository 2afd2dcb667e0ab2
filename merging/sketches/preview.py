"""A first look at a large family: the sketch of a few blocks of every tensor, made at once.

It stands in for the scan's while that reads everything: shares and cuts to about a percent of the
entries, and no claim to be exact (`FamilySketch.exact` is False).
"""

from __future__ import annotations

import threading
import time

import numpy as np

from merging.checkpoints import Family
from merging.checkpoints.layout import blocks_of
from merging.engines import fused
from merging.engines.eager import Profile
from merging.evidence.outliers import layer_means
from merging.selection.statistics import HALF
from merging.sketches.scan import (
    LAYER_OUTLIER,
    LINEAR_OUTLIER,
    SAMPLES,
    assemble,
    linear_columns,
    slim,
    stacked,
)
from merging.sketches.sketch import FamilySketch
from merging.system.freed import handed_back

WORTH = 1 << 26  # entries of all experts from which a scan takes long enough to be waited for
ONE_IN = 32  # blocks, of a family in which that is not too many
_BLOCK = 1 << 14  # entries read in a row: whole pages of the disk
_ENTRIES = 1 << 22  # of one expert, about, that a preview looks at


def preview(family: Family, cancel: threading.Event | None = None) -> FamilySketch | None:
    """A family's sketch from one block in 32 or fewer, scaled to all of it.

    Returns:
        None where a scan is quick, where blocks cannot be read alone, or where a change is not
        finite: the scan says which.

    Raises:
        Cancelled: `cancel` was set.
    """
    total = sum(entry.numel for entry in family.merged)
    if total * len(family.experts) < WORTH or not fused.is_worthwhile(family, 1):
        return None
    with handed_back():
        return look(family, max(ONE_IN, total // _ENTRIES), cancel=cancel)


def look(
    family: Family, one_in: int, block: int = _BLOCK, cancel: threading.Event | None = None
) -> FamilySketch | None:
    """`preview` of any family, from one block in `one_in`, of `block` entries each."""
    started = time.perf_counter()
    stream = fused.FusedStream(family, passes=1, cancel=cancel)
    read = stream.map(lambda reader: reader.blocks(one_in, block))
    raw = [part for part in read if part is not None]
    if len(raw) < len(read):
        return None
    deltas = [part[1:] - part[0] for part in raw]
    if not all(np.isfinite(delta).all() for delta in deltas):
        return None
    numels = np.array([entry.numel for entry in family.merged], dtype=np.int64)
    scales = numels / np.maximum([delta.shape[1] for delta in deltas], 1)
    pairs = [
        slim(_profile(part, *sizes))
        for part, *sizes in zip(raw, deltas, scales, numels, strict=True)
    ]
    profiles = [profile for profile, _ in pairs]
    arrays = stacked(profiles, [bins for _, bins in pairs], family.merged)
    arrays |= _outliers(family, deltas, scales, np.stack([p.l1 for p in profiles], axis=1))
    stride = max(1, sum(delta.shape[1] for delta in deltas) // SAMPLES) | 1
    few = [delta[:, ::stride] for delta in deltas]
    arrays["sample"] = np.concatenate(few, axis=1)
    arrays["sample_base"] = np.concatenate([part[0, ::stride] for part in raw])
    arrays["sample_tensor"] = np.repeat(np.arange(len(few)), [part.shape[1] for part in few])
    multiples = (LAYER_OUTLIER, LINEAR_OUTLIER)
    return assemble(family, "", arrays, multiples, started, exact=False)


def _profile(raw: np.ndarray, deltas: np.ndarray, scale: float, numel: int) -> Profile:
    """The sums of one tensor, scaled from what was read of it.

    Args:
        raw: (1 + E, s) float32, the base first. deltas: (E, s).
        scale: entries of the tensor per entry read.
    """
    profile = Profile.empty(len(deltas))
    bits = np.abs(deltas).view(np.uint32)
    for row, magnitudes in enumerate(bits):
        profile.histogram[row] = _scaled(magnitudes >> 16, scale)
        coarse = magnitudes[((magnitudes & 0xFFFF) == 0) & (magnitudes != 0)]
        profile.coarse[row] = _scaled(coarse >> 16, scale)
    zeros = np.rint((bits == 0).sum(axis=1) * scale).astype(np.int64)
    profile.nonzero += np.clip(profile.histogram.sum(axis=1) - zeros, 0, numel)
    wide = deltas.astype(np.float64)
    profile.l1 += np.abs(wide).sum(axis=1) * scale
    profile.l2 += np.square(wide).sum(axis=1) * scale
    profile.largest += np.abs(wide).max(axis=1, initial=0.0)
    profile.dots += wide @ wide.T * scale
    profile.base_l2 = float(np.square(raw[0].astype(np.float64)).sum()) * scale
    return profile


def _scaled(keys: np.ndarray, scale: float) -> np.ndarray:
    return np.rint(np.bincount(keys, minlength=HALF) * scale).astype(np.int64)


def _outliers(
    family: Family, deltas: list[np.ndarray], scales: np.ndarray, l1: np.ndarray
) -> dict[str, np.ndarray]:
    """Outliers of every linear by its layer's mean and by its own, (E, T) int64 each."""
    columns = linear_columns(family.merged)
    layers = blocks_of([family.merged[index].name for index in columns])
    numels = np.array([family.merged[index].numel for index in columns])
    counts = {name: np.zeros(l1.shape, dtype=np.int64) for name in ("layer", "linear")}
    means = {
        "layer": LAYER_OUTLIER * layer_means(layers, numels, l1[:, columns]),
        "linear": LINEAR_OUTLIER * l1[:, columns] / np.maximum(numels, 1),
    }
    for at, column in enumerate(columns):
        magnitudes = np.abs(deltas[column])
        for name, bounds in means.items():
            above = (magnitudes > bounds[:, at, None]).sum(axis=1)
            counts[name][:, column] = np.rint(above * scales[column])
    return {f"{name}_outliers": rows for name, rows in counts.items()}
