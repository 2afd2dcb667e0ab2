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
from merging.later import torch

Launcher = Callable[..., Any]
"""launcher(grid, *arguments) launches a kernel."""

WARPS = 4  # of a program
_ALIGNED = 16  # bytes; kernels expect every array to begin at a multiple


def prepare(shape: Shape, device: str) -> None:
    """Begins to compile what a launch of a shape needs, if nobody did."""
    _made(_kind(shape, device))


def launch(
    shape: Shape, addresses: np.ndarray, numbers: np.ndarray, factors: np.ndarray, device: str
) -> torch.Tensor:
    """Merges some tensors of one shape. Nothing waits for the device.

    Args:
        addresses: (T, columns) int64; with `numbers` and `factors` the table, see
            `merging.gpu.table`.

    Returns:
        (T, 2) float64 on the device: above 0 where a value of the result may not be finite, above 1
        where one is not; and the sum of (merged - base) squared.
    """
    from merging.gpu import triton_kernels as own

    tensors, rings = len(numbers), shape.ring_at[-1]
    kind = _kind(shape, device)
    merge, *others = (future.result() for future in _made(kind))
    there = _on_device([addresses, numbers, factors], device)
    programs = -(-int(numbers[:, table.NUMEL].max()) // (own.BLOCK * own.BLOCKS))
    parts = order.NEAR // own.MENDED
    width = programs + (rings * parts + 1 if rings else 0)
    sums = torch.empty(tensors, width, 2, dtype=torch.float64, device=device)
    records = torch.empty(max(tensors * rings, 1) * own.RECORD, dtype=torch.int32, device=device)
    if rings:
        locate, settle, mend = others
        locate((tensors, 1, 1), *there[:2], records, sums, width, kind, order.NEAR)
    merge((programs, tensors, 1), *there, records, sums, width, kind, own.BLOCK, own.BLOCKS)
    if rings:
        grid = rings, tensors, order.NEAR // own.SETTLED
        settle(grid, there[1], records, shape.draws_at[-1], rings, own.SETTLED)
        mend((rings, tensors, parts), *there, records, sums, width, programs, kind, own.MENDED)
    return sums.sum(1)


@functools.cache
def _kind(shape: Shape, device: str) -> Any:
    from merging.gpu import triton_kernels

    return triton_kernels.Kind(
        tuple(triton_kernels.TYPES[name] for name in shape.types), shape.rings, shape.amplified,
        shape.located, shape.aligned, shape.combination, triton_kernels.TYPES[shape.output],
        shape.ring_at, shape.factor_at, shape.draws_at, shape.factors, shape.variant,
        shape.active, _compares_doubles(device),
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
def _made(kind: Any) -> tuple[Future[Launcher], ...]:
    """The launchers of `merge`, and where there are rings `locate`, `settle` and `mend`, in the
    making."""
    from merging.gpu import triton_kernels as own

    whole, real, sums = torch.int32, torch.float32, torch.float64
    rows, records = (torch.int64, whole, real), whole
    launches: list[tuple[Any, ...]] = [
        (own.merge, *rows, records, sums, 0, kind, own.BLOCK, own.BLOCKS),
        (own.locate, *rows[:2], records, sums, 0, kind, order.NEAR),
        (own.settle, whole, records, kind.draws_at[-1], kind.ring_at[-1], own.SETTLED),
        (own.mend, *rows, records, sums, 0, 0, kind, own.MENDED),
    ][: 4 if kind.ring_at[-1] else 1]
    few = own.MANY[0] <= kind.ring_at[-1] <= own.MANY[1]
    options = {own.merge: {"maxnreg": own.REGISTERS}} if few else {}
    submit = _compilers().submit
    return tuple(submit(_compiled, options.get(one[0], {}), *one) for one in launches)


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
