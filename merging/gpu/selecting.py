"""Order statistics of a family in a GPU's memory: what a competition asks for, exactly.

A sample, kept with the family, brackets the key at a rank (`selection.brackets`). One pass counts
the keys above the bracket and at its ends, lists those strictly between, and finds the largest; the
listed ones are sorted. A crowd of equal keys is wider than a bracket, so it lies at an end of one
and is counted; the list holds no more than the bracket's share of all. A bracket that missed is
seen by its counts and widened, a list that was too short is made longer: either costs a pass.

To merge a family of E experts of N elements, b bytes each, again as a competition takes

    scores   read (1 + E) N b     nothing written
    merge    read (1 + E) N b     write N b

and no pass over magnitudes: their order statistics belong to the family, and stay with it. That is
(3 + 2 E) N b bytes, where one merging pass by itself moves (2 + E) N b: 1.8 times as much for
three experts. Every element's scores are worked out twice, though, 0.4 and 0.5 thousand
instructions for three experts that agree pairwise, which takes longer than the bytes do.
"""

from __future__ import annotations

import functools
import math
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from merging.errors import NonFinite
from merging.gpu import table
from merging.gpu.making import making
from merging.gpu.order import FIRST, INFINITE, MOST
from merging.instructions import Competition, competitions
from merging.later import torch
from merging.selection.statistics import keys, value_of

if TYPE_CHECKING:
    from merging.engines.sources import KeptTensor

SAMPLE = 1 << 20  # elements sampled, at most; at least as many as a tensor of 2 M gives, if there
LEAST_SAMPLE = 1 << 13
BUCKETS = 256  # lists: programs share counters, few enough of them to take turns
_ERRORS = 4.5  # standard errors on both sides of where a sample has a rank: one in 100,000 misses
_PART = 1 << 12  # elements of one tensor that may all be listed where few are expected

Found = list[list[float]]
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


@dataclass(frozen=True)
class Alike:
    """Tensors stored alike, as the kernel finds them.

    Attributes:
        types: the models' stored types, base first.
        addresses, numels, parts: see `selection_kernels.count`.
    """

    types: tuple[str, ...]
    addresses: torch.Tensor
    numels: torch.Tensor
    parts: torch.Tensor


class Population:
    """All elements of some tensors of a family, and what is known of them.

    Args:
        tensors: in a device's memory, of the same models.
    """

    def __init__(self, tensors: Sequence[KeptTensor]) -> None:
        self._tensors = [one for one in tensors if one.models[0].numel()]
        self.count = sum(one.models[0].numel() for one in self._tensors)
        self._magnitudes: dict[tuple[int, ...], Found] = {}
        self._lock = threading.Lock()

    def magnitudes_at(self, ranks: Sequence[int]) -> Found:
        """Magnitudes of the changes at ascending ranks, per expert; worked out once.

        Raises:
            NonFinite: a value is NaN or infinite.
        """
        key = tuple(ranks)
        with self._lock:
            if key not in self._magnitudes:
                rows = tuple(range(len(self._sample)))
                sampled = self._sample.abs().view(torch.int32)
                self._magnitudes[key] = self._at(key, rows, 0, None, sampled)
            return self._magnitudes[key]

    def scores_at(self, ranks: Sequence[int], game: Competition) -> Found:
        """Scores of the experts that compete at ascending ranks.

        Raises:
            NonFinite: a score is NaN.
        """
        taus = [self._sample[index] for index in game.active]
        scores = competitions.scores(taus, game.bounds, game.variant)
        sampled = torch.stack([keys(one) for one in scores])
        variant = table.VARIANTS[game.variant]
        return self._at(ranks, game.active, variant, table.numbers_of(game.bounds), sampled)

    def _at(
        self,
        ranks: Sequence[int],
        rows: tuple[int, ...],
        variant: int,
        factors: Sequence[float] | None,
        sampled: torch.Tensor,
    ) -> Found:
        """The values at some ranks.

        Args:
            rows, variant: see `selection_kernels.Sought`.
            factors: see `selection_kernels.count`.
            sampled: (R, s) int32, keys of a sample.
        """
        inner = [rank for rank in ranks if rank < self.count - 1]  # every pass tells the largest
        ordered = torch.sort(sampled, 1).values
        device = ordered.device
        numbers = torch.tensor(factors or [0.0], dtype=torch.float32).to(device, non_blocking=True)
        look = functools.partial(self._look, rows=rows, variant=variant, factors=numbers)
        errors, found = _ERRORS, None
        while found is None:
            bounds, room = bracketed(ordered, self.count, inner, errors)
            found = self._settled(look, bounds, room, inner)
            errors *= 8
        return [[row[rank] for rank in ranks] for row in found]

    def _settled(
        self, look: Callable, bounds: torch.Tensor, room: int, inner: Sequence[int]
    ) -> list[dict[int, float]] | None:
        """Per row the values by rank; None where a bracket missed one."""
        counted, lists, listed = look(bounds, room)
        longest = int(listed.max(initial=0))
        if longest > room:
            counted, lists, listed = look(bounds, longest)
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

    def _look(
        self,
        bounds: torch.Tensor,
        room: int,
        *,
        rows: tuple[int, ...],
        variant: int,
        factors: torch.Tensor,
    ) -> tuple[Counted, torch.Tensor, np.ndarray]:
        """One pass.

        Args:
            bounds: (R, K, 2) int32, on the device.
            room: of every list.

        Returns:
            What was counted; the lists, (B, R, K, room) on the device; how many keys each holds, or
            should hold.
        """
        from merging.gpu import selection_kernels as own
        from merging.gpu.triton_kernels import TYPES

        device, (size, brackets, _) = bounds.device, bounds.shape
        buckets = min(BUCKETS, max(len(one.parts) for one in self._alike))
        listed = torch.zeros(buckets, size, brackets, dtype=torch.int32, device=device)
        lists = torch.empty(buckets, size, brackets, room, dtype=torch.int32, device=device)
        counts = size * brackets * own.COUNTS
        sums = torch.zeros(counts, dtype=torch.int64, device=device)
        largest = torch.full((size,), FIRST, dtype=torch.int64, device=device)
        for one in self._alike:
            told = torch.empty(len(one.parts), counts + size, dtype=torch.int32, device=device)
            types = tuple(TYPES[name] for name in one.types)
            kind = own.Sought(types, rows, variant, brackets)
            with making:
                own.count[(len(one.parts),)](
                    one.addresses, one.numels, one.parts, factors, bounds, listed, lists, room,
                    told, buckets, kind=kind, block=own.BLOCK, blocks=own.BLOCKS,
                    num_warps=own.WARPS, enable_fp_fusion=False,
                )  # fmt: skip
            sums += told[:, :counts].sum(0)
            largest = torch.maximum(largest, told[:, counts:].amax(0))
        flat = torch.cat([sums, largest, bounds.flatten().long(), listed.flatten().long()])
        parts = np.split(flat.cpu().numpy(), np.cumsum([counts, size, bounds.numel()]))
        above, upper, lower = np.moveaxis(parts[0].reshape(size, brackets, own.COUNTS), 2, 0)
        held = parts[3].reshape(listed.shape)
        ends = parts[2].reshape(bounds.shape)
        return Counted(ends, above, upper, lower, held.sum(0), parts[1]), lists, held

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
        groups: dict[tuple[str, ...], list[KeptTensor]] = {}
        for one in self._tensors:
            groups.setdefault(one.types, []).append(one)
        return [_alike(types, members) for types, members in groups.items()]


def bracketed(
    ordered: torch.Tensor, count: int, ranks: Sequence[int], errors: float
) -> tuple[torch.Tensor, int]:
    """Where the keys at some ranks are to be expected.

    Args:
        ordered: (R, s) int32, ascending keys of a sample.
        count: keys in all.
        errors: standard errors on both sides.

    Returns:
        (R, K, 2) int32: lower and upper ends, one of each in the sample or beyond all keys; and how
        many keys a list must have room for, were they spread evenly.
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
    ends = torch.full((2, rows, 1), FIRST + 1, dtype=torch.int32, device=ordered.device)
    ends[1] = MOST
    bounds = torch.cat([ends[0], ordered, ends[1]], 1)[:, places]
    room = 2 * widest * -(-count // size) // BUCKETS + _PART
    return bounds.reshape(rows, len(ranks), 2).contiguous(), min(room, count)


def _joined(lists: torch.Tensor, sizes: np.ndarray) -> torch.Tensor:
    """The keys of some lists that are filled in part, (n,) int32.

    Args:
        lists: (B, room) int32; sizes: (B,) of them.
    """
    filled = torch.from_numpy(sizes).to(lists.device).unsqueeze(1)
    return lists[torch.arange(lists.shape[1], device=lists.device) < filled]


def _alike(types: tuple[str, ...], tensors: Sequence[KeptTensor]) -> Alike:
    from merging.gpu import selection_kernels as own

    step = own.BLOCK * own.BLOCKS
    device = tensors[0].models[0].device
    numels = np.array([one.models[0].numel() for one in tensors], dtype=np.int64)
    each = -(-numels // step)
    owner = np.repeat(np.arange(len(tensors)), each)
    first = (np.arange(owner.size) - np.repeat(np.cumsum(each) - each, each)) * step
    addresses = [(0, *(model.data_ptr() for model in one.models)) for one in tensors]

    def there(values: Any, kind: type) -> torch.Tensor:
        return torch.from_numpy(np.ascontiguousarray(values, dtype=kind)).to(device)

    return Alike(
        types, there(addresses, np.int64), there(numels, np.int32),
        there(np.stack([owner, first], 1), np.int32),
    )  # fmt: skip
