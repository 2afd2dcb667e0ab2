"""Puts the tabs together into one page, and says how that page is served."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import Any

import gradio as gr
from starlette.applications import Starlette
from starlette.middleware import Middleware

from merging.engines.eager import pick_device
from merging.engines.residents import Residents
from merging.errors import MergeError
from ui import adding, chat, explore, guide, history, live, merge, running, theme
from ui.added import Added
from ui.bundle import Bundles
from ui.events import PROMPT
from ui.first_sight import First, FirstSight, first_of
from ui.guard import Guard
from ui.jobs import Jobs
from ui.library import Library
from ui.room import Room
from ui.settings import Settings
from ui.store import ModelStore
from ui.tour import Tour


@dataclass(frozen=True)
class App:
    """The built page, what serves it, and what must be closed with it."""

    demo: gr.Blocks
    jobs: tuple[Jobs, ...]
    launch: dict[str, Any]


def build(settings: Settings) -> App:
    """Builds the page over the models that the settings name."""
    added = Added(settings.models) if settings.allow_hub else None
    library = Library(settings.models, settings.cache, added)
    history.empty_trash(list(library.roots().values()))
    jobs, downloads = Jobs(), Jobs("downloads")
    residents = Residents()
    room = Room(settings.chat_bytes)
    store = ModelStore(room, settings.device, residents.release)
    with gr.Blocks(
        title="Amalgam", fill_width=True, analytics_enabled=False, delete_cache=(3600, 3600)
    ) as demo:
        gr.HTML(_brand(), elem_id="brand")
        gr.HTML(_status(settings.device), elem_id="status")
        bar = running.Running(jobs, running.layout())
        remembered, controls = merge.memory(), explore.memory()
        draft, pinned = merge.draft(), live.memory()
        with gr.Tabs(selected="explore", elem_id="rooms") as rooms:
            with gr.Tab("Explore", id="explore") as explore_tab:
                beneath = adding.layout if added is not None else (lambda: None)
                explore_refs = explore.build(controls, library, beneath)
            with gr.Tab("Merge", id="merge") as merge_tab:
                merge_refs = merge.build(remembered, draft, library, explore_refs.recipe.value)
            with gr.Tab("Chat", id="chat") as chat_tab:
                chat_refs = chat.layout(library)
            with gr.Tab("History", id="history") as history_tab:
                history_refs = history.layout()
            with gr.Tab("Guide", id="guide"):
                guide.layout()
        tour = Tour(explore_refs.recipe.value, base=library.default_selection()[0])
        pages = live.LivePages(room, settings.device)
        hearing = live.LiveTab(explore_refs.live, library, pages, store, sides=explore.sides)
        talking = chat.ChatTab(chat_refs, library, store, pages)
        usage = history.Usage(jobs, pages)
        shelf = history.Shelf(library, usage.of)
        past = history.HistoryTab(library, shelf, store, talking.beside, hearing.heard)
        brought = [
            (merge_refs.to_explore.click, merge_refs.recipe),
            (merge_refs.its_recipe.click, merge_refs.made_by),
            history.bring(history_refs, past),
            (tour.input, tour),
        ]
        respelled = explore.wire(demo, explore_refs, library, brought)
        held = explore_refs.bench.state
        hearing.wire(demo, explore_refs.recipe, respelled, pinned, held)
        tab = merge.MergeTab(library, jobs, settings.device, residents)
        merge.wire(demo, merge_refs, tab)
        bar.wire(merge_refs.job_id)
        chat.wire(demo, chat_tab, talking)
        history.wire(history_tab, history_refs, past, rooms, chat_refs.chosen)
        _join(library, rooms, merge_tab, explore_refs, merge_refs, talking, past)
        changes = [explore_tab.select, merge_refs.over.change, explore_refs.live.finished.change]
        if added is not None:
            refs, parts = explore_refs.controls.beneath, explore_refs.controls
            adder = adding.AddingTab(library, added, downloads, used=usage.of, let_go=store.let_go)
            adding.wire(demo, refs, adder, parts.base)
            changes.append(refs.changed.change)
        _relist(library, explore_refs, changes)
    demo.queue(max_size=64)
    return App(demo, (jobs, downloads), _launch(settings, first_of(explore_refs)))


_CLAMP = "(weighed, ...v) => [weighed, ...window.amalgam.clamp(v)]"


def _join(
    library: Library,
    rooms: gr.Tabs,
    merge_tab: gr.Tab,
    explore_refs: explore.ExploreRefs,
    merge_refs: merge.MergeRefs,
    talking: chat.ChatTab,
    past: history.HistoryTab,
) -> None:
    """The ways from one tab to the next."""
    # the recipe last brought over: what differs from it was edited
    brought = gr.State(explore_refs.recipe.value)

    named = explore_refs.controls.named()

    def spelled(weighed: list[str], values: Sequence[Any]) -> str:
        # from the controls as they stand: the recipe of the last answer may be older
        return explore.spelled(library, dict(zip(named, values, strict=True)), weighed)

    def to_merge(text: str, last: str, weighed: list[str], *values: Any) -> Sequence[Any]:
        try:
            recipe = spelled(weighed, values)
        except MergeError as error:  # in its place: a plain request carries no toasts
            stay = [gr.skip()] * (len(taken) + len(undo) + 1)
            return [*stay, escape(f"This cannot be merged: {error}.")]
        edited = text if (text or "") not in ("", last, recipe) else ""
        shown = gr.update(visible=bool(edited))
        return [gr.Tabs(selected="merge"), recipe, recipe, edited, shown, None, gr.skip()]

    def follow(text: str, last: str, weighed: list[str], *values: Any) -> tuple[Any, Any]:
        try:
            recipe = spelled(weighed, values)
        except MergeError as error:  # an older recipe is not what the controls spell now
            recipe = explore.unspelled(error)
        untouched = recipe != last and (text or "") in ("", last)
        return (recipe, recipe) if untouched else (gr.skip(), gr.skip())

    def bookmarked(request: gr.Request, weighed: list[str], *values: Any) -> str:
        try:
            recipe = spelled(weighed, values)
        except MergeError as error:
            return escape(f"This cannot be bookmarked: {error}.")
        return past.bookmarked(recipe, str(request.session_hash))

    def to_chat(finished: tuple[str, tuple[str, ...]]) -> tuple[Any, Any]:
        return gr.Tabs(selected="chat"), talking.beside(*finished)

    def drafted(text: str, last: str) -> dict[str, str]:
        return {"text": text} if (text or "") not in ("", last) else {}

    taken = [merge_refs.recipe, brought]
    merge_refs.recipe.change(drafted, taken, merge_refs.draft, trigger_mode="always_last", **PROMPT)
    source = [*taken, explore_refs.weighed, *named.values()]
    clamp = "(text, last, weighed, ...v) => [text, last, weighed, ...window.amalgam.clamp(v)]"
    undo = [merge_refs.replaced, merge_refs.bring_back, merge_refs.shipped]
    said = explore_refs.bench.words
    explore_refs.go_merge.click(to_merge, source, [rooms, *taken, *undo, said], js=clamp, **PROMPT)
    bookmark, asked = explore_refs.bench.bookmark, source[2:]
    bookmark.click(bookmarked, asked, explore_refs.bench.marked, js=_CLAMP, **PROMPT)
    merge_tab.select(follow, source, taken, js=clamp, **PROMPT)
    for made in (merge_refs, explore_refs.live):
        made.to_chat.click(to_chat, made.finished, [rooms, talking.refs.chosen], **PROMPT)


def _relist(library: Library, refs: explore.ExploreRefs, changes: Sequence[Any]) -> None:
    """New models are on offer in Explore once they are there; Chat looks when it is opened."""

    def listed(base: str) -> list[Any]:
        library.refresh()
        return explore.listed(library, base)

    lists = [refs.controls.base, refs.controls.experts, refs.opener.choice]
    for changed in changes:
        changed(listed, refs.controls.base, lists, **PROMPT)


def _launch(settings: Settings, first: First) -> dict[str, Any]:
    gr.set_static_paths(theme.static_paths())
    return {
        "server_name": _bracketed(settings.host),
        "server_port": settings.port,
        "quiet": True,
        "theme": theme.theme(),
        "head": theme.late(),
        "app_kwargs": {
            "middleware": [
                Middleware(Bundles, [theme.scripts()]),
                Middleware(FirstSight, first=first),
            ],
            "lifespan": _guarded(settings),
        },
        "auth": list(settings.auth) or None,
        "css_paths": [
            *theme.css_paths(),
            theme.ASSETS / "tabs.css",
            theme.ASSETS / "editor.css",
            theme.ASSETS / "chat.css",
            theme.ASSETS / "history.css",
            theme.ASSETS / "adding.css",
        ],
        "favicon_path": theme.LOGO,
        "footer_links": [],
        "run_history": False,
        "show_error": False,
        "max_file_size": "1mb",
        "enable_monitoring": False,
        "state_session_capacity": 1024,
        "prevent_thread_lock": True,
        "blocked_paths": [str(Path(folder).absolute()) for folder in settings.models],
    }


def _guarded(settings: Settings) -> Callable[[Starlette], AbstractAsyncContextManager[None]]:
    """Puts the guard around everything when the server starts.

    Middleware that is named when the app is made stands inside of Gradio's own.
    """

    @asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:
        assert app.middleware_stack is not None  # built for this very call
        app.middleware_stack = Guard(
            app.middleware_stack, settings.names, is_space=settings.is_space
        )
        yield

    return lifespan


def _bracketed(host: str) -> str:
    """A host as addresses of pages spell it."""
    return f"[{host}]" if ":" in host and not host.startswith("[") else host


def _brand() -> str:
    """The skip link, and the page's first heading, which leads to its start."""
    logo = f'<img src="{theme.url(theme.LOGO)}" alt="">'
    return (
        '<a href="#rooms" class="skip">Skip to the content</a>'
        f'<h1><a href="./" class="brand">{logo} Amalgam</a></h1>'
    )


def _status(device: str) -> str:
    """What stands on the right of the top bar: where the arithmetic runs."""
    where = pick_device(device)
    place = "GPU" if where != "cpu" else f"CPU, {os.cpu_count()} cores"
    return f'<p class="quiet">{place}</p>'
