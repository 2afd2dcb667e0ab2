"""Loaded chat models: each once in the process, within a budget that live models share."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import Future, wait
from typing import TYPE_CHECKING

from merging.checkpoints import open_checkpoint
from merging.errors import Cancelled, MergeError, NotEnoughSpace
from ui.aside import let_others_first
from ui.library import Model, stamp
from ui.room import Room
from ui.units import amount

if TYPE_CHECKING:
    from merging.trial.chat import ChatModel

_LOOK_S = 0.05  # between two looks at whether a model is still wanted
_IMPORTING = threading.Lock()  # transformers' lazy modules break where two threads import them


class ModelStore:
    """Loads models when they are first asked for. Safe to share between threads.

    Every model is loaded by a thread of its own, so that who waits for it can leave, and one that
    loads slowly or never keeps nobody from another.

    Args:
        room: memory that they may hold together with whoever shares it, or its bytes.
        make_room: lets go of what else lies in a device's memory, where that is short.
    """

    def __init__(
        self,
        room: Room | int,
        device: str = "auto",
        make_room: Callable[[str], object] | None = None,
    ) -> None:
        self.room = Room(room) if isinstance(room, int) else room
        self._budget = self.room.budget_bytes
        self._device = device
        self._make_room = make_room
        self._loaded: dict[tuple, ChatModel] = {}
        self._loading: dict[tuple, Future[ChatModel]] = {}
        self._listing = threading.Lock()  # of the two

    def holds(self, model: Model) -> bool:
        """True where `get` returns at once."""
        return _key(model) in self._loaded

    def size_bytes(self, model: Model) -> int:
        """Bytes of a model's weights on disk. Raises what `open_checkpoint` raises."""
        return open_checkpoint(model.folder, model.id).size_bytes

    def check_room(self, model: Model) -> None:
        """Raises NotEnoughSpace where a model does not fit into the budget as a whole."""
        need = self.size_bytes(model)
        if need > self._budget:
            raise NotEnoughSpace(
                f"{model.label} needs {amount(need)} of memory and --chat-gib allows "
                f"{amount(self._budget)}; start the app with a larger one"
            )

    def get(self, model: Model, stop: threading.Event | None = None) -> ChatModel:
        """The loaded model. Its weights are only read, so many streams may share it.

        Args:
            stop: ends the waiting; the model is loaded nevertheless, for who asks next.

        Raises:
            NotEnoughSpace: not even a part of it fits into the budget.
            MergeError: it cannot be loaded.
            Cancelled: `stop` was set.
        """
        loading = self._begun(model)
        while not loading.done():
            if stop is not None and stop.is_set():
                raise Cancelled("stopped while the model was loading")
            wait([loading], timeout=_LOOK_S)
        return loading.result()

    def is_loaded(self, model_id: str) -> bool:
        """True where a model is in memory, or on its way there."""
        with self._listing:
            return any(key[0] == model_id for key in (*self._loaded, *self._loading))

    def let_go(self, model_id: str) -> None:
        """Frees the memory of a model. Who is being answered by it hears it out."""
        with self._listing:
            keys = [key for key in self._loaded if key[0] == model_id]
            for key in keys:
                del self._loaded[key]
        for key in keys:
            self.room.free(key)

    def place(self, model: Model, chat: ChatModel) -> str:
        """Where a loaded model lies and what that costs; "" where that is memory as a whole."""
        is_large = chat.parts and self.size_bytes(model) > self._budget
        return f"{chat.parts}{'; a larger --chat-gib holds more' if is_large else ''}"

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

    def _begun(self, model: Model) -> Future[ChatModel]:
        """The loading of a model: over, on its way, or begun now."""
        key = _key(model)
        self.room.touch(key)
        with self._listing:
            chat = self._loaded.get(key)
            if chat is not None:
                loading: Future[ChatModel] = Future()
                loading.set_result(chat)
                return loading
            if key in self._loading:
                return self._loading[key]
            loading = self._loading[key] = Future()
        load = threading.Thread(target=self._load, args=(key, model, loading), daemon=True)
        load.start()
        return loading

    def _load(self, key: tuple, model: Model, loading: Future[ChatModel]) -> None:
        """Loads a model, and tells those who wait for it."""
        let_others_first()
        chat, failed = None, None
        try:
            chat = self._read(key, model)
        except BaseException as error:  # whoever waits is told
            failed = error
        with self._listing:
            self._loading.pop(key)
            if chat is not None:
                self._loaded[key] = chat
        if chat is not None:
            self.room.settle(key, chat.size_bytes)
        else:
            self.room.free(key)
        if failed is not None:
            loading.set_exception(failed)
        elif chat is not None:
            loading.set_result(chat)

    def _read(self, key: tuple, model: Model) -> ChatModel:
        """A model in memory as a whole, or what fits of one that is larger than the budget."""
        need = self.size_bytes(model)
        prepared = _loader().prepare(model.folder, self._device, name=model.id)
        self.room.reserve(key, min(need, self._budget), lambda: self._loaded.pop(key, None))
        if need <= self._budget:
            return prepared.load(make_room=self._make_room)
        try:
            return prepared.load(self._budget, self._make_room)
        except NotEnoughSpace as error:
            raise NotEnoughSpace(f"{error} (a larger --chat-gib)") from None


def _loader() -> type[ChatModel]:
    """The class that loads models. Its import brings torch and transformers: seconds."""
    from merging.trial import confined

    confined.warm()  # its process starts while this one imports
    with _IMPORTING:
        from transformers.utils.logging import CRITICAL, disable_progress_bar, set_verbosity

        from merging.trial.chat import ChatModel

    disable_progress_bar()
    set_verbosity(CRITICAL)  # what is wrong with a model is said in its column
    return ChatModel


def _key(model: Model) -> tuple:
    return (model.id, stamp(model.folder))
