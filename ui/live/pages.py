"""The live model of each page: few at a time, the least recently used let go of first."""

from __future__ import annotations

import threading
from collections import OrderedDict
from typing import TYPE_CHECKING

from merging.errors import RecipeError
from merging.recipe import Recipe

if TYPE_CHECKING:
    from merging.live.model import LiveModel


class LivePages:
    """Live models by page. Safe to share between threads.

    Args:
        budget_bytes: memory that they may hold together; the one that is asked for may be larger.
        device: "auto", "cpu", "cuda" or "mps".
    """

    def __init__(self, budget_bytes: int, device: str = "auto") -> None:
        self._budget = budget_bytes
        self._device = device
        self._models: OrderedDict[str, tuple[tuple, LiveModel]] = OrderedDict()
        self._lock = threading.Lock()
        self._loading = threading.Lock()  # one model at a time comes into memory

    def holds(self, page: str, recipe: Recipe) -> bool:
        """True where `get` returns at once."""
        held = self._models.get(page)
        return held is not None and held[0] == _key(recipe)

    def of(self, page: str) -> LiveModel | None:
        """The page's live model, where it has one."""
        held = self._models.get(page)
        return held and held[1]

    def get(self, page: str, recipe: Recipe) -> LiveModel:
        """The page's live model over a recipe's base, loaded if it is not there.

        Raises:
            RecipeError: a recipe of this form has no live model.
            MergeError: its models do not belong together, or its base cannot be loaded.
        """
        with self._loading:
            if self.holds(page, recipe):
                with self._lock:
                    self._models.move_to_end(page)
                    return self._models[page][1]
            self.leave(page)
            from merging.live.model import LiveModel

            if recipe.stages:
                raise RecipeError("a recipe of several stages has no live model: merge it")
            model = LiveModel.load(recipe, self._device)
            with self._lock:
                self._models[page] = _key(recipe), model
                self._let_go()
            return model

    def leave(self, page: str) -> None:
        """The page needs no live model any more."""
        with self._lock:
            self._models.pop(page, None)

    def _let_go(self) -> None:
        while len(self._models) > 1 and self._held() > self._budget:
            self._models.popitem(last=False)

    def _held(self) -> int:
        return sum(model.chat.size_bytes for _, model in self._models.values())


def _key(recipe: Recipe) -> tuple:
    return recipe.base, recipe.dtype
