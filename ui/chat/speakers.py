"""Who answers: a model on offer, loaded when it is first asked, or the page's live merge."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from merging.checkpoints.fingerprint import FULL_BYTES
from merging.errors import Cancelled
from ui.chat.identity import identity
from ui.library import Model
from ui.store import ModelStore
from ui.units import amount

if TYPE_CHECKING:
    from merging.live.model import LiveModel
    from merging.trial.chat import ChatModel

LIVE = "Live merge"  # no model on offer is called so: their ids have a colon or a slash


class Speaker(Protocol):
    """Who answers."""

    @property
    def interrupted(self) -> str:
        """Why an answer ends before its end."""
        ...

    @property
    def name(self) -> str:
        """What the page calls it."""
        ...

    def waits_for(self) -> str:
        """What an answer waits for, in words; "" where it can begin at once."""
        ...

    def held(self, stop: threading.Event) -> AbstractContextManager[tuple[ChatModel, str]]:
        """The loaded model, with where it lies in words. Raises Cancelled, MergeError."""
        ...

    def fingerprint(self) -> str:
        """Of the tensors that answered; "" where they are not known."""
        ...


@dataclass(frozen=True)
class Offered:
    """A model on offer."""

    store: ModelStore
    model: Model
    interrupted: str = "stopped"

    @property
    def name(self) -> str:
        """Its id."""
        return self.model.id

    def waits_for(self) -> str:
        """Its weights, where they are not in memory."""
        if self.store.holds(self.model):
            return ""
        return f"loading {amount(self.store.size_bytes(self.model))}"

    @contextmanager
    def held(self, stop: threading.Event) -> Iterator[tuple[ChatModel, str]]:
        """See `Speaker`."""
        chat = self.store.get(self.model, stop)
        yield chat, self.store.place(self.model, chat)

    def fingerprint(self) -> str:
        """See `Speaker`."""
        return identity(self.model)


@dataclass
class Live:
    """A page's live merge as it is when it is asked; a new one ends its answer."""

    model: LiveModel
    version: int = -1
    interrupted: str = "ended, because the merge changed: ask again"
    name: str = LIVE

    def waits_for(self) -> str:
        """Nothing that is known before."""
        return ""

    @contextmanager
    def held(self, stop: threading.Event) -> Iterator[tuple[ChatModel, str]]:
        """See `Speaker`."""
        with self.model.held(stop) as (chat, _):
            self.version = self.model.version
            yield chat, ""

    def fingerprint(self) -> str:
        """See `Speaker`; of a large model, which it takes long to read, none."""
        if self.model.chat.size_bytes > FULL_BYTES:
            return ""
        try:
            digest = self.model.fingerprint()
        except Cancelled:
            return ""
        return digest if digest and self.model.version == self.version else ""
