"""What is answered to a folder or Hub id: a look, adding it, its download, and taking it away."""

from __future__ import annotations

import logging
import os
import secrets
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from html import escape
from pathlib import Path
from typing import Any

import gradio as gr

from merging.checkpoints.names import called
from merging.errors import MergeError, ModelNotFound
from merging.hub.cache import Hub, Snapshot
from merging.hub.fetching import Progress, check_space, fetch
from merging.hub.listing import Listing, Repository, of_folder, of_repository
from merging.hub.references import parse
from ui import figures
from ui.added import Added, AddedModel
from ui.adding import view
from ui.jobs import Job, Jobs
from ui.library import Library, not_offered

log = logging.getLogger(__name__)

_POLL_S = 0.25
_AT_ONCE = 4  # looks that ask the Hub


@dataclass(frozen=True)
class AddingTab:
    """The handlers. They are there only where the server's owner lets pages add models.

    Attributes:
        downloads: in line, one at a time.
        used: why a model's folder must stay where it is; "" where it need not.
        let_go: a model's files are about to be deleted.
    """

    library: Library
    added: Added
    downloads: Jobs
    hub: Hub = field(default_factory=Hub)
    used: Callable[[Path], str] = lambda folder: ""
    let_go: Callable[[str], object] = lambda model_id: None
    looking: threading.Semaphore = field(default_factory=lambda: threading.Semaphore(_AT_ONCE))

    def looked(self, text: str, base: str) -> Iterator[tuple[Any, ...]]:
        """What a folder or a model of the Hub is. Yields what is said, facts, what Add would add,
        and its button."""
        hidden = gr.update(visible=False)
        yield "Looking…", "", "", hidden
        try:
            with self.looking:
                listing = self.listing(text)
            facts = view.facts(listing, *self._fit(listing, base), self.hub.free_bytes())
            if name := self._on_offer(listing):
                yield f"It is on offer already: {escape(name)}.", facts, "", hidden
                return
            label, pinned = _adding(listing)
            self._check_space(listing)
            button = gr.update(value=label, visible=True, interactive=True)
            yield view.seen(listing), facts, pinned, button
        except MergeError as error:
            yield escape(str(error)), gr.skip(), "", hidden
        except Exception as error:
            yield _ours(error), "", "", hidden

    def listing(self, text: str) -> Listing:
        """Lists what a text names. Raises MergeError."""
        text = (text or "").strip()
        if not text:
            raise ModelNotFound("give a folder, as in /data/my-model, or a Hub id, as in org/name")
        if not text.startswith("/"):
            return of_repository(parse(text), self.hub)
        try:
            folder = Path(os.path.realpath(text))
            listing = of_folder(folder)
        except (OSError, ValueError) as error:
            reason = getattr(error, "strerror", None) or "no folder has such a name"
            raise ModelNotFound(f"{text}: cannot be opened ({reason.lower()})") from None
        if reason := not_offered(folder):
            raise ModelNotFound(f"{text}: {reason}")
        return listing

    def started(self, pinned: str, times: int) -> tuple[Any, ...]:
        """Adds what was looked at: a folder at once, a model of the Hub once it is here. Returns
        what is said, the job, how often models changed, and the list of those added."""
        try:
            if not pinned:
                raise MergeError("look at a model first")
            if pinned.startswith("/"):
                return self._added_folder(pinned, times)
            job = self.download(pinned)
        except MergeError as error:
            return escape(str(error)), gr.skip(), gr.skip(), gr.skip()
        except Exception as error:
            return _ours(error), gr.skip(), gr.skip(), gr.skip()
        said = f"Downloading {escape(job.title)}. You can go on working, or leave the page."
        return said, job.id, gr.skip(), self.choices()

    def _added_folder(self, folder: str, times: int) -> tuple[Any, ...]:
        listing = self.listing(folder)
        path = str(listing.outline.folder)
        self.added.put(AddedModel(path, path, licence=listing.card.licence))
        self.library.refresh()
        name = self.library.get(path).label
        said = f"{escape(name)} is on offer now, in Explore, Chat and Merge."
        return said, gr.skip(), times + 1, self.choices()

    def download(self, pinned: str) -> Job:
        """Puts a download in line; the one at hand where the model is being fetched already.

        Raises:
            MergeError: the line is as long as it may get.
        """
        reference = parse(pinned)

        def work(job: Job) -> str:
            listing = of_repository(reference, self.hub)
            repository = listing.repository
            assert repository is not None
            model = _model(listing, repository)
            self.added.put(model)

            def note(progress: Progress) -> None:
                job.details.setdefault("began", progress.done)
                job.report(progress)

            fetch(repository, note, job.cancel)
            self.added.put(replace(model, is_whole=True))
            self.library.refresh()
            return model.id

        return self.downloads.submit(str(reference), reference.short, work, {})

    def watched(self, job_id: str, times: int) -> Iterator[tuple[Any, ...]]:
        """Draws a download until it is over. Yields what is said, how far it is, the button that
        ends it, how often models changed, and the list of those added. Leaving the page ends the
        drawing, not the download."""
        job = self.downloads.get(job_id)
        if job is None:
            yield tuple([gr.skip()] * 5)
            return
        while not job.is_over:
            can_stop = gr.update(visible=True, interactive=not job.cancel.is_set())
            yield gr.skip(), view.progress(job), can_stop, gr.skip(), gr.skip()
            self.downloads.wait(job, _POLL_S)
        changed = times + 1 if job.state == "done" else gr.skip()
        yield self._ended(job), "", gr.update(visible=False), changed, self.choices()

    def _ended(self, job: Job) -> str:
        name = escape(job.title)
        if job.state == "failed":
            kept = " What has come is kept: Resume goes on from there." if job.progress else ""
            return f"{escape(job.error.rstrip('.'))}.{kept}"
        if job.state == "stopped":
            return f"The download of {name} was stopped. What has come is kept."
        return f"{name} is here, and on offer now, in Explore, Chat and Merge."

    def cancelled(self, job_id: str) -> Any:
        """Ends the download that the page shows."""
        self.downloads.stop(job_id)
        return gr.update(interactive=False)

    def arrived(self) -> tuple[Any, ...]:
        """For a page that was just loaded: the download that runs, and those added."""
        running = self.downloads.running()
        return (running.id if running else ""), self.choices()

    def choices(self) -> Any:
        """The list of those that were added; hidden where there are none."""
        models = self._models()
        listed = [
            (view.title(one, is_under_way=bool(self.downloads.active(one.id))), one.id)
            for one in models
        ]
        return gr.update(choices=listed, value=None, visible=bool(listed))

    def chosen(self, model_id: str | None) -> tuple[Any, ...]:
        """What can be done with one of those added: its download resumed, its files deleted, itself
        taken off the list."""
        model = next((one for one in self._models() if one.id == model_id), None)
        can_resume = model is not None and not model.is_whole
        return (
            gr.update(visible=can_resume),
            gr.update(visible=model is not None and model.is_fetched, value=False),
            gr.update(visible=model is not None),
        )

    def resumed(self, model_id: str | None) -> tuple[Any, ...]:
        """Goes on with a download that was ended. Returns as `started`."""
        try:
            model = self.added.get(model_id or "")
            if not model.repo or model.is_whole:
                raise MergeError("there is nothing to resume")
        except MergeError as error:
            return escape(str(error)), gr.skip(), gr.skip(), gr.skip()
        return self.started(model.id, 0)

    def removed(self, model_id: str | None, files: bool, times: int) -> tuple[Any, ...]:
        """Takes a model off the list. Its files stay, but for those that were downloaded from here
        where that is asked for. Returns what is said, how often models changed, and the list."""
        try:
            model = self.added.get(model_id or "")
            if self.downloads.active(model.id):
                raise MergeError("It is being downloaded: cancel that first")
            deletes = files and model.is_fetched and bool(model.repo)
            if deletes and (reason := self.used(Path(model.folder))):
                raise MergeError(f"{model.repo} {reason}")
            self.added.remove(model.id)
            self.library.refresh()
            self.let_go(model.id)
            if deletes:
                Snapshot(self.hub, model.repo, model.commit).remove()
        except MergeError as error:
            return escape(str(error)), gr.skip(), gr.skip()
        except Exception as error:
            return _ours(error), gr.skip(), gr.skip()
        rest = "its files are deleted" if deletes else "its files stay where they are"
        said = f"{escape(model.repo or model.folder)} is off the list; {rest}."
        return said, times + 1, self.choices()

    def _models(self) -> list[AddedModel]:
        try:
            return self.added.models()
        except MergeError:  # said by "Look for new models"
            return []

    def _fit(self, listing: Listing, base: str) -> tuple[str, str]:
        """Whether it can be merged onto the base, in words, and what that is called."""
        if not self.library.has(base):
            return "no base is chosen", "the base"
        name = called(figures.short(self.library.get(base).label))
        try:
            return view.fit(self.library.opened(base), listing.outline), name
        except MergeError as error:
            return f"it cannot be told: {error}", name

    def _on_offer(self, listing: Listing) -> str:
        """What lists call it; "" where it is not on offer yet."""
        model_id = self.library.id_of(listing.outline.folder)
        return self.library.get(model_id).label if model_id else ""

    def _check_space(self, listing: Listing) -> None:
        if listing.repository is not None:
            missing = listing.repository.missing_bytes
            check_space(listing.name, missing, self.hub.free_bytes())


def _adding(listing: Listing) -> tuple[str, str]:
    """The button's words, and what it adds."""
    repository = listing.repository
    if repository is None:
        return "Add", str(listing.outline.folder)
    return ("Download and add" if repository.missing_bytes else "Add"), str(repository.pinned)


def _model(listing: Listing, repository: Repository) -> AddedModel:
    """How a model of the Hub stands in the list while it is fetched."""
    snapshot = repository.snapshot
    return AddedModel(
        str(repository.pinned),
        str(snapshot.folder),
        snapshot.repo,
        snapshot.commit,
        repository.asked.revision,
        listing.card.licence,
        is_whole=False,
        is_fetched=repository.missing_bytes > 0,
    )


def _ours(error: Exception) -> str:
    mark = secrets.token_hex(4)
    log.error("adding a model failed (%s)", mark, exc_info=error)
    return f"Something went wrong on our side (log id {mark})."
