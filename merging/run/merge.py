"""A recipe becomes a model.

`merge` streams the family through the recipe's stages into a hidden folder, reads it back, and
lets it appear.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path

from merging.checkpoints import Entry
from merging.checkpoints.output import check_output, located
from merging.checkpoints.writer import SHARD_BYTES
from merging.declarations.retention import Retention
from merging.engines.eager import ProgressCallback, Stream
from merging.engines.residents import Residents
from merging.recipe import Recipe
from merging.recipe.stages import needed
from merging.run import container, space
from merging.run.attempt import Order, attempt
from merging.run.chain import Results, in_stages
from merging.run.devices import device_for, peak_bytes, with_memory
from merging.run.preflight import idle_filters, open_recipe


@dataclass(frozen=True)
class Result:
    """A finished merge.

    Attributes:
        fingerprint: of the merged tensors as read back.
        seconds: from start to published.
        peak_bytes: peak memory of the process (of the GPU on cuda).
        engine: how the arithmetic ran.
        drift: layer -> ||merged - base|| / ||base||; None for tensors outside the layers. Of a
            model of several stacks, "decoder 3".
        retention: per expert, what was asked for and kept of its changes; empty where nothing is
            pruned by magnitude.
    """

    out: Path
    fingerprint: str
    seconds: float
    peak_bytes: int
    device: str
    engine: str
    account: tuple[Entry, ...] = field(repr=False)
    drift: dict[int | str | None, float] = field(repr=False)
    retention: dict[str, Retention] = field(repr=False, default_factory=dict)
    notes: tuple[str, ...] = ()


def merge(
    recipe: Recipe,
    out: Path,
    *,
    device: str = "auto",
    overwrite: bool = False,
    shard_bytes: int = SHARD_BYTES,
    chunk: int | None = None,
    resume: bool = False,
    progress: ProgressCallback | None = None,
    cancel: threading.Event | None = None,
    engine: Callable[..., Stream] | None = None,
    residents: Residents | None = None,
    stages: Path | None = None,
) -> Result:
    """Runs a recipe and writes the merged model to `out`, complete or not at all.

    Where a GPU's memory is too small the merge starts again in smaller chunks, then on the CPU;
    the result's notes say so.

    Args:
        device: auto, cpu, cuda or mps.
        overwrite: replace an existing model folder once the new one is complete.
        shard_bytes: upper bound of one output file.
        chunk: elements worked on at a time; None for what suits the device.
        resume: go on where a merge of the same recipe to `out` ended early, and keep what is done
            if this one does.
        progress: called after every tensor.
        cancel: set it to stop within a chunk.
        engine: what runs the arithmetic; None for what is predicted to be fastest. All write the
            same bytes.
        residents: keeps the family in a GPU's memory for the next merge; None: it is let go of when
            this one is over.
        stages: where the results of a recipe's stages go, and stay; None for a hidden folder,
            which is removed in the end, and only for those that the result depends on.

    Raises:
        MergeError: see `merging.errors`; nothing is left behind (with `resume`, a hidden folder).
    """
    started = time.perf_counter()
    out = located(out)
    merge_one = partial(
        _merged,
        device=device,
        shard_bytes=shard_bytes,
        chunk=chunk,
        resume=resume,
        cancel=cancel,
        engine=engine,
        residents=residents or Residents(),
    )
    if stages is None:
        recipe = needed(recipe)
    if not recipe.stages:
        return merge_one(recipe, out, {}, overwrite, progress)
    results = in_stages(
        recipe,
        out,
        merge_one,
        folder=None if stages is None else located(stages),
        overwrite=overwrite,
        resume=resume,
        shard_bytes=shard_bytes,
        progress=progress,
    )
    return _of_all(results, time.perf_counter() - started)


def _of_all(results: Sequence[tuple[str, Result]], seconds: float) -> Result:
    """The last of several stages' results, with what there is to say of all."""
    *earlier, (_, last) = results
    notes = [f"{name}: {note}" for name, one in earlier for note in one.notes]
    peak = max(one.peak_bytes for _, one in results)
    return replace(last, seconds=seconds, peak_bytes=peak, notes=(*notes, *last.notes))


def _merged(
    recipe: Recipe,
    out: Path,
    results: Results,
    overwrite: bool,
    progress: ProgressCallback | None,
    *,
    device: str,
    shard_bytes: int,
    chunk: int | None,
    resume: bool,
    cancel: threading.Event | None,
    engine: Callable[..., Stream] | None,
    residents: Residents,
) -> Result:
    """As `merge`, one recipe over models that are there."""
    started = time.perf_counter()
    check_output(out, overwrite)
    family = open_recipe(recipe, results)
    space.check_no_input(out, family.models)
    space.check_space(out, container.specs_of(family, recipe))
    order = Order(
        recipe, family, out, overwrite, shard_bytes, resume, progress, cancel, engine, residents
    )
    first_device = device_for(device, family, recipe)
    work = container.attempt if container.asked(recipe) else attempt
    finished, used, steps_down = with_memory(
        partial(work, order), first_device, chunk, residents.release
    )
    return Result(
        out=out.resolve(),
        fingerprint=finished.fingerprint,
        seconds=time.perf_counter() - started,
        peak_bytes=peak_bytes(used),
        device=used,
        engine=finished.engine,
        account=family.account,
        drift=finished.drift,
        retention=finished.retention,
        notes=(
            *recipe.notes,
            *idle_filters(recipe, family),
            *finished.notes,
            *steps_down,
        ),
    )
