"""A family of sampled entries: what a sketch holds of a large family, read as a small one.

Its tensors are the sampled positions of the large family's, the same of every model, so whatever
works entry by entry gives there what it gives in the merge, and what is measured is an estimate.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import product
from typing import Any, cast

import numpy as np

from merging.checkpoints import Checkpoint, Entry, Family
from merging.checkpoints.layout import Place
from merging.declarations.methods import Pruning
from merging.engines.eager import Stream, TensorReader
from merging.instructions import Competition, competitions
from merging.later import torch
from merging.recipe import Recipe
from merging.sketches import tails
from merging.sketches.sketch import FamilySketch


@dataclass(frozen=True)
class SampledModel:
    """Stands for a checkpoint: the base is model 0, the experts follow."""

    index: int
    name: str
    config: dict[str, Any] = field(default_factory=dict)

    def origin(self, tensor: str) -> tuple[str, str]:
        """As Checkpoint."""
        return self.name, tensor


class SampledTensors:
    """Hands out sampled values, as `engines.sources.RawTensors`.

    Args:
        values: (1 + E, s) float32 per tensor, the base's values and the experts' changes.
    """

    def __init__(self, values: dict[str, torch.Tensor]) -> None:
        self.findings = None
        self.values = values

    def read(self, model: Checkpoint, name: str, start: int, stop: int) -> torch.Tensor:
        """As RawTensors."""
        index, rows = cast(SampledModel, model).index, self.values[name]
        return rows[index, start:stop] if not index else (rows[0] + rows[index])[start:stop]


class ThinnedReader(TensorReader):
    """Reads one tensor's sampled entries; changes are those that were sampled."""

    stream: ThinnedStream

    def gram(self) -> np.ndarray:
        """As TensorReader: of changes the sketch's, of all entries, in proportion."""
        sampled, whole = super().gram(), self.stream.products(self.entry)
        sampled[1:, 1:], sampled[0, 0] = whole[1:, 1:], whole[0, 0]
        return sampled

    def _delta(self, expert: int, start: int, stop: int, base: torch.Tensor | None) -> torch.Tensor:
        source = cast(SampledTensors, self.stream.source)
        return source.values[self.entry.name][1 + expert, start:stop]


class ThinnedStream(Stream):
    """The sampled entries of a sketched family. Norms and outliers are the sketch's, of all
    entries, in the proportion of those sampled.

    Args:
        rows: which of the sketch's experts every model is; None for one that equals the base.
    """

    def __init__(self, sketch: FamilySketch, rows: Sequence[int | None]) -> None:
        ends = np.searchsorted(sketch.sample_tensor, np.arange(len(sketch.tensors) + 1))
        self.spans = {t.name: (ends[i], ends[i + 1]) for i, t in enumerate(sketch.tensors)}
        self._sketch, self._rows = sketch, rows
        self._places = {tensor.name: index for index, tensor in enumerate(sketch.tensors)}
        same = np.zeros_like(sketch.sample_base)
        deltas = [same if row is None else sketch.sample[row] for row in rows]
        everything = torch.from_numpy(np.stack([sketch.sample_base, *deltas]))
        values = {name: everything[:, a:b] for name, (a, b) in self.spans.items() if b > a}
        super().__init__(_family(sketch, values, len(rows)), source=SampledTensors(values))

    def open(self, entry: Entry) -> TensorReader:
        """As Stream."""
        return ThinnedReader(self, entry)

    def l1_norms(self, entries: Sequence[Entry]) -> np.ndarray:
        """As Stream."""
        norms = self._sketch.l1.sum(axis=2)
        return self._of(entries, norms) * self._thinness(entries)[:, None]

    def counts_above(self, entries: Sequence[Entry], bounds: np.ndarray) -> np.ndarray:
        """As Stream."""
        chosen = np.array([self._places[entry.name] for entry in entries], dtype=np.int64)
        counts = np.zeros(bounds.shape)  # of experts that equal the base, none
        for at, row in enumerate(self._rows):
            if row is None:
                continue
            for k in range(bounds.shape[2]):
                above = tails.count_above(self._sketch, row, chosen, bounds[:, at, k])
                counts[:, at, k] = above
        thin = self._thinness(entries)[:, None, None]
        return np.rint(counts * thin).astype(np.int64)

    def magnitudes_at(self, ranks: Sequence[int], pruning: Pruning) -> list[list[float]]:
        """As Stream."""
        rows = zip(*(self._pruned(reader, pruning) for reader in self._all()), strict=True)
        return [_at_ranks(torch.cat(parts).abs(), ranks) for parts in rows]

    def scores_at(
        self, ranks: Sequence[int], pruning: Pruning, game: Competition
    ) -> list[list[float]]:
        """As Stream."""
        parts = []
        for reader in self._all():
            deltas = self._pruned(reader, pruning)
            taus = [deltas[index] for index in game.active]
            parts.append(competitions.scores(taus, game.bounds, game.variant))
        return [_at_ranks(torch.cat(row), ranks) for row in zip(*parts, strict=True)]

    def products(self, entry: Entry) -> np.ndarray:
        """(1 + E, 1 + E) inner products of the base and the changes, those of a change with the
        base left 0, in the proportion of what is sampled."""
        place, rows = self._places[entry.name], self._rows
        result = np.zeros((1 + len(rows), 1 + len(rows)))
        result[0, 0] = self._sketch.base_l2[place]
        for (i, a), (j, b) in product(enumerate(rows, 1), repeat=2):
            if a is not None and b is not None:
                result[i, j] = self._sketch.dots[a, b, place]
        return result * self._thinness([entry])[0]

    def _all(self) -> list[TensorReader]:
        return [self.open(entry) for entry in self.family.merged]

    @staticmethod
    def _pruned(reader: TensorReader, pruning: Pruning) -> list[torch.Tensor]:
        return reader.pruned(pruning(reader), 0, reader.numel)

    def _of(self, entries: Sequence[Entry], values: np.ndarray) -> np.ndarray:
        """(n, E) of a sketch's (E, T) values."""
        chosen = [self._places[entry.name] for entry in entries]
        zero = np.zeros(len(chosen))
        rows = [zero if row is None else values[row, chosen] for row in self._rows]
        return np.stack(rows, axis=1)

    def _thinness(self, entries: Sequence[Entry]) -> np.ndarray:
        """(n,) sampled entries per entry of the tensor."""
        numel = self._sketch.numel
        return np.array([entry.numel / numel[self._places[entry.name]] for entry in entries])


def thinned(sketch: FamilySketch, recipe: Recipe) -> ThinnedStream:
    """The sampled entries as the recipe's models see them, matched to the experts by position; a
    base that is one model of many has no change."""
    sources = [source.model for source in recipe.sources]
    if len(sources) == len(sketch.experts):
        return ThinnedStream(sketch, range(len(sources)))
    others = iter(range(len(sketch.experts)))
    return ThinnedStream(
        sketch, [None if model == recipe.base else next(others) for model in sources]
    )


def _at_ranks(values: torch.Tensor, ranks: Sequence[int]) -> list[float]:
    return [float(value) for value in torch.sort(values).values[list(ranks)]]


def _family(sketch: FamilySketch, values: dict[str, torch.Tensor], experts: int) -> Family:
    entries = []
    for tensor in sketch.tensors:
        if tensor.name not in values:
            continue
        count = values[tensor.name].shape[1]
        shape = (1, count) if tensor.is_linear else (count,)
        place = Place(tensor.layer, tensor.module, tensor.is_linear, tensor.stack, tensor.depth)
        entries.append(Entry(tensor.name, "merged", "", shape, "F32", place))
    models = [SampledModel(index, f"model {index}") for index in range(experts + 1)]
    base, *others = cast(list[Checkpoint], models)
    return Family(base, tuple(others), tuple(entries))
