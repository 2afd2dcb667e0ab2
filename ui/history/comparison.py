"""Two entries side by side: their recipes' difference in words, scores, and drift per layer."""

from __future__ import annotations

from html import escape
from typing import Any

from ui.findings import percent
from ui.history import words
from ui.history.entry import Entry
from ui.library import Library
from ui.merge.drift import drift_figure

_SECOND = "#e07b1a"
_NONE = "\N{EN DASH}"


def compared(library: Library, first: Entry, second: Entry) -> str:
    """What is told of both."""
    one, other = escape(first.name), escape(second.name)
    return (
        f"<h2>{one} and {other}</h2>{_recipes(library, first, second)}"
        f"{_table('How often they were right', 'Skill', first, second, _scores(first, second))}"
        f"{_table('How far each layer moved', 'Layer', first, second, _drift(first, second))}"
    )


def drawn(first: Entry, second: Entry) -> dict[str, Any] | None:
    """The plot of drift by layer, with its text twin; None where one of them has none."""
    ours, theirs = first.notes.drift, second.notes.drift
    if not ours or not theirs:
        return None
    layers = list(dict.fromkeys([*ours, *theirs]))
    figure = drift_figure(list(ours), list(ours.values()))
    (bars,) = figure["data"]
    bars["name"] = first.name
    more = {**bars, "name": second.name, "x": list(theirs), "y": list(theirs.values())}
    more["marker"] = {"color": _SECOND, "pattern": {"shape": "/"}}  # apart without colour, too
    figure["data"].append(more)
    legend = {"orientation": "h", "y": 1.02, "x": 0, "yanchor": "bottom"}
    figure["layout"] |= {"showlegend": True, "legend": legend | {"font": {"color": "#7d8ba1"}}}
    figure["layout"]["margin"]["t"] = 30
    rows = _drift(first, second)
    return {
        "figure": figure,
        "note": "Length of the change as a share of the base's own, layer by layer.",
        "summary": f"{len(layers)} layers of {first.name} beside {second.name}.",
        "table": {"head": ["layer", first.name, second.name], "rows": rows},
    }


def _recipes(library: Library, first: Entry, second: Entry) -> str:
    if first.recipe is None or second.recipe is None:
        return '<p class="complaint">One of the recipes cannot be read.</p>'
    phrases = words.differences(library, first.recipe, second.recipe)
    if not phrases:
        return "<p>They have the same recipe.</p>"
    name = escape(second.name)
    return f"<p>{name} has</p><ul>{''.join(f'<li>{escape(one)}</li>' for one in phrases)}</ul>"


def _scores(first: Entry, second: Entry) -> list[list[str]]:
    ours, theirs = first.notes.scores, second.notes.scores
    return [
        [skill, *(_score(one.get(skill)) for one in (ours, theirs))]
        for skill in dict.fromkeys([*ours, *theirs])
    ]


def _score(score: Any) -> str:
    if score is None:
        return _NONE
    low, high = percent(score["low"]), percent(score["high"])
    return f"{percent(score['score'])} ({low} to {high}, {score['n']:.0f} prompts)"


def _drift(first: Entry, second: Entry) -> list[list[str]]:
    ours, theirs = first.notes.drift, second.notes.drift
    return [
        [layer, *(f"{one[layer]:.2%}" if layer in one else _NONE for one in (ours, theirs))]
        for layer in dict.fromkeys([*ours, *theirs])
    ]


def _table(caption: str, head: str, first: Entry, second: Entry, rows: list[list[str]]) -> str:
    if not rows:
        return f'<p class="quiet">{caption}: neither was measured.</p>'
    heads = "".join(
        f'<th scope="col">{escape(one)}</th>' for one in (head, first.name, second.name)
    )
    body = "".join(
        f'<tr><th scope="row">{escape(row[0])}</th>'
        f"{''.join(f'<td>{escape(cell)}</td>' for cell in row[1:])}</tr>"
        for row in rows
    )
    return (
        f'<div class="side-by-side" tabindex="0" role="region" aria-label="{caption}"><table>'
        f"<caption>{caption}</caption><thead><tr>{heads}</tr></thead><tbody>{body}</tbody></table>"
        "</div>"
    )
