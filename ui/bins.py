"""A family's sketch, pooled and packed for the browser.

One *cell* is one module of one layer (tensors of the same kind pooled); everything that is not a
linear inside a layer is pooled by name into cells outside the map. One *column* is one or more of
the sketch's magnitude bins; the first column reaches down to 0. Counts travel once per family as
base64 float32, and how many of them equal their column's lower edge as 255ths of the counts; L1 and
L2 follow from both in the browser, scaled to the exact sums that go along.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from merging.sketches.sketch import N_BINS, FamilySketch, SketchedTensor

MAX_COLUMNS = 96
MAX_BYTES = 480_000  # of packed counts, before base64
MAX_MODULES = 16
OUTSIDE = "outside the layers"
_LOW_SHARE = 0.005  # at most this share of an expert's changes falls into the first column
_SHOWN_SHARE = 1e-4  # the axis ends where less than this share lies above
_ORDER = ("q", "k", "v", "qkv", "o", "gate", "gate_up", "up", "down")


@dataclass(frozen=True)
class Cells:
    """Which tensors are pooled where.

    Attributes:
        layers: L layers, ascending, stack by stack: 3, or "decoder 3" of a model of several.
        modules: M module names, in the order of the forward pass.
        row: (C,) int, index into `layers` of each cell; -1 for cells outside the map.
        column: (C,) int, index into `modules`; -1 outside.
        cell: (T,) int, the cell of each tensor.
        linear: whether the family has linears inside numbered layers at all.
    """

    layers: tuple[int | str, ...]
    modules: tuple[str, ...]
    row: np.ndarray
    column: np.ndarray
    cell: np.ndarray
    linear: bool

    @property
    def count(self) -> int:
        """C, the number of cells."""
        return len(self.row)

    def pool(self, values: np.ndarray) -> np.ndarray:
        """Sums (..., T) values over the tensors of each cell: (..., C) float64."""
        pooled = np.zeros((*values.shape[:-1], self.count))
        for tensor, cell in enumerate(self.cell):
            pooled[..., cell] += values[..., tensor]
        return pooled


@lru_cache(maxsize=8)
def cells(tensors: tuple[SketchedTensor, ...]) -> Cells:
    """Pools the tensors of a family by layer and module; remembered, since a family stays while
    sliders move."""
    inside = [t.is_linear and t.layer is not None for t in tensors]
    linear = any(inside)
    pick = inside if linear else [True] * len(tensors)
    names = [_module(t.module, False) for t in tensors]
    if len({n for n, use in zip(names, pick, strict=True) if use}) > MAX_MODULES:
        names = [_module(t.module, True) for t in tensors]
    if not linear or len({n for n, use in zip(names, pick, strict=True) if use}) > MAX_MODULES:
        names = ["all"] * len(tensors)
    used = (t for t, use in zip(tensors, pick, strict=True) if use)
    blocks = sorted({(t.stack, t.layer or 0, t.title or 0) for t in used})
    layers = tuple(dict.fromkeys(title for *_, title in blocks))
    rows = {title: row for row, title in enumerate(layers)}
    places = [
        (rows[t.title or 0], name) if use else (-1, name)
        for t, name, use in zip(tensors, names, pick, strict=True)
    ]
    if len({place for place in places if place[0] < 0}) > MAX_MODULES:
        places = [place if place[0] >= 0 else (-1, OUTSIDE) for place in places]
    ordered = sorted(set(places), key=lambda place: (place[0] < 0, place[0], _rank(place[1])))
    modules = tuple(sorted({name for row, name in ordered if row >= 0}, key=_rank))
    index = {place: number for number, place in enumerate(ordered)}
    return Cells(
        layers,
        modules,
        np.array([row for row, _ in ordered]),
        np.array([modules.index(name) if row >= 0 else -1 for row, name in ordered]),
        np.array([index[place] for place in places]),
        linear,
    )


def pack(sketch: FamilySketch, table: Cells, offsets: np.ndarray) -> dict:
    """Everything the browser's planner needs of one family.

    Args:
        offsets: (E, T) float64, how far dynamic pruning moves each tensor's density per unit of
            shift: layer offset plus linear offset.

    Returns:
        JSON values; `counts` is base64 of (E, C, B) little-endian float32, `ties` of uint8, or
        None where no entries are known to be equal.
    """
    counts = table.pool(np.moveaxis(sketch.counts, 1, 2))  # (E, bins, C)
    low, factor, columns = _columns(counts, len(sketch.experts) * table.count)
    packed = np.zeros((len(sketch.experts), table.count, columns), dtype="<f4")
    tied = np.zeros(packed.shape)
    for column in range(columns):
        start = 0 if column == 0 else low + (column - 1) * factor
        stop = low if column == 0 else min(start + factor, N_BINS)
        packed[:, :, column] = counts[:, start:stop].sum(axis=1)
        if column > 0:
            tied[:, :, column] = table.pool(sketch.ties[:, :, start, 0])
    ties = np.rint(255 * tied / np.maximum(packed, 1)).astype(np.uint8)
    edges = sketch.edges
    bounds = _bounds(edges, low, factor, columns)
    numel = table.pool(sketch.numel.astype(np.float64))
    return {
        "layers": list(table.layers),
        "modules": list(table.modules),
        "row_of": table.row.tolist(),
        "column_of": table.column.tolist(),
        "numel": numel.astype(np.int64).tolist(),
        "edges": bounds,
        "shown": [bounds[1], _top(counts, edges, bounds[-1])],
        "counts": base64.b64encode(packed.tobytes()).decode(),
        "ties": base64.b64encode(ties.tobytes()).decode() if ties.any() else None,
        "l1": _rounded(table.pool(sketch.l1.sum(axis=2))),
        "l2": _rounded(table.pool(sketch.l2.sum(axis=2))),
        "offsets": pooled_means(sketch, table, offsets),
        "linear": table.linear,
    }


def bounds_of(sketch: FamilySketch, table: Cells) -> list[float]:
    """The edges of the columns of `pack`, the first of them 0."""
    counts = table.pool(np.moveaxis(sketch.counts, 1, 2))
    return _bounds(sketch.edges, *_columns(counts, len(sketch.experts) * table.count))


def _bounds(edges: np.ndarray, low: int, factor: int, columns: int) -> list[float]:
    return [0.0] + [float(edges[min(low + k * factor, N_BINS)]) for k in range(columns)]


def pack_change(
    change: np.ndarray, tensor: np.ndarray, table: Cells, bounds: Sequence[float]
) -> dict:
    """The histogram of a change at sampled entries, for every cell.

    Args:
        change: (S,) float32. tensor: (S,) int, the tensor of each.
        bounds: of `bounds_of`.

    Returns:
        JSON values; `shares` is base64 of (C, B) uint8, 255ths of the cell's largest share, which
        `most` lists; `still` lists the share of its entries that stay as the base has them.
    """
    sizes = np.abs(change.astype(np.float64))
    columns, cell = len(bounds) - 1, table.cell[tensor]
    at = np.clip(np.searchsorted(bounds, sizes, side="right") - 1, 0, columns - 1)
    moved = sizes > 0
    counts = np.bincount((cell * columns + at)[moved], minlength=table.count * columns)
    total = np.maximum(np.bincount(cell, minlength=table.count), 1)
    shares = counts.reshape(table.count, columns) / total[:, None]
    most = shares.max(axis=1)
    scaled = np.rint(255 * shares / np.where(most > 0, most, 1)[:, None]).astype(np.uint8)
    still = np.bincount(cell[~moved], minlength=table.count) / total
    return {
        "shares": base64.b64encode(scaled.tobytes()).decode(),
        "most": np.round(most, 6).tolist(),
        "still": np.round(still, 5).tolist(),
    }


def pooled_means(sketch: FamilySketch, table: Cells, values: np.ndarray) -> list[list[float]]:
    """Values (E, T) as means over each cell's entries, (E, C)."""
    weights = np.maximum(table.pool(sketch.numel.astype(np.float64)), 1)
    return np.round(table.pool(values * sketch.numel) / weights, 6).tolist()


def _columns(counts: np.ndarray, rows: int) -> tuple[int, int, int]:
    """First bin of column 1, bins per column, number of columns. counts (E, bins, C)."""
    shares = counts.sum(axis=2)
    total = np.maximum(shares.sum(axis=1, keepdims=True), 1)
    below = (np.cumsum(shares, axis=1) / total).max(axis=0)
    used = np.flatnonzero(shares.sum(axis=0))
    high = int(used[-1]) + 1 if used.size else N_BINS // 2
    low = max(1, min(int(np.searchsorted(below, _LOW_SHARE)), high - 1))
    allowed = max(16, min(MAX_COLUMNS, MAX_BYTES // (4 * max(rows, 1))))
    factor = 1
    while -(-(high - low) // factor) + 1 > allowed:
        factor += 1
    return low, factor, -(-(high - low) // factor) + 1


def _top(counts: np.ndarray, edges: np.ndarray, largest: float) -> float:
    """Upper end of the axis: less than `_SHOWN_SHARE` of any expert's changes lies above."""
    shares = counts.sum(axis=2)
    total = np.maximum(shares.sum(axis=1, keepdims=True), 1)
    above = (np.cumsum(shares[:, ::-1], axis=1)[:, ::-1] / total).max(axis=0)
    over = np.flatnonzero(above >= _SHOWN_SHARE)
    return float(min(edges[over[-1] + 1], largest)) if over.size else largest


def _module(name: str, without_numbers: bool) -> str:
    return re.sub(r"(^|\.)\d+(?=\.|$)", "", name).strip(".") if without_numbers else name


def _rank(name: str) -> tuple[int, str]:
    return (_ORDER.index(name) if name in _ORDER else len(_ORDER), name)


def _rounded(values: np.ndarray) -> list:
    return [[float(f"{value:.7g}") for value in row] for row in values]
