"""What stands beside the merged tensors: config, tokenizer, model card and amalgam.yaml.

`amalgam.yaml` is the recipe with every default spelled out, so it can be run again, plus a
`record` of versions and fingerprints. It holds no time and no random name: the same recipe over
the same inputs writes the same bytes.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import torch
import yaml

from merging import __version__
from merging.checkpoints import Checkpoint, Family, fingerprint, resolve
from merging.checkpoints.names import DEMO_PREFIX
from merging.methods import PRESETS
from merging.recipe import Recipe, describe, dump

_COMPANIONS = ("*.json", "*.jinja", "*.model", "*.tiktoken", "merges.txt", "vocab.txt", "LICENSE*")
_NOT_COPIED = ("config.json", "model.safetensors.index.json", "scores.json")
RECIPE_FILE = "amalgam.yaml"


def write_config(folder: Path, base: Checkpoint, dtype: str | None) -> None:
    """Writes the base's config.json with the output's type."""
    config = dict(base.config)
    if dtype is not None:
        for key in ("dtype", "torch_dtype"):
            if key in config:
                config[key] = dtype
        if not {"dtype", "torch_dtype"} & set(config):
            config["dtype"] = dtype
    (folder / "config.json").write_text(json.dumps(config, indent=2) + "\n")


def write_companions(folder: Path, recipe: Recipe, family: Family, digest: str) -> None:
    """Writes everything but tensors and config into `folder`.

    Args:
        digest: fingerprint of the merged tensors.
    """
    for pattern in _COMPANIONS:
        for path in sorted(family.base.folder.glob(pattern)):
            if path.is_file() and path.name not in _NOT_COPIED:
                shutil.copyfile(path, folder / path.name)
    (folder / RECIPE_FILE).write_text(recipe_with_record(recipe, family, digest))
    (folder / "README.md").write_text(_card(recipe, family, digest))


def recipe_with_record(recipe: Recipe, family: Family, digest: str) -> str:
    """amalgam.yaml's text: a recipe that can be run again, and its record."""
    document = yaml.safe_load(dump(recipe))
    document["base_model"] = _portable(recipe.base, recipe.folder)
    for model in document["models"]:
        model["model"] = _portable(model["model"], recipe.folder)
    document["record"] = {
        "amalgam": __version__,
        "torch": torch.__version__.split("+")[0],
        "inputs": {model.name: fingerprint(model) for model in family.models},
        "result": digest,
        "tensors": _counts(family),
    }
    return yaml.safe_dump(document, sort_keys=False, allow_unicode=True)


def _portable(reference: str, folder: Path | None) -> str:
    """Folders absolute, so that the recipe runs from anywhere; other references as written."""
    if reference.startswith(DEMO_PREFIX):
        return reference
    path = (folder or Path.cwd()) / Path(reference).expanduser()
    return str(resolve(reference, folder)) if path.is_dir() else reference


def _counts(family: Family) -> dict[str, Any]:
    by_status: dict[str, Any] = {}
    for status in ("merged", "copied", "left_out"):
        entries = [entry for entry in family.account if entry.status == status]
        by_status[status] = (
            len(entries) if status == "merged" else {entry.name: entry.reason for entry in entries}
        )
    return by_status


def _card(recipe: Recipe, family: Family, digest: str) -> str:
    sources = "\n".join(f"- {model.name}" for model in family.models)
    front = {
        "library_name": "transformers",
        "tags": ["merge", "amalgam", recipe.method],
        "base_model": [model.name for model in family.models if "/" in model.name[1:]],
    }
    header = yaml.safe_dump({key: value for key, value in front.items() if value})
    return (
        f"---\n{header}---\n\n# {PRESETS[recipe.method].title} merge\n\n{describe(recipe)}\n\n"
        f"## Models\n\n{sources}\n\n## Recipe\n\n```yaml\n{dump(recipe)}```\n\n"
        f"Fingerprint of the tensors: `{digest}`. The full record is in `{RECIPE_FILE}`.\n"
    )
