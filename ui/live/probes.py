"""What the live model is asked: prompts pinned by a person, and the skills of built-in models."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from merging.demo.tasks import WORDINGS
from ui.live import skills

MOST = 8  # prompts
LONGEST = 500  # characters of a prompt
_BEFORE_ANSWER = "=>"


@dataclass(frozen=True)
class Probe:
    """A prompt, and its right answer; None where none is known.

    Attributes:
        is_pinned: False for a question that was only asked.
    """

    prompt: str
    answer: str | None = None
    is_pinned: bool = True

    def verdict(self, reply: str) -> bool | None:
        """True where a reply is right; None where that is not known."""
        return None if self.answer is None else reply.strip() == self.answer

    def expert_of(self, models: Sequence[str]) -> str:
        """The built-in model that was trained on prompts worded like it; "" where none was."""
        for domain, wordings in WORDINGS.items():
            for wording in wordings:
                worded = re.escape(wording).replace(r"\{\}", ".{1,40}")
                if f"demo:{domain}" in models and re.fullmatch(worded, self.prompt):
                    return f"demo:{domain}"
        return ""


def first_probes(models: Sequence[str]) -> str:
    """A prompt per skill with its answer, as text; a greeting where the models have none."""
    examples = map(skills.example, skills.built_in(models))
    lines = [f"{prompt} {_BEFORE_ANSWER} {answer}" for prompt, answer in examples]
    return "\n".join(lines) or "Hello! Who are you?"


def read(text: str) -> list[Probe]:
    """The probes of a text, the first few, each once."""
    probes: dict[str, Probe] = {}
    for line in (text or "").splitlines():
        prompt, parted, answer = line.partition(_BEFORE_ANSWER)
        if prompt.strip():
            right = answer.strip() if parted and answer.strip() else None
            probe = Probe(prompt.strip()[:LONGEST], right)
            probes.setdefault(probe.prompt, probe)
    return list(probes.values())[:MOST]


def with_asked(text: str, asked: str) -> list[Probe]:
    """The probes of a text, and a question that was asked besides."""
    pinned = read(text)
    question = read(" ".join((asked or "").split()))
    extra = [Probe(one.prompt, one.answer, is_pinned=False) for one in question]
    return [*pinned, *(one for one in extra if one.prompt not in {p.prompt for p in pinned})]


def pinned(text: str, line: str) -> str:
    """The text with a line more, unless it is full."""
    probes = read(text)
    return written([*probes, *read(line)]) if len(probes) < MOST else text


def unpinned(text: str, prompt: str) -> str:
    """The text without a prompt."""
    return written([probe for probe in read(text) if probe.prompt != prompt])


def written(probes: Sequence[Probe]) -> str:
    """Probes as text."""
    answers = (f" {_BEFORE_ANSWER} {probe.answer}" if probe.answer else "" for probe in probes)
    return "\n".join(
        f"{probe.prompt}{answer}" for probe, answer in zip(probes, answers, strict=True)
    )
