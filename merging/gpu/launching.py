"""Kernels made once for each kind of tensors, and one launch of them over some tensors.

A kind's kernels are compiled by threads of their own, side by side, as soon as it is known that
they will be needed (`prepare`); a launch waits for them. What they are compiled for does not depend
on a launch's sizes, so that a launch asks Triton for nothing.
"""

from __future__ import annotations

import functools
import os
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import numpy as np

from merging.gpu import order, table
from merging.gpu.table import Shape
from merging.instructions.ranked import LEAST
from merging.later import torch

Launcher = Callable[..., Any]
"""launcher(grid, *arguments) launches a kernel."""

WARPS = 4  # of a program
_ALIGNED = 16  # bytes; kernels expect every array to begin at a multiple


def prepare(shape: Shape, device: str) -> None:
    """Begins to compile what a launch of a shape needs, if nobody did."""
    _made(_kind(shape, device))


def launch(
    shape: Shape,
    addresses: np.ndarray,
    numbers: np.ndarray,
    factors: np.ndarray,
    device: str,
    norms: torch.Tensor | None = None,
) -> torch.Tensor:
    """Merges some tensors of one shape. Nothing waits for the device.

    Args:
        addresses: (T, columns) int64; with `numbers` and `factors` the table, see
            `merging.gpu.table`.
        norms: (T, E) float64 on the device, sums of |delta|, where factors follow from what stays.

    Returns:
        (T, 2) float64 on the device: above 0 where a value of the result may not be finite, above 1
        where one is not; and the sum of (merged - base) squared.
    """
    from merging.gpu import triton_kernels as own

    tensors, rings = len(numbers), shape.ring_at[-1]
    kind = _kind(shape, device)
    made = {name: future.result() for name, future in _made(kind).items()}
    _words_kept, drawing = _words(shape, addresses, numbers, device)  # as long as this runs
    there = _on_device([addresses, numbers, factors, *drawing], device)
    if drawing:
        _draw(made["draw"], shape, there, numbers, norms)
    programs = _programs(numbers, own.BLOCK * own.BLOCKS)
    weighed = bool(shape.combination & table.WEIGHED)
    parts = order.NEAR // own.MENDED
    width = programs + (rings * parts * (not weighed) + 1 if rings else 0)
    sums = torch.empty(tensors, width, 2, dtype=torch.float64, device=device)
    records = torch.empty(max(tensors * rings, 1) * own.RECORD, dtype=torch.int32, device=device)
    if rings:
        made["locate"]((tensors, 1, 1), *there[:2], records, sums, width, kind, order.NEAR)
    if weighed:
        _weigh(made, shape, there, numbers, records)
    grid = programs, tensors, 1
    made["merge"](grid, *there[:3], records, sums, width, kind, own.BLOCK, own.BLOCKS)
    if rings and not weighed:
        grid = rings, tensors, order.NEAR // own.SETTLED
        made["settle"](grid, there[1], records, shape.draws_at[-1], rings, own.SETTLED)
        grid = rings, tensors, parts
        made["mend"](grid, *there[:3], records, sums, width, programs, kind, own.MENDED)
    return sums.sum(1)


def _words(
    shape: Shape, addresses: np.ndarray, numbers: np.ndarray, device: str
) -> tuple[torch.Tensor | None, list[np.ndarray]]:
    """Memory for the words that say which entries draws by rank keep, and the addresses for the
    kernel that draws; none where there are no such draws.

    Args:
        addresses: of the kernels that merge; they find the words instead of the ranks.
    """
    experts = [e for e, bit in enumerate(shape.bit_at) if bit >= 0]
    if not experts:
        return None, []
    sizes = numbers[:, table.NUMEL].astype(np.int64) * (1 if len(experts) <= table.BITS else 2)
    ends = np.cumsum(-(-sizes // _ALIGNED) * _ALIGNED)
    words = torch.empty(int(ends[-1]), dtype=torch.uint8, device=device)
    starts = words.data_ptr() + np.concatenate([[0], ends[:-1]])
    drawing = addresses.copy()
    drawing[:, table.OUT] = starts
    known = table.MODELS + len(shape.types)
    addresses[:, [known + e for e in experts]] = starts[:, None]
    return words, [drawing]


def _draw(
    draw: Launcher,
    shape: Shape,
    there: Sequence[torch.Tensor],
    numbers: np.ndarray,
    norms: torch.Tensor | None,
) -> None:
    """Draws by rank, and fills in the factors that follow from what stays.

    Args:
        there: of `launch`, on the device: the table, and the addresses of `_words`.
        norms: of `launch`.
    """
    from merging.gpu import drawing_kernels as own

    device = there[0].device
    tensors, rescaled = len(numbers), shape.rescaled
    programs = _programs(numbers, own.BLOCK * own.BLOCKS)
    size = tensors, programs, max(len(rescaled), 1)
    sums = torch.empty(size, dtype=torch.float64, device=device)
    kind = _kind(shape, str(device))
    draw((programs, tensors, 1), there[3], there[1], sums, programs, kind, own.BLOCK, own.BLOCKS)
    if rescaled:
        assert norms is not None
        before, after = norms[:, rescaled], sums.sum(1)
        counted = torch.minimum(before, after) >= LEAST
        ratios = torch.where(counted, before / after, 1.0)
        columns = [shape.factor_at[e] for e in rescaled]
        there[2].view(tensors, -1)[:, columns] = ratios.to(torch.float32)


def _weigh(
    made: Mapping[str, Launcher],
    shape: Shape,
    there: Sequence[torch.Tensor],
    numbers: np.ndarray,
    records: torch.Tensor,
) -> None:
    """Settles the cuts, and fills in the weights that follow from what is selected.

    Args:
        there, records: of `launch`, on the device.
    """
    from merging.gpu import triton_kernels
    from merging.gpu import weighing_kernels as own

    device, kind = there[0].device, _kind(shape, str(there[0].device))
    tensors, experts = len(numbers), len(shape.rings)
    programs = _programs(numbers, own.BLOCK * own.BLOCKS)
    parts = order.NEAR // triton_kernels.MENDED * shape.selects
    size = tensors, programs + parts, experts
    sums = torch.empty(size, dtype=torch.float64, device=device)
    rows = *there[:2], records, sums, programs + parts
    made["weigh"]((programs, tensors, 1), *rows, kind, own.BLOCK, own.BLOCKS)
    if shape.selects:
        grid = 1, tensors, order.NEAR // triton_kernels.SETTLED
        made["settle"](grid, there[1], records, shape.draws_at[-1], 1, triton_kernels.SETTLED)
        grid = tensors, parts, 1
        made["weigh_listed"](grid, *rows, programs, kind, triton_kernels.MENDED)
    factors = there[2].view(tensors, -1)
    counts = there[1].view(tensors, -1)[:, table.NUMEL, None]
    means = sums.sum(1) / counts
    total = means.sum(1, keepdim=True)
    alike = (total < factors[:, table.DIVISOR, None]) | (total == 0)
    weights = torch.where(alike, 1.0 / experts, means / total).to(torch.float32)
    factors[:, table.WEIGHTS : table.WEIGHTS + experts] = weights


def _programs(numbers: np.ndarray, entries: int) -> int:
    """How many programs the largest tensor takes that work on so many entries each."""
    return -(-int(numbers[:, table.NUMEL].max()) // entries)


@functools.cache
def _kind(shape: Shape, device: str) -> Any:
    from merging.gpu import elements, triton_kernels

    bits = max(shape.bit_at, default=-1) + 1
    word = triton_kernels.tl.uint8 if bits <= table.BITS else triton_kernels.tl.uint16
    return triton_kernels.Kind(
        tuple(elements.TYPES[name] for name in shape.types), shape.rings, shape.amplified,
        shape.located, shape.aligned, shape.combination, elements.TYPES[shape.output],
        shape.ring_at, shape.factor_at, shape.draws_at, shape.factors, shape.variant,
        shape.active, _compares_doubles(device), shape.bit_at, shape.planes_at,
        len(shape.rescaled), word, shape.selects,
    )  # fmt: skip


def _compares_doubles(device: str) -> bool:
    """True for GPUs made for computing; others have a double unit for every 32 or 64 floats."""
    if not device.startswith("cuda"):
        return True
    return torch.cuda.get_device_capability(device) in ((8, 0), (9, 0), (10, 0))


@functools.cache
def _compilers() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(min(os.cpu_count() or 1, 16), "compile")


@functools.cache
def _made(kind: Any) -> dict[str, Future[Launcher]]:
    """The launchers of `merge`, and of what else there is to do, in the making."""
    from merging.gpu import drawing_kernels as drawing
    from merging.gpu import triton_kernels as own
    from merging.gpu import weighing_kernels as weighing

    whole, real, sums = torch.int32, torch.float32, torch.float64
    rows, records = (torch.int64, whole, real), whole
    launches: dict[str, tuple[Any, ...]] = {
        "merge": (own.merge, *rows, records, sums, 0, kind, own.BLOCK, own.BLOCKS),
        "locate": (own.locate, *rows[:2], records, sums, 0, kind, order.NEAR),
        "settle": (own.settle, whole, records, kind.draws_at[-1], kind.ring_at[-1], own.SETTLED),
        "mend": (own.mend, *rows, records, sums, 0, 0, kind, own.MENDED),
        "draw": (drawing.draw, *rows[:2], sums, 0, kind, drawing.BLOCK, drawing.BLOCKS),
        "weigh": (weighing.weigh, *rows[:2], records, sums, 0, kind, weighing.BLOCK,
                  weighing.BLOCKS),
        "weigh_listed": (weighing.weigh_listed, *rows[:2], records, sums, 0, 0, kind, own.MENDED),
    }  # fmt: skip
    few = own.MANY[0] <= kind.ring_at[-1] <= own.MANY[1]
    options = {weighing.weigh: {"maxnreg": own.REGISTERS}}  # with fewer something is spilled
    if few:
        options[own.merge] = {"maxnreg": own.REGISTERS}
    submit = _compilers().submit
    return {
        name: submit(_compiled, options.get(launches[name][0], {}), *launches[name])
        for name in _needed(kind)
    }


def _needed(kind: Any) -> list[str]:
    """The kernels of a kind, by their names in `_made`."""
    weighed = bool(kind.combination & table.WEIGHED)
    names = {
        "merge": True,
        "locate": kind.ring_at[-1] > 0,
        "settle": kind.ring_at[-1] > 0,
        "mend": kind.ring_at[-1] > 0 and not weighed,
        "draw": max(kind.bit_at) >= 0,
        "weigh": weighed,
        "weigh_listed": weighed and kind.selects,
    }
    return [name for name, needed in names.items() if needed]


def _compiled(options: Mapping[str, Any], kernel: Any, *arguments: Any) -> Launcher:
    """A launcher of a kernel that is compiled for such arguments. Triton's interpreter compiles
    nothing, and runs the kernel as it stands."""
    options = {"num_warps": WARPS, "enable_fp_fusion": False, **options}
    made = kernel.warmup(*arguments, grid=(1, 1, 1), **options)
    return lambda grid, *own: (made or kernel)[grid](*own)


def _on_device(arrays: Sequence[np.ndarray], device: str) -> list[torch.Tensor]:
    """Some arrays on a device, flat, in one copy."""
    sizes = [-(-array.nbytes // _ALIGNED) * _ALIGNED for array in arrays]
    host = torch.empty(sum(sizes), dtype=torch.uint8, pin_memory=device.startswith("cuda"))
    starts = np.cumsum([0, *sizes]).tolist()
    whole = host.numpy()
    for array, start in zip(arrays, starts, strict=False):
        whole[start : start + array.nbytes] = array.reshape(-1).view(np.uint8)
    there = host.to(device, non_blocking=True)
    return [
        there[start : start + array.nbytes].view(getattr(torch, array.dtype.name))
        for array, start in zip(arrays, starts, strict=False)
    ]


__all__ = ["launch", "prepare"]
