"""What methods measure of one tensor, through torch, chunk by chunk."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from merging.engines.eager.chunks import Chunks
from merging.engines.eager.profile import Profile
from merging.engines.eager.work import RUN
from merging.errors import NonFinite
from merging.instructions import (
    Competition,
    Decision,
    Unified,
    competitions,
    elections,
    elementary,
    grams,
    masks,
    needs_of,
)
from merging.later import torch
from merging.selection.statistics import (
    HALF,
    Observation,
    OrderStatistic,
    Sweep,
    order_statistics,
    statistics,
    sweep_rows,
)
from merging.selection.tied import Band, Cut, Looked, Parted, stops


class Measuring(Chunks):
    """Measures one tensor."""

    def order_statistics(self, ranks: Sequence[Sequence[int]]) -> list[list[OrderStatistic]]:
        """Magnitudes at ascending ranks, per expert. Raises NonFinite naming the model."""
        try:
            return order_statistics(self.magnitudes, ranks)
        except NonFinite as error:
            raise self.culprit(error) from None

    def sweep(
        self, buckets: Sequence[Sequence[int]], decisions: Sequence[Decision] | None = None
    ) -> list[dict[int, np.ndarray]]:
        """Histograms of the magnitudes of the pruned deltas, see `selection.statistics.Sweep`."""
        return sweep_rows(lambda: self.magnitudes(decisions))(buckets)

    def changed(self) -> list[int]:
        """Entries that differ from the base, per expert; of readers that find cuts."""
        raise NotImplementedError

    def stops(self, parted: Sequence[Parted]) -> list[int]:
        """Where cuts part the tensor's equal changes (`selection.tied`); a row is an expert."""
        return stops(self.look, parted)

    def look(self, bands: Sequence[Band], first: int = 0) -> list[Looked]:
        """One pass over the changes that share a magnitude, for some bands; a row is an expert.

        Args:
            first: index of the tensor's first entry in the scope.
        """
        observation = Observation(bands)
        for start, stop in self.spans():
            magnitudes = [delta.abs() for delta in self.deltas(start, stop)]
            observation.add(magnitudes, first + start)
        return observation.result()

    def score_sweep(
        self, decisions: Sequence[Decision], game: Competition, buckets: Sequence[Sequence[int]]
    ) -> list[dict[int, np.ndarray]]:
        """Histograms of PCB's scores of the active experts (`competitions.scores`)."""

        def rows() -> Iterator[list[torch.Tensor]]:
            for start, stop in self.spans(needs_of(decisions)):
                deltas = self.pruned(decisions, start, stop)
                taus = [deltas[index] for index in game.active]
                yield competitions.scores(taus, game.bounds, game.variant)

        return sweep_rows(rows)(buckets)

    def magnitudes_at(
        self, ranks: Sequence[int], decisions: Sequence[Decision]
    ) -> list[list[float]]:
        """Magnitudes of the pruned deltas at ascending ranks, per expert. Raises NonFinite."""
        return self._values_at(lambda b: self.sweep(b, decisions), ranks, self.experts)

    def scores_at(
        self, ranks: Sequence[int], decisions: Sequence[Decision], game: Competition
    ) -> list[list[float]]:
        """Scores of a competition at ascending ranks, of the experts that take part. Raises
        NonFinite."""
        sweep = lambda b: self.score_sweep(decisions, game, b)  # noqa: E731
        return self._values_at(sweep, ranks, len(game.active))

    def sample(self, stride: int) -> np.ndarray | None:
        """(E, s) float32: about every stride-th delta, in runs of neighbours; None as `blocks`."""
        rows = self.blocks(stride, RUN)
        return None if rows is None else rows[1:] - rows[0]

    def blocks(self, one_in: int, size: int) -> np.ndarray | None:
        """(1 + E, s) float32: one block of every so many, the base's values first.

        None where that would mean reading the whole tensor.

        Args:
            size: elements of a block; a smaller tensor is one block.
        """
        return None

    def profile(
        self, stride: int, first: int, near: Sequence[Sequence[float]] | None = None
    ) -> Profile:
        """What a sketch needs of this tensor, in one pass.

        Args:
            stride, first: the flat indices first, first + stride, ... are sampled.
            near: per expert the same number of values; where this reader can, the magnitudes near
                them are kept, so that those above some bound nearby can be counted later.
        """
        total = Profile.empty(self.experts)
        for start, stop in self.spans():
            deltas = torch.stack(self.deltas(start, stop))
            if stop == start:
                continue
            magnitudes = deltas.abs()
            bits = magnitudes.view(torch.int32)
            keys = bits >> 16
            for index in range(self.experts):
                counts = torch.bincount(keys[index], minlength=HALF)
                total.histogram[index] += counts.cpu().numpy()
                few = keys[index][((bits[index] & 0xFFFF) == 0) & (bits[index] != 0)]
                total.coarse[index] += torch.bincount(few, minlength=HALF).cpu().numpy()
            total.nonzero += (magnitudes > 0).sum(1).cpu().numpy()
            total.l1 += magnitudes.sum(1, dtype=torch.float64).cpu().numpy()
            total.l2 += magnitudes.double().square_().sum(1).cpu().numpy()
            np.maximum(total.largest, magnitudes.amax(1).cpu().numpy(), out=total.largest)
            total.dots += (deltas @ deltas.T).double().cpu().numpy()
            base = self.base(start, stop)
            total.base_l2 += elementary.total(base.square())
            skip = (first - start) % stride
            both = torch.cat([base[None, skip::stride], deltas[:, skip::stride]])
            total.sample.append(both.cpu().numpy())
        return total

    def l1_norms(self) -> list[float]:
        """Sum of |delta| of every expert, in float64."""
        sums = [0.0] * self.experts
        for chunk in self.magnitudes():
            for index, magnitude in enumerate(chunk):
                sums[index] += elementary.total(magnitude)
        return sums

    def count_above(self, bounds: Sequence[Sequence[float]]) -> list[list[int]]:
        """Entries with |delta| above each bound, per expert; bounds count as float32."""
        counts = [[0] * len(row) for row in bounds]
        for chunk in self.magnitudes():
            for index, magnitude in enumerate(chunk):
                for k, bound in enumerate(bounds[index]):
                    counts[index][k] += int((magnitude > float(np.float32(bound))).sum())
        return counts

    def vote_balance(self, decisions: Sequence[Decision], weights: Sequence[float]) -> int:
        """Entries whose weighted sum is above 0 minus those below."""
        return sum(
            elections.sign_balance(elections.vote(self.pruned(decisions, start, stop), weights))
            for start, stop in self.spans(needs_of(decisions))
        )

    def gram(self) -> np.ndarray:
        """Inner products in float64 of the base and the experts' changes, (1 + E, 1 + E), the base
        first. Raises NonFinite naming the model."""
        total = np.zeros((1 + self.experts, 1 + self.experts))
        for start, stop in self.spans(multiple=grams.BLOCK):
            total = grams.added(total, [self.base(start, stop), *self.deltas(start, stop)])
        if not np.isfinite(total).all():
            raise self.culprit(NonFinite("a value is NaN or infinite"))
        return total

    def pruned_norms(self, expert: int, decision: Decision) -> tuple[float, float]:
        """Sums of |delta| and of |pruned delta| of one expert, in float64."""
        before = after = 0.0
        for start, stop in self.spans(needs_of([decision])):
            delta = self.delta(expert, start, stop)
            before += elementary.total(delta.abs())
            after += elementary.total(self._apply(decision, delta, start).abs())
        return before, after

    def energies(self, decisions: Sequence[Decision], cut: Cut) -> np.ndarray:
        """Sums of squares of every expert's pruned changes where their variance is inside a cut,
        (E,) float64."""
        total = np.zeros(self.experts)
        for start, stop in self.spans(needs_of(decisions)):
            for index, delta in enumerate(
                masks.selected(self.pruned(decisions, start, stop), cut, start)
            ):
                total[index] += elementary.total(delta * delta)
        return total

    def unified_norms(self, decisions: Sequence[Decision], unified: Unified) -> tuple[float, float]:
        """Sums of |change| of a task and of |its share of the unified change|, in float64."""
        change = masked = 0.0
        for start, stop in self.spans(needs_of(decisions)):
            deltas = masks.weigh(self.pruned(decisions, start, stop), unified.weights)
            union = masks.unified(deltas, unified.zero_is_negative)
            own = deltas[unified.task]
            change += elementary.total(own.abs())
            masked += elementary.total((masks.has_sign_of(own, union) * union).abs())
        return change, masked

    def shared_counts(self, decisions: Sequence[Decision], epsilon: float) -> np.ndarray:
        """Per expert, entries that others changed too and entries that it changed alone, by more
        than epsilon, (E, 2) int64."""
        total = np.zeros((self.experts, 2), dtype=np.int64)
        for start, stop in self.spans(needs_of(decisions)):
            active = [delta.abs() > epsilon for delta in self.pruned(decisions, start, stop)]
            together = sum(own.to(torch.int32) for own in active)
            for index, own in enumerate(active):
                shared = int((own & (together > 1)).sum())
                total[index] += (shared, int(own.sum()) - shared)
        return total

    def _values_at(self, sweep: Sweep, ranks: Sequence[int], rows: int) -> list[list[float]]:
        values = statistics(sweep, [ranks] * rows)
        return [[one.value for one in row] for row in values]
