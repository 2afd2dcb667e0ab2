"""What the History tab answers: to a look, to its buttons, and to Bookmark in Explore."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from html import escape
from typing import Any

import gradio as gr

from merging import recipe as recipes
from merging.errors import MergeError
from merging.recipe.references import models_of
from ui.history import comparison, view
from ui.history.shelf import Shelf
from ui.library import Library
from ui.store import ModelStore

Scores = Mapping[str, Mapping[str, float]]


@dataclass(frozen=True)
class HistoryTab:
    """The tab's handlers. Those that change something return what was done, and the board.

    Attributes:
        beside: the columns of Chat that show a model beside others.
        heard: the scores of what a page's live card answers by, where it is this recipe.
    """

    library: Library
    shelf: Shelf
    store: ModelStore
    beside: Callable[[str, tuple[str, ...]], Any]
    heard: Callable[[str, str], Scores]

    def shown(self) -> str:
        """The board as the disk is now."""
        return view.board(self.library, self.shelf.entries(), self.shelf.deleted())

    def looked(self) -> tuple[str, str]:
        """The board, and nothing said."""
        return "", self.shown()

    def brought(self, event: gr.EventData) -> str:
        """The recipe of an entry; "" where there is none any more."""
        try:
            return self.shelf.entry(_sent(event, "id")).text
        except MergeError:
            return ""

    def talked(self, event: gr.EventData) -> tuple[Any, ...]:
        """The Chat tab with a model beside its sources; else why not, and the board."""
        try:
            entry = self.shelf.entry(_sent(event, "id"))
            if not entry.model:
                raise MergeError(f"{entry.name} is not on offer.")
        except MergeError as error:
            return gr.skip(), gr.skip(), escape(str(error)), self.shown()
        sources = models_of(entry.recipe) if entry.recipe else ()
        offered = tuple(filter(None, map(self._id_of, sources)))
        return gr.Tabs(selected="chat"), self.beside(entry.model, offered), "", gr.skip()

    def dropped(self, event: gr.EventData) -> tuple[str, str]:
        """Deletes an entry, so that it can be taken back."""

        def drop() -> str:
            entry = self.shelf.delete(_sent(event, "id"))
            if entry.model:
                self.store.let_go(entry.model)
            return f"{entry.name} is deleted. Undo stands at the end of the list."

        return self._done(drop)

    def restored(self, event: gr.EventData) -> tuple[str, str]:
        """Takes a deletion back."""
        return self._done(lambda: f"{self.shelf.take_back(_sent(event, 'id')).name} is back.")

    def noted(self, event: gr.EventData) -> tuple[str, str]:
        """Saves a note."""
        note = _sent(event, "text")
        return self._done(
            lambda: f"The note on {self.shelf.note(_sent(event, 'id'), note).name} is saved."
        )

    def renamed(self, warned: str, event: gr.EventData) -> tuple[str, str, str]:
        """Renames an entry. One that is loaded for Chat is let go of when that is asked twice.

        Args:
            warned: the entry that a warning was given of.
        """
        entry_id, name = _sent(event, "id"), _sent(event, "text")

        def rename() -> str:
            entry = self.shelf.entry(entry_id)
            loaded = entry.model and self.store.is_loaded(entry.model)
            if loaded and warned != entry_id:
                raise _Warned(
                    f"{entry.name} is loaded for Chat. Press Rename again to let go of it there: "
                    "under its new name it must be chosen anew."
                )
            self.shelf.rename(entry_id, name)
            if entry.model:
                self.store.let_go(entry.model)
            return f"{entry.name} is called {name.strip()} now."

        try:
            said, asked = rename(), ""
        except MergeError as error:
            said, asked = str(error), entry_id if isinstance(error, _Warned) else ""
        return escape(said), self.shown(), asked

    def compared(self, event: gr.EventData) -> tuple[Any, ...]:
        """Two entries side by side; nothing where there are not two."""
        ids = event._data.get("ids") if isinstance(event._data, dict) else None
        if not isinstance(ids, list) or len(ids) != 2:
            return gr.update(visible=False), gr.skip(), gr.skip(), gr.skip()
        try:
            first, second = (self.shelf.entry(one) for one in ids)
        except MergeError as error:
            return gr.update(visible=False), gr.skip(), gr.skip(), escape(str(error))
        drawn = comparison.drawn(first, second)
        return (
            gr.update(visible=True),
            comparison.compared(self.library, first, second),
            gr.update(visible=True, value=drawn) if drawn else gr.update(visible=False),
            "",
        )

    def bookmarked(self, recipe: str, page: str) -> str:
        """Sets down the recipe that a page's controls spell; how that went, as markup."""
        try:
            name = self.library.plain_name(recipes.parse(recipe).method)
            name = self.shelf.bookmark(recipe, name, self.heard(page, recipe))
        except MergeError as error:
            return escape(f"This cannot be bookmarked: {error}.".replace("..", "."))
        return escape(f"Bookmarked as {name}: it is in History.")

    def _done(self, change: Callable[[], str]) -> tuple[str, str]:
        try:
            said = change()
        except MergeError as error:
            said = str(error)
        return escape(said), self.shown()

    def _id_of(self, reference: str) -> str:
        try:
            return self.library.model_of(reference).id
        except MergeError:
            return ""


class _Warned(MergeError):
    """Asked once more before it is done."""


def _sent(event: gr.EventData, name: str) -> str:
    """What a button sends along."""
    data = event._data  # Gradio's way to what a component sends along
    value = data.get(name) if isinstance(data, dict) else ""
    return value if isinstance(value, str) else ""
