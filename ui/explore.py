"""The Explore tab: what a recipe keeps of every expert, before anything is merged."""

from __future__ import annotations

from dataclasses import dataclass

import gradio as gr


@dataclass(frozen=True)
class ExploreRefs:
    """Components that other tabs use.

    Attributes:
        recipe: the current recipe, a YAML string.
        go_merge: opens the Merge tab.
    """

    recipe: gr.State
    go_merge: gr.Button


def layout(library) -> ExploreRefs:
    """Builds the tab's components inside the open gr.Tab."""
    recipe = gr.State("")
    return ExploreRefs(recipe=recipe, go_merge=gr.Button("Merge", variant="primary"))


def wire(refs: ExploreRefs, library) -> None:
    """Attaches the tab's events."""
