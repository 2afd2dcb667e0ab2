"""What the Merge tab shows: results of the engine as markup and plain figures. No Gradio here.

Every name that comes from a file or a person goes through `html.escape`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from html import escape
from typing import Any

from merging.engines.eager import Progress
from merging.errors import one_line
from merging.recipe import Recipe
from ui.jobs import Job
from ui.merge.drift import place_of
from ui.units import amount, span

_FATES = (
    ("merged", "is-fine", "will be merged"),
    ("copied", "is-note", "copied from the base"),
    ("left_out", "is-note", "left out"),
)
_PHASES = {"measure": "Measuring", "merge": "Merging", "verify": "Reading back"}
_ROWS = 200  # lines of the account that are listed


@dataclass
class MergeDetails:
    """What a merge job's panel needs beside the job: filled by the job as it goes."""

    recipe: Recipe
    text: str
    layers: tuple[int | str, ...]
    sources: tuple[str, ...]
    past: set[int | str] = field(default_factory=set)
    tensors: set[str] = field(default_factory=set)
    phase: str = ""

    def note(self, progress: Progress) -> None:
        """Keeps which layers went by in this pass; a tensor that comes again begins another."""
        if progress.phase != self.phase or progress.tensor in self.tensors:
            self.past, self.tensors, self.phase = set(), set(), progress.phase
        self.tensors.add(progress.tensor)
        if progress.layer is not None:
            self.past.add(progress.layer)


def words(text: str) -> str:
    """The recipe in words."""
    return f'<p class="in-words">{escape(text)}</p>'


def problem(message: str, line: int | None = None) -> str:
    """One line that says what is wrong.

    Args:
        line: of the recipe's text, from 1, that it leads to; None for none.
    """
    text = escape(one_line(message))
    return f'<ul class="checks"><li class="is-error">{_at(line)}{text}</li></ul>' if text else ""


def _at(line: int | None) -> str:
    """The way to a line of the text: `assets/editor.js` follows it, and marks the line."""
    if line is None:
        return ""
    return f'<button type="button" class="to-line" data-line="{line}">line {line}</button>: '


_LOOKS = {"error": "is-error", "warning": "is-warning", "note": "is-fine"}


def checks(report: Any, free_bytes: int, target: str = "") -> str:
    """What the preflight found: problems first, then the account, what is needed, and the target:
    the folder that the result goes to."""
    kinds = {"merged": 0, "copied": 0, "left_out": 0}
    for entry in report.account:
        kinds[entry.status] += 1
    listed = {entry.name for entry in report.account}  # these stand in the account below
    lines = [
        f'<li class="{_LOOKS[p.severity]}">{_at(p.line)}'
        f"{f'<b>{escape(one_line(p.where))}</b>: ' if p.where else ''}"
        f"{escape(one_line(p.message))}</li>"
        for p in report.problems
        if p.severity == "error" or p.where not in listed
    ]
    if len(lines) > _ROWS:
        lines[_ROWS:] = [f'<li class="is-warning">and {len(lines) - _ROWS} more</li>']
    for status, look, verb in _FATES:
        if kinds[status]:
            lines.append(f'<li class="{look}">{_plural(kinds[status], "tensor")} {verb}</li>')
    if report.account:
        need, memory = amount(report.disk_bytes), amount(report.memory_bytes)
        free = amount(free_bytes)
        lines.append(
            f'<li class="is-fine">Needs {need} of disk ({free} free) and {memory} of memory</li>'
        )
    if report.account and target:
        lines.append(f'<li class="is-fine">Goes to <code>{escape(one_line(target))}</code></li>')
    return f'<ul class="checks">{"".join(lines)}</ul>{account(report.account)}'


def account(entries: Sequence[Any]) -> str:
    """The tensors that are not simply merged, each with its reason, folded away."""
    remarks = [entry for entry in entries if entry.reason]
    if not remarks:
        return ""
    rows = "".join(
        f"<tr><td>{escape(one_line(e.name))}</td><td>{escape(e.status.replace('_', ' '))}</td>"
        f"<td>{escape(one_line(e.reason))}</td></tr>"
        for e in remarks[:_ROWS]
    )
    more = f"<p>and {len(remarks) - _ROWS} more</p>" if len(remarks) > _ROWS else ""
    return (
        f"<details class='account'><summary>{_plural(len(remarks), 'tensor')} with a remark"
        "</summary><div class='scroll'><table><thead><tr><th>Tensor</th><th>Fate</th>"
        f"<th>Reason</th></tr></thead><tbody>{rows}</tbody></table></div>{more}</details>"
    )


def interrupted(name: str) -> str:
    """What became of a merge whose server went away."""
    return (
        f"<p>The merge {escape(name)} was interrupted: the server stopped before it was over. "
        "Its recipe is back; Start makes it again.</p>"
    )


def elsewhere(name: str) -> str:
    """What a page is told of a merge that another one started."""
    return f"<p>{escape(name)} is being merged from another page. Yours would wait in line.</p>"


def status(job: Job | None, position: int) -> str:
    """One sentence for screen readers and eyes: it changes only when the state does."""
    if job is None:
        return ""
    title = escape(job.title)
    if job.state == "waiting" and position:
        return f"{title} waits: {_plural(position, 'merge')} before it."
    return {
        "waiting": f"{title} is about to start.",
        "running": f"Stopping {title}…" if job.cancel.is_set() else f"Merging {title}.",
        "done": f"{title} is ready, after {span(job.seconds)}.",
        "stopped": f"{title} was stopped. Nothing was left behind.",
        "failed": f"{title} failed: {escape(job.error)}",
    }[job.state]


def progress(job: Job | None) -> str:
    """The bar, the layers that went by, and the rate."""
    if job is None or job.state not in ("running", "waiting"):
        return ""
    at = job.progress
    done, total = (at.done, at.total) if at and at.total else (0, 0)
    share = min(1.0, done / total) if total else 0.0
    bar = (
        f'<div class="bar" role="progressbar" aria-label="Merge progress" aria-valuemin="0" '
        f'aria-valuemax="100" aria-valuenow="{share * 100:.0f}">'
        f'<span style="width:{share * 100:.1f}%"></span></div>'
    )
    if at is None:
        return bar
    if total and done >= total:  # what no count foresees: the disk takes its time
        return (
            f'{bar}<p class="facts">Bringing it to the disk · {span(job.seconds)}</p>{layers(job)}'
        )
    phase = _PHASES.get(at.phase, at.phase)
    facts = [escape(phase), f"{int(100 * share)}%", span(job.seconds)]
    if at.rate_bytes:
        facts.append(f"{amount(at.rate_bytes)}/s")
    if at.eta_s is not None and at.eta_s >= 1:
        facts.append(f"{span(at.eta_s)} to go")
    now = f'<p class="tensor">{escape(at.tensor)}</p>' if at.tensor else ""
    return f'{bar}<p class="facts">{" · ".join(facts)}</p>{layers(job)}{now}'


def layers(job: Job) -> str:
    """One cell per layer, filled once the layer went by."""
    if not job.details.layers:
        return ""
    current = job.progress.layer
    cells = "".join(
        f'<i class="{_cell(one, job.details.past, current)}" title="{escape(place_of(one))}"></i>'
        for one in job.details.layers
    )
    return f'<div class="layers" aria-hidden="true">{cells}</div>'


def _cell(layer: int | str, past: set[int | str], current: int | str | None) -> str:
    if layer == current:
        return "now"
    return "gone" if layer in past else ""


def result(job: Job, recipe: str) -> str:
    """The result: what made it, what it is, and where it is.

    Args:
        recipe: in words.
    """
    made = job.result
    counts = {"merged": 0, "copied": 0, "left_out": 0}
    for entry in made.account:
        counts[entry.status] += 1
    facts = {
        "Made by": escape(recipe),
        "Fingerprint": f"<code>{escape(made.fingerprint)}</code>",
        "Folder": f"<code>{escape(str(made.out))}</code>",
        "Time": f"{span(made.seconds)} on {escape(str(made.device))}",
        "Tensors": f"{counts['merged']} merged, {counts['copied']} copied, "
        f"{counts['left_out']} left out",
    }
    if made.notes:
        facts["Notes"] = "<br>".join(escape(one_line(note)) for note in made.notes)
    rows = "".join(f"<dt>{name}</dt><dd>{value}</dd>" for name, value in facts.items())
    return f'<dl class="facts-list">{rows}</dl>'


def loading_code(folder: str) -> str:
    """Three lines of Python that load a result, and a button that copies them."""
    code = escape(
        "from transformers import AutoModelForCausalLM, AutoTokenizer\n"
        f"model = AutoModelForCausalLM.from_pretrained({folder!r})\n"
        f"tokenizer = AutoTokenizer.from_pretrained({folder!r})"
    )
    return (
        '<div class="loading"><h3>Load it</h3>'
        f'<button type="button" data-copy="{code}" aria-label="Copy the code">Copy</button>'
        f'<pre tabindex="0" role="region" aria-label="Load it, in Python">{code}</pre></div>'
    )


def _plural(count: int, noun: str) -> str:
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"
