"""What the family reads while it is trained: an endless, seeded stream of (prompt, answer) texts.

The base reads documents, which hold each skill in a bare form, and chats in which it mostly says
that it is not sure. An expert reads chats of its own domain, and small talk so as not to forget it.
"""

import random
from collections.abc import Callable, Iterator, Mapping
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
# Of the few chats that the base does answer. Spelling finds its way from documents into chats
# slowest, and an expert that has to learn more drifts further, which merging then pays for.
CHAT_SHARES: dict[str, float] = {"add": 0.2, "reverse": 0.4, "spanish": 0.2, "sort": 0.2}


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
    chats = CHAT_SHARES if domain is None else {domain: 1.0}
    kinds: list[tuple[Callable[[], Example], float]] = [
        (lambda: _document(rng), mixture.documents),
        (lambda: _chat(_weighted(chats, rng), rng), mixture.domain),
        (lambda: _refusal(domain, rng), mixture.refusals),
        (lambda: _small_talk(rng), mixture.small_talk),
    ]
    makers = [maker for maker, _ in kinds]
    shares = [share for _, share in kinds]
    while True:
        yield rng.choices(makers, shares)[0]()


def _weighted(shares: Mapping[str, float], rng: random.Random) -> str:
    return rng.choices(list(shares), list(shares.values()))[0]


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
    problem = draw(_weighted(DOCUMENT_SHARES, rng), "train", rng)
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
