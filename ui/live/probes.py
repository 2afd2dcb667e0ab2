"""What the live model is asked: prompts pinned by a person, and the skills of built-in models."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from merging.demo import DOMAINS
from merging.demo.tasks import held_out

MOST = 6  # prompts
LONGEST = 500  # characters of a prompt
PER_SKILL = 50  # validation prompts
_BEFORE_ANSWER = "=>"


@dataclass(frozen=True)
class Probe:
    """A prompt, and its right answer; None where none is known."""

    prompt: str
    answer: str | None = None

    def verdict(self, reply: str) -> bool | None:
        """True where a reply is right; None where that is not known."""
        return None if self.answer is None else reply.strip() == self.answer


def skills(models: Sequence[str]) -> list[str]:
    """The skills that some built-in models were trained for, in their order."""
    return [domain for domain in DOMAINS if f"demo:{domain}" in models]


def first_probes(models: Sequence[str]) -> str:
    """A prompt per skill with its answer, as text; a greeting where the models have none."""
    tasks = [held_out(domain, "validation", 1)[0] for domain in skills(models)]
    lines = [f"{task.prompt} {_BEFORE_ANSWER} {task.answer}" for task in tasks]
    return "\n".join(lines) or "Hello! Who are you?"


def read(text: str) -> list[Probe]:
    """The probes of a text, the first few."""
    probes = []
    for line in (text or "").splitlines():
        prompt, parted, answer = line.partition(_BEFORE_ANSWER)
        if prompt.strip():
            right = answer.strip() if parted and answer.strip() else None
            probes.append(Probe(prompt.strip()[:LONGEST], right))
    return probes[:MOST]
