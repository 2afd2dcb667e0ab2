"""Which component of the Merge tab asks for what, and what the answer fills.

All events are private: no page but ours calls them.
"""

from __future__ import annotations

from typing import Any

import gradio as gr

from ui.events import CHEAP, PRIVATE, PROMPT
from ui.merge.layout import MergeRefs
from ui.merge.tab import MergeTab
from ui.naming import RENAME_JS

_SAVE_JS = """(text) => {
  const link = document.createElement("a");
  link.href = URL.createObjectURL(new Blob([text], {type: "application/yaml"}));
  link.download = "amalgam.yaml";
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 1000);
}"""


def wire(demo: gr.Blocks, refs: MergeRefs, tab: MergeTab) -> None:
    """Attaches the tab's events."""
    _wire_checks(refs, tab)
    _wire_texts(refs, tab)
    _wire_merge(demo, refs, tab)


def _wire_checks(refs: MergeRefs, tab: MergeTab) -> None:
    """Whatever is typed is checked; a name follows the recipe."""
    gr.on(
        [refs.recipe.change, refs.name.change],
        tab.checked,
        *_check(refs),
        trigger_mode="always_last",
        **PROMPT,
    )
    fresh = refs.recipe.change(
        tab.suggested, refs.recipe, refs.fresh, trigger_mode="always_last", **PROMPT
    )
    fresh.then(None, *_rename(refs), js=RENAME_JS, **PRIVATE)


def _wire_texts(refs: MergeRefs, tab: MergeTab) -> None:
    """Recipes that ship, files that are opened and saved, and the text that they replaced."""
    undo = [refs.replaced, refs.bring_back]
    refs.bring_back.click(
        lambda text: (text, "", gr.update(visible=False), None),
        refs.replaced,
        [refs.recipe, *undo, refs.shipped],
        **PROMPT,
    )
    refs.recipe.input(lambda: None, None, refs.shipped, **PROMPT)
    taken = [refs.recipe, refs.reason, *undo]
    refs.shipped.input(tab.chosen, [refs.shipped, refs.recipe], taken, **PROMPT)
    refs.open_file.upload(
        tab.opened, [refs.open_file, refs.recipe], [*taken, refs.shipped], **PROMPT
    )
    refs.save.click(None, refs.recipe, js=_SAVE_JS, **PRIVATE)


def _wire_merge(demo: gr.Blocks, refs: MergeRefs, tab: MergeTab) -> None:
    """A merge that is started, or was before the page was loaded, is watched until it is over."""
    started = gr.on(
        [refs.start.click, refs.name.submit],
        tab.started,
        [refs.recipe, refs.name, refs.job_id],
        [refs.job_id, refs.remembered, refs.reason],
        trigger_mode="once",
        **PROMPT,
    )
    loaded = demo.load(
        tab.remembered,
        [refs.remembered, refs.recipe, refs.draft],
        [refs.job_id, refs.recipe, refs.name, refs.fresh, refs.status],
        **CHEAP,
    )
    watched = [
        refs.status,
        refs.progress,
        refs.start,
        refs.stop,
        refs.result,
        refs.facts,
        refs.drift,
        refs.code,
        refs.made_by,
        refs.finished,
        refs.over,
    ]
    loaded.then(tab.watched, refs.job_id, watched, **CHEAP)
    renamed = loaded.then(None, *_rename(refs), js=RENAME_JS, **PRIVATE)
    renamed.then(tab.checked, *_check(refs), **CHEAP)
    started.then(tab.watched, refs.job_id, watched, **CHEAP)
    refs.over.change(tab.ended, [refs.over, refs.remembered], refs.remembered, **PROMPT)
    named = refs.over.change(tab.named, refs.name, [refs.name, refs.suggested], **PROMPT)
    named.then(tab.checked, *_check(refs), **PROMPT)
    refs.stop.click(tab.stopped, refs.job_id, refs.stop, **PROMPT)


def _check(refs: MergeRefs) -> tuple[list[Any], list[Any]]:
    """What `MergeTab.checked` asks for and fills."""
    asked = [refs.recipe, refs.name, refs.job_id]
    return asked, [refs.words, refs.checks, refs.start, refs.reason]


def _rename(refs: MergeRefs) -> tuple[list[Any], list[Any]]:
    """What the suggestion of a name reads and fills."""
    return [refs.fresh, refs.name, refs.suggested], [refs.name, refs.suggested]
