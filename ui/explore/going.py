"""Handlers that give the controls other settings: undo, redo, the other side, recipes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from merging import recipe as recipes
from merging.errors import MergeError
from ui import spelling
from ui.explore import answers, bench, gradients, opening, overrides, view
from ui.explore.trail import Bench, Page, Settings, Trail
from ui.library import Library
from ui.merge.texts import decoded


@dataclass(frozen=True)
class Going:
    """The handlers. `values` are those of the controls, in the order of `named`.

    Attributes:
        named: the controls by name.
    """

    library: Library
    named: dict[str, Any]

    def at_rest(self, weighed: Sequence[str], values: Sequence[Any]) -> Settings | None:
        """The settings of the controls; None while one of them is about to follow another."""
        settings = {**self._by_name(values), "weighed": list(weighed)}
        try:
            settings = view.ordered(self.library, settings)
        except MergeError:  # no model that could be gone back to
            return None
        return settings if answers.is_settled(settings, weighed) else None

    def loaded(self, link: str, page: Page, stored: Any, *values: Any) -> list[Any]:
        """The controls of a page that was just loaded: at the recipe of its address, else as the
        browser remembers them. What can be undone begins with them."""
        usual = self._by_name(values)
        restored = answers.restored(self.library, self.named, stored, usual)
        memory = answers.held(self.named, stored, view.choices(self.library))
        settings = {**memory, "weighed": stored["weighed"]} if memory else page.bench.trail.present
        page.go(Bench(Trail(settings)))
        if link:
            try:
                there = opening.settings_of(self.library, link, settings or usual)
                page.go(Bench(Trail(there)))
                models = restored[0]  # the list of bases
                led = bench.restored(self.library, self.named, page, usual)
                return [{**models, "value": led[0]}, *led[1:]]
            except MergeError as error:
                why = f"The recipe of this address cannot be opened: {error.reason}."
                page.go(replace(page.bench, problem=why))
        return [*restored, *bench.shown(self.library, page)]

    def undone(self, page: Page, weighed: list[str], *values: Any) -> list[Any]:
        """The controls as they were before the last change."""
        return self._gone(page, weighed, values, bench.undone)

    def redone(self, page: Page, weighed: list[str], *values: Any) -> list[Any]:
        """The controls as they were before the last undo."""
        return self._gone(page, weighed, values, bench.redone)

    def switched(self, page: Page, weighed: list[str], *values: Any) -> list[Any]:
        """The controls at the other of two settings."""
        return self._gone(page, weighed, values, bench.switched)

    def left_out(self, page: Page, weighed: list[str], *values: Any) -> list[Any]:
        """The controls without what they do not show of an opened recipe."""
        return self._gone(page, weighed, values, bench.plain)

    def opened(self, text: str, page: Page, weighed: list[str], *values: Any) -> list[Any]:
        """The controls at a recipe; where they cannot show it, they stay and say why."""
        return self._opened(lambda: text, page, weighed, values)

    def chosen(self, name: str | None, page: Page, weighed: list[str], *values: Any) -> list[Any]:
        """The controls at a recipe that was chosen from the list."""
        return self._opened(
            lambda: opening.text_of(self.library, name or ""), page, weighed, values
        )

    def uploaded(
        self, content: bytes | None, page: Page, weighed: list[str], *values: Any
    ) -> list[Any]:
        """The controls at a recipe file."""
        return self._opened(lambda: decoded(content or b""), page, weighed, values)

    def drawn(self, text: str, page: Page, weighed: list[str], *values: Any) -> list[Any]:
        """The controls at their recipe with a value drawn over depth."""

        def read() -> str:
            now = spelling.to_recipe(view.ordered(self.library, self._by_name(values)))
            return recipes.dump(gradients.drawn(now, text))

        return self._opened(read, page, weighed, values)

    def overridden(self, text: str, page: Page, weighed: list[str], *values: Any) -> list[Any]:
        """The controls at their recipe with a value set for a part of the model, or taken away."""

        def read() -> str:
            now = spelling.to_recipe(view.ordered(self.library, self._by_name(values)))
            return recipes.dump(overrides.written(now, text))

        return self._opened(read, page, weighed, values)

    def _opened(
        self, read: Callable[[], str], page: Page, weighed: list[str], values: Sequence[Any]
    ) -> list[Any]:
        settings = self.at_rest(weighed, values)
        if settings is not None:  # the last change may not have been noted yet
            page.bench = page.bench.settled(settings)
        now = settings or page.bench.trail.present or self._by_name(values)
        try:
            there = opening.settings_of(self.library, read(), now)
        except MergeError as error:
            problem = f"This recipe cannot be shown in the controls: {error}."
            page.go(replace(page.bench, problem=problem))
        else:
            page.go(page.bench.settled(there))
        return bench.restored(self.library, self.named, page, self._by_name(values))

    def _gone(
        self,
        page: Page,
        weighed: list[str],
        values: Sequence[Any],
        step: Callable[[Bench], Bench],
    ) -> list[Any]:
        # the last change may not have been noted yet; one that is under way is given up
        settings = self.at_rest(weighed, values)
        page.go(page.bench if settings is None else step(page.bench.settled(settings)))
        return bench.restored(self.library, self.named, page, self._by_name(values))

    def _by_name(self, values: Sequence[Any]) -> dict[str, Any]:
        return dict(zip(self.named, values, strict=True))
