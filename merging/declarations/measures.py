"""What a method may ask of a family: the measurements that every engine makes."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

import numpy as np

from merging.checkpoints import Entry, Family
from merging.instructions import Competition, Decision, Needs, Unified
from merging.selection.statistics import OrderStatistic
from merging.selection.tied import Band, Cut, Looked, Parted

if TYPE_CHECKING:
    from merging.declarations.methods import Pruning
    from merging.later import torch

T = TypeVar("T")
Histograms = list[dict[int, np.ndarray]]
"""Per expert, histograms by bucket (`selection.statistics.Sweep`)."""


@dataclass(frozen=True)
class Near:
    """The magnitudes of one expert's tensor that lie near a value.

    Attributes:
        first: upper 16 bits of the lowest of them.
        above: how many magnitudes lie above them all.
        coarse: (n,) int64, those that are `first`, `first` + 1... with no lower bits.
        fine: (m,) uint32, bits of the others.
    """

    first: int
    above: int
    coarse: np.ndarray
    fine: np.ndarray

    def count_above(self, bound: float) -> int | None:
        """How many magnitudes exceed `bound`, as float32; None where it is not near."""
        bits = int(np.float32(bound).view(np.uint32))
        bucket = (bits >> 16) - self.first
        if not 0 <= bucket < self.coarse.size:
            return None
        fine = int(np.count_nonzero(self.fine > np.uint32(bits)))
        return self.above + int(self.coarse[bucket + 1 :].sum()) + fine


class Reader(Protocol):
    """One tensor of a family. `numel` elements; deltas are float32, expert minus base."""

    entry: Entry
    numel: int
    experts: int

    @property
    def finds_cuts(self) -> bool:
        """True where decisions may be `Ranks`, and `Ranked` that are `rescaled`."""
        ...

    @property
    def columns(self) -> int:
        """Elements of a row: the last dimension."""
        ...

    def spans(self, needs: Needs = "chunk") -> Iterator[tuple[int, int]]:
        """(start, stop) of every chunk of a pass; each holds whole what is needed whole."""
        ...

    def delta(self, expert: int, start: int, stop: int) -> torch.Tensor:
        """Expert minus base for [start, stop), (n,) float32. Not to be changed in place."""
        ...

    def base(self, start: int, stop: int) -> torch.Tensor:
        """The base's elements [start, stop), (n,) float32. Not to be changed in place."""
        ...

    def model(self, expert: int, start: int, stop: int) -> torch.Tensor:
        """The expert's own elements [start, stop), (n,) float32."""
        ...

    def pruned(
        self, decisions: Sequence[Decision] | None, start: int, stop: int
    ) -> list[torch.Tensor]:
        """Every expert's pruned delta for [start, stop), which holds whole what decisions need
        whole (`needs_of`)."""
        ...

    def gram(self) -> np.ndarray:
        """Inner products in float64 of the base and the experts' changes, (1 + E, 1 + E), the base
        first: see `instructions.grams`. Raises NonFinite naming the model."""
        ...

    def pruned_norms(self, expert: int, decision: Decision) -> tuple[float, float]:
        """Sums of |delta| and of |pruned delta| of one expert, in float64."""
        ...

    def spread(self, decisions: Sequence[Decision]) -> Spread:
        """A reader whose one expert's change is the variance of the experts' pruned changes."""
        ...

    def energies(self, decisions: Sequence[Decision], cut: Cut) -> np.ndarray:
        """Sums of squares of every expert's pruned changes where their variance is inside a cut,
        (E,) float64."""
        ...

    def unified_norms(self, decisions: Sequence[Decision], unified: Unified) -> tuple[float, float]:
        """Sums of |change| of a task and of |its share of the unified change|, in float64."""
        ...

    def shared_counts(self, decisions: Sequence[Decision], epsilon: float) -> np.ndarray:
        """Per expert, entries that others changed too and entries that it changed alone, by more
        than epsilon, (E, 2) int64."""
        ...

    def order_statistics(self, ranks: Sequence[Sequence[int]]) -> list[list[OrderStatistic]]:
        """Magnitudes of the changes at ascending ranks, per expert."""
        ...

    def sweep(
        self, buckets: Sequence[Sequence[int]], decisions: Sequence[Decision] | None = None
    ) -> Histograms:
        """Histograms of the magnitudes of the pruned changes."""
        ...

    def score_sweep(
        self, decisions: Sequence[Decision], game: Competition, buckets: Sequence[Sequence[int]]
    ) -> Histograms:
        """Histograms of the scores of a competition, of the experts that take part."""
        ...

    def magnitudes_at(
        self, ranks: Sequence[int], decisions: Sequence[Decision]
    ) -> list[list[float]]:
        """Magnitudes of the pruned changes at ascending ranks, per expert."""
        ...

    def scores_at(
        self, ranks: Sequence[int], decisions: Sequence[Decision], game: Competition
    ) -> list[list[float]]:
        """Scores of a competition at ascending ranks, of the experts that take part."""
        ...

    def changed(self) -> list[int]:
        """Entries that differ from the base, per expert; of readers that find cuts."""
        ...

    def stops(self, parted: Sequence[Parted]) -> list[int]:
        """Where cuts part the tensor's equal changes (`selection.tied`)."""
        ...

    def look(self, bands: Sequence[Band], first: int = 0) -> list[Looked]:
        """One pass over the changes that share a magnitude, for some bands."""
        ...

    def sample(self, stride: int) -> np.ndarray | None:
        """(E, s) float32: about every stride-th change; None where there is no cheap one."""
        ...

    def l1_norms(self) -> list[float]:
        """Sum of |delta| of every expert, in float64."""
        ...

    def count_above(self, bounds: Sequence[Sequence[float]]) -> list[list[int]]:
        """Entries with |delta| above each bound, per expert."""
        ...

    def vote_balance(self, decisions: Sequence[Decision], weights: Sequence[float]) -> int:
        """Entries whose weighted sum of pruned changes is above 0, minus those below."""
        ...


class Spread(Reader, Protocol):
    """The variance over the experts, read as if it were the change of one. Where it `finds_cuts` a
    combination may be `Selected` with a cut and weights that are to be found."""

    def differing(self, share: float = 0.0) -> int:
        """Entries whose variance is above 0.

        Args:
            share: of them, if their cut is what will be asked for next.
        """
        ...

    def most_energy(self) -> float:
        """No less than the sum of squares of all experts' changes, but for rounding in double;
        infinity if none was counted."""
        ...


class Passes(Protocol):
    """All merged tensors of a family.

    Attributes:
        total: elements that all passes together are expected to read, for the progress.
        lock: for what several readers add up.
        cuts_may_wait: False where something is measured by the cuts of pruned changes, so that they
            must be known before a merge.
    """

    family: Family
    total: int
    lock: Any
    cuts_may_wait: bool

    def open(self, entry: Entry) -> Any:
        """The reader of one merged tensor."""
        ...

    def map(
        self,
        function: Callable[[Any], T],
        phase: str = "measure",
        entries: Sequence[Entry] | None = None,
        order: Callable[[Entry], Any] = ...,
    ) -> list[T]:
        """Calls `function` on the reader of every merged tensor, several at a time where there are
        workers; results in the order of names."""
        ...

    def sample(self, stride: int) -> np.ndarray | None:
        """(E, s) float32: about every stride-th change; None where there is no cheap one."""
        ...

    def magnitudes_at(self, ranks: Sequence[int], pruning: Pruning) -> list[list[float]]:
        """Magnitudes of all pruned changes at ascending ranks, per expert."""
        ...

    def scores_at(
        self, ranks: Sequence[int], pruning: Pruning, game: Competition
    ) -> list[list[float]]:
        """Scores of a competition at ascending ranks over the whole model, of the experts that take
        part."""
        ...

    def l1_norms(self, entries: Sequence[Entry]) -> np.ndarray:
        """Sums of |delta| of some tensors, (n, E) float64."""
        ...

    def counts_above(self, entries: Sequence[Entry], bounds: np.ndarray) -> np.ndarray:
        """Entries of some tensors with |delta| above some bounds, which count as float32.

        Args:
            bounds: (n, E, B).

        Returns:
            (n, E, B) int64.
        """
        ...

    def remembered(self, key: Hashable, measure: Callable[[], T]) -> T:
        """What `measure` finds out of the family alone. While the family stays in a device's
        memory it is measured once.

        Args:
            key: what was measured, and all that it depends on besides the family.
        """
        ...
