"""What stands beside the merged tensors: config, tokenizer, model card and amalgam.yaml.

`amalgam.yaml` is the recipe with every default spelled out, so it can be run again, plus a
`record` of versions and fingerprints. It holds no time and no random name: the same recipe over
the same inputs writes the same bytes.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import yaml

from merging import __version__
from merging.checkpoints import (
    Family,
    fingerprint,
    open_checkpoint,
    resolve,
    short_names,
    views,
)
from merging.checkpoints.names import DEMO_PREFIX
from merging.methods import PRESETS
from merging.recipe import Recipe, describe, dump
from merging.recipe.references import models_of, with_models
from merging.recipe.writing import documents_of, to_yaml
from merging.run import companions

RECIPE_FILE = "amalgam.yaml"


def write_config(folder: Path, recipe: Recipe, family: Family) -> None:
    """Writes the result's config.json."""
    text = json.dumps(companions.config(recipe, family), indent=2)
    (folder / "config.json").write_text(text + "\n")


def write_companions(folder: Path, recipe: Recipe, family: Family, digest: str) -> None:
    """Writes everything but tensors and config into `folder`.

    Args:
        digest: fingerprint of the merged tensors.
    """
    companions.write(folder, recipe, family)
    write_record(folder, recipe, family, digest, inputs_of(family))


def write_record(
    folder: Path, recipe: Recipe, family: Family, digest: str, inputs: Mapping[str, str]
) -> None:
    """Writes amalgam.yaml and the model card.

    Args:
        inputs: fingerprints of the models, by name.
    """
    (folder / RECIPE_FILE).write_text(recipe_with_record(recipe, family, digest, inputs))
    (folder / "README.md").write_text(_card(recipe, digest))


def inputs_of(family: Family) -> dict[str, str]:
    """The fingerprints of a family's models, by name."""
    return {  # opened anew: a family may know an expert's tensors by the base's names
        model.name: fingerprint(open_checkpoint(model.folder, model.name))
        for model in views.originals(family.models)
    }


def recipe_with_record(
    recipe: Recipe, family: Family, digest: str, inputs: Mapping[str, str]
) -> str:
    """amalgam.yaml's text: a recipe that can be run again, and its record."""
    documents = documents_of(portable(recipe))
    document = documents[-1]
    document["record"] = {
        "amalgam": __version__,
        "torch": version("torch").split("+")[0],
        "inputs": dict(inputs),
        "result": digest,
        "tensors": _counts(family),
    }
    return to_yaml(documents)


def portable(recipe: Recipe) -> Recipe:
    """The recipe with absolute folders: it names the same models wherever it is written."""
    stages = tuple((name, portable(stage)) for name, stage in recipe.stages)
    names = {model: _portable(model, recipe.folder) for model in models_of(recipe)}
    names |= {name: name for name, _ in stages}
    return replace(with_models(recipe, names), stages=stages)


def _portable(reference: str, folder: Path | None) -> str:
    """Folders absolute, so that the recipe runs from anywhere; other references as written."""
    if reference.startswith(DEMO_PREFIX):
        return reference
    return str(resolve(reference, folder)) if _is_folder(reference, folder) else reference


def _is_folder(reference: str, folder: Path | None) -> bool:
    return ((folder or Path.cwd()) / Path(reference).expanduser()).is_dir()


def _without_paths(recipe: Recipe) -> tuple[Recipe, list[str]]:
    """The recipe with local folders by their names alone, fit to be published; its Hub models."""
    unique = models_of(recipe)
    names = dict(zip(unique, short_names(unique, recipe.folder), strict=True))
    stages = tuple((name, _without_paths(stage)[0]) for name, stage in recipe.stages)
    names |= {name: name for name, _ in stages}
    hub = []
    for reference in unique:
        if reference in dict(stages):
            continue
        if not _is_folder(reference, recipe.folder):
            names[reference] = reference
            if not reference.startswith(DEMO_PREFIX):
                hub.append(reference)
    return replace(with_models(recipe, names), stages=stages), hub


def _counts(family: Family) -> dict[str, Any]:
    by_status: dict[str, Any] = {}
    for status in ("merged", "copied", "left_out"):
        entries = [entry for entry in family.account if entry.status == status]
        by_status[status] = (
            len(entries) if status == "merged" else {entry.name: entry.reason for entry in entries}
        )
    return by_status


def _card(recipe: Recipe, digest: str) -> str:
    recipe, hub = _without_paths(recipe)
    sources = "\n".join(f"- {name}" for name in models_of(recipe))
    front = {
        "library_name": "transformers",
        "tags": ["merge", "amalgam", recipe.method],
        "base_model": hub,
    }
    header = yaml.safe_dump({key: value for key, value in front.items() if value})
    return (
        f"---\n{header}---\n\n# {PRESETS[recipe.method].title} merge\n\n{describe(recipe)}\n\n"
        f"## Models\n\n{sources}\n\n## Recipe\n\n```yaml\n{dump(recipe)}```\n\n"
        f"Fingerprint of the tensors: `{digest}`. The full record is in `{RECIPE_FILE}`.\n"
    )
