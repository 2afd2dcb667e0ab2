"""An answer as it is written: loading, tokens, what stands beneath it, and faults in words."""

from __future__ import annotations

import logging
import secrets
import threading
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from typing import Any

from merging.errors import Cancelled, MergeError
from ui.aside import aside
from ui.chat import view
from ui.chat.questions import Question
from ui.chat.speakers import Speaker

log = logging.getLogger(__name__)

_EVERY_S = 0.1  # at most ten updates a second and answer
_ALTERNATIVES = 5  # likeliest tokens that are told


@dataclass
class Answer:
    """One answer so far, as the page gets it.

    Attributes:
        run: the page's name for it.
        note: what stands beneath it ("7 tokens, 0.04 s").
        state: "waiting", "running", "over" or "failed".
        rate: tokens a second, in words.
        finish: "" while it runs; then "end", "length" or "stopped".
        fingerprint: of the tensors that answered, at the end.
        written: its tokens, as `WrittenToken`, at the end and where they were asked for.
    """

    run: str
    text: str = ""
    note: str = ""
    state: str = "waiting"
    rate: str = ""
    tokens: int = 0
    seconds: float = 0.0
    finish: str = ""
    fingerprint: str = ""
    written: list[dict[str, Any]] = field(default_factory=list)

    def drawn(self) -> dict[str, Any]:
        """Plain values."""
        return asdict(self)

    def fail(self, reason: str) -> None:
        """It ends with a reason."""
        self.state, self.note, self.rate = "failed", reason, ""


def written(
    speaker: Speaker, question: Question, stop: threading.Event
) -> Iterator[dict[str, Any]]:
    """Yields an answer as it grows, as `Answer.drawn`; faults end it in words."""
    answer = Answer(question.run)
    try:
        for _ in _grown(speaker, question, stop, answer):
            yield answer.drawn()
    except Cancelled:
        answer.state, answer.note, answer.finish = "over", speaker.interrupted, "stopped"
    except MergeError as error:
        answer.fail(str(error))
    except Exception:
        mark = secrets.token_hex(4)
        log.exception("chat with %s failed (%s)", speaker.name, mark)
        answer.fail(f"Something went wrong on our side (log id {mark}).")
    yield answer.drawn()


def _grown(
    speaker: Speaker, question: Question, stop: threading.Event, answer: Answer
) -> Iterator[None]:
    if stop.is_set():
        raise Cancelled("stopped before it began")
    if waits_for := speaker.waits_for():
        answer.note = waits_for
        yield
    with speaker.held(stop) as (chat, place):
        answer.state, answer.note = "running", " · ".join(filter(None, ["thinking", place]))
        yield
        chunks = chat.stream(
            list(question.messages),
            question.sampling,
            stop=stop,
            every_s=_EVERY_S,
            alternatives=_ALTERNATIVES if question.wants_tokens else 0,
        )
        for chunk in aside(chunks):
            answer.text, answer.tokens, answer.seconds = chunk.text, chunk.tokens, chunk.seconds
            answer.rate = f"{chunk.tokens_per_second:.0f} tokens/s" if chunk.tokens else ""
            answer.note = f"{chunk.tokens} tokens"
            if not chunk.finish:
                yield
    answer.written = [asdict(token) for token in chunk.written]
    answer.fingerprint = speaker.fingerprint()
    answer.state, answer.finish = "over", chunk.finish
    note = view.note(chunk, chat.has_template, speaker.interrupted)
    answer.note = " · ".join(filter(None, [note, place]))
