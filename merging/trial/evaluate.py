"""Measure models by exact match: greedy answers to held-out prompts, with 95 % intervals."""

import json
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path

from transformers import PreTrainedModel, PreTrainedTokenizerBase

from merging.demo import DOMAINS
from merging.demo.tasks import Task, held_out
from merging.errors import MergeError
from merging.trial.decode import greedy
from merging.trial.loading import load
from merging.trial.model import Model
from merging.trial.tokenizer import Tokenizer

Source = Path | str | tuple[PreTrainedModel, PreTrainedTokenizerBase]
Progress = Callable[[str, float], None]

MOST_PROMPTS = 1000
_SPARE_TOKENS = 8  # beyond the longest answer: a longer reply is wrong, no need to read its end
_Z_95 = 1.959964


class TaskFileError(MergeError):
    """A file of the user's own tasks cannot be used; the message names the file and the line."""


def evaluate(
    models: Mapping[str, Source],
    *,
    domains: Sequence[str] | None = None,
    n: int | None = None,
    split: str = "test",
    tasks: Path | None = None,
    progress: Progress | None = None,
) -> dict[str, dict[str, dict[str, dict[str, float]]]]:
    """Score each model on each domain.

    Args:
        models: name -> a checkpoint folder (or Hub id), or a (model, tokenizer) pair in memory.
        domains: which to measure; all by default.
        n: prompts per domain: 200 of the built-in ones, all of a task file, if None. Of a file, at
            most the first `n` of each domain.
        split: "test" to report, "validation" to choose by. A task file has no splits.
        tasks: a JSON-lines file of {"domain", "prompt", "answer"} in place of the built-in tasks.
        progress: called with the model's name and the share of its prompts answered, 0..1.

    Returns:
        {"scores": {model: {domain: {"score", "low", "high", "n"}}}}: the share of answers that
        match exactly once stripped, 0..1, and its Wilson 95 % interval.

    Raises:
        TaskFileError: the task file cannot be read, or a line of it is wrong.
        ValueError: an unknown domain or split, or `n` out of range.
    """
    chosen = choose_tasks(domains, n, split, tasks)
    scores = {}
    for name, source in models.items():
        model = None  # one model in memory at a time
        model = _load(name, source)
        scores[name] = _score(model, chosen, _scaled(progress, name, len(chosen)))
    return {"scores": scores}


def wilson(right: int, n: int) -> tuple[float, float]:
    """Return the Wilson 95 % interval of a share, e.g. 0 of 10 -> (0.0, 0.278).

    Raises:
        ValueError: `n` is not positive or `right` is not within 0..n.
    """
    if n <= 0 or not 0 <= right <= n:
        raise ValueError(f"{right} right answers of {n} is not a share")
    share = right / n
    spread = _Z_95 * math.sqrt(share * (1 - share) / n + _Z_95**2 / (4 * n * n))
    centre, scale = share + _Z_95**2 / (2 * n), 1 + _Z_95**2 / n
    low = 0.0 if right == 0 else (centre - spread) / scale
    high = 1.0 if right == n else (centre + spread) / scale
    return low, high


def read_tasks(path: Path) -> list[Task]:
    """Read a user's tasks: one JSON object per line with "domain", "prompt" and "answer".

    Blank lines are passed over.

    Raises:
        TaskFileError: no such file, no task in it, or a wrong line.
    """
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise TaskFileError(f"the task file {path} cannot be read: {error}") from error
    numbered = [(number, line) for number, line in enumerate(lines, start=1) if line.strip()]
    if not numbered:
        raise TaskFileError(f"the task file {path} holds no task")
    return [_read_line(path, number, line) for number, line in numbered]


def _read_line(path: Path, number: int, line: str) -> Task:
    try:
        entry = json.loads(line)
    except json.JSONDecodeError as error:
        raise TaskFileError(f"{path}, line {number}: not valid JSON ({error.msg})") from error
    if not isinstance(entry, dict):
        raise TaskFileError(
            f'{path}, line {number}: expected an object with "domain", "prompt" and "answer", '
            f"not {type(entry).__name__}"
        )
    wanted = ("domain", "prompt", "answer")
    for key in wanted:
        if key not in entry:
            raise TaskFileError(f'{path}, line {number}: "{key}" is missing')
        if not isinstance(entry[key], str) or not entry[key].strip():
            raise TaskFileError(f'{path}, line {number}: "{key}" must be a text that is not empty')
    for key in entry:
        if key not in wanted:
            raise TaskFileError(f'{path}, line {number}: unknown key "{key}"')
    return Task(**entry)


def choose_tasks(
    domains: Sequence[str] | None, n: int | None, split: str, path: Path | None
) -> list[Task]:
    """Returns up to `n` tasks of each domain: built-in ones of a split, or those of a file. None:
    as `evaluate`."""
    if path is None:
        n = 200 if n is None else n
        if not 1 <= n <= MOST_PROMPTS:
            raise TaskFileError(f"1 to {MOST_PROMPTS} built-in prompts can be asked for, not {n}")
        return [task for domain in domains or DOMAINS for task in held_out(domain, split, n)]
    if n is not None and n < 1:
        raise ValueError(f"at least 1 prompt per domain is needed, not {n}")
    by_domain: dict[str, list[Task]] = {}
    for task in read_tasks(path):
        by_domain.setdefault(task.domain, []).append(task)
    for domain in domains or ():
        if domain not in by_domain:
            raise ValueError(f"{path} has no domain '{domain}': it has {', '.join(by_domain)}")
    return [task for domain in domains or by_domain for task in by_domain[domain][:n]]


def _load(name: str, source: Source) -> Model:
    if isinstance(source, tuple):
        network, tokenizer = source
        return Model(network, Tokenizer(tokenizer, name), name)
    return load(Path(source), name=name)


def _scaled(progress: Progress | None, name: str, total: int) -> Callable[[int], None] | None:
    if progress is None:
        return None
    done = 0

    def advance(count: int) -> None:
        nonlocal done
        done += count
        progress(name, done / total)

    return advance


def _score(
    model: Model,
    tasks: Sequence[Task],
    progress: Callable[[int], None] | None,
) -> dict[str, dict[str, float]]:
    scores = {}
    for domain in dict.fromkeys(task.domain for task in tasks):
        own = [task for task in tasks if task.domain == domain]
        answers = [task.answer for task in own]
        longest = max(len(ids) for ids in model.language.ids(answers))
        replies = greedy(
            model,
            [task.prompt for task in own],
            max_new_tokens=longest + _SPARE_TOKENS,
            progress=progress,
        )
        scores[domain] = _share(_matches(replies, answers))
    return scores


def _matches(replies: Iterable[str], answers: Iterable[str]) -> list[bool]:
    return [r.strip() == a.strip() for r, a in zip(replies, answers, strict=True)]


def _share(matches: Sequence[bool]) -> dict[str, float]:
    right, n = sum(matches), len(matches)
    low, high = wilson(right, n)
    return {"score": right / n, "low": low, "high": high, "n": n}
