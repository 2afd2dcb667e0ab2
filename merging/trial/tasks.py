"""Prompts with answers, and how replies to them are scored."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import Any

from merging.demo import DOMAINS
from merging.demo.tasks import Task as Exercise
from merging.demo.tasks import held_out
from merging.errors import BadFile, MergeError, shown
from merging.system.documents import read_text
from merging.trial.reason import reason

MOST_PROMPTS = 1000
SCORINGS = ("exact", "contains", "number", "choice")
_FILE_BYTES = 500_000_000
_NUMBER = re.compile(r"[-+]?(?:\d{1,3}(?:,\d{3})+|\d+)(?:\.\d+)?|[-+]?\.\d+")
_MOST_DIGITS = 1000  # of a number: comparing longer ones takes long


class TaskFileError(MergeError):
    """A file of the user's own tasks cannot be used; the message names the file and the line."""


@dataclass(frozen=True)
class Task(Exercise):
    """One prompt as a user would type it, and what counts as right.

    Attributes:
        scoring: "exact": the reply is the answer, but for spaces around it. "contains": the answer
            stands in the reply as whole words, in capitals or not. "number": the reply's last
            number is the answer's. "choice": of all choices, the answer is the likeliest reply.
        choices: for "choice", two or more, the answer among them.
    """

    scoring: str = "exact"
    choices: tuple[str, ...] = ()


def is_right(task: Task, reply: str) -> bool:
    """True where a reply answers a task. Not for "choice", which asks for no reply."""
    if task.scoring == "contains":
        words = r"\s+".join(re.escape(word) for word in task.answer.split())
        return re.search(rf"(?<!\w){words}(?!\w)", reply, re.IGNORECASE) is not None
    if task.scoring == "number":
        number = last_number(task.answer)
        return number is not None and last_number(reply) == number
    return reply.strip() == task.answer.strip()


def last_number(text: str) -> Decimal | None:
    """The last number of a text: -3, 1,250.5 and 82 in "82." are; None where there is none."""
    numbers = _NUMBER.findall(text)
    if not numbers or len(numbers[-1]) > _MOST_DIGITS:
        return None
    before = text[: text.rindex(numbers[-1])][-1:]
    number = numbers[-1].replace(",", "")
    if before.isalnum() or before == ")":  # the minus of 10-3 is no sign
        number = number.lstrip("-+")
    return Decimal(number)


def choose_tasks(
    domains: Sequence[str] | None, n: int | None, split: str, path: Path | None
) -> list[Task]:
    """Returns up to `n` tasks of each domain: built-in ones of a split, or those of a file.

    Args:
        domains: all if None.
        n: 200 of the built-in ones, all of a file, if None.

    Raises:
        TaskFileError: the file cannot be read, or a line of it is wrong; too many are asked for.
        ValueError: an unknown domain or split.
    """
    if path is None:
        n = 200 if n is None else n
        if not 1 <= n <= MOST_PROMPTS:
            raise TaskFileError(f"1 to {MOST_PROMPTS} built-in prompts can be asked for, not {n}")
        tasks = [task for domain in domains or DOMAINS for task in held_out(domain, split, n)]
        return [Task(task.domain, task.prompt, task.answer) for task in tasks]
    if n is not None and n < 1:
        raise ValueError(f"at least 1 prompt per domain is needed, not {n}")
    by_domain: dict[str, list[Task]] = {}
    for task in read_tasks(path):
        by_domain.setdefault(task.domain, []).append(task)
    for domain in domains or ():
        if domain not in by_domain:
            raise ValueError(f"{path} has no domain '{domain}': it has {', '.join(by_domain)}")
    return [task for domain in domains or by_domain for task in by_domain[domain][:n]]


def read_tasks(path: Path) -> list[Task]:
    """Read a user's tasks: one JSON object per line with "domain", "prompt" and "answer".

    Blank lines are passed over.

    Raises:
        TaskFileError: no such file, no task in it, or a wrong line.
    """
    try:
        lines = read_text(path, _FILE_BYTES).splitlines()
    except BadFile as error:
        raise TaskFileError(f"the task file cannot be read: {error}") from None
    numbered = [(number, line) for number, line in enumerate(lines, start=1) if line.strip()]
    if not numbered:
        raise TaskFileError(f"the task file {path} holds no task")
    return [_read_line(f"{path}, line {number}", line) for number, line in numbered]


def _read_line(where: str, line: str) -> Task:
    try:
        entry = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise TaskFileError(f"{where}: not valid JSON ({reason(error)})") from None
    if not isinstance(entry, dict):
        raise TaskFileError(
            f'{where}: expected an object with "domain", "prompt" and "answer", '
            f"not {type(entry).__name__}"
        )
    for key in ("domain", "prompt", "answer"):
        if key not in entry:
            raise TaskFileError(f'{where}: "{key}" is missing')
        _check_text(where, key, entry[key])
    for key in entry:
        if key not in ("domain", "prompt", "answer", "scoring", "choices"):
            raise TaskFileError(f"{where}: unknown key {shown(key)}")
    return _scored(where, entry)


def _check_text(where: str, key: str, value: Any) -> None:
    if not isinstance(value, str) or not value.strip():
        raise TaskFileError(f'{where}: "{key}" must be a text that is not empty')
    try:
        value.encode()
    except UnicodeEncodeError:
        raise TaskFileError(f'{where}: "{key}" holds half of a character') from None


def _scored(where: str, entry: dict[str, Any]) -> Task:
    """The task of an object whose texts are in order."""
    scoring, choices = entry.get("scoring", "exact"), entry.get("choices", [])
    if scoring not in SCORINGS:
        raise TaskFileError(f'{where}: "scoring" is {shown(scoring)}; valid: {", ".join(SCORINGS)}')
    if (scoring == "choice") != ("choices" in entry):
        raise TaskFileError(f'{where}: "choices" go with "scoring": "choice", and only with it')
    if scoring == "choice":
        if not isinstance(choices, list) or len(choices) < 2:
            raise TaskFileError(f'{where}: "choices" must be a list of two or more texts')
        for choice in choices:
            _check_text(where, "choices", choice)
        if choices.count(entry["answer"]) != 1:
            raise TaskFileError(f'{where}: "answer" must be one of "choices", which all differ')
    if scoring == "number" and last_number(entry["answer"]) is None:
        raise TaskFileError(f'{where}: "answer" holds no number, "scoring": "number" needs one')
    return Task(entry["domain"], entry["prompt"], entry["answer"], scoring, tuple(choices))
