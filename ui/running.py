"""The merge that runs, in the top bar of every tab: its name, how far it is, and the time left."""

from __future__ import annotations

from dataclasses import dataclass
from html import escape

import gradio as gr

from ui.events import PROMPT
from ui.jobs import Job, Jobs
from ui.units import span

_ON_LOAD = """
const mount = () => window.amalgamRunning
  ? window.amalgamRunning.mount(element, props, watch, trigger) : setTimeout(mount, 15);
mount(); // triggers 'look' now and then while the page is seen
"""


@dataclass(frozen=True)
class Running:
    """The part of the top bar, over the merges in line."""

    jobs: Jobs
    bar: gr.HTML

    def wire(self, shown: gr.State) -> None:
        """Attaches its event.

        Args:
            shown: the id of the merge that the page shows.
        """
        self.bar.look(self.looked, shown, self.bar, **PROMPT)

    def looked(self, job_id: str) -> str:
        """What the bar shows now, as markup; "" where nothing is merged."""
        job = self.jobs.running()
        return drawn(job, is_own=job is not None and job.id == job_id)


def layout() -> gr.HTML:
    """Builds the part of the bar."""
    return gr.HTML(
        "",
        html_template="<div class='running-board'></div>",
        js_on_load=_ON_LOAD,
        apply_default_css=False,
        elem_id="running",
    )


def drawn(job: Job | None, *, is_own: bool) -> str:
    """A merge as a button that leads to it. What changes all the time is not read aloud."""
    if job is None:
        return ""
    words = f"Merging {job.title}" if is_own else f"Another page is merging {job.title}"
    at = job.progress
    share = min(1.0, at.done / at.total) if at is not None and at.total else 0.0
    left = f" · {span(at.eta_s)} left" if at is not None and at.eta_s and at.eta_s >= 1 else ""
    return (
        f'<p class="sr-only" role="status">{escape(words)}</p>'
        f'<button type="button" class="running" aria-label="{escape(words)}: {share:.0%}; open '
        f'Merge"><span class="what">{escape(words)}</span><b>{share:.0%}</b>'
        f'<span class="left">{left}</span><i style="width: {share:.0%}"></i></button>'
    )
