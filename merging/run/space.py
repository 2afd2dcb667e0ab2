"""Where a result goes, and the disk and memory that a merge needs."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path

from merging.checkpoints import Checkpoint, Family, TensorSpec, views
from merging.checkpoints.output import check_output
from merging.declarations.methods import TORCH_BYTES
from merging.engines import fused
from merging.engines.eager.work import CHUNK, RESIDENT
from merging.engines.fused import sizes
from merging.errors import MergeError, NotEnoughSpace, OutputExists
from merging.kinship import Problem
from merging.methods import PRUNERS, RULES
from merging.recipe import Recipe


def disk_bytes(specs: Sequence[TensorSpec]) -> int:
    """Bytes that the result's tensors take."""
    return sum(spec.size_bytes for spec in specs)


def memory_bytes(family: Family, recipe: Recipe) -> int:
    """What the engine that will run holds at its peak, the interpreter and libraries included."""
    largest = max((entry.numel for entry in family.merged), default=0)
    methods = PRUNERS[recipe.prune], RULES[recipe.consensus]
    needs = [method.memory(recipe, family.merged) for method in methods]
    in_torch = sum(need >= TORCH_BYTES for need in needs)
    own = sum(needs) - TORCH_BYTES * max(in_torch - 1, 0)  # it is loaded once
    if fused.would_run(family, recipe.partitions):
        keys = min(8 * largest * len(family.experts), sizes.KEYS_BYTES)
        return 120_000_000 + keys + fused.workers() * 2 * sizes.PIECE_BYTES + own
    models = len(family.models)
    return 350_000_000 + 4 * min(largest, max(RESIDENT, CHUNK)) * (2 * models + 6) + own


def output_problems(
    out: Path, models: Sequence[Checkpoint], disk: int, overwrite: bool
) -> list[Problem]:
    """What speaks against writing `disk` bytes to `out`."""
    try:
        check_output(out, overwrite)
        check_no_input(out, models)
    except MergeError as error:
        return [Problem("error", str(out), str(error))]
    free = _free_bytes(out)
    if free >= disk:
        return []
    return [Problem("error", str(out), f"needs {_size(disk)}, {_size(free)} are free")]


def check_no_input(out: Path, models: Sequence[Checkpoint]) -> None:
    """Raises OutputExists where `out` is or holds one of the models that are read."""
    for model in views.originals(models):
        if not out.exists() or not model.folder.resolve().is_relative_to(out.resolve()):
            continue
        where = "is" if out.samefile(model.folder) else "holds"
        raise OutputExists(
            f"{out} {where} {model.name}, which the recipe reads; give another name for the result"
        )


def check_space(out: Path, specs: Sequence[TensorSpec]) -> None:
    """Raises NotEnoughSpace where the disk does not hold the result."""
    need, free = disk_bytes(specs), _free_bytes(out)
    if free < need:
        raise NotEnoughSpace(
            f"{out}: the model needs {_size(need)} and {_size(free)} are free; "
            "free space or choose another disk"
        )


def _free_bytes(path: Path) -> int:
    """Free bytes of the disk that a path, which need not exist yet, will be on."""
    path = path.resolve()
    while not path.exists():
        path = path.parent
    return shutil.disk_usage(path).free


def _size(count: int) -> str:
    """Bytes for people: 5_500_000 -> "5.5 MB"."""
    return f"{count / 1e6:.1f} MB" if count < 1e9 else f"{count / 1e9:.2f} GB"
