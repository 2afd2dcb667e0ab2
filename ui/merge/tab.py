"""What the Merge tab answers: to a recipe, to a name, to Start, and to a page that comes back."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import gradio as gr

from merging.engines.residents import Residents
from merging.errors import MergeError, OutputExists
from merging.recipe import describe
from merging.run.merge import merge
from merging.run.preflight import check
from ui.jobs import Jobs
from ui.library import Library
from ui.merge import line, texts, view


@dataclass(frozen=True)
class MergeTab:
    """The tab's handlers, over the library and the jobs.

    Attributes:
        device: where it merges.
        residents: the family that stays in its memory.
    """

    library: Library
    jobs: Jobs
    device: str
    residents: Residents = field(default_factory=Residents)

    def checked(self, text: str, name: str, job_id: str = "") -> tuple[Any, ...]:
        """Words, preflight, whether Start may be pressed, and why not.

        Args:
            job_id: as `started`.
        """
        closed = gr.update(interactive=False)
        try:
            recipe = texts.resolved(self.library, text)
        except MergeError as error:
            return "", view.problem(error.reason, error.line), closed, ""
        words = view.words(describe(recipe, self.library.labels(recipe)))
        try:
            root = self.library.root()
        except MergeError as error:  # nothing can be written: that goes before the name
            return words, view.problem(str(error)), closed, ""
        try:
            folder = self.library.new_folder(name)
        except MergeError as error:
            checks = view.checks(check(recipe), line.free_bytes(root))
            return words, checks, closed, view.problem(str(error))
        report = check(recipe, folder)
        checks = view.checks(report, line.free_bytes(folder), str(folder))
        reason = "" if report.ok else "The preflight found errors; see above."
        reason = reason or line.busy(self.jobs, name, job_id)
        return words, checks, gr.update(interactive=not reason), view.problem(reason)

    def chosen(self, name: str | None, before: str) -> tuple[Any, ...]:
        """The text of a shipped recipe; anything that does not ship changes nothing."""
        file = texts.shipped_recipes().get(name or "")
        if file is None:
            return tuple([gr.skip()] * 4)
        return file.read_text(encoding="utf-8"), "", *_undo(before)

    def opened(self, content: bytes | None, before: str) -> tuple[Any, ...]:
        """The text of a recipe file."""
        try:
            text = texts.decoded(content or b"")
        except MergeError as error:
            return gr.skip(), view.problem(str(error)), gr.skip(), gr.skip(), gr.skip()
        return text, "", *_undo(before), None

    def started(self, text: str, name: str, job_id: str = "") -> tuple[Any, Any, Any]:
        """Puts the merge in line. A second click finds the first one's job.

        Args:
            job_id: the job that the page shows: one page shows one merge at a time.
        """
        try:
            if reason := line.busy(self.jobs, name, job_id):
                raise OutputExists(reason)
            recipe = texts.resolved(self.library, text)
            job = self.jobs.active(str(self.library.folder_of(name)))
            if job is None:
                folder = self.library.new_folder(name)
                run = partial(merge, device=self.device, residents=self.residents)
                job = line.submit(self.jobs, self.library, run, recipe, text, folder)
            elif job.details.recipe != recipe:
                raise OutputExists(f"{job.title} is being made by another merge; change the name")
        except MergeError as error:
            return gr.skip(), gr.skip(), view.problem(str(error))
        return job.id, {"job": job.id, "text": text, "name": job.title}, ""

    def remembered(self, stored: Any, text: str, draft: Any = None) -> tuple[Any, ...]:
        """What the page begins with: the job that this browser started, its recipe and its name.

        A job that is no longer known ended with an earlier server: its recipe comes back, and a
        line says what became of it. Else a recipe that was edited and not merged comes back. Where
        nothing is kept, nothing is written but a suggestion: who is quick has begun to type.
        """
        stored = stored if isinstance(stored, dict) else {}
        edited = draft.get("text") if isinstance(draft, dict) else None
        edited = edited if isinstance(edited, str) else ""
        job = self.jobs.get(stored.get("job"))
        if job is not None:  # its recipe may have been edited since, for the next one
            name = self.library.free_name(job.title)
            return job.id, edited or job.details.text, name, gr.skip(), gr.skip()
        try:
            folder = self.library.folder_of(stored.get("name", ""))
        except MergeError:
            folder = None
        if folder is None or folder.exists() or not stored.get("text") or stored.get("over"):
            fresh = texts.suggest_name(self.library, edited or text)
            running = self.jobs.running()
            status = view.elsewhere(running.title) if running else gr.skip()
            return gr.skip(), edited or gr.skip(), gr.skip(), fresh, status
        return gr.skip(), stored["text"], folder.name, gr.skip(), view.interrupted(folder.name)

    def ended(self, job_id: str, stored: dict[str, str]) -> Any:
        """The browser remembers that its merge is over, so that nobody calls it interrupted."""
        job = self.jobs.get(job_id)
        if job is None or not job.is_over or not stored or stored.get("job") != job_id:
            return gr.skip()
        return {**stored, "over": job.state}

    def watched(self, job_id: str) -> Iterator[tuple[Any, ...]]:
        """Draws a job until it is over."""
        yield from line.watched(self.jobs, self.library, job_id)

    def stopped(self, job_id: str) -> Any:
        """Asks the job to stop."""
        self.jobs.stop(job_id)
        return gr.update(interactive=False)

    def suggested(self, text: str) -> str:
        """A name that says what the recipe is."""
        return texts.suggest_name(self.library, text)

    def named(self, name: str) -> tuple[Any, Any]:
        """A name that is free: the one in the box, or the next."""
        try:
            free = self.library.free_name(name)
        except MergeError:
            return gr.skip(), gr.skip()
        return (gr.skip(), gr.skip()) if free == name else (free, free)


def _undo(before: str) -> tuple[str, Any]:
    """What "Bring back" holds once a text is replaced; what ships can be chosen again."""
    shipped = (file.read_text(encoding="utf-8") for file in texts.shipped_recipes().values())
    replaced = "" if not (before or "").strip() or before in shipped else before
    return replaced, gr.update(visible=bool(replaced))
