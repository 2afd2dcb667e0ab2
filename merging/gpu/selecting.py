"""Order statistics of a family in a GPU's memory: what a competition asks for, exactly.

A sample, kept with the family, brackets the value at a rank (`selection.brackets`). One pass tells
how many values lie above the bracket and lists those inside; the listed ones are sorted. A bracket
that missed is seen by its counts and widened, a list that was too short is made longer: either
costs a pass, never a bit.

Magnitudes are counted (`selection_kernels`). A crowd of equal ones is wider than a bracket, so it
lies at an end of one and is counted, not listed; the list holds no more than the bracket's share of
all. Scores are sifted (`sifting_kernels`): worked out roughly, which tells nearly all apart, and
exactly where that leaves a doubt.

To merge a family of E experts of N elements, b bytes each, again as a competition takes

    scores   read (1 + E) N b     lists: some thousandths of it
    merge    read (1 + E) N b     write N b

and no pass over magnitudes: their order statistics belong to the family, and stay with it. That is
(3 + 2 E) N b bytes, where one merging pass by itself moves (2 + E) N b: 1.8 times as much for
three experts. What takes longer is arithmetic: some 230 and 560 instructions for an element of
three experts that agree pairwise.
"""

from __future__ import annotations

import functools
import math
import threading
from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from merging.errors import NonFinite
from merging.gpu import table
from merging.gpu.alike import Alike, groups
from merging.gpu.making import making
from merging.gpu.order import FIRST, INFINITE, MOST
from merging.instructions import Competition, competitions
from merging.later import torch
from merging.selection.statistics import value_of

if TYPE_CHECKING:
    from merging.engines.sources import KeptTensor

SAMPLE = 1 << 20  # elements sampled, at most; at least as many as a tensor of 2 M gives, if there
LEAST_SAMPLE = 1 << 13
BUCKETS = 256  # lists: programs share counters, few enough of them to take turns
_ERRORS = 4.5  # standard errors on both sides of where a sample has a rank: one in 100,000 misses
_WIDER = 8  # times, where one missed
_PART = 1 << 12  # elements of one tensor that may all be listed where few are expected

Values = list[list[float]]
"""Per row the values at some ascending ranks."""


class Counted(NamedTuple):
    """What one pass tells, on the host.

    Attributes:
        ends: (R, K, 2) lower and upper end of every bracket.
        above, upper, lower: (R, K) keys above the upper end, from it on, from the lower end on.
        listed: (R, K) keys strictly between.
        largest: (R,).
    """

    ends: np.ndarray
    above: np.ndarray
    upper: np.ndarray
    lower: np.ndarray
    listed: np.ndarray
    largest: np.ndarray


class Sifted(NamedTuple):
    """What a pass over scores tells.

    Attributes:
        counts: (R, K, 2) elements surely above a bracket, and zeros that are not below it.
        lists: (B, R, K, room) on the device: bits of the other scores that are not surely below.
        listed: (B, R, K) how many each list holds.
    """

    counts: np.ndarray
    lists: torch.Tensor
    listed: np.ndarray


class Population:
    """All elements of some tensors of a family, and what is known of them.

    Args:
        tensors: in a device's memory, of the same models.
    """

    def __init__(self, tensors: Sequence[KeptTensor]) -> None:
        self._tensors = [one for one in tensors if one.models[0].numel()]
        self.count = sum(one.models[0].numel() for one in self._tensors)
        self._magnitudes: dict[tuple[int, ...], Values] = {}
        self._lock = threading.Lock()

    def magnitudes_at(self, ranks: Sequence[int]) -> Values:
        """Magnitudes of the changes at ascending ranks, per expert; worked out once.

        Raises:
            NonFinite: a value is NaN or infinite.
        """
        key = tuple(ranks)
        with self._lock:
            if key not in self._magnitudes:
                self._magnitudes[key] = self._magnitudes_at(key)
            return self._magnitudes[key]

    def scores_at(self, ranks: Sequence[int], game: Competition) -> Values:
        """Scores of the experts that compete at ascending ranks.

        Raises:
            NonFinite: a score is NaN.
        """
        taus = [self._sample[index] for index in game.active]
        sampled = torch.stack(competitions.scores(taus, game.bounds, game.variant))
        ordered = torch.sort(sampled, 1).values
        if not bool(torch.isfinite(ordered).all()):
            raise NonFinite("a value is NaN or infinite")
        numbers = torch.tensor(table.numbers_of(game.bounds), dtype=torch.float32)
        factors = numbers.to(ordered.device, non_blocking=True)
        errors, values = _ERRORS, None
        while values is None:
            bounds, room = bracketed(ordered, self.count, ranks, errors, (-math.inf, math.inf))
            values = self._sifted(game, factors, bounds, room, ranks)
            errors *= _WIDER
        return values

    def _magnitudes_at(self, ranks: Sequence[int]) -> Values:
        inner = [rank for rank in ranks if rank < self.count - 1]  # every pass tells the largest
        ordered = torch.sort(self._sample.abs().view(torch.int32), 1).values
        errors, values = _ERRORS, None
        while values is None:
            bounds, room = bracketed(ordered, self.count, inner, errors, (FIRST + 1, MOST))
            values = self._counted(bounds, room, inner)
            errors *= _WIDER
        return [[row[rank] for rank in ranks] for row in values]

    def _counted(
        self, bounds: torch.Tensor, room: int, inner: Sequence[int]
    ) -> list[dict[int, float]] | None:
        """Per expert the magnitudes by rank; None where a bracket missed one."""
        counted, lists, listed = self._count(bounds, room)
        if (longest := int(listed.max(initial=0))) > room:
            counted, lists, listed = self._count(bounds, longest)
        if counted.largest.max() >= INFINITE:
            raise NonFinite("a value is NaN or infinite")
        result = [{self.count - 1: int(key)} for key in counted.largest]
        waiting, picked = [], []
        for row, k in np.ndindex(counted.above.shape):
            place = self.count - 1 - inner[k]  # from the largest, 0, on
            upper, inside = counted.upper[row, k], counted.listed[row, k]
            if not counted.above[row, k] <= place < counted.lower[row, k]:
                return None
            if place < upper:
                result[row][inner[k]] = int(counted.ends[row, k, 1])
            elif place >= upper + inside:
                result[row][inner[k]] = int(counted.ends[row, k, 0])
            else:
                ordered = torch.sort(_joined(lists[:, row, k], listed[:, row, k])).values
                picked.append(ordered[inside - 1 - int(place - upper)])
                waiting.append((row, inner[k]))
        if picked:
            for (row, rank), key in zip(waiting, torch.stack(picked).tolist(), strict=True):
                result[row][rank] = key
        return [{rank: value_of(key) for rank, key in row.items()} for row in result]

    def _count(self, bounds: torch.Tensor, room: int) -> tuple[Counted, torch.Tensor, np.ndarray]:
        """One pass over magnitudes.

        Args:
            bounds: (R, K, 2) int32, on the device.
            room: of every list.

        Returns:
            What was counted; the lists, (B, R, K, room) on the device; how many keys each holds, or
            should hold.
        """
        from merging.gpu import selection_kernels as own

        device, (size, brackets, _) = bounds.device, bounds.shape
        listed, lists = self._lists(bounds, room, self._alike)
        counts = size * brackets * own.COUNTS
        sums = torch.zeros(counts, dtype=torch.int64, device=device)
        largest = torch.full((size,), FIRST, dtype=torch.int64, device=device)
        for one in self._alike:
            tallies = torch.empty(len(one.parts), counts + size, dtype=torch.int32, device=device)
            with making:
                own.count[(len(one.parts),)](
                    one.addresses, one.numels, one.parts, bounds, listed, lists, room, tallies,
                    len(listed), kind=own.Sought(one.kinds, brackets), block=own.BLOCK,
                    blocks=own.BLOCKS, num_warps=own.WARPS, enable_fp_fusion=False,
                )  # fmt: skip
            sums += tallies[:, :counts].sum(0)
            largest = torch.maximum(largest, tallies[:, counts:].amax(0))
        flat = torch.cat([sums, largest, bounds.flatten().long(), listed.flatten().long()])
        parts = np.split(flat.cpu().numpy(), np.cumsum([counts, size, bounds.numel()]))
        above, upper, lower = np.moveaxis(parts[0].reshape(size, brackets, own.COUNTS), 2, 0)
        held = parts[3].reshape(listed.shape)
        ends = parts[2].reshape(bounds.shape)
        return Counted(ends, above, upper, lower, held.sum(0), parts[1]), lists, held

    def _sifted(
        self,
        game: Competition,
        factors: torch.Tensor,
        bounds: torch.Tensor,
        room: int,
        ranks: Sequence[int],
    ) -> Values | None:
        """Per expert the scores at some ranks; None where a bracket missed one."""
        sifted = [self._sift(one, game, factors, bounds, room) for one in self._alike]
        counts = np.sum([one.counts for one in sifted], axis=0)
        pairs = []
        for row, k in np.ndindex(bounds.shape[:2]):
            above, zeros = (int(count) for count in counts[row, k])
            listed = torch.cat(
                [_joined(one.lists[:, row, k], one.listed[:, row, k]) for one in sifted]
            )
            place = self.count - 1 - ranks[k] - above  # from the largest listed one, 0, on
            if not 0 <= place < len(listed) + zeros:
                return None
            pairs.append(_nth_largest(listed.view(torch.float32), zeros, place))
        values, largest = torch.stack(pairs).unbind(1)
        if not bool(torch.isfinite(largest).all()):
            raise NonFinite("a value is NaN or infinite")
        return values.reshape(bounds.shape[:2]).tolist()

    def _sift(
        self,
        alike: Alike,
        game: Competition,
        factors: torch.Tensor,
        bounds: torch.Tensor,
        room: int,
    ) -> Sifted:
        """One pass over the scores of tensors stored alike."""
        from merging.gpu import sifting_kernels as own

        device, (size, brackets, _) = bounds.device, bounds.shape
        kind = own.Sifted(alike.kinds, game.active, table.VARIANTS[game.variant], brackets)
        tallies = torch.empty(
            len(alike.parts), size, brackets, own.COUNTS, dtype=torch.int32, device=device
        )
        held = None
        while held is None or held.max() > room:
            room = room if held is None else int(held.max())
            listed, lists = self._lists(bounds, room, [alike])
            with making:
                own.sift[(len(alike.parts),)](
                    alike.addresses, alike.numels, alike.parts, factors, bounds, listed, lists,
                    room, tallies, len(listed), kind=kind, block=own.BLOCK, blocks=own.BLOCKS,
                    num_warps=own.WARPS, enable_fp_fusion=True,
                )  # fmt: skip
            counts = tallies.sum(0)
            flat = torch.cat([counts.flatten(), listed.flatten().long()]).cpu().numpy()
            held = flat[counts.numel() :].reshape(listed.shape)
        if longest := int(held.max()):
            with making:
                own.weigh[(len(listed), size * brackets, -(-longest // own.WEIGHED))](
                    alike.addresses, alike.parts, factors, listed, lists, room, len(listed),
                    kind=kind, step=own.BLOCK * own.BLOCKS, block=own.WEIGHED,
                    enable_fp_fusion=False,
                )  # fmt: skip
        return Sifted(flat[: counts.numel()].reshape(counts.shape), lists, held)

    @staticmethod
    def _lists(
        bounds: torch.Tensor, room: int, alike: Sequence[Alike]
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Counters of lists, (B, R, K) zeros, and the lists, (B, R, K, room), both int32."""
        shape = (min(BUCKETS, max(len(one.parts) for one in alike)), *bounds.shape[:2])
        listed = torch.zeros(shape, dtype=torch.int32, device=bounds.device)
        return listed, torch.empty(*shape, room, dtype=torch.int32, device=bounds.device)

    @functools.cached_property
    def _sample(self) -> torch.Tensor:
        """(E, s) float32: every so manyth change, kept."""
        stride = self.count // min(SAMPLE, max(LEAST_SAMPLE, self.count >> 8)) | 1
        pieces, position = [], 0
        for one in self._tensors:
            base, *others = (model[-position % stride :: stride].float() for model in one.models)
            pieces.append(torch.stack([other - base for other in others]))
            position += one.models[0].numel()
        return torch.cat(pieces, 1)

    @functools.cached_property
    def _alike(self) -> list[Alike]:
        """The tensors, by stored types."""
        from merging.gpu import selection_kernels as own

        return groups(self._tensors, own.BLOCK * own.BLOCKS)


def bracketed(
    ordered: torch.Tensor, count: int, ranks: Sequence[int], errors: float, beyond: tuple
) -> tuple[torch.Tensor, int]:
    """Where the values at some ranks are to be expected.

    Args:
        ordered: (R, s) ascending values of a sample.
        count: values in all.
        errors: standard errors on both sides.
        beyond: what is below and above all values.

    Returns:
        (R, K, 2): lower and upper ends, each in the sample or beyond; and how many values a list
        must have room for, were they spread evenly.
    """
    rows, size = ordered.shape
    places, widest = [], 0
    for rank in ranks:
        share = (rank + 0.5) / count
        margin = errors * math.sqrt(size * share * (1 - share)) + 2
        low = max(math.floor(share * size - margin), -1)
        high = min(math.ceil(share * size + margin), size)
        places += [low + 1, high + 1]
        widest = max(widest, high - low)
    below, above = (torch.full_like(ordered[:, :1], end) for end in beyond)
    bounds = torch.cat([below, ordered, above], 1)[:, places]
    room = 2 * widest * -(-count // size) // BUCKETS + _PART
    return bounds.reshape(rows, len(ranks), 2).contiguous(), min(room, count)


def _nth_largest(values: torch.Tensor, zeros: int, place: int) -> torch.Tensor:
    """The value at a place from the largest, 0, on, and the largest; NaN comes before all.

    Args:
        values: (n,) float32; zeros: how many more there are that are 0.
    """
    ordered = torch.sort(torch.cat([values, values.new_zeros(1)]), descending=True).values
    first = torch.searchsorted(-ordered, values.new_zeros(1))  # here lie the other zeros
    shifted = torch.where(place < first, place, first.clamp(min=place - zeros + 1))
    return torch.cat([ordered[shifted], ordered[:1]])


def _joined(lists: torch.Tensor, sizes: np.ndarray) -> torch.Tensor:
    """The keys of some lists that are filled in part, (n,) int32.

    Args:
        lists: (B, room) int32; sizes: (B,) of them.
    """
    filled = torch.from_numpy(sizes).to(lists.device).unsqueeze(1)
    return lists[torch.arange(lists.shape[1], device=lists.device) < filled]
