"""Puts the tabs together into one page, and says how that page is served."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gradio as gr
from starlette.middleware import Middleware

from merging.engine import pick_device
from ui import chat, chat_view, explore, guide, merge, theme
from ui.events import CHEAP
from ui.first_sight import FirstSight
from ui.jobs import Jobs
from ui.library import Library
from ui.settings import Settings
from ui.store import ModelStore
from ui.talks import Talks


@dataclass(frozen=True)
class App:
    """The built page, what serves it, and what must be closed with it."""

    demo: gr.Blocks
    jobs: Jobs
    launch: dict[str, Any]


def build(settings: Settings) -> App:
    """Builds the page over the models that the settings name."""
    library = Library(settings.models, settings.cache)
    jobs = Jobs()
    store = ModelStore(settings.chat_bytes, settings.device)
    with gr.Blocks(
        title="Amalgam", fill_width=True, analytics_enabled=False, delete_cache=(3600, 3600)
    ) as demo:
        gr.HTML(_brand(), elem_id="brand")
        gr.HTML(_status(settings.device), elem_id="status")
        remembered = merge.memory()
        with gr.Tabs(selected="explore", elem_id="rooms") as rooms:
            with gr.Tab("Explore", id="explore"):
                explore_refs = explore.layout(library)
            with gr.Tab("Merge", id="merge") as merge_tab:
                merge_refs = merge.layout(remembered, library, explore_refs.recipe.value)
            with gr.Tab("Chat", id="chat") as chat_tab:
                chat_refs = chat.layout(library)
            with gr.Tab("Guide", id="guide"):
                guide.layout()
        explore.wire(demo, explore_refs, library)
        merge.MergeTab(merge_refs, library, jobs, settings.device).wire(demo)
        talking = chat.ChatTab(chat_refs, library, store, Talks())
        talking.wire(demo, chat_tab)
        _join(rooms, merge_tab, explore_refs, merge_refs, talking)
    demo.queue(max_size=64)
    return App(demo, jobs, _launch(settings))


def _join(
    rooms: gr.Tabs,
    merge_tab: gr.Tab,
    explore_refs: explore.ExploreRefs,
    merge_refs: merge.MergeRefs,
    talking: chat.ChatTab,
) -> None:
    """The ways from one tab to the next."""
    # the recipe last brought over: what differs from it was edited
    brought = gr.State(explore_refs.recipe.value)

    def to_merge(recipe: str, text: str, last: str) -> tuple[Any, ...]:
        edited = text if (text or "") not in ("", last, recipe) else ""
        return gr.Tabs(selected="merge"), recipe, recipe, edited, gr.update(visible=bool(edited))

    def follow(recipe: str, text: str, last: str) -> tuple[Any, Any]:
        untouched = recipe != last and (text or "") in ("", last)
        return (recipe, recipe) if untouched else (gr.skip(), gr.skip())

    def to_chat(finished: tuple[str, tuple[str, ...]]) -> tuple[Any, Any]:
        return gr.Tabs(selected="chat"), talking.beside(*finished)

    source, taken = [explore_refs.recipe, merge_refs.recipe, brought], [merge_refs.recipe, brought]
    undo = [merge_refs.replaced, merge_refs.bring_back]
    explore_refs.go_merge.click(to_merge, source, [rooms, *taken, *undo], **CHEAP)
    merge_tab.select(follow, source, taken, **CHEAP)
    merge_refs.to_chat.click(to_chat, merge_refs.finished, [rooms, talking.refs.chosen], **CHEAP)


def _launch(settings: Settings) -> dict[str, Any]:
    gr.set_static_paths([*theme.static_paths(), chat_view.SCRIPT])
    return {
        "server_name": settings.host, "server_port": settings.port, "quiet": True,
        "theme": theme.theme(), "head": theme.late(),
        "app_kwargs": {"middleware": [Middleware(FirstSight)]},
        "css_paths": [*theme.css_paths(), theme.ASSETS / "tabs.css"],
        "favicon_path": theme.LOGO, "footer_links": [], "run_history": False,
        "show_error": False, "max_file_size": "1mb", "enable_monitoring": False,
        "state_session_capacity": 64, "prevent_thread_lock": True,
        "blocked_paths": [str(Path(folder).absolute()) for folder in settings.models],
    }  # fmt: skip


def _brand() -> str:
    return f'<a href="./" class="brand"><img src="{theme.url(theme.LOGO)}" alt=""> Amalgam</a>'


def _status(device: str) -> str:
    """What stands on the right of the top bar: where the arithmetic runs."""
    where = pick_device(device)
    told = "GPU" if where != "cpu" else f"CPU, {os.cpu_count()} cores"
    return f'<p class="quiet">{told}</p>'
