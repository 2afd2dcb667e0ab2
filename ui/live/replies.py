"""What models answer, prompt by prompt: base, expert, live and the other of two
settings, with what is new marked."""

from __future__ import annotations

from dataclasses import replace
from html import escape

from ui.live.columns import Beside, Column
from ui.live.marks import marked
from ui.live.probes import Probe
from ui.live.scene import Scene

_MARKS = {True: "✓", False: "✗"}
_WORDS = {True: "right", False: "wrong"}


def drawn(scene: Scene) -> str:
    """HTML of all probes. What models and people write is escaped."""
    if not scene.probes or not scene.sources:
        return ""
    busy = ' aria-busy="true"' if scene.is_busy else ""
    blocks = "".join(_block(scene, probe) for probe in scene.probes)
    return f'<h2>Probes</h2><div class="live-probes"{busy}>{blocks}</div>'


def _block(scene: Scene, probe: Probe) -> str:
    prompt = escape(probe.prompt)
    verb = "Unpin" if probe.is_pinned else "Pin"
    base, *experts = scene.sources
    own = _relevant(experts, probe)
    rows = [_row(base, probe), *(_row(one, probe) for one in own), _live_row(scene, probe)]
    rows += [_beside_row(scene, scene.beside, probe)] if scene.beside else []
    others = [one for one in experts if one not in own]
    return (
        f'<section class="probe" data-key="{prompt}" aria-label="{prompt}"><header>'
        f'<h3>{prompt}</h3><button type="button" data-event="{verb.lower()}" '
        f'data-prompt="{prompt}" aria-label="{verb}: {prompt}">{verb}</button></header>'
        f"<dl>{''.join(rows)}</dl>{_folded(others, probe)}</section>"
    )


def _relevant(experts: list[Column], probe: Probe) -> list[Column]:
    """The expert that a prompt is about: by its wording, else the first that answers it right; the
    only one where there is but one."""
    name = probe.expert_of([one.model for one in experts])
    named = [one for one in experts if name and one.model == name]
    right = [one for one in experts if probe.verdict(one.answers.get(probe.prompt, ""))]
    return named or right[:1] or (experts if len(experts) == 1 else [])


def _folded(others: list[Column], probe: Probe) -> str:
    if not others:
        return ""
    count = f"{len(others)} more expert{'s' * (len(others) > 1)}"
    rows = "".join(_row(one, probe) for one in others)
    return f"<details><summary>{count}</summary><dl>{rows}</dl></details>"


def _row(column: Column, probe: Probe) -> str:
    answer = column.answers.get(probe.prompt)
    return _line(column, probe, answer, None if answer is None else escape(answer), "")


def _live_row(scene: Scene, probe: Probe) -> str:
    live, before = scene.live, scene.live.before
    earlier = before.answers.get(probe.prompt) if before else None
    answer = live.answers.get(probe.prompt)
    if scene.is_busy or answer is None:  # what it said with other values, until it says another
        old = earlier if answer is None else answer
        return _line(live, probe, None, None if old is None else escape(old), "live is-stale")
    if live.growing == probe.prompt:
        return _line(live, probe, None, escape(answer), "live")
    return _line(live, probe, answer, marked(answer, earlier), "live")


def _beside_row(scene: Scene, beside: Beside, probe: Probe) -> str:
    """What the other of two settings answered, with what the live model says otherwise marked."""
    column = beside.column or Column(beside.name)
    answer = None if column.growing == probe.prompt else column.answers.get(probe.prompt)
    if answer is None:
        text = '<span class="quiet">not asked yet</span>'
    else:
        live = None if scene.is_busy or scene.live.growing else scene.live.answers.get(probe.prompt)
        text = marked(answer, live, "differs; live")
    return _line(replace(column, name=beside.name), probe, answer, text, "beside")


def _line(column: Column, probe: Probe, answer: str | None, text: str | None, kind: str) -> str:
    """A row. answer: what is judged, None while it is not known; text: what is shown, as HTML."""
    shown = "…" if text is None else text or '<span class="quiet">(nothing)</span>'
    style = f' style="--tone: {column.colour}"' if column.colour else ""
    sign = f"<i>{column.glyph}</i>" if column.glyph else ""
    return (
        f'<div class="reply {kind}"{style}><dt>{sign}{escape(column.name)}</dt>'
        f"<dd>{shown}</dd><dd>{_verdict(None if answer is None else probe.verdict(answer))}"
        "</dd></div>"
    )


def _verdict(right: bool | None) -> str:
    if right is None:
        return ""
    word = _WORDS[right]
    return f'<i class="{word}" title="{word}" role="img" aria-label="{word}">{_MARKS[right]}</i>'
