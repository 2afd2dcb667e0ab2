"""How good the live model is: a bar per skill, and all models' scores as a table."""

from __future__ import annotations

from dataclasses import replace
from html import escape

from ui.findings import THIN, percent
from ui.live.columns import Column, Score, Scores
from ui.live.scene import Scene
from ui.live.skills import Skill
from ui.units import span

_UNKNOWN = "\N{HORIZONTAL ELLIPSIS}"


def drawn(scene: Scene) -> str:
    """HTML of the status line, the bars and their table. What models and files say is escaped."""
    tone = "complaint" if scene.is_wrong else "quiet"
    problems = "".join(
        f'<p class="complaint">{escape(column.name)}: {escape(column.problem)}</p>'
        for column in scene.columns
        if column.problem
    )
    said = " · ".join(filter(None, (scene.status, scene.saved)))
    status = f'<p class="live-status {tone}" role="status">{escape(said)}</p>{problems}'
    if not scene.skills or not scene.sources:
        return status
    names = [skill.name for skill in scene.skills]
    rows = "".join(
        _row(scene, skill, f"{skill.name} (file)" if names.count(skill.name) > 1 and skill.tasks
             else skill.name)
        for skill in scene.skills
    )  # fmt: skip
    busy = ' aria-busy="true"' if scene.is_busy else ""
    return (
        f'{status}<div class="live-skills" role="group" aria-label="How often it is right"{busy}>'
        f'{rows}</div><p class="quiet live-note">{_note(scene)}</p>{_table(scene)}'
    )


def scores_of(scene: Scene, skill: Skill) -> Scores:
    """A skill's scores of all that its bar shows."""
    expert = scene.source(skill.expert_of([one.model for one in scene.sources]))
    before = scene.live.before
    return Scores(
        scene.live.scores.get(skill),
        before.scores.get(skill) if before else None,
        scene.beside.column.scores.get(skill) if scene.beside and scene.beside.column else None,
        expert.scores.get(skill) if expert else None,
        scene.sources[0].scores.get(skill),
    )


def difference(scores: Scores) -> str:
    """By how many points the live score has changed: "+8"; "" where it has not, or is not known."""
    if scores.live is None or scores.before is None:
        return ""
    points = round(100 * (scores.live["score"] - scores.before["score"]))
    return f"{points:+d}".replace("-", "\N{MINUS SIGN}") if points else ""


def _row(scene: Scene, skill: Skill, name: str) -> str:
    scores = scores_of(scene, skill)
    look = scene.source(skill.expert_of([one.model for one in scene.sources]))
    colour, glyph = (look.colour, look.glyph) if look else ("", "\N{WHITE CIRCLE}")
    shown = scores.live or scores.before
    changed = difference(scores)
    is_fresh = scores.live is not None and not scene.is_busy
    said = _said(scores) if is_fresh else "not scored yet"
    beside = _beside(scene, scores)
    said += f"; {beside}" if beside else ""
    value = f'aria-valuenow="{100 * shown["score"]:.0f}"' if shown and is_fresh else ""
    style = f' style="--tone: {colour}"' if colour else ""
    return (
        f'<div class="skill{"" if is_fresh else " is-stale"}" role="meter" '
        f'aria-label="{escape(name)}" aria-valuemin="0" aria-valuemax="100" {value} '
        f'aria-valuetext="{escape(said)}" title="{escape(said)}"{style}>'
        f'<span class="who"><i>{glyph}</i>{escape(name)}</span>'
        f'<span class="track">{_bar(shown)}{_tick(scores.base, "base")}'
        f"{_tick(scores.expert, 'expert')}{_tick(scores.beside, 'beside')}</span>"
        f"<b>{percent(scores.live['score']) if scores.live and is_fresh else _UNKNOWN}</b>"
        f'<small class="{"up" if changed.startswith("+") else "down"}">'
        f"{changed if is_fresh else ''}</small>"
        f"{f'<span class=beside>{beside}</span>' if beside else ''}</div>"
    )


def _beside(scene: Scene, scores: Scores) -> str:
    """What the other of two settings scored: "B 54 %"; "" where there is none, or it was never
    asked at all."""
    if scene.beside is None or scene.beside.column is None:
        return ""
    share = percent(scores.beside["score"]) if scores.beside else "not scored yet"
    return f"{scene.beside.name} {share}"


def _bar(score: Score | None) -> str:
    if score is None:
        return '<span class="fill" style="width: 0"></span>'
    low, high = 100 * score["low"], 100 * score["high"]
    return (
        f'<span class="fill" style="width: {100 * score["score"]:.1f}%"></span>'
        f'<span class="interval" style="left: {low:.1f}%; width: {high - low:.1f}%"></span>'
    )


def _tick(score: Score | None, kind: str) -> str:
    if score is None:
        return ""
    return f'<span class="tick {kind}" style="left: {100 * score["score"]:.1f}%"></span>'


def _said(scores: Scores) -> str:
    """A bar in words."""
    assert scores.live is not None
    live = scores.live
    parts = [
        f"{percent(live['score'])} of {live['n']:.0f} prompts, "
        f"95{THIN}% interval {percent(live['low'])} to {percent(live['high'])}"
    ]
    parts += [f"its expert {percent(scores.expert['score'])}"] if scores.expert else []
    parts += [f"the base {percent(scores.base['score'])}"] if scores.base else []
    changed = difference(scores)
    parts += [f"{changed} points against the settings before"] if changed else []
    return "; ".join(parts)


def _note(scene: Scene) -> str:
    seconds = [scene.live.seconds.get(skill) for skill in scene.skills]
    spans = [one for one in seconds if one is not None]
    took = f", scored in {span(sum(spans))}" if spans and len(spans) == len(seconds) else ""
    most = max((len(skill.tasks) or scene.per_skill for skill in scene.skills), default=0)
    upto = "Up to " if any(skill.tasks for skill in scene.skills) else ""
    return (
        f"{upto}{min(most, scene.per_skill)} validation prompts a skill{took}. Line: "
        f"95{THIN}% interval. Bold tick: the expert itself; pale tick: the base.{_legend(scene)}"
    )


def _legend(scene: Scene) -> str:
    if scene.beside is None:
        return ""
    name = scene.beside.name
    if scene.beside.column is None:
        return f" {name} not asked yet: press x to show it."
    return f" Hollow mark: {name}, as it was last live."


def _table(scene: Scene) -> str:
    columns = scene.columns
    if scene.beside is not None and scene.beside.column is not None:
        columns.insert(1, replace(scene.beside.column, name=scene.beside.name))
    heads = "".join(f'<th scope="col">{escape(skill.name)}</th>' for skill in scene.skills)
    rows = "".join(
        f'<tr><th scope="row">{escape(one.name)}</th>'
        f"{''.join(_cell(one, skill, scene) for skill in scene.skills)}</tr>"
        for one in columns
    )
    return (
        '<details class="live-twin"><summary>Table</summary>'
        '<div class="live-table" tabindex="0" role="region" aria-label="How often they are right">'
        f"<table><caption>How often they are right, with 95{THIN}% intervals</caption>"
        f'<thead><tr><th scope="col">Model</th>{heads}</tr></thead><tbody>{rows}</tbody></table>'
        f"</div>{_fingerprint(scene)}</details>"
    )


def _fingerprint(scene: Scene) -> str:
    if not scene.fingerprint:
        return ""
    return (
        '<p class="quiet live-note">Fingerprint of the tensors in memory: '
        f"<code>{escape(scene.fingerprint)}</code></p>"
    )


def _cell(column: Column, skill: Skill, scene: Scene) -> str:
    score = column.scores.get(skill)
    if score is None or (column is scene.live and scene.is_busy):
        return f"<td>{_UNKNOWN}</td>"
    return (
        f'<td><b>{percent(score["score"])}</b> <span class="quiet">'
        f"{100 * score['low']:.0f}\N{EN DASH}{100 * score['high']:.0f}</span></td>"
    )


__all__ = ["difference", "drawn", "scores_of"]
