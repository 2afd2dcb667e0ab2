"""What a page asks for, read from what its browser sends. Pure functions.

It comes from a browser's memory, where anything may stand: nothing is believed unseen.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

from merging.errors import MergeError
from merging.trial.turns import Message, Sampling

MOST_CHARACTERS = 8000  # of a question and of a system prompt
_MOST_MESSAGES = 1002  # the 500 questions that a browser keeps, and a system prompt
_MOST_TEXT = 400_000  # characters of a conversation
_MOST_NAME = 512  # characters of a model's id and of a run's


class Bound(NamedTuple):
    """Lowest and highest value of a setting, and the one it begins with."""

    least: float
    most: float
    first: float


BOUNDS = {
    "temperature": Bound(0, 2, 0),
    "top_p": Bound(0.05, 1, 1),
    "longest": Bound(1, 1024, 128),
    "seed": Bound(0, 2**31 - 1, 0),
}


class BadQuestion(MergeError):
    """What the page sent is no question."""


@dataclass(frozen=True)
class Question:
    """One answer that a page asks for.

    Attributes:
        run: the page's name for this answer.
        model: id of the model.
        messages: the conversation, the question last.
        wants_tokens: its tokens are told with their probabilities.
    """

    run: str
    model: str
    messages: tuple[Message, ...]
    sampling: Sampling
    wants_tokens: bool = False


def read(content: Any) -> Question:
    """Reads {"run", "model", "messages", "settings", "tokens"}. Raises BadQuestion."""
    if not isinstance(content, Mapping):
        raise BadQuestion("the page sent no question")
    run, model = (_text(content, key, _MOST_NAME) for key in ("run", "model"))
    messages, sampling = _messages(content.get("messages")), _sampling(content)
    return Question(run, model, messages, sampling, content.get("tokens") is True)


def run_of(content: Any) -> str:
    """The run that an event is about. Raises BadQuestion."""
    if not isinstance(content, Mapping):
        raise BadQuestion("the page named no answer")
    return _text(content, "run", _MOST_NAME)


def within(name: str, value: Any) -> float:
    """A setting within its bounds; the one it begins with where it is no number."""
    bound = BOUNDS[name]
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        return bound.first
    return min(bound.most, max(bound.least, value))


def _sampling(content: Mapping[str, Any]) -> Sampling:
    settings = content.get("settings")
    given = settings if isinstance(settings, Mapping) else {}
    values = {name: within(name, given.get(name)) for name in BOUNDS}
    return Sampling(
        int(values["longest"]), values["temperature"], values["top_p"], int(values["seed"])
    )


def _messages(content: Any) -> tuple[Message, ...]:
    """System (at most once, first), then user and assistant in turn, user last."""
    if not isinstance(content, list) or not 1 <= len(content) <= _MOST_MESSAGES:
        raise BadQuestion(f"a conversation has 1 to {_MOST_MESSAGES} messages")
    messages: list[Message] = []
    for one in content:
        if not isinstance(one, Mapping):
            raise BadQuestion("a message is no object")
        messages.append({key: _text(one, key, _MOST_TEXT) for key in ("role", "content")})
    if sum(len(message["content"]) for message in messages) > _MOST_TEXT:
        raise BadQuestion(f"the conversation has over {_MOST_TEXT:,} characters; clear it")
    roles = [message["role"] for message in messages]
    turns = roles[1:] if roles[0] == "system" else roles
    if turns != [("user", "assistant")[place % 2] for place in range(len(turns))] or (
        len(turns) % 2 == 0
    ):
        raise BadQuestion("questions and answers must take turns, a question last")
    if len(messages[-1]["content"]) > MOST_CHARACTERS:
        raise BadQuestion(f"a question has at most {MOST_CHARACTERS} characters")
    return tuple(messages)


def _text(content: Mapping[str, Any], key: str, most: int) -> str:
    value = content.get(key)
    if not isinstance(value, str) or len(value) > most:
        raise BadQuestion(f"{key}: not a text of at most {most:,} characters")
    return value
