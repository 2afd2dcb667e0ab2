"""The live model of each page, in the memory that loaded models share."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

from merging.errors import RecipeError
from merging.recipe import Recipe
from merging.system.freed import handed_back
from ui.room import Room

if TYPE_CHECKING:
    from merging.live.model import LiveModel
    from merging.live.needs import Needs


class LivePages:
    """Live models by page, let go of least recently used first. Safe to share between threads.

    Args:
        room: memory that they may hold together with whoever shares it, or its bytes.
        device: "auto", "cpu", "cuda" or "mps".
    """

    def __init__(self, room: Room | int, device: str = "auto") -> None:
        self.room = Room(room) if isinstance(room, int) else room
        self._device = device
        self._models: dict[str, tuple[tuple, LiveModel]] = {}
        self._loading = threading.Lock()  # one model at a time comes into memory

    def holds(self, page: str, recipe: Recipe) -> bool:
        """True where `get` returns at once."""
        held = self._models.get(page)
        return held is not None and held[0] == _key(recipe)

    def of(self, page: str) -> LiveModel | None:
        """The page's live model, where it has one."""
        held = self._models.get(page)
        return held and held[1]

    def recipes(self) -> list[Recipe]:
        """What live models answer by, of all pages."""
        models = [model for _, model in list(self._models.values())]
        return [model.settled for model in models if model.settled is not None]

    def touch(self, page: str) -> None:
        """The page's live model is used now."""
        self.room.touch(_holder(page))

    def would_fit_alone(self, page: str, recipe: Recipe) -> bool:
        """True where a recipe's live model has no room, and has it once others are let go of.

        Raises:
            MergeError: the recipe's models do not belong together.
        """
        return self.needs(recipe).fits_without(self.room.held_bytes(but=_holder(page)))

    def needs(self, recipe: Recipe) -> Needs:
        """What a recipe's live model needs of memory. Raises MergeError as `would_fit_alone`."""
        from merging.live.needs import needs

        return needs(recipe, self._device)

    def get(self, page: str, recipe: Recipe) -> LiveModel:
        """The page's live model over a recipe's base, loaded if it is not there.

        Raises:
            RecipeError: a recipe of this form has no live model.
            MergeError: its models do not belong together, or its base cannot be loaded.
            NotEnoughSpace: there is no room: with the numbers, and what to do.
        """
        self.touch(page)
        with self._loading:
            held = self._models.get(page)
            if held is not None and held[0] == _key(recipe):
                return held[1]
            self.leave(page)
            from merging.live.model import LiveModel

            if recipe.stages:
                raise RecipeError("a recipe of several stages has no live model: merge it")
            holder, size = _holder(page), self.needs(recipe).model
            self.room.reserve(holder, size, lambda: self._models.pop(page, None))
            try:
                self.needs(recipe).check(self.room.held_bytes(but=holder))
                model = LiveModel.load(recipe, self._device)
                self._models[page] = _key(recipe), model
            except BaseException:
                self.room.free(holder)
                raise
            self.room.settle(holder, model.chat.size_bytes)
            return model

    def leave(self, page: str) -> None:
        """The page needs no live model any more."""
        with handed_back():
            self._models.pop(page, None)
        self.room.free(_holder(page))

    def let_go_of_others(self, page: str) -> int:
        """Lets go of all loaded models but the page's own; the bytes that they held."""
        with handed_back():
            return self.room.empty(but=_holder(page))


def _holder(page: str) -> tuple[str, str]:
    return "live", page


def _key(recipe: Recipe) -> tuple:
    return recipe.base, recipe.dtype
