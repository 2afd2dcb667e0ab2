"""Conversations: per visitor and model, kept in memory until the visitor leaves."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

_VISITORS = 256


@dataclass
class Turn:
    """One question and its answer so far.

    Attributes:
        mark: the same for all models that were asked together.
        note: what stands beneath the answer ("7 tokens, 0.04 s").
        state: "waiting", "running", "over" or "failed".
    """

    question: str
    mark: str = ""
    answer: str = ""
    note: str = ""
    state: str = "waiting"


@dataclass
class Talk:
    """One visitor's conversation with one model."""

    turns: list[Turn] = field(default_factory=list)
    stop: threading.Event = field(default_factory=threading.Event)

    def ask(self, question: str, mark: str = "") -> Turn:
        """Begins a turn; an answer that is still being written is stopped."""
        self.halt()
        self.stop = threading.Event()
        turn = Turn(question, mark)
        self.turns.append(turn)
        return turn

    def halt(self) -> None:
        """Stops the answer that is being written, if any."""
        self.stop.set()
        for turn in self.turns:
            if turn.state in ("waiting", "running"):
                turn.state, turn.note = "over", "stopped"

    def messages(self, turn: Turn) -> list[dict[str, str]]:
        """The conversation up to a turn's question, as chat templates read it."""
        messages = []
        for other in self.turns:
            messages.append({"role": "user", "content": other.question})
            if other is turn:
                break
            if other.state == "over" and other.answer:
                messages.append({"role": "assistant", "content": other.answer})
            else:
                messages.pop()  # a question without an answer would break the order of roles
        return messages

    def drawn(self) -> list[dict[str, Any]]:
        """The turns as plain values for the page."""
        return [dict(vars(turn)) for turn in self.turns]


class Talks:
    """Every visitor's conversations. Safe to share between threads."""

    def __init__(self) -> None:
        self._talks: OrderedDict[str, dict[str, Talk]] = OrderedDict()
        self._columns: dict[str, tuple[str, ...]] = {}
        self._lock = threading.Lock()

    def get(self, visitor: str, model_id: str) -> Talk:
        """A visitor's conversation with a model; a new one if there is none."""
        with self._lock:
            own = self._talks.setdefault(visitor, {})
            self._talks.move_to_end(visitor)
            while len(self._talks) > _VISITORS:
                oldest, talks = self._talks.popitem(last=False)
                _halt_all(talks)
                self._columns.pop(oldest, None)
            return own.setdefault(model_id, Talk())

    def arrange(self, visitor: str, models: Sequence[str], columns: int) -> tuple[str, ...]:
        """Puts each model into a column: where it stood, else into a free one, in order.

        Args:
            models: at most `columns` of them.

        Returns:
            The model of each column, "" where it is free. Answers of models that left are stopped.
        """
        with self._lock:
            before = self._columns.get(visitor, ("",) * columns)
            placed = [model if model in models else "" for model in before]
            new = iter([model for model in models if model not in placed])
            placed = [model or next(new, "") for model in placed]
            self._columns[visitor] = tuple(placed)
            own = self._talks.get(visitor, {})
            for model_id in before:
                if model_id in own and model_id not in placed:
                    own[model_id].halt()
            return tuple(placed)

    def column(self, visitor: str, number: int) -> str:
        """The model that stands in a column; "" if none does."""
        return "".join(self._columns.get(visitor, ())[number : number + 1])

    def clear(self, visitor: str) -> None:
        """Stops and drops a visitor's conversations; the columns stay as they are."""
        with self._lock:
            _halt_all(self._talks.pop(visitor, {}))

    def forget(self, visitor: str) -> None:
        """Stops and drops all conversations of a visitor."""
        with self._lock:
            _halt_all(self._talks.pop(visitor, {}))
            self._columns.pop(visitor, None)


def _halt_all(talks: dict[str, Talk]) -> None:
    for talk in talks.values():
        talk.halt()
