"""The components of the live model: a switch, what it scores and answers, and what it is asked."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import gradio as gr

from ui.live.probes import LONGEST, MOST
from ui.remark import remark

_BOARD = """
const mount = () => window.amalgamLive
  ? window.amalgamLive.mount(element, props, watch, trigger) : setTimeout(mount, 15);
mount(); // triggers 'pin' and 'unpin', with the prompt
"""


@dataclass(frozen=True)
class LiveRefs:
    """The card's components.

    Attributes:
        on: whether the merge answers while sliders move.
        body: all that shows only then.
        meters, replies: how good it is, and what it answers.
        let_go: frees the memory of other models; shown where that makes room.
        keep, keep_beside, name: write what answers to a new model of this name.
        stop_keeping: ends that.
        kept: how that went.
        to_chat: opens what was kept in Chat; `finished` holds its id and its sources.
        fresh, suggested: a name for the settings of now, and the one last put into the box. Unseen.
        ask: a question for it.
        asked: the one that was asked last and is not pinned.
        prompts: what is pinned, a line each.
        family: the base that these prompts belong to.
        own: skills of a task file.
        own_file, own_gone: take one, and let go of it.
        own_said: what it holds, or what is wrong with it.
    """

    on: gr.Checkbox
    body: gr.Column
    meters: gr.HTML
    let_go: gr.Button
    name: gr.Textbox
    keep: gr.Button
    keep_beside: gr.Button
    stop_keeping: gr.Button
    kept: gr.HTML
    to_chat: gr.Button
    fresh: gr.Textbox
    suggested: gr.Textbox
    own_file: gr.UploadButton
    own_gone: gr.Button
    own_said: gr.HTML
    replies: gr.HTML
    ask: gr.Textbox
    prompts: gr.Textbox
    asked: gr.State
    family: gr.State
    own: gr.State
    finished: gr.State


def memory() -> gr.BrowserState:
    """Where the browser keeps pinned prompts, by base. Outside the tabs: it is read on load."""
    return gr.BrowserState({}, storage_key="amalgam-probes", secret="amalgam-probes")


def beside() -> gr.Button:
    """Another Keep, for where it is always in sight; it shows while the merge answers."""
    return gr.Button("Keep", visible=False, size="lg", elem_id="keep-beside")


def build(keep_beside: gr.Button) -> LiveRefs:
    """Builds the card.

    Args:
        keep_beside: see `beside`.
    """
    with gr.Column(elem_classes=["card", "live"], elem_id="live"):
        on = gr.Checkbox(
            False,
            label="Live: hear the merge answer",
            info="Each time a slider rests, it is merged in memory, scored in every skill and "
            "asked your prompts. Nothing is written until you press Keep.",
            interactive=True,
            elem_id="live-on",
        )
        with gr.Column(visible=False, elem_classes="live-body", elem_id="live-body") as body:
            meters = _board("live-meters")
            let_go = gr.Button(
                "Let go of other models", size="sm", visible=False, elem_id="live-let-go"
            )
            keeping = _keeping()
            with gr.Row(elem_classes="live-verbs"):
                own_file = gr.UploadButton(
                    "Score own tasks", file_types=[".jsonl"], type="filepath", size="sm"
                )
                own_gone = gr.Button("Remove own tasks", size="sm", visible=False)
            own_said = remark(elem_classes=["quiet", "live-said"])
            replies = _board("live-replies")
            ask = gr.Textbox(
                label="Ask the live merge",
                show_label=False,
                placeholder="Ask the live merge…",
                lines=1,
                max_lines=4,
                max_length=LONGEST,
                submit_btn="Send",
                interactive=True,
                elem_id="live-ask",
            )
            with gr.Accordion("Edit as text", open=False, elem_classes="live-text"):
                prompts = gr.Textbox(
                    "",
                    label="Prompts, one per line",
                    info=f"Up to {MOST}. After => the right answer, if there is one.",
                    lines=4,
                    max_lines=8,
                    interactive=True,
                    elem_id="live-prompts",
                )
    return LiveRefs(
        on=on,
        body=body,
        meters=meters,
        let_go=let_go,
        keep_beside=keep_beside,
        **keeping,
        own_file=own_file,
        own_gone=own_gone,
        own_said=own_said,
        replies=replies,
        ask=ask,
        prompts=prompts,
        asked=gr.State(""),
        family=gr.State(""),
        own=gr.State(()),
        finished=gr.State(("", ())),
    )


def _keeping() -> dict[str, Any]:
    """Name and button, how keeping went, and the unseen names."""
    with gr.Row(elem_classes="live-keep"):
        name = gr.Textbox(
            "",
            label="Name of the new model",
            show_label=False,
            placeholder="Name of the new model",
            max_lines=1,
            max_length=64,
            interactive=True,
            min_width=120,
            scale=3,
            elem_id="live-name",
        )
        keep = gr.Button("Keep", variant="primary", min_width=76, scale=1, elem_id="live-keep")
        stop = gr.Button("Stop", visible=False, min_width=60, scale=1, elem_id="live-stop")
    kept = remark("live-kept", ["quiet", "live-said"])
    to_chat = gr.Button("Open in Chat", size="sm", visible=False, elem_id="live-to-chat")
    fresh = gr.Textbox("", visible="hidden", label="A name for what answers")
    suggested = gr.Textbox("", visible="hidden", label="The name last suggested for it")
    return {
        "name": name,
        "keep": keep,
        "stop_keeping": stop,
        "kept": kept,
        "to_chat": to_chat,
        "fresh": fresh,
        "suggested": suggested,
    }


def _board(name: str) -> gr.HTML:
    """HTML whose nodes stay while it changes, see assets/live.js."""
    return gr.HTML(
        "",
        html_template="<div class='live-board'></div>",
        js_on_load=_BOARD,
        apply_default_css=False,
        elem_id=name,
    )
