"""What a scan asks of a family in a GPU's memory: its changes counted and added up in one pass."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from merging.gpu import alike
from merging.gpu.making import making
from merging.later import torch

if TYPE_CHECKING:
    from merging.engines.sources import KeptTensor


class Tally(NamedTuple):
    """What is counted of one tensor of E experts' changes.

    Attributes:
        first: upper 16 bits of the first bucket.
        coarse, others: (E, n) int32, entries by the upper 16 bits of |delta| from `first` on: those
            whose lower 16 bits are zero, but no zeros, and those that have others.
        l1, largest: (E,) float64, sum of |delta| and the largest.
        dots: (E, E) float64, inner products.
        base_l2: sum of squares of the base.
        whole: every entry but zeros is in a bucket.
    """

    first: int
    coarse: np.ndarray
    others: np.ndarray
    l1: np.ndarray
    largest: np.ndarray
    dots: np.ndarray
    base_l2: float
    whole: bool


def tallies(tensors: Sequence[KeptTensor]) -> list[Tally | None]:
    """Tallies of some tensors of one family; None for those without elements."""
    from merging.gpu import tallying_kernels as own

    result: list[Tally | None] = [None] * len(tensors)
    for one in alike.groups(tensors, own.BLOCK):
        experts = len(one.kinds) - 1
        size = len(one.members), experts, own.BINS
        counts = torch.zeros(size, dtype=torch.int32, device=one.parts.device)
        if len(one.parts):
            with making:
                own.tally[(len(one.parts) * experts,)](
                    one.addresses, one.numels, one.parts, counts, kind=own.Tallied(one.kinds),
                    block=own.BLOCK, num_warps=own.WARPS, enable_fp_fusion=False,
                )  # fmt: skip
        sums, largest = _added([tensors[index] for index in one.members], experts)
        held = counts.cpu().numpy()
        for place, index in enumerate(one.members):
            if tensors[index].models[0].numel():
                result[index] = _tally(held[place], sums[place], largest[place])
    return result


def _added(tensors: Sequence[KeptTensor], experts: int) -> tuple[np.ndarray, np.ndarray]:
    """Sums over some tensors stored alike, (T, 1 + E (E + 3) / 2), and the largest magnitudes,
    (T, E); float64, see `tallying_kernels.add`."""
    from merging.gpu import tallying_kernels as own

    (one,) = alike.groups(tensors, own.FEWER * own.BLOCKS)
    size = 1 + experts * (experts + 3) // 2
    sums = torch.empty(len(one.parts), size + experts, dtype=torch.float64, device=one.parts.device)
    if len(one.parts):
        with making:
            own.add[(len(one.parts),)](
                one.addresses, one.numels, one.parts, sums, kind=own.Tallied(one.kinds),
                block=own.FEWER, blocks=own.BLOCKS, enable_fp_fusion=False,
            )  # fmt: skip
    added = torch.segment_reduce(sums[:, :size].contiguous(), "sum", lengths=one.each, axis=0)
    largest = torch.segment_reduce(sums[:, size:].contiguous(), "max", lengths=one.each, axis=0)
    return added.cpu().numpy(), largest.cpu().numpy()


def _tally(counts: np.ndarray, sums: np.ndarray, largest: np.ndarray) -> Tally:
    """What a tensor's counters and sums say, see `tallying_kernels`.

    Args:
        counts: (E, BINS); sums, largest: a row of `_added`.
    """
    from merging.gpu import tallying_kernels as own

    experts = len(counts)
    dots, l1 = np.zeros((experts, experts)), np.zeros(experts)
    first = 1
    for row in range(experts):
        l1[row] = sums[first]
        dots[row, row:] = dots[row:, row] = sums[first + 1 : first + 1 + experts - row]
        first += 1 + experts - row
    buckets = counts[:, : 2 * own.BUCKETS].reshape(experts, own.BUCKETS, 2)
    whole = not counts[:, 2 * own.BUCKETS :].any()
    return Tally(
        own.FIRST, buckets[:, :, 0], buckets[:, :, 1], l1, largest, dots, float(sums[0]), whole
    )


def counts_above(tensors: Sequence[KeptTensor], bounds: np.ndarray) -> np.ndarray:
    """Entries of some tensors of one family with |delta| above some bounds.

    Args:
        bounds: (n, E, B); they count as float32.

    Returns:
        (n, E, B) int64.
    """
    from merging.gpu import tallying_kernels as own

    result = np.zeros(bounds.shape, dtype=np.int64)
    for one in alike.groups(tensors, own.FEWER * own.BLOCKS):
        if not len(one.parts):
            continue
        ends = np.ascontiguousarray(bounds[one.members], dtype=np.float32)
        size = len(one.parts), ends[0].size
        counts = torch.empty(size, dtype=torch.int32, device=one.parts.device)
        with making:
            own.above[(len(one.parts),)](
                one.addresses, one.numels, one.parts, torch.from_numpy(ends).to(counts.device),
                counts, kind=own.Tallied(one.kinds, ends.shape[2]), block=own.FEWER,
                blocks=own.BLOCKS,
            )  # fmt: skip
        added = torch.segment_reduce(counts.double(), "sum", lengths=one.each, axis=0)
        result[one.members] = added.cpu().numpy().reshape(ends.shape).astype(np.int64)
    return result
