"""A family is read: how far it is, a first look meanwhile, then every panel."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Generator, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import contextmanager
from typing import Any

import gradio as gr

from merging import kernels
from merging.engines.eager import Progress
from merging.errors import Cancelled, MergeError
from ui import controls
from ui.controls import MAX_EXPERTS
from ui.explore import view
from ui.explore.answers import places_of, values_of
from ui.explore.readings import Reading
from ui.library import Library
from ui.units import span

_TELL_S = 0.4  # between two reports of a scan


def changed(
    library: Library,
    named: dict[str, Any],
    values: dict[str, Any],
    weighed: Sequence[str] = (),
    reading: Reading | None = None,
) -> Iterator[list[Any]]:
    """A new family: says that it is being read, then fills every panel.

    Args:
        weighed: the experts that the weights belong to; those that stay keep theirs.
        reading: ends this one early.
    """
    reading = reading or Reading()
    same = [gr.skip()] * (MAX_EXPERTS + len(controls.places()) + 1)
    keep, rest = [*same, gr.update(visible=True)], [*same, gr.update(visible=False)]
    count = len(values["experts"] or [])
    if count == 0:
        yield [*view.nothing("Choose at least one expert."), *rest]
        return
    try:
        ids = view.ordered(library, values)["experts"]
        values.update(values_of(values, weighed, ids))
        filled = yield from _read(library, named, values, reading.over, keep)
    except Cancelled:
        if not reading.replaced:
            again = "Choose experts to read them again."
            yield [*view.nothing(again, "Reading was stopped."), *rest]
        return
    except MergeError as error:
        yield [*view.unread(str(error), "These models cannot be explored together."), *rest]
        return
    if reading.replaced:
        return
    names = view.names_of(library, ids)
    weights = [
        gr.update(visible=True, label=f"Weight of {name}", value=values[f"weight.{index}"])
        for index, name in enumerate(names)
    ]
    weights += [gr.update(visible=False, value=1.0)] * (MAX_EXPERTS - len(names))
    yield [*filled, *weights, *places_of(values, names), ids, gr.update(visible=False)]


def _read(
    library: Library,
    named: dict[str, Any],
    values: dict[str, Any],
    gone: threading.Event,
    keep: Sequence[Any],
) -> Generator[list[Any], None, list[Any]]:
    """Reads a family and tells how far it is, with a first look meanwhile.

    Args:
        gone: ends it; set when it is over.
        keep: what is told of all but the panels.

    Returns:
        Values of `outputs`.

    Raises:
        Cancelled: `gone` was set. Other MergeErrors: the family cannot be read.
    """
    count, latest = len(values["experts"]), deque[Progress](maxlen=1)
    rest = [*[gr.skip()] * len(view.nothing("")[1:]), *keep]
    heading: dict[str, Any] | None = None  # of the first look, once there is one
    yield [progress_headline(count, None, None), *rest]
    with _worker(gone) as pool:
        looking = pool.submit(view.first_look, library, named, dict(values), gone)
        work = pool.submit(view.family_values, library, named, values, latest.append, gone)
        for _ in _until_done(looking, gone):
            yield [progress_headline(count, None, None), *rest]
        if look := looking.result():
            heading = look[0]
            yield [progress_headline(count, None, heading), *look[1:], *keep]
        for _ in _until_done(work, gone):
            if latest:
                yield [progress_headline(count, latest[0], heading), *rest]
        return work.result()


@contextmanager
def _worker(gone: threading.Event) -> Iterator[ThreadPoolExecutor]:
    """A thread to work on. However the block ends, `gone` is set and nobody waits for the thread:
    what cannot be ended at once (a compiler, a disk) ends by itself."""
    pool = ThreadPoolExecutor(1, thread_name_prefix="scan")
    try:
        yield pool
    finally:
        gone.set()
        pool.shutdown(wait=False, cancel_futures=True)


def _until_done(work: Future[Any], gone: threading.Event) -> Iterator[None]:
    """A moment after the other until the work is done. Raises Cancelled once `gone` is set."""
    while not wait([work], timeout=_TELL_S).done:
        if gone.is_set():
            raise Cancelled("stopped")
        yield


def progress_headline(
    experts: int, progress: Progress | None, look: dict[str, Any] | None
) -> dict[str, Any]:
    """The headline while a family is read: how far, and how long it will take.

    Args:
        look: the headline of a first look at it, which stays until all is read.

    Returns:
        As `findings.headline`; "reading" where the plots are still those of another family.
    """
    is_read = progress is not None and progress.done >= progress.total
    share = f" {100 * progress.done // max(progress.total, 1)}%" if progress is not None else ""
    if look is not None:
        now = f"Reading all of them{share}.{_time_left(progress)}"
        now = "All of them are read; their histograms are being put together." if is_read else now
        return {**look, "reason": f"A first look, from some of the entries. {now}"}
    subject = "one expert" if experts == 1 else f"{experts} experts"
    now = f"Every tensor of {subject} is read once; the result is kept.{_time_left(progress)}"
    if is_read:
        now = f"Every tensor of {subject} is read; the histograms are being put together."
    elif progress is None and kernels.can_build() and not kernels.is_built():
        now += " The code that reads it is compiled first: once on this machine."
    return {
        "parts": [(f"Reading the changes\N{HORIZONTAL ELLIPSIS}{share}", "")],
        "sentence": "",
        "reason": now,
        "reading": True,
    }


def _time_left(progress: Progress | None) -> str:
    if progress is None or progress.eta_s is None:
        return ""
    return f" About {span(round(progress.eta_s))} left." if progress.eta_s >= 1 else ""
