"""The live model: a network that a recipe is merged into while it answers."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from merging.checkpoints import Family
from merging.checkpoints.checkpoint import torch_dtype
from merging.engines.eager import ProgressCallback
from merging.engines.residents import Residents
from merging.engines.sources import Files, RawTensors
from merging.errors import Cancelled, RecipeError
from merging.live.keeping import Kept, fingerprint, in_type, keep
from merging.live.places import places_of
from merging.live.rewriting import Memory, rewrite
from merging.recipe import Recipe
from merging.run import container
from merging.run.devices import engine_for
from merging.run.preflight import open_recipe
from merging.run.tensors import STORED
from merging.system import locks
from merging.trial.chat import ChatModel
from merging.trial.loading import prepare
from merging.trial.turns import Chunk


@dataclass(frozen=True)
class Settled:
    """What a change of the recipe did to a live model.

    Attributes:
        rewritten: names of the tensors that have new values.
        seconds: until they had them.
    """

    rewritten: tuple[str, ...]
    seconds: float


class LiveModel:
    """A loaded base into which recipes over it are merged in place, one after the other.

    Its calls may come from any thread. `settle` ends an answer and a merge that are under way;
    `stream` waits for a merge.

    Args:
        chat: the base, loaded in the result's type.
        family: the models of the first recipe.
        dtype: its type, as `Recipe.dtype`.
    """

    def __init__(self, chat: ChatModel, family: Family, dtype: str | None) -> None:
        self.chat = chat
        self._dtype = dtype
        self._base = family.base
        self._memory = Memory(places_of(chat.model.network, family))
        self._residents = Residents()
        self._is_settled = True  # as the base
        self._settled: tuple[Recipe, Family] | None = None
        self._lock = threading.Lock()  # of the network's values
        self._turns: list[threading.Event] = []  # what ends each call that waits or works
        self._listing = threading.Lock()

    @classmethod
    def load(cls, recipe: Recipe, device: str = "auto") -> LiveModel:
        """Loads the base of a recipe. Raises as `open_recipe` and `ChatModel.load`, and RecipeError
        where a recipe's result has another shape than its base."""
        family = _opened(recipe)
        prepared = prepare(family.base.folder, name="live")
        dtype: Any = "auto" if recipe.dtype is None else torch_dtype(STORED[recipe.dtype])
        model = prepared.load(dtype, device)
        assert model.placement is not None
        return cls(ChatModel(model, model.placement.memory_bytes), family, recipe.dtype)

    def settle(
        self,
        recipe: Recipe,
        *,
        progress: ProgressCallback | None = None,
        cancel: threading.Event | None = None,
    ) -> Settled:
        """Merges a recipe into the network. Ends whatever it was doing at once.

        Raises:
            Cancelled: `cancel` was set, or a later call came.
            RecipeError: it is not over the base that was loaded.
            NonFinite: see `rewrite`; as after Cancelled, no answer is given until the next call.
        """
        started = time.perf_counter()
        with self._turn(cancel or threading.Event(), ends_others=True) as stop:
            family = _opened(recipe)
            if recipe.dtype != self._dtype:
                raise RecipeError(
                    f"the recipe's dtype is {recipe.dtype}, the live model's {self._dtype}; load "
                    "it anew"
                )
            if family.base.key != self._base.key:
                raise RecipeError("the recipe has another base than the live model; load it anew")
            if stop.is_set():
                raise Cancelled("stopped before the live model was changed")
            device = self.chat.model.device.type
            self._is_settled, self._settled = False, None
            with torch.inference_mode():
                names = rewrite(
                    self._memory,
                    recipe,
                    family,
                    engine_for(family, recipe, device),
                    device=device,
                    progress=progress,
                    cancel=stop,
                    source=self._source(family, device),
                )
            self._is_settled, self._settled = True, (recipe, family)
        return Settled(tuple(names), time.perf_counter() - started)

    @property
    def version(self) -> int:
        """Another one whenever a value of the network has changed: what it said before is stale."""
        return self._memory.version

    def stream(
        self, *arguments: Any, stop: threading.Event | None = None, **options: Any
    ) -> Iterator[Chunk]:
        """As `ChatModel.stream`, of what was settled last. A new recipe ends the answer."""
        with self.held(stop) as (chat, ended):
            yield from chat.stream(*arguments, stop=ended, **options)

    @contextmanager
    def held(
        self, stop: threading.Event | None = None
    ) -> Iterator[tuple[ChatModel, threading.Event]]:
        """The network as it was settled last, which nobody changes meanwhile, and what is set when
        a new recipe waits for it. Raises Cancelled where a merge into it was stopped."""
        with self._turn(stop or threading.Event()) as ended:
            if not self._is_settled:
                raise Cancelled("a merge into the live model was stopped; settle a recipe first")
            yield self.chat, ended

    @property
    def settled(self) -> Recipe | None:
        """The recipe that its values follow from; None while they are the base's, or a merge into
        it is under way or was stopped."""
        settled = self._settled
        return settled[0] if settled else None

    def keep(self, out: Path, *, cancel: threading.Event | None = None, **options: Any) -> Kept:
        """Writes what was settled last to a folder. A new recipe waits until that is done.

        Args:
            cancel: ends it.
            options: as of `keeping.keep`.

        Raises:
            Cancelled: `cancel` was set, or nothing is settled.
            MergeError: as a merge; nothing is left behind.
        """
        with locks.held(self._lock, cancel):
            recipe, family = self._answered()
            return keep(self._memory.places, recipe, family, out, cancel=cancel, **options)

    def fingerprint(self, stop: threading.Event | None = None) -> str | None:
        """That of the model which `keep` would write, worked out from its memory; None where that
        holds other types than a file.

        Raises:
            Cancelled: `stop` was set while it waited, or nothing is settled.
        """
        with locks.held(self._lock, stop):
            places, (recipe, family) = self._memory.places, self._answered()
            return fingerprint(places, recipe, family) if in_type(places, recipe, family) else None

    def _answered(self) -> tuple[Recipe, Family]:
        if self._settled is None:
            raise Cancelled("there is no merge in the live model; settle a recipe first")
        return self._settled

    def _source(self, family: Family, device: str) -> RawTensors:
        if device.startswith("cuda"):
            return self._residents.source(family, device)
        return Files(device, self._memory.findings)

    @contextmanager
    def _turn(self, stop: threading.Event, ends_others: bool = False) -> Iterator[threading.Event]:
        """One call at a time works on the network; all before it may be asked to end."""
        with self._listing:
            for other in self._turns if ends_others else ():
                other.set()
            self._turns.append(stop)
        try:
            with self._lock:
                yield stop
        finally:
            with self._listing:
                self._turns.remove(stop)


def _opened(recipe: Recipe) -> Family:
    family = open_recipe(recipe)
    if recipe.blueprint is not None or family.base.parts or container.asked(recipe):
        raise RecipeError(
            "a recipe that stacks layers, or makes a container, has no live model: merge it, and "
            "open the result in Chat"
        )
    return family
