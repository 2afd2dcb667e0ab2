"""The components to add a model with."""

from __future__ import annotations

from dataclasses import dataclass

import gradio as gr

from ui.remark import remark


@dataclass(frozen=True)
class AddingRefs:
    """The components.

    Attributes:
        reference: the folder or Hub id that is asked for.
        said: how it went, told to who sees it or hears it.
        facts: what is known of the model that was looked at.
        pinned: what Add adds: a folder's path, or a Hub id with its commit. "" for nothing.
        job_id: the download that the page shows.
        progress: how far it is.
        chosen: one of the models that were added.
        files: whether its files go with it.
        changed: how often other models were on offer; unseen. (Changes of a State are told of
            queued events alone.)
    """

    reference: gr.Textbox
    look: gr.Button
    said: gr.HTML
    facts: gr.HTML
    add: gr.Button
    pinned: gr.State
    job_id: gr.State
    progress: gr.HTML
    cancel: gr.Button
    chosen: gr.Dropdown
    resume: gr.Button
    files: gr.Checkbox
    remove: gr.Button
    changed: gr.Number


def layout() -> AddingRefs:
    """Builds the components, folded."""
    with gr.Accordion("Add a model", open=False, elem_classes="adding", elem_id="adding"):
        reference = gr.Textbox(
            label="Folder or Hub id",
            info="An absolute path on the server, or org/name, or org/name@revision.",
            placeholder="org/name",
            max_lines=1,
            max_length=4096,
            interactive=True,
        )
        look = gr.Button("Look", size="md")
        facts = gr.HTML("", elem_id="adding-facts", apply_default_css=False)
        said = remark("adding-said")
        add = gr.Button("Add", variant="primary", size="md", visible=False)
        progress = gr.HTML("", elem_id="adding-progress", apply_default_css=False)
        cancel = gr.Button("Cancel the download", size="md", visible=False)
        chosen = gr.Dropdown(
            [], label="Added before", interactive=True, filterable=False, visible=False
        )
        resume = gr.Button("Resume the download", size="md", visible=False)
        files = gr.Checkbox(
            False, label="Delete its downloaded files, too", interactive=True, visible=False
        )
        remove = gr.Button("Remove from the list", size="md", visible=False)
    return AddingRefs(
        reference,
        look,
        said,
        facts,
        add,
        gr.State(""),
        gr.State(""),
        progress,
        cancel,
        chosen,
        resume,
        files,
        remove,
        gr.Number(0, visible="hidden", precision=0, label="Times changed"),
    )
