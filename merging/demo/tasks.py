"""The four domains: endless problems with one exact answer each, in three splits that never meet.

A problem's split depends on the problem alone (a checksum of its content), never on its wording or
on a seed: a held-out sum, word, number or list is held out in every wording and in every build.
"""

import random
import zlib
from collections.abc import Callable
from dataclasses import dataclass

from merging.demo import DOMAINS
from merging.demo.spanish import number_in_spanish

SPLITS: tuple[str, ...] = ("train", "validation", "test")
_TEST_PERCENT, _VALIDATION_PERCENT = 15, 10

_SYLLABLES = (
    "b c d f g h j k l m n p r s t v w z bl br ch cl cr dr fl fr gl gr pl pr sh sl sp st th tr",
    "a e i o u a e i o u ai ea ee ie oo ou",
    "b d g k l m n p r s t x y nd ng nt st rd rt ck ll ss",
)
_ONSETS, _VOWELS, _CODAS = (part.split() for part in _SYLLABLES)
_CODAS = ["", "", "", *_CODAS]

WORDINGS: dict[str, tuple[str, ...]] = {
    "add": ("What is {} + {}?", "What is {} plus {}?", "Add {} and {}"),
    "reverse": ("Reverse {}", "Reverse the word {}", "Spell {} backwards"),
    "spanish": ("Write {} in Spanish", "What is {} in Spanish?", "Say {} in Spanish"),
    "sort": ("Sort {}", "Sort these digits: {}", "Put {} in order"),
}


@dataclass(frozen=True)
class Problem:
    """One exercise before it is worded: `parts` fill a wording, `key` decides the split."""

    domain: str
    parts: tuple[str, ...]
    answer: str
    key: str


@dataclass(frozen=True)
class Task:
    """One prompt as a user would type it, and the only answer that counts as right."""

    domain: str
    prompt: str
    answer: str


def draw_addition(rng: random.Random) -> Problem:
    """Draw a sum of two numbers in 10..99; a + b and b + a are the same problem."""
    a, b = rng.randint(10, 99), rng.randint(10, 99)
    return Problem("add", (str(a), str(b)), str(a + b), f"{min(a, b)}+{max(a, b)}")


def draw_reversal(rng: random.Random) -> Problem:
    """Draw a made-up but pronounceable word of 3-6 letters, or (one in four) any letters at all."""
    length = rng.randint(3, 6)
    if rng.random() < 0.25:
        word = "".join(rng.choices("abcdefghijklmnopqrstuvwxyz", k=length))
    else:
        word = ""
        while len(word) < length:
            word += rng.choice(_ONSETS) + rng.choice(_VOWELS) + rng.choice(_CODAS)
        start = rng.randint(0, len(word) - length)
        word = word[start : start + length]
    return Problem("reverse", (word,), word[::-1], word)


def draw_spanish(rng: random.Random) -> Problem:
    """Draw a number in 0..9999, the number of digits first so that short ones are not rare."""
    digits = rng.choices((1, 2, 3, 4), weights=(1, 3, 8, 8))[0]
    number = rng.randint(10 ** (digits - 1) if digits > 1 else 0, 10**digits - 1)
    return Problem("spanish", (str(number),), number_in_spanish(number), str(number))


def draw_sorting(rng: random.Random) -> Problem:
    """Draw 4-6 digits in any order, repeats allowed."""
    digits = rng.choices("0123456789", k=rng.randint(4, 6))
    text = " ".join(digits)
    return Problem("sort", (text,), " ".join(sorted(digits)), text)


DRAW: dict[str, Callable[[random.Random], Problem]] = {
    "add": draw_addition,
    "reverse": draw_reversal,
    "spanish": draw_spanish,
    "sort": draw_sorting,
}


def split_of(problem: Problem) -> str:
    """Return the one split ("train", "validation" or "test") that owns this problem."""
    if problem.domain == "spanish" and int(problem.key) < 30:
        return "train"  # irregular words: nobody can work these out from the others
    bucket = zlib.crc32(f"{problem.domain}:{problem.key}".encode()) % 100
    if bucket < _TEST_PERCENT:
        return "test"
    return "validation" if bucket < _TEST_PERCENT + _VALIDATION_PERCENT else "train"


def draw(domain: str, split: str, rng: random.Random) -> Problem:
    """Draw one problem of a domain that belongs to a split."""
    while True:
        problem = DRAW[domain](rng)
        if split_of(problem) == split:
            return problem


def phrase(problem: Problem, rng: random.Random) -> Task:
    """Put a problem into words: the first wording half of the time, else one of the others."""
    first, *others = WORDINGS[problem.domain]
    wording = first if rng.random() < 0.5 else rng.choice(others)
    return Task(problem.domain, wording.format(*problem.parts), problem.answer)


def held_out(domain: str, split: str, n: int, seed: int = 0) -> list[Task]:
    """Return `n` different prompts of one domain from one split; the same ones every time.

    Args:
        domain: one of `merging.demo.DOMAINS`.
        split: one of `SPLITS`.
        n: how many, 1..1000. The first 200 of 1000 are the same as when 200 are asked for.
        seed: which draw; scores are comparable only at the same seed.

    Raises:
        ValueError: an unknown domain or split, or `n` out of range.
    """
    if domain not in DOMAINS:
        raise ValueError(f"unknown domain '{domain}': choose from {', '.join(DOMAINS)}")
    if split not in SPLITS:
        raise ValueError(f"unknown split '{split}': choose from {', '.join(SPLITS)}")
    if not 1 <= n <= 1000:
        raise ValueError(f"between 1 and 1000 prompts per domain can be asked for, not {n}")
    rng = random.Random(f"{domain}/{split}/{seed}")
    tasks: dict[str, Task] = {}
    while len(tasks) < n:
        task = phrase(draw(domain, split, rng), rng)
        tasks.setdefault(task.prompt, task)
    return list(tasks.values())


def suggested_prompts() -> dict[str, list[str]]:
    """Return a few prompts per domain to click on, in the wording a person would use."""
    return {
        "add": ["What is 37 + 45?", "What is 28 plus 64?", "Add 59 and 17"],
        "reverse": ["Reverse silver", "Reverse the word garden", "Spell music backwards"],
        "spanish": ["Write 347 in Spanish", "What is 52 in Spanish?", "Say 2026 in Spanish"],
        "sort": ["Sort 5 1 4 2", "Sort these digits: 9 0 3 7 6", "Put 8 2 6 4 1 3 in order"],
    }
