"""The files that stand beside a result's tensors, each from the model that gives it.

The base gives them, but for those of the tokenizer (with chat templates and generation settings),
which the recipe may take from an expert. A recipe's own chat template replaces the one they have.
"""

from __future__ import annotations

import fnmatch
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from merging.checkpoints import Checkpoint, Family, views
from merging.checkpoints.folders import CONTAINER, MORE_TEMPLATES, inner_folders
from merging.errors import BadCheckpoint, BadFile
from merging.kinship import chat, giver_of
from merging.recipe import Recipe
from merging.system.documents import read_json

_BESIDE = ("*.json", "*.jinja", "*.model", "*.tiktoken", "merges.txt", "vocab.txt", "LICENSE*")
_NOT_COPIED = ("config.json", "adapter_config.json", "scores.json", "*.index.json", CONTAINER)
_INSIDE = (*_BESIDE, "*.safetensors")  # of folders that modules.json names: pooling, dense layers
_TOKENIZER = (
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.json",
    "vocab.txt",
    "merges.txt",
    "*.model",
    "*.tiktoken",
    "chat_template.*",
    "generation_config.json",
    f"{MORE_TEMPLATES}/*",
)
_BLOCK = 1 << 20  # bytes copied at a time


def config(recipe: Recipe, family: Family) -> dict[str, Any]:
    """The result's config: the base's, with the output's type, and the ids of the special tokens
    that go with the tokenizer."""
    settings = dict(family.base.config)
    if recipe.dtype is not None:
        for key in ("dtype", "torch_dtype"):
            if key in settings:
                settings[key] = recipe.dtype
        if not {"dtype", "torch_dtype"} & set(settings):
            settings["dtype"] = recipe.dtype
    giver = giver_of(recipe, family.base, family.experts)
    if giver.folder != family.base.folder:
        settings = _with_ids(settings, giver.config)
    return settings


def _with_ids(config: Mapping[str, Any], other: Mapping[str, Any]) -> dict[str, Any]:
    settings = {**config, **{key: other[key] for key in chat.IDS if key in other}}
    text, theirs = settings.get("text_config"), other.get("text_config", other)
    if isinstance(text, dict) and isinstance(theirs, dict):
        settings["text_config"] = {
            **text,
            **{key: theirs[key] for key in chat.IDS if key in theirs},
        }
    return settings


def write(folder: Path, recipe: Recipe, family: Family) -> None:
    """Copies the files of base and tokenizer into `folder`, and writes the recipe's template.

    Raises:
        BadCheckpoint: one of them cannot be read.
    """
    base = family.base
    giver = giver_of(recipe, base, family.experts)
    for name in names(base.folder):
        if giver is base or not _is_tokenizer_s(name):
            _copy(base, name, folder)
    if giver is not base:
        for name in names(giver.folder):
            if _is_tokenizer_s(name):
                _copy(giver, name, folder)
    template = chat.chosen(recipe.chat_template, list(views.originals(family.models)))
    if template is not None:
        _write_template(folder, template)


def names(folder: Path) -> Iterator[str]:
    """The files of a model that go along with its tensors, relative to its folder."""
    for path in sorted(folder.iterdir()):
        if path.is_file() and _fits(path.name, _BESIDE) and not _fits(path.name, _NOT_COPIED):
            yield path.name
    for inner in inner_folders(folder):
        kinds = ("*.jinja",) if inner == MORE_TEMPLATES else _INSIDE
        for path in sorted((folder / inner).iterdir()):
            if path.is_file() and _fits(path.name, kinds):
                yield f"{inner}/{path.name}"


def _fits(name: str, patterns: tuple[str, ...]) -> bool:
    return any(fnmatch.fnmatchcase(name, pattern) for pattern in patterns)


def _is_tokenizer_s(name: str) -> bool:
    return _fits(name, _TOKENIZER)


def _copy(model: Checkpoint, name: str, folder: Path) -> None:
    (folder / name).parent.mkdir(exist_ok=True)
    with (folder / name).open("wb") as target:
        for block in _blocks(model, model.folder / name):
            target.write(block)


def _blocks(model: Checkpoint, path: Path) -> Iterator[bytes]:
    """A file's bytes, piece by piece: what cannot be read is another fault than what cannot be
    written."""
    try:
        with path.open("rb") as source:
            while block := source.read(_BLOCK):
                yield block
    except OSError as error:
        raise BadCheckpoint(
            f"{model.name}: {path} cannot be read ({(error.strerror or '').lower()}); copy or "
            "download the model again"
        ) from error


def _write_template(folder: Path, template: str) -> None:
    """Makes `template` the one that is used unasked; other named ones stay."""
    (folder / "chat_template.jinja").write_text(template, encoding="utf-8")
    (folder / "chat_template.json").unlink(missing_ok=True)
    file = folder / "tokenizer_config.json"
    try:
        settings = read_json(file)
    except BadFile:
        return
    if not isinstance(settings, dict) or not settings.get("chat_template"):
        return
    templates = settings["chat_template"]
    settings["chat_template"] = template
    if isinstance(templates, list):
        named = [
            entry
            for entry in templates
            if isinstance(entry, dict) and entry.get("name") != "default"
        ]
        settings["chat_template"] = [{"name": "default", "template": template}, *named]
    file.write_text(json.dumps(settings, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
