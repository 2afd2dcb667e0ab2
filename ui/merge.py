"""The Merge tab: a recipe in words and YAML, its preflight, the merge, its progress and result.

The merge runs in the background. A page only watches it, so closing or reloading the page changes
nothing: the browser keeps the job's id and asks again.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gradio as gr

from merging.engines.eager import Progress
from merging.errors import MergeError, NotEnoughSpace, OutputExists
from merging.methods import PRESETS
from merging.recipe import Recipe, describe, parse
from merging.recipe.references import models_of
from merging.run.merge import merge
from merging.run.preflight import check
from merging.run.stacks import layers_of
from merging.system import shipped
from ui import merge_view as view
from ui.events import CHEAP, PRIVATE, PROMPT
from ui.jobs import Job, Jobs
from ui.library import Library
from ui.panel import PlotPanel

_POLL_S = 0.2
_MAX_RECIPE = 100_000  # characters
_NO_TEXT = "This is not a text file in UTF-8; open a YAML recipe."
_SAVE_JS = """(text) => {
  const link = document.createElement("a");
  link.href = URL.createObjectURL(new Blob([text], {type: "application/yaml"}));
  link.download = "amalgam.yaml";
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 1000);
}"""

# In the browser, so that a name typed while the server was asked stays.
_RENAME_JS = """(fresh, name, last) =>
  fresh && (!name.trim() || name === last) ? [fresh, fresh] : [name, last]"""

FIRST = "add_sort"  # the first merge to make: keeps both skills


@dataclass(frozen=True)
class MergeRefs:
    """Components of the tab.

    Attributes:
        replaced: a text edited by hand that Explore's took the place of; `bring_back` undoes that.
        fresh, suggested: a name for the recipe as it stands, and the one last put into the box:
            another one there was typed. Both unseen.
        over: changes when the merge that the page shows ends, however: its id.
        finished: of the last one that made a model: its id and its sources.
    """

    recipe: gr.Textbox
    replaced: gr.State
    bring_back: gr.Button
    words: gr.HTML
    shipped: gr.Dropdown
    open_file: gr.UploadButton
    save: gr.Button
    checks: gr.HTML
    name: gr.Textbox
    fresh: gr.Textbox
    suggested: gr.Textbox
    start: gr.Button
    stop: gr.Button
    reason: gr.HTML
    status: gr.HTML
    progress: gr.HTML
    result: gr.Column
    facts: gr.HTML
    drift: PlotPanel
    code: gr.Code
    to_chat: gr.Button
    job_id: gr.State
    remembered: gr.BrowserState
    draft: gr.BrowserState
    over: gr.State
    finished: gr.State


def shipped_recipes() -> dict[str, Path]:
    """Name -> file of every recipe that ships, the pair to begin with first."""
    files = shipped.recipes()
    return {name: files[name] for name in sorted(files, key=lambda name: (name != FIRST, name))}


def _spoken(name: str) -> str:
    """A file's name as a label: "add_sort" -> "Add + sort", "all_ties" -> "All four: TIES"."""
    first, _, rest = name.partition("_")
    if first != "all":
        return name.replace("_", " + ").capitalize()
    names = {"average": "average", "learned": "learned weights"}
    return f"All four: {PRESETS[rest].title if rest in PRESETS else names.get(rest, rest)}"


def memory() -> gr.BrowserState:
    """Where the browser keeps its job: id, recipe, name. Outside the tabs: it is read on load."""
    return gr.BrowserState({}, storage_key="amalgam-merge", secret="amalgam-merge")


def draft() -> gr.BrowserState:
    """Where the browser keeps a recipe that was edited by hand."""
    return gr.BrowserState({}, storage_key="amalgam-recipe", secret="amalgam-recipe")


def layout(
    remembered: gr.BrowserState, draft: gr.BrowserState, library: Library, recipe: str
) -> MergeRefs:
    """Builds the tab's components inside the open gr.Tab, around the recipe to begin with."""
    with gr.Row(elem_classes="sheet"):
        with gr.Column(scale=5, min_width=320, elem_classes="card"):
            recipe_part = _recipe_part(recipe)
        with gr.Column(scale=6, min_width=320, elem_classes="bare"):
            with gr.Column(elem_classes="card"):
                run_part = _run_part(suggest_name(library, recipe))
            with gr.Column(elem_classes="card", visible=False) as result:
                result_part = _result_part()
    return MergeRefs(
        **recipe_part, **run_part, result=result, **result_part,
        job_id=gr.State(""), over=gr.State(""), finished=gr.State(("", ())),
        remembered=remembered, draft=draft,
    )  # fmt: skip


def _recipe_part(recipe: str) -> dict[str, Any]:
    gr.HTML("<h2>Recipe</h2>")
    parts: dict[str, Any] = {"words": gr.HTML(elem_id="recipe-words")}
    parts["shipped"] = gr.Dropdown(
        [(_spoken(name), name) for name in shipped_recipes()], value=None, interactive=True,
        label="Try a recipe that ships",
        info="For the built-in family, tuned on prompts apart from those it is scored on.",
    )  # fmt: skip
    parts["recipe"] = gr.Textbox(
        recipe, label="Recipe (YAML)", lines=16, max_lines=30, interactive=True,
        elem_classes="mono", elem_id="recipe-text",
        info="From Explore. Edit it, paste another, or open a file.",
    )  # fmt: skip
    parts["replaced"] = gr.State("")
    parts["bring_back"] = gr.Button("Bring back the recipe that was here", size="md", visible=False)
    with gr.Row(elem_classes="verbs"):
        parts["open_file"] = gr.UploadButton(
            "Open a recipe", file_types=[".yaml", ".yml"], type="binary", size="md"
        )
        parts["save"] = gr.Button("Save the recipe", size="md")
    return parts


def _run_part(name: str) -> dict[str, Any]:
    gr.HTML("<h2>Merge</h2>")
    parts: dict[str, Any] = {"checks": gr.HTML(elem_id="merge-checks")}
    parts["name"] = gr.Textbox(
        name, label="Name of the new model", max_lines=1, interactive=True, max_length=64,
        info="Letters, digits, dots, dashes and underscores.",
    )  # fmt: skip
    parts["fresh"] = gr.Textbox(name, visible="hidden", label="A name for the recipe")
    parts["suggested"] = gr.Textbox(name, visible="hidden", label="The name last suggested")
    with gr.Row(elem_classes="verbs"):
        parts["start"] = gr.Button("Start", variant="primary", interactive=False, size="lg")
        parts["stop"] = gr.Button("Stop", interactive=False, size="lg")
    parts["reason"] = gr.HTML(
        elem_id="merge-reason", html_template='<div role="alert">${value}</div>', value=""
    )
    parts["status"] = gr.HTML(
        elem_id="merge-status", html_template='<div aria-live="polite">${value}</div>', value=""
    )
    parts["progress"] = gr.HTML(elem_id="merge-progress", value="")
    return parts


def _result_part() -> dict[str, Any]:
    gr.HTML("<h2>Result</h2>")
    parts: dict[str, Any] = {"facts": gr.HTML(elem_id="merge-result")}
    parts["drift"] = PlotPanel(
        kind="static", title="How far each layer moved from the base", elem_id="merge-drift"
    )
    parts["code"] = gr.Code(label="Load it", language="python", interactive=False, lines=3)
    parts["to_chat"] = gr.Button("Talk to it", variant="primary")
    return parts


@dataclass(frozen=True)
class MergeTab:
    """The tab's handlers, over the library and the jobs."""

    refs: MergeRefs
    library: Library
    jobs: Jobs
    device: str

    def wire(self, demo: gr.Blocks) -> None:
        """Attaches the tab's events. All are private: no page but ours calls them."""
        refs = self.refs
        asked = [refs.recipe, refs.name, refs.job_id]
        checked = [refs.words, refs.checks, refs.start, refs.reason]
        watched = [
            refs.status, refs.progress, refs.start, refs.stop, refs.result, refs.facts,
            refs.drift, refs.code, refs.finished, refs.over,
        ]  # fmt: skip
        gr.on(
            [refs.recipe.change, refs.name.change], self.checked, asked, checked,
            trigger_mode="always_last", **PROMPT,
        )  # fmt: skip
        refs.recipe.change(
            self.suggested, refs.recipe, refs.fresh, trigger_mode="always_last", **PROMPT
        ).then(
            None, [refs.fresh, refs.name, refs.suggested], [refs.name, refs.suggested],
            js=_RENAME_JS, **PRIVATE,
        )  # fmt: skip
        undo = [refs.replaced, refs.bring_back]
        refs.bring_back.click(
            lambda text: (text, "", gr.update(visible=False), None), refs.replaced,
            [refs.recipe, *undo, refs.shipped], **PROMPT,
        )  # fmt: skip
        refs.recipe.input(lambda: None, None, refs.shipped, **PROMPT)
        taken = [refs.recipe, refs.reason, *undo]
        refs.shipped.input(self.chosen, [refs.shipped, refs.recipe], taken, **PROMPT)
        refs.open_file.upload(
            self.opened, [refs.open_file, refs.recipe], [*taken, refs.shipped], **PROMPT
        )
        refs.save.click(None, refs.recipe, js=_SAVE_JS, **PRIVATE)
        started = gr.on(
            [refs.start.click, refs.name.submit], self.started, asked,
            [refs.job_id, refs.remembered, refs.reason], trigger_mode="once", **PROMPT,
        )  # fmt: skip
        loaded = demo.load(
            self.remembered, [refs.remembered, refs.recipe, refs.draft],
            [refs.job_id, refs.recipe, refs.name, refs.fresh, refs.status], **CHEAP,
        )  # fmt: skip
        loaded.then(self.watched, refs.job_id, watched, **CHEAP)
        loaded.then(
            None, [refs.fresh, refs.name, refs.suggested], [refs.name, refs.suggested],
            js=_RENAME_JS, **PRIVATE,
        ).then(self.checked, asked, checked, **CHEAP)  # fmt: skip
        started.then(self.watched, refs.job_id, watched, **CHEAP)
        refs.over.change(self.ended, [refs.over, refs.remembered], refs.remembered, **PROMPT)
        refs.over.change(self.named, refs.name, [refs.name, refs.suggested], **PROMPT).then(
            self.checked, asked, checked, **PROMPT
        )
        refs.stop.click(self.stopped, refs.job_id, refs.stop, **PROMPT)

    def checked(self, text: str, name: str, job_id: str = "") -> tuple[Any, ...]:
        """Words, preflight, whether Start may be pressed, and why not.

        Args:
            job_id: as `started`.
        """
        try:
            recipe = self._recipe(text)
        except MergeError as error:
            return "", view.problem(str(error)), gr.update(interactive=False), ""
        told = view.words(describe(recipe, self.library.labels(recipe)))
        try:
            root = self.library.root()
        except MergeError as error:  # nothing can be written: that goes before the name
            return told, view.problem(str(error)), gr.update(interactive=False), ""
        try:
            folder = self.library.new_folder(name)
        except MergeError as error:
            found = view.checks(check(recipe), _free(root))
            return told, found, gr.update(interactive=False), view.problem(str(error))
        report = check(recipe, folder)
        found = view.checks(report, _free(folder))
        reason = "" if report.ok else "The preflight found errors; see above."
        reason = reason or self._busy(name, job_id)
        return told, found, gr.update(interactive=not reason), view.problem(reason)

    def _busy(self, name: str, job_id: str) -> str:
        """Why no other merge can be started from this page yet; "" where it can."""
        shown = self.jobs.get(job_id)
        if shown is None or shown.is_over or shown.title == (name or "").strip():
            return ""
        return f"{shown.title} is not over yet: stop it, or wait, before {name} is started."

    def chosen(self, name: str | None, before: str) -> tuple[Any, ...]:
        """The text of a shipped recipe; anything that does not ship changes nothing."""
        file = shipped_recipes().get(name or "")
        if file is None:
            return tuple([gr.skip()] * 4)
        return file.read_text(encoding="utf-8"), "", *self._undo(before)

    def opened(self, content: bytes | None, before: str) -> tuple[Any, ...]:
        """The text of a recipe file."""
        try:
            if len(content or b"") > 4 * _MAX_RECIPE:  # bytes of a character, at most
                raise MergeError(_too_long(len(content or b""), "bytes"))
            text = (content or b"").decode("utf-8-sig")
        except (UnicodeDecodeError, MergeError) as error:
            reason = str(error) if isinstance(error, MergeError) else _NO_TEXT
            return gr.skip(), view.problem(reason), gr.skip(), gr.skip(), gr.skip()
        return text, "", *self._undo(before), None

    def _undo(self, before: str) -> tuple[str, Any]:
        """What "Bring back" holds once a text is replaced; what ships can be chosen again."""
        shipped = (file.read_text(encoding="utf-8") for file in shipped_recipes().values())
        kept = "" if not (before or "").strip() or before in shipped else before
        return kept, gr.update(visible=bool(kept))

    def ended(self, job_id: str, kept: dict[str, str]) -> Any:
        """The browser remembers that its merge is over, so that nobody calls it interrupted."""
        job = self.jobs.get(job_id)
        if job is None or not job.is_over or not kept or kept.get("job") != job_id:
            return gr.skip()
        return {**kept, "over": job.state}

    def started(self, text: str, name: str, job_id: str = "") -> tuple[Any, Any, Any]:
        """Puts the merge in line. A second click finds the first one's job.

        Args:
            job_id: the job that the page shows: one page shows one merge at a time.
        """
        try:
            if busy := self._busy(name, job_id):
                raise OutputExists(busy)
            recipe = self._recipe(text)
            job = self.jobs.active(str(self.library.folder_of(name)))
            if job is None:
                job = self._submit(recipe, text, self.library.new_folder(name))
            elif job.details.recipe != recipe:
                raise OutputExists(f"{job.title} is being made by another merge; change the name")
        except MergeError as error:
            return gr.skip(), gr.skip(), view.problem(str(error))
        return job.id, {"job": job.id, "text": text, "name": job.title}, ""

    def _submit(self, recipe: Recipe, text: str, folder: Path) -> Job:
        sources = models_of(recipe)
        report = check(recipe)
        self._hold_room(report.disk_bytes, folder)
        details = view.MergeDetails(recipe, text, layers_of(report.account), sources)

        def work(job: Job) -> Any:
            def note(progress: Progress) -> None:
                details.note(progress)
                left = 1 - min(1.0, progress.done / max(1, progress.total))
                job.disk_bytes = round(report.disk_bytes * left)
                job.report(progress)

            result = merge(recipe, folder, device=self.device, progress=note, cancel=job.cancel)
            self.library.refresh()
            return result

        return self.jobs.submit(str(folder), folder.name, work, details, report.disk_bytes)

    def _hold_room(self, need: int, folder: Path) -> None:
        """Refuses what does not fit beside the merges that wait: they were promised their room."""
        claimed, free = self.jobs.claimed_bytes(), _free(folder)
        if claimed and need + claimed > free:
            raise NotEnoughSpace(
                f"{folder.name} needs {view.amount(need)}, and the merges in line before it "
                f"{view.amount(claimed)}, but {view.amount(free)} are free; wait, or free some."
            )

    def remembered(self, kept: Any, text: str, draft: Any = None) -> tuple[Any, ...]:
        """What the page begins with: the job that this browser started, its recipe and its name.

        A job that is no longer known ended with an earlier server: its recipe comes back, and a
        line says what became of it. Else a recipe that was edited and not merged comes back. Where
        nothing is kept, nothing is written but a suggestion: who is quick has begun to type.
        """
        kept = kept if isinstance(kept, dict) else {}
        edited = draft.get("text") if isinstance(draft, dict) else None
        edited = edited if isinstance(edited, str) else ""
        job = self.jobs.get(kept.get("job"))
        if job is not None:  # its recipe may have been edited since, for the next one
            name = self.library.free_name(job.title)
            return job.id, edited or job.details.text, name, gr.skip(), gr.skip()
        try:
            folder = self.library.folder_of(kept.get("name", ""))
        except MergeError:
            folder = None
        if folder is None or folder.exists() or not kept.get("text") or kept.get("over"):
            fresh = suggest_name(self.library, edited or text)
            running = self.jobs.running()
            told = view.elsewhere(running.title) if running else gr.skip()
            return gr.skip(), edited or gr.skip(), gr.skip(), fresh, told
        return gr.skip(), kept["text"], folder.name, gr.skip(), view.interrupted(folder.name)

    def suggested(self, text: str) -> str:
        """A name that says what the recipe is."""
        return suggest_name(self.library, text)

    def watched(self, job_id: str) -> Iterator[tuple[Any, ...]]:
        """Draws a job until it is over. Leaving the page ends the drawing, not the job."""
        job = self.jobs.get(job_id)
        if job is None:
            yield tuple([gr.skip()] * 10)
            return
        hidden = gr.update(visible=False)
        nothing = [gr.skip()] * 4  # of a result
        while not job.is_over:
            can_stop = gr.update(interactive=not job.cancel.is_set())
            told = view.status(job, self.jobs.position(job))
            busy = gr.update(interactive=False)
            yield told, view.progress(job), busy, can_stop, hidden, *nothing, gr.skip()
            self.jobs.wait(job, _POLL_S)
        # a stopped merge may be started again; a finished one has used up its name
        again = gr.update(interactive=job.state != "done")
        over = (view.status(job, 0), "", again, gr.update(interactive=False))
        if job.state != "done":
            yield *over, hidden, *nothing, job.id
            return
        made = job.result
        figure = view.drift_value(made.drift)
        model_id = self.library.id_of(made.out)
        yield (
            *over, gr.update(visible=True), view.result(job), figure,
            view.loading_code(str(made.out)), (model_id, job.details.sources), job.id,
        )  # fmt: skip

    def named(self, name: str) -> tuple[Any, Any]:
        """A name that is free: the one in the box, or the next."""
        try:
            free = self.library.free_name(name)
        except MergeError:
            return gr.skip(), gr.skip()
        return (gr.skip(), gr.skip()) if free == name else (free, free)

    def stopped(self, job_id: str) -> Any:
        """Asks the job to stop."""
        self.jobs.stop(job_id)
        return gr.update(interactive=False)

    def _recipe(self, text: str) -> Recipe:
        if not text or not text.strip():
            raise MergeError("There is no recipe yet: press Merge in Explore, or paste one.")
        if len(text) > _MAX_RECIPE:
            raise MergeError(_too_long(len(text), "characters"))
        return self.library.resolved(parse(text))


def suggest_name(library: Library, text: str) -> str:
    """A free name for a recipe's result, after the shipped file or the method; "" for none."""
    if len(text or "") > _MAX_RECIPE:
        return ""
    shipped = (stem for stem, file in shipped_recipes().items() if file.read_text() == text)
    try:
        return library.free_name(next(shipped, None) or parse(text or "").method)
    except MergeError:
        return ""


def _too_long(size: int, unit: str) -> str:
    return (
        f"This recipe has {size:,} {unit}; a page takes {_MAX_RECIPE:,} characters. "
        "Merge it on the command line."
    )


def _free(folder: Path) -> int:
    while not folder.exists():
        folder = folder.parent
    return shutil.disk_usage(folder).free
