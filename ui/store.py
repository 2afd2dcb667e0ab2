"""Loaded chat models: each once in the process, least recently used out first, within a budget."""

from __future__ import annotations

import threading
from collections import OrderedDict
from typing import TYPE_CHECKING

from merging.checkpoints import open_checkpoint
from merging.errors import MergeError, NotEnoughSpace
from ui.library import Model, stamp

if TYPE_CHECKING:
    from merging.trial.chat import ChatModel


class ModelStore:
    """Loads models when they are first asked for. Safe to share between threads."""

    def __init__(self, budget_bytes: int, device: str = "auto") -> None:
        self._budget = budget_bytes
        self._device = device
        self._loaded: OrderedDict[tuple, ChatModel] = OrderedDict()
        self._lock = threading.Lock()
        self._loading = threading.Lock()  # loading changes torch's defaults: one at a time

    def holds(self, model: Model) -> bool:
        """True where `get` returns at once."""
        return _key(model) in self._loaded

    def size_bytes(self, model: Model) -> int:
        """Bytes of a model's weights on disk. Raises what `open_checkpoint` raises."""
        return open_checkpoint(model.folder, model.id).size_bytes

    def get(self, model: Model) -> ChatModel:
        """The loaded model. Its weights are only read, so many streams may share it.

        Raises:
            NotEnoughSpace: it is larger than the whole budget.
            MergeError: it cannot be loaded.
        """
        key = _key(model)
        if (known := self._known(key)) is not None:
            return known  # without waiting for a model that is being loaded
        with self._loading:
            if (known := self._known(key)) is not None:
                return known
            need = self.size_bytes(model)
            if need > self._budget:
                raise NotEnoughSpace(
                    f"{model.id} needs {need / 2**30:.1f} GiB, chat models may hold "
                    f"{self._budget / 2**30:.1f} GiB; start with a larger --chat-gib"
                )
            self._make_room(need)

            chat = _loader().load(model.folder, self._device)
            with self._lock:
                self._loaded[key] = chat
            return chat

    def _known(self, key: tuple) -> ChatModel | None:
        with self._lock:
            if key in self._loaded:
                self._loaded.move_to_end(key)
            return self._loaded.get(key)

    def warm(self, models: list[Model]) -> None:
        """Loads models in the background; errors wait until somebody asks for the model.

        Without any, what loading needs is imported, so that the first question waits for less.
        """
        threading.Thread(target=self._warm, args=(models,), name="warm", daemon=True).start()

    def _warm(self, models: list[Model]) -> None:
        _loader()
        for model in models:
            try:
                self.get(model)
            except MergeError:
                continue

    def _make_room(self, need: int) -> None:
        with self._lock:
            held = sum(chat.size_bytes for chat in self._loaded.values())
            while self._loaded and held + need > self._budget:
                held -= self._loaded.popitem(last=False)[1].size_bytes


def _loader() -> type[ChatModel]:
    """The class that loads models. Its import brings torch and transformers: seconds."""
    from transformers.utils.logging import disable_progress_bar

    from merging.trial.chat import ChatModel

    disable_progress_bar()
    return ChatModel


def _key(model: Model) -> tuple:
    return (model.id, stamp(model.folder))
