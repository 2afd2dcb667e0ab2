"""The history as markup. No Gradio here; what files and people wrote goes through `escape`."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from html import escape

from merging.errors import one_line
from merging.run.notes import MOST_CHARACTERS
from ui.findings import percent
from ui.history import words
from ui.history.entry import Entry
from ui.history.shelf import MOST
from ui.history.trash import Deleted
from ui.library import Library
from ui.merge.drift import drift_words, place_of
from ui.units import amount

_SHOWN = 12  # digits of a fingerprint
_KINDS = {"model": "Model", "bookmark": "Bookmark"}
_NOTHING = (
    '<p class="quiet nothing">Nothing here yet. Keep or merge a model, or press Bookmark in '
    "Explore: it stays here, also after a restart.</p>"
)


def board(library: Library, entries: Sequence[Entry], deleted: Sequence[Deleted]) -> str:
    """All entries, and what was deleted."""
    shown = "".join(entry(library, one) for one in entries[:MOST])
    more = len(entries) - MOST
    rest = f'<p class="quiet">and {more:,} older ones</p>' if more > 0 else ""
    return f'<div class="entries">{shown or _NOTHING}</div>{rest}{trash(deleted)}'


def entry(library: Library, one: Entry) -> str:
    """One entry with its buttons."""
    name = escape(one.name)
    kind = _KINDS[one.kind]
    recipe = one.recipe
    method = f"<span>{escape(words.method(recipe))}</span>" if recipe else ""
    about = [f"<span>{kind}</span>", method, moment(one.made_s), _fingerprint(one.fingerprint)]
    said = escape(words.described(library, recipe)) if recipe else ""
    parts = [
        f'<p class="in-words">{said}</p>' if said else "",
        f'<p class="complaint">{escape(one_line(one.problem))}</p>' if one.problem else "",
        f'<p class="note-text">{escape(one.notes.text)}</p>' if one.notes.text else "",
        scores(one.notes.scores),
        strip(one.notes.drift),
    ]
    return (
        f'<article class="card entry" data-key="{escape(one.id)}" aria-label="{kind} {name}">'
        f'<header><h3>{name}</h3><p class="quiet about">{"".join(about)}</p></header>'
        f"{''.join(parts)}{_verbs(one)}</article>"
    )


def moment(seconds: float) -> str:
    """A time; the page shows it in the reader's zone."""
    utc = time.gmtime(seconds)
    return (
        f'<time datetime="{time.strftime("%Y-%m-%dT%H:%M:%SZ", utc)}">'
        f"{time.strftime('%Y-%m-%d %H:%M', utc)} UTC</time>"
    )


def scores(of: Mapping[str, Mapping[str, float]]) -> str:
    """Scores in a line; nothing where there are none."""
    if not of:
        return ""
    items = "".join(
        f'<span title="{escape(interval(one))}">{escape(skill)} '
        f"<b>{percent(one['score'])}</b></span>"
        for skill, one in of.items()
    )
    return f'<p class="scores"><span class="quiet">Right when kept:</span>{items}</p>'


def interval(score: Mapping[str, float]) -> str:
    """How sure a score is, in words."""
    return (
        f"{percent(score['score'])} of {score['n']:.0f} prompts, 95% interval "
        f"{percent(score['low'])} to {percent(score['high'])}"
    )


def by_layer(drift: Mapping[str, float]) -> dict[int | str | None, float]:
    """A drift of notes, its layers as everywhere else."""
    return {
        int(name) if name.isdecimal() else None if name == "rest" else name: one
        for name, one in drift.items()
    }


def strip(drift: Mapping[str, float]) -> str:
    """How far each layer moved: a bar each, and in words; nothing where that was not measured."""
    layers = by_layer(drift)
    most = max(layers.values(), default=0.0)
    if not layers:
        return ""
    bars = "".join(
        f'<i style="height: {100 * one / most if most else 0:.0f}%" '
        f'title="{escape(place_of(layer))}: {one:.2%}"></i>'
        for layer, one in layers.items()
    )
    said = drift_words(layers)
    return (
        f'<p class="moved"><span class="strip" role="img" aria-label="How far each layer moved. '
        f'{escape(said)}">{bars}</span><span class="quiet">{escape(said)}</span></p>'
    )


def trash(deleted: Sequence[Deleted]) -> str:
    """What can be taken back, and what that takes of the disk."""
    if not deleted:
        return ""
    rows = "".join(
        f'<li data-key="{escape(one.id)}"><span><b>{escape(one.name)}</b> '
        f"{_KINDS[one.kind].lower()}, {amount(one.size)}, deleted {moment(one.deleted_s)}</span>"
        f"{_button('restore', one.id, 'Undo', f'Undo deleting {one.name}')}</li>"
        for one in deleted
    )
    size = amount(sum(one.size for one in deleted))
    return (
        f'<section class="card trash" aria-label="Deleted"><h3>Deleted</h3><p class="quiet">'
        f"{size} of disk. It is removed for good when the server starts more than a day after "
        f"it was deleted.</p><ul>{rows}</ul></section>"
    )


def _fingerprint(fingerprint: str) -> str:
    if not fingerprint:
        return ""
    kind, _, digits = fingerprint.partition(":")
    short = f"{kind}:{digits[:_SHOWN]}…" if len(digits) > _SHOWN else fingerprint
    whole = escape(fingerprint)
    return (
        f'<button type="button" class="digest" data-copy="{whole}" title="{whole}" '
        f'aria-label="Copy the fingerprint {whole}">{escape(short)}</button>'
    )


def _verbs(one: Entry) -> str:
    lost = "" if one.recipe else "Its recipe cannot be read"
    buttons = [_button("bring", one.id, "Open in Explore", f"Open {one.name} in Explore", lost)]
    if one.kind == "model":
        gone = "" if one.model else "It is not on offer"
        buttons.append(_button("talk", one.id, "Open in Chat", f"Open {one.name} in Chat", gone))
    buttons.append(_button("drop", one.id, "Delete", f"Delete {one.name}", one.fixed))
    compare = (
        f'<label class="pick"><input type="checkbox" data-pick="{escape(one.id)}"'
        f' aria-label="Compare {escape(one.name)}"{"" if one.recipe else " disabled"}>'
        "Compare</label>"
    )
    why = f'<p class="quiet">{escape(one.fixed)}</p>' if one.fixed else ""
    verbs = f'<div class="entry-verbs" data-key="verbs">{"".join(buttons)}{compare}</div>'
    return f"{verbs}{why}{_edit(one)}"


def _edit(one: Entry) -> str:
    if one.fixed:
        return ""
    name, key = escape(one.name), escape(one.id)
    return (
        '<details class="edit" data-key="edit"><summary>Name and note</summary>'
        f'<label>Name<input type="text" maxlength="64" value="{name}" data-field="rename"></label>'
        f"{_button('rename', one.id, 'Rename', f'Rename {one.name}')}"
        f'<label>Note<textarea rows="3" maxlength="{MOST_CHARACTERS}" data-field="note" '
        f'data-key="note {key}">{escape(one.notes.text)}</textarea></label>'
        f"{_button('note', one.id, 'Save the note', f'Save the note on {one.name}')}</details>"
    )


def _button(event: str, key: str, label: str, name: str, off: str = "") -> str:
    disabled = f' disabled title="{escape(off)}"' if off else ""
    return (
        f'<button type="button" data-event="{event}" data-id="{escape(key)}" '
        f'aria-label="{escape(name)}"{disabled}>{label}</button>'
    )
