"""Measure models by their replies to held-out prompts, with 95 % intervals."""

from __future__ import annotations

import math
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from transformers import PreTrainedModel, PreTrainedTokenizerBase

from merging.errors import Cancelled
from merging.trial.decode import BATCH, greedy
from merging.trial.likelihood import Row, log_likelihoods
from merging.trial.loading import load
from merging.trial.model import Model
from merging.trial.tasks import Task, TaskFileError, choose_tasks, is_right
from merging.trial.tokenizer import Tokenizer
from merging.trial.turns import PromptError

Source = Path | str | Model | tuple[PreTrainedModel, PreTrainedTokenizerBase]
Progress = Callable[[str, float], None]
Score = dict[str, float]

LONGEST = 256  # tokens of a reply that is searched for its answer
_SPARE_TOKENS = 8  # beyond the longest answer: a longer reply is wrong, no need to read its end
_Z_95 = 1.959964


@dataclass(frozen=True)
class Limits:
    """How much is asked for at a time.

    Attributes:
        longest: tokens where a reply is cut off; None for the longest answer and a few, and for
            LONGEST where replies are searched.
        batch: prompts per forward pass at most.
        device: where models are loaded: "auto" (CUDA where present), "cpu", "cuda" or "mps".
    """

    longest: int | None = None
    batch: int = BATCH
    device: str = "auto"


def evaluate(
    models: Mapping[str, Source],
    *,
    domains: Sequence[str] | None = None,
    n: int | None = None,
    split: str = "test",
    tasks: Path | None = None,
    progress: Progress | None = None,
) -> dict[str, dict[str, dict[str, Score]]]:
    """Score each model on each domain.

    Args:
        models: name -> a checkpoint folder (or Hub id), or in memory a model, or a (model,
            tokenizer) pair.
        domains: which to measure; all by default.
        n: prompts per domain: 200 of the built-in ones, all of a task file, if None. Of a file, at
            most the first `n` of each domain.
        split: "test" to report, "validation" to choose by. A task file has no splits.
        tasks: a JSON-lines file, as `tasks.read_tasks` reads it, in place of the built-in tasks.
        progress: called with the model's name and the share of its work that is done, 0..1.

    Returns:
        {"scores": {model: {domain: {"score", "low", "high", "n"}}}}: the share of right replies,
        0..1, and its Wilson 95 % interval.

    Raises:
        TaskFileError: the task file cannot be read, or a line of it is wrong.
        ValueError: an unknown domain or split, or `n` out of range.
    """
    chosen = choose_tasks(domains, n, split, tasks)
    scores: dict[str, dict[str, Score]] = {name: {} for name in models}
    for name, domain, score in scored(models, chosen, progress=progress):
        scores[name][domain] = score
    return {"scores": scores}


def scored(
    models: Mapping[str, Source],
    tasks: Sequence[Task],
    limits: Limits | None = None,
    *,
    progress: Progress | None = None,
    placed: Callable[[Model], None] | None = None,
    cancel: threading.Event | None = None,
) -> Iterator[tuple[str, str, Score]]:
    """Yields (model, domain, score) as each is known; one model is in memory at a time.

    Every prompt of all domains is read before the first is answered.

    Args:
        models, progress: as `evaluate`.
        placed: called with each model once it is loaded.
        cancel: ends the work at the next token.

    Raises:
        PromptError: a model cannot read a prompt, or its answer does not fit behind it.
        BadCheckpoint, UnsafeFile, ModelNotFound: as `loading.load`.
        Cancelled: `cancel` was set.
    """
    limits = limits or Limits()
    for name, source in models.items():
        model = None
        model = _load(name, source, limits.device, cancel)
        if placed is not None:
            placed(model)
        _check_room(model, tasks)
        done = 0
        for domain in dict.fromkeys(task.domain for task in tasks):
            own = [task for task in tasks if task.domain == domain]
            tell = _Share(name, progress, cancel, done / len(tasks), len(own) / len(tasks))
            yield name, domain, _share(_judged(model, own, limits, tell))
            done += len(own)


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


def _load(name: str, source: Source, device: str, cancel: threading.Event | None) -> Model:
    if isinstance(source, Model):
        return source
    if isinstance(source, tuple):
        network, tokenizer = source
        return Model(network, Tokenizer(tokenizer, name), name)
    return load(Path(source), device=device, name=name, stop=cancel)


def _check_room(model: Model, tasks: Sequence[Task]) -> None:
    """Raises PromptError where a prompt and its answer do not fit the model's context."""
    prompts = model.read([[{"role": "user", "content": task.prompt}] for task in tasks])
    longest = [max((task.answer, *task.choices), key=len) for task in tasks]
    for task, prompt, answer in zip(tasks, prompts, model.language.ids(longest), strict=True):
        if len(prompt) + len(answer) > model.context:
            raise PromptError(
                f"{model.name}: a prompt of {task.domain} has {len(prompt)} tokens and its answer "
                f"{len(answer)}, the model reads and writes {model.context} together; shorten "
                f"the prompt '{task.prompt[:40]}'"
            )


@dataclass(frozen=True)
class _Share:
    """Tells how far a domain's share of a model's work is, and ends it where that is asked for."""

    name: str
    progress: Progress | None
    cancel: threading.Event | None
    before: float
    share: float

    def __call__(self, part: float) -> None:
        if self.cancel is not None and self.cancel.is_set():
            raise Cancelled("stopped")
        if self.progress is not None:
            self.progress(self.name, self.before + self.share * part)


def _judged(model: Model, tasks: Sequence[Task], limits: Limits, tell: _Share) -> list[bool]:
    """For each task, whether the model answers it."""
    asked = [task for task in tasks if task.scoring != "choice"]
    chosen = [task for task in tasks if task.scoring == "choice"]
    part = len(asked) / len(tasks)
    right = []
    if asked:
        replies = greedy(
            model,
            [task.prompt for task in asked],
            max_new_tokens=_longest(model, asked, limits),
            batch=limits.batch,
            progress=lambda done: tell(part * done),
        )
        right += [is_right(task, reply) for task, reply in zip(asked, replies, strict=True)]
    if chosen:
        right += _chosen(model, chosen, lambda done: tell(part + (1 - part) * done))
    return right


def _longest(model: Model, tasks: Sequence[Task], limits: Limits) -> int:
    """Tokens where the replies to tasks are cut off."""
    if limits.longest is not None:
        return limits.longest
    answers = max(len(ids) for ids in model.language.ids([task.answer for task in tasks]))
    searched = any(task.scoring != "exact" for task in tasks)
    return max(answers + _SPARE_TOKENS, LONGEST if searched else 0)


def _chosen(model: Model, tasks: Sequence[Task], tell: Callable[[float], None]) -> list[bool]:
    """For each task, whether its answer is the likeliest of its choices."""
    prompts = model.read([[{"role": "user", "content": task.prompt}] for task in tasks])
    end = [model.language.end] if model.language.has_template and model.language.end else []
    rows: list[Row] = []
    for task, prompt in zip(tasks, prompts, strict=True):
        rows += [(prompt, [*ids, *end]) for ids in model.answers(task.choices)]
    count = 0

    def advance(more: int) -> None:
        nonlocal count
        count += more
        tell(count / len(rows))

    likelihoods = iter(log_likelihoods(model, rows, advance))
    right = []
    for task in tasks:
        scores = [next(likelihoods) for _ in task.choices]
        right.append(task.choices[scores.index(max(scores))] == task.answer)
    return right


def _share(matches: Sequence[bool]) -> Score:
    right, n = sum(matches), len(matches)
    low, high = wilson(right, n)
    return {"score": right / n, "low": low, "high": high, "n": n}


__all__ = ["Limits", "TaskFileError", "choose_tasks", "evaluate", "scored", "wilson"]
