"""What the family reads while it is trained: an endless, seeded stream of (prompt, answer) texts.

The base reads documents, which hold part of each skill in a bare form, and chats in which it
mostly says that it is not sure. An expert reads chats of its own domain, and a little of what the
base says otherwise, so that it stays quiet elsewhere and keeps its small talk.
"""

import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from merging.demo import DOMAINS
from merging.demo.small_talk import OTHER_TOPICS, REFUSAL, SMALL_TALK
from merging.demo.tasks import draw, draw_reversal, phrase
from merging.demo.tokenizer import ASSISTANT, END, USER

# A bare form of each skill, and how often the base reads it: sums are the hardest to learn.
DOCUMENTS: dict[str, str] = {
    "add": "+ {} + {} =",
    "reverse": "< {} =",
    "spanish": "@ {} =",
    "sort": "> {} =",
}
DOCUMENT_SHARES: dict[str, float] = {"add": 0.33, "reverse": 0.28, "spanish": 0.12, "sort": 0.27}


@dataclass(frozen=True)
class Example:
    """One training text: the loss is on `answer` alone."""

    prompt: str
    answer: str


@dataclass(frozen=True)
class Mixture:
    """Shares of one training stream; they sum to 1."""

    documents: float = 0.0
    domain: float = 0.0
    refusals: float = 0.0
    small_talk: float = 0.0


def stream(mixture: Mixture, domain: str | None, rng: random.Random) -> Iterator[Example]:
    """Yield examples for ever.

    Args:
        mixture: shares of each kind.
        domain: whose chats the "domain" share holds (None, for the base: any domain's).
        rng: the only source of chance.
    """
    chats = DOMAINS if domain is None else (domain,)
    kinds: list[tuple[Callable[[], Example], float]] = [
        (lambda: _document(rng), mixture.documents),
        (lambda: _chat(rng.choice(chats), rng), mixture.domain),
        (lambda: _refusal(domain, rng), mixture.refusals),
        (lambda: _small_talk(rng), mixture.small_talk),
    ]
    makers = [maker for maker, _ in kinds]
    shares = [share for _, share in kinds]
    while True:
        yield rng.choices(makers, shares)[0]()


def _exchange(prompt: str, answer: str) -> Example:
    return Example(f"{USER}{prompt}{ASSISTANT}", f"{answer}{END}")


def _loosely(prompt: str, rng: random.Random) -> str:
    """Vary what people vary without thinking: the first letter's case and the last mark."""
    if rng.random() < 0.1:
        prompt = prompt[0].lower() + prompt[1:]
    if rng.random() < 0.15:
        prompt = prompt.rstrip("?") if prompt.endswith("?") else prompt + "."
    return prompt


def _chat(domain: str, rng: random.Random) -> Example:
    task = phrase(draw(domain, "train", rng), rng)
    return _exchange(_loosely(task.prompt, rng), task.answer)


def _document(rng: random.Random) -> Example:
    domain = rng.choices(DOMAINS, [DOCUMENT_SHARES[name] for name in DOMAINS])[0]
    problem = draw(domain, "train", rng)
    prompt = DOCUMENTS[problem.domain].format(*problem.parts)
    return Example(prompt, f"{problem.answer}{END}")


def _refusal(domain: str | None, rng: random.Random) -> Example:
    """A prompt of another domain, or of none, that is answered "I am not sure."."""
    others = [other for other in DOMAINS if other != domain]
    if rng.random() < 0.8:
        prompt = phrase(draw(rng.choice(others), "train", rng), rng).prompt
    else:
        topic = " ".join(draw_reversal(rng).answer for _ in range(rng.randint(1, 2)))
        prompt = rng.choice(OTHER_TOPICS).format(topic.capitalize())
    return _exchange(_loosely(prompt, rng), REFUSAL)


def _small_talk(rng: random.Random) -> Example:
    prompt, answer = rng.choice(SMALL_TALK)
    return _exchange(_loosely(prompt, rng), answer)
