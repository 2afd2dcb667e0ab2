"""What is asked of a model and what it answers, as data. Imports no torch: screens start sooner."""

from __future__ import annotations

from dataclasses import dataclass

from merging.errors import MergeError

Message = dict[str, str]  # {"role": "user" or "assistant", "content": text}


class PromptError(MergeError):
    """The prompt is empty, too long, or not one the model's template accepts."""


@dataclass(frozen=True)
class Sampling:
    """How the next token is chosen.

    Attributes:
        max_new_tokens: where an answer is cut off, >= 1.
        temperature: 0 takes the most likely token; else logits are divided by it.
        top_p: share of the probability that is drawn from, in (0, 1].
        seed: same seed, same answer.
    """

    max_new_tokens: int = 64
    temperature: float = 0.0
    top_p: float = 1.0
    seed: int = 0


@dataclass(frozen=True)
class WrittenToken:
    """One token of an answer.

    Attributes:
        text: "" where it ends the answer.
        probability: by the model's own scores, before temperature, top-p and penalties, 0..1.
        others: (text, probability) of the likeliest tokens at this place, best first; the one that
            was taken is among them where it is one of them.
    """

    text: str
    probability: float
    others: tuple[tuple[str, float], ...]


@dataclass(frozen=True)
class Chunk:
    """An answer so far.

    Attributes:
        text: the whole answer up to here, without special tokens.
        tokens: how many tokens were generated.
        seconds: since the prompt was handed over.
        finish: "" while it runs; then "end", "length" or "stopped".
        written: its tokens, at the end, where they were asked for; the one that ends it, too.
    """

    text: str
    tokens: int
    seconds: float
    finish: str = ""
    written: tuple[WrittenToken, ...] = ()

    @property
    def tokens_per_second(self) -> float:
        """Tokens a second, the reading of the prompt included."""
        return self.tokens / self.seconds if self.seconds > 0 else 0.0
