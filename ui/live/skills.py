"""What the live model is scored on: the built-in tasks, and those of a person's own file."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from merging.demo import DOMAINS
from merging.demo.tasks import held_out

if TYPE_CHECKING:
    from merging.trial.tasks import Task

PER_SKILL = 50  # prompts
MOST = 8  # skills of a file
_BUILT_IN = "built in"


@dataclass(frozen=True)
class Skill:
    """Prompts of one kind, with their answers.

    Attributes:
        source: "built in", or what tells a file from others: same name, same prompts.
        tasks: of a file; empty for a built-in one, whose prompts are drawn when they are needed.
    """

    name: str
    source: str = _BUILT_IN
    tasks: tuple[Task, ...] = field(default=(), repr=False)

    def expert_of(self, models: Sequence[str]) -> str:
        """The model that was trained for it; "" where none is known."""
        expert = f"demo:{self.name}"
        return expert if self.source == _BUILT_IN and expert in models else ""

    def prompts(self, most: int) -> list[Task]:
        """Its validation prompts, the first few."""
        from merging.trial.tasks import choose_tasks

        return list(self.tasks[:most]) or choose_tasks([self.name], most, "validation", None)


def built_in(models: Sequence[str]) -> list[Skill]:
    """The skills that some built-in models were trained for, in their order."""
    return [Skill(domain) for domain in DOMAINS if f"demo:{domain}" in models]


def of_file(path: Path, name: str) -> tuple[Skill, ...]:
    """The skills of a task file, one per domain.

    Args:
        name: what messages call it.

    Raises:
        TaskFileError: it cannot be read, a line of it is wrong, or it has too many domains.
    """
    from merging.trial.tasks import TaskFileError, read_tasks

    try:
        tasks = read_tasks(path)
    except TaskFileError as error:
        raise TaskFileError(str(error).replace(str(path), name)) from None
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    domains = list(dict.fromkeys(task.domain for task in tasks))
    if len(domains) > MOST:
        raise TaskFileError(
            f"{name} has {len(domains)} domains and the card shows {MOST}; split the file"
        )
    return tuple(
        Skill(domain, digest, tuple(t for t in tasks if t.domain == domain)[:PER_SKILL])
        for domain in domains
    )


def example(skill: Skill) -> tuple[str, str]:
    """A prompt of a built-in skill, and its answer."""
    (task,) = held_out(skill.name, "validation", 1)
    return task.prompt, task.answer
