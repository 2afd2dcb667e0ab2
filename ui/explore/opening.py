"""Recipes are opened in the controls: shipped ones, files, those of saved models, and links."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import gradio as gr

from merging import recipe as recipes
from merging.errors import RecipeError
from ui import spelling
from ui.explore import view
from ui.explore.trail import Settings
from ui.library import RECORD, Library
from ui.merge.texts import decoded, shipped_recipes, spoken

_OF_MODEL = "of:"  # before the id of a saved model whose recipe it is
_MERGEKIT = "mergekit_config.yml"  # beside what mergekit made


@dataclass(frozen=True)
class OpenerRefs:
    """The components."""

    choice: gr.Dropdown
    file: gr.UploadButton


def layout(library: Library) -> OpenerRefs:
    """Builds the group, folded."""
    with gr.Accordion("Open a recipe", open=False, elem_classes=["card", "models", "opener"]):
        choice = gr.Dropdown(
            choices(library),
            value=None,
            label="Shipped, and of saved models",
            interactive=True,
            elem_id="open-recipe",
        )
        file = gr.UploadButton(
            "Open a file", file_types=[".yaml", ".yml"], type="binary", size="sm"
        )
    return OpenerRefs(choice, file)


def choices(library: Library) -> list[tuple[str, str]]:
    """(label, name) of every recipe to choose: shipped ones, then those of saved models."""
    shipped = [(spoken(name), name) for name in shipped_recipes()]
    saved = [
        (f"What made {model.label}", f"{_OF_MODEL}{model.id}")
        for model in library.models()
        if model.kind != "demo" and _file_of(model) is not None
    ]
    return [*shipped, *saved]


def text_of(library: Library, name: str) -> str:
    """The text of a recipe that was chosen. Raises MergeError."""
    if name.startswith(_OF_MODEL):
        file = _file_of(library.get(name.removeprefix(_OF_MODEL)))
        if file is None:
            raise RecipeError("the recipe of that model is not there any more")
        return decoded(file.read_bytes())
    if name not in shipped_recipes():
        raise RecipeError(f"no recipe is called {name!r}")
    return shipped_recipes()[name].read_text(encoding="utf-8")


def _file_of(model: Any) -> Any:
    files = (model.folder / RECORD, model.folder / _MERGEKIT)
    return next((file for file in files if file.is_file()), None)


def settings_of(library: Library, text: str, held: Mapping[str, Any]) -> Settings:
    """A recipe as settings of the controls, with the experts that the weights belong to.

    Args:
        held: the controls' values; those that the recipe says nothing of stay.

    Raises:
        MergeError: it is none, its models are not on offer, or the controls cannot show it.
    """
    if len(text) > spelling.MOST_CHARACTERS:
        raise RecipeError(f"it is longer than {spelling.MOST_CHARACTERS:,} characters")
    recipe = library.by_id(library.resolved(recipes.parse(text)))
    order = [model for _, model in view.choices(library)]
    values = spelling.values_of(recipe, {**held, spelling.OPENED: ""}, order)
    opened = {**values, spelling.OPENED: recipes.dump(recipe)}
    settings = values if spelling.to_recipe(opened) == spelling.to_recipe(values) else opened
    return {**settings, "weighed": values["experts"]}
