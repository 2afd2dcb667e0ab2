"""What the live card shows: tables of answers and of skills. Answers are data, never markup."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from html import escape

from ui.live.probes import Probe

Score = Mapping[str, float]
_MARKS = {True: "✓", False: "✗"}
_WORDS = {True: "right", False: "wrong"}


@dataclass
class Column:
    """What one model said.

    Attributes:
        name: its heading.
        answers: by prompt.
        scores: by skill: "score", "low", "high" and "n".
        problem: why it says nothing.
    """

    name: str
    answers: dict[str, str] = field(default_factory=dict)
    scores: dict[str, Score] = field(default_factory=dict)
    problem: str = ""


def drawn(
    status: str, probes: Sequence[Probe], skills: Sequence[str], columns: Sequence[Column]
) -> str:
    """The card's HTML. columns: the live model first."""
    tables = []
    if skills and columns:
        rows = [_scores(skill, columns) for skill in skills]
        tables.append(_table("How often they are right", "Skill", columns, rows))
    if probes and columns:
        rows = [_answers(probe, columns) for probe in probes]
        tables.append(_table("What they answer", "Prompt", columns, rows))
    problems = "".join(
        f'<p class="complaint">{escape(column.name)}: {escape(column.problem)}</p>'
        for column in columns
        if column.problem
    )
    return f'<p class="quiet" role="status">{escape(status)}</p>{problems}{"".join(tables)}'


def _table(title: str, first: str, columns: Sequence[Column], rows: Sequence[str]) -> str:
    heads = "".join(f'<th scope="col">{escape(column.name)}</th>' for column in columns)
    return (
        f'<div class="live-table" tabindex="0" role="region" aria-label="{escape(title)}"><table>'
        f"<caption>{escape(title)}</caption><thead><tr><th scope='col'>{escape(first)}</th>"
        f"{heads}</tr></thead><tbody>{''.join(rows)}</tbody></table></div>"
    )


def _answers(probe: Probe, columns: Sequence[Column]) -> str:
    before = columns[1].answers.get(probe.prompt) if len(columns) > 1 else None
    cells = []
    for column in columns:
        answer = column.answers.get(probe.prompt)
        if answer is None:
            cells.append("<td>…</td>")
            continue
        text = escape(answer) or "(nothing)"
        if column is columns[0] and before is not None and answer != before:
            text = f"<mark>{text}</mark>"
        cells.append(f"<td>{text} {_verdict(probe.verdict(answer))}</td>")
    return f'<tr><th scope="row">{escape(probe.prompt)}</th>{"".join(cells)}</tr>'


def _verdict(right: bool | None) -> str:
    if right is None:
        return ""
    word = _WORDS[right]
    return f'<i class="{word}" title="{word}" role="img" aria-label="{word}">{_MARKS[right]}</i>'


def _scores(skill: str, columns: Sequence[Column]) -> str:
    cells = []
    for column in columns:
        score = column.scores.get(skill)
        if score is None:
            cells.append("<td>…</td>")
            continue
        low, high, n = score["low"], score["high"], score["n"]
        cells.append(
            f'<td><meter min="0" max="1" value="{score["score"]:.4f}" aria-hidden="true"></meter> '
            f'<b>{score["score"]:.0%}</b><br><span class="quiet" title="95 % interval of {n:.0f} '
            f'prompts">{low:.0%} to {high:.0%}</span></td>'
        )
    return f'<tr><th scope="row">{escape(skill)}</th>{"".join(cells)}</tr>'
