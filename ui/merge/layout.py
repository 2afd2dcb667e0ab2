"""The Merge tab's components."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import gradio as gr

from ui.library import Library
from ui.merge.texts import shipped_recipes, spoken, suggest_name
from ui.panel import PlotPanel

_MARKS = """
const mount = () => window.amalgamEditor
  ? window.amalgamEditor.mount(element, watch, "#recipe-text textarea") : setTimeout(mount, 15);
mount(); // what is found is marked where it stands in the text
"""


@dataclass(frozen=True)
class MergeRefs:
    """Components of the tab.

    Attributes:
        replaced: a text edited by hand that Explore's took the place of; `bring_back` undoes that.
        fresh, suggested: a name for the recipe as it stands, and the one last put into the box:
            another one there was typed. Both unseen.
        over: changes when the merge that the page shows ends, however: its id.
        its_recipe: opens what made the result in Explore; `made_by` holds its text.
        finished: of the last one that made a model: its id and its sources.
    """

    recipe: gr.Textbox
    replaced: gr.State
    bring_back: gr.Button
    words: gr.HTML
    shipped: gr.Dropdown
    open_file: gr.UploadButton
    save: gr.Button
    to_explore: gr.Button
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
    code: gr.HTML
    to_chat: gr.Button
    its_recipe: gr.Button
    made_by: gr.State
    job_id: gr.State
    remembered: gr.BrowserState
    draft: gr.BrowserState
    over: gr.State
    finished: gr.State


def memory() -> gr.BrowserState:
    """Where the browser keeps its job: id, recipe, name. Outside the tabs: it is read on load."""
    return gr.BrowserState({}, storage_key="amalgam-merge", secret="amalgam-merge")


def draft() -> gr.BrowserState:
    """Where the browser keeps a recipe that was edited by hand."""
    return gr.BrowserState({}, storage_key="amalgam-recipe", secret="amalgam-recipe")


def build(
    remembered: gr.BrowserState, draft: gr.BrowserState, library: Library, recipe: str
) -> MergeRefs:
    """Builds the tab's components inside the open gr.Tab, around the recipe to begin with."""
    with gr.Row(elem_classes="sheet"):
        with gr.Column(scale=6, min_width=320, elem_classes="card"):
            recipe_part = _recipe_part(recipe)
        with gr.Column(scale=5, min_width=320, elem_classes="bare"):
            with gr.Column(elem_classes="card"):
                run_part = _run_part(suggest_name(library, recipe))
            with gr.Column(elem_classes="card", visible=False) as result:
                result_part = _result_part()
    return MergeRefs(
        **recipe_part,
        **run_part,
        result=result,
        **result_part,
        job_id=gr.State(""),
        over=gr.State(""),
        finished=gr.State(("", ())),
        remembered=remembered,
        draft=draft,
    )


def _recipe_part(recipe: str) -> dict[str, Any]:
    parts: dict[str, Any] = {}
    with gr.Row(elem_classes="head"):
        gr.HTML("<h2>Recipe</h2>")
        parts["open_file"] = gr.UploadButton(
            "Open a recipe", file_types=[".yaml", ".yml"], type="binary", size="md"
        )
        parts["save"] = gr.Button("Save the recipe", size="md")
        parts["to_explore"] = gr.Button("Show in Explore", size="md")
    parts["shipped"] = gr.Dropdown(
        [(spoken(name), name) for name in shipped_recipes()],
        value=None,
        interactive=True,
        label="Try a recipe that ships",
        info="For the built-in family, tuned on prompts apart from those it is scored on.",
        elem_classes="in-line",
    )
    parts["replaced"] = gr.State("")
    parts["bring_back"] = gr.Button("Bring back the recipe that was here", size="md", visible=False)
    parts["recipe"] = gr.Textbox(
        recipe,
        label="Recipe (YAML)",
        lines=16,
        max_lines=40,
        autoscroll=False,
        interactive=True,
        elem_id="recipe-text",
        info="From Explore. Edit it, paste another, or open a file.",
    )
    return parts


def _run_part(name: str) -> dict[str, Any]:
    gr.HTML("<h2>Merge</h2>")
    parts: dict[str, Any] = {"words": gr.HTML(elem_id="recipe-words")}
    parts["checks"] = gr.HTML(elem_id="merge-checks", js_on_load=_MARKS)
    parts["name"] = gr.Textbox(
        name,
        label="Name of the new model",
        max_lines=1,
        interactive=True,
        max_length=64,
        info="Letters, digits, dots, dashes and underscores.",
    )
    parts["fresh"] = gr.Textbox(name, visible="hidden", label="A name for the recipe")
    parts["suggested"] = gr.Textbox(name, visible="hidden", label="The name last suggested")
    with gr.Row(elem_classes="verbs"):
        parts["start"] = gr.Button(
            "Start", variant="primary", interactive=False, size="lg", elem_id="merge-start"
        )
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
    parts["code"] = gr.HTML()  # gr.Code would have every page load an editor
    with gr.Row(elem_classes="verbs"):
        parts["to_chat"] = gr.Button("Talk to it", variant="primary")
        parts["its_recipe"] = gr.Button("Open its recipe in Explore")
    parts["made_by"] = gr.State("")
    return parts
