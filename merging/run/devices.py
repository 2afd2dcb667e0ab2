"""Where a merge runs: the device, the engine on it, and what happens where memory is short."""

from __future__ import annotations

import gc
import resource
from collections.abc import Callable
from typing import TypeVar

from merging.checkpoints import Family
from merging.engines import fused
from merging.engines.eager import GPU_CHUNK, Stream, pick_device
from merging.errors import one_line
from merging.gpu import stream as gpu
from merging.later import is_loaded, torch
from merging.recipe import Recipe

SMALLEST_CHUNK = 1 << 17  # elements; below that the CPU is the better place
T = TypeVar("T")


def device_for(device: str, family: Family, recipe: Recipe) -> str:
    """The device a merge runs on. Where torch is not in memory yet, loading it and waking a GPU
    takes longer than the CPU's loops take for the merge."""
    if device == "auto" and not is_loaded() and fused.would_run(family, recipe.partitions):
        return "cpu"
    return pick_device(device)


def engine_for(family: Family, recipe: Recipe, device: str) -> type[Stream]:
    """The engine that is predicted to be fastest; all write the same bytes."""
    if device == "cpu" and fused.is_worthwhile(family, recipe.partitions):
        return fused.FusedStream
    if gpu.is_worthwhile(family, device):
        return gpu.KernelStream
    return Stream


def with_memory(
    attempt: Callable[[str, int | None, bool], T],
    device: str,
    chunk: int | None,
    release: Callable[[str], object],
) -> tuple[T, str, list[str]]:
    """Runs on a device; where its memory is short, in smaller chunks, then on the CPU. On the CPU
    also where kernels do not compile for the device, which no trial can rule out for all kinds.

    Args:
        attempt: runs on a device, in chunks of so many elements, with the family resident in the
            device's memory or not.
        release: lets go of what stays in a device's memory between merges.

    Returns:
        What the attempt returned, the device it ended on, and a note for every step down.
    """
    if device == "cpu":
        return attempt(device, chunk, False), device, []
    notes: list[str] = []
    size = chunk or GPU_CHUNK
    resident = True
    while resident or size >= SMALLEST_CHUNK:
        try:
            return attempt(device, size, resident), device, notes
        except Exception as error:  # a compiler's errors have no type in common
            if _is_of_kernels(error):
                why = one_line(error) or type(error).__name__
                notes.append(f"merged on the CPU: no kernels could be made for {device}: {why}")
                break
            if not _is_out_of_memory(error):
                raise
            notes.append(
                f"the memory of {device} was short with chunks of {size} elements"
                + (" and the models kept there" if resident else "")
            )
        gc.collect()  # outside the handler: the error held the tensors of where it was raised
        release(device)
        size, resident = (size if resident else size // 8), False
    else:
        notes.append(f"merged on the CPU: the memory of {device} was too small")
    gc.collect()
    release(device)
    return attempt("cpu", chunk, False), "cpu", notes


def peak_bytes(device: str) -> int:
    """Peak memory of the process; of the GPU on cuda."""
    if device == "cuda":
        return torch.cuda.max_memory_allocated(device)
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def _is_of_kernels(error: Exception) -> bool:
    """True where Triton, or what it calls, could not compile a kernel."""
    return type(error).__module__.split(".")[0] == "triton"


def _is_out_of_memory(error: Exception) -> bool:
    """True where a device's memory was short. Apple's says it in words only."""
    if not isinstance(error, RuntimeError):
        return False
    return isinstance(error, torch.OutOfMemoryError) or "out of memory" in str(error)
