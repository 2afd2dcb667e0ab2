"""Merges in line: put there, watched until they are over, stopped."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import gradio as gr

from merging.engines.eager import Progress
from merging.errors import MergeError, NotEnoughSpace
from merging.recipe import Recipe, describe
from merging.recipe.references import models_of
from merging.run.merge import Result
from merging.run.preflight import check
from merging.run.stacks import layers_of
from ui import remarks
from ui.jobs import Job, Jobs
from ui.library import Library
from ui.merge import drift, view
from ui.units import amount

_POLL_S = 0.2


def submit(
    jobs: Jobs,
    library: Library,
    run: Callable[..., Result],
    recipe: Recipe,
    text: str,
    folder: Path,
) -> Job:
    """Puts a merge in line.

    Args:
        run: as `merging.run.merge.merge`, its device given.
        text: the recipe as it was written.
        folder: where its result goes.

    Raises:
        MergeError: the line is as long as it may get, or the disk does not hold all of it.
    """
    sources = models_of(recipe)
    report = check(recipe)
    _hold_room(jobs, report.disk_bytes, folder)
    details = view.MergeDetails(recipe, text, layers_of(report.account), sources)

    def work(job: Job) -> Any:
        def note(progress: Progress) -> None:
            details.note(progress)
            share = 1 - min(1.0, progress.done / max(1, progress.total))
            job.disk_bytes = round(report.disk_bytes * share)
            job.report(progress)

        result = run(recipe, folder, progress=note, cancel=job.cancel)
        remarks.note_merge(result.out, result.drift)
        library.refresh()
        return result

    return jobs.submit(str(folder), folder.name, work, details, report.disk_bytes)


def watched(jobs: Jobs, library: Library, job_id: str) -> Iterator[tuple[Any, ...]]:
    """Draws a job until it is over. Leaving the page ends the drawing, not the job."""
    job = jobs.get(job_id)
    if job is None:
        yield tuple([gr.skip()] * 11)
        return
    hidden, closed = gr.update(visible=False), gr.update(interactive=False)
    nothing = [gr.skip()] * 5  # of a result
    while not job.is_over:
        can_stop = gr.update(interactive=not job.cancel.is_set())
        status = view.status(job, jobs.position(job))
        yield status, view.progress(job), closed, can_stop, hidden, *nothing, gr.skip()
        jobs.wait(job, _POLL_S)
    # a stopped merge may be started again; a finished one has used up its name
    again = gr.update(interactive=job.state != "done")
    over = (view.status(job, 0), "", again, closed)
    if job.state != "done":
        yield *over, hidden, *nothing, job.id
        return
    result = job.result
    moved = drift.drift_value(result.drift, _foreseen(library, job.details.recipe))
    said = describe(job.details.recipe, library.called(job.details.recipe))
    code = view.loading_code(str(result.out))
    card = (view.result(job, said), moved, code, job.details.text)
    model = (library.id_of(result.out), job.details.sources)
    yield *over, gr.update(visible=True), *card, model, job.id


def _foreseen(library: Library, recipe: Recipe) -> dict[int | str | None, tuple[float, float]]:
    """The drift that Explore foresaw by layer, and its error; empty where it foresaw none."""
    from merging.run.forecast import foreseen_drift

    sketch = library.sketched(recipe)
    if sketch is None:
        return {}
    try:
        return foreseen_drift(recipe, sketch)
    except MergeError:  # of whole rows or matrices, or of other models than the sketch
        return {}


def busy(jobs: Jobs, name: str, job_id: str) -> str:
    """Why no other merge can be started from a page yet; "" where it can.

    Args:
        job_id: the job that the page shows: one page shows one merge at a time.
    """
    shown = jobs.get(job_id)
    if shown is None or shown.is_over or shown.title == (name or "").strip():
        return ""
    return f"{shown.title} is not over yet: stop it, or wait, before {name} is started."


def free_bytes(folder: Path) -> int:
    """Free bytes of the disk that a folder, which need not exist yet, will be on."""
    while not folder.exists():
        folder = folder.parent
    return shutil.disk_usage(folder).free


def _hold_room(jobs: Jobs, need: int, folder: Path) -> None:
    """Refuses what does not fit beside the merges that wait: they were promised their room."""
    claimed, free = jobs.claimed_bytes(), free_bytes(folder)
    if claimed and need + claimed > free:
        raise NotEnoughSpace(
            f"{folder.name} needs {amount(need)}, and the merges in line before it "
            f"{amount(claimed)}, but {amount(free)} are free; wait, or free some."
        )
