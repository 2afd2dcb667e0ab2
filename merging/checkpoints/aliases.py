"""One model's tensors under another's names.

The same weights go by different names: with a prefix that a head's model adds ("transformer.h.0..."
and "h.0..."), with parts in the middle ("model.language_model.layers.0..."), as training wraps them
("base_model.model..."), or, where a config ties the output head to the token embedding, once for
both.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

from merging.checkpoints.checkpoint import Checkpoint, TensorInfo
from merging.checkpoints.layout import WRAPPERS, is_vocabulary

_TRAINING = ("_orig_mod.", "module.", "base_model.model.")


def named_as(base: Checkpoint, model: Checkpoint) -> Checkpoint:
    """`model` with its tensors under the names that `base` has for them; others keep theirs."""
    tensors = without_wrapper(model).tensors
    if any(name not in tensors for name in base.tensors):
        tensors = _without_prefix(base.tensors, _by_core(base.tensors, tensors))
    if list(tensors) == list(model.tensors):
        tensors = model.tensors
    head = output_head(base)
    if head and not base.ties_embeddings and model.ties_embeddings and head not in tensors:
        embedding = input_embedding(replace(model, tensors=tensors))
        if embedding:
            tensors = {**tensors, head: tensors[embedding]}
    if tensors is model.tensors:
        return model
    return replace(model, tensors=dict(sorted(tensors.items())))


def output_head(model: Checkpoint) -> str | None:
    """The name of the output head, where one is stored."""
    return next((name for name in model.tensors if is_vocabulary(name) and is_head(name)), None)


def input_embedding(model: Checkpoint) -> str | None:
    """The name of the token embedding, of an encoder and a decoder the one they share."""
    names = [name for name in model.tensors if is_vocabulary(name) and not is_head(name)]
    return next((name for name in names if name.endswith("shared.weight")), next(iter(names), None))


def is_head(name: str) -> bool:
    """True where a vocabulary tensor is an output head."""
    return "lm_head" in name or "embed_out" in name


def without_wrapper(model: Checkpoint) -> Checkpoint:
    """`model` under the names that it had before training wrapped it: programs that train save
    "base_model.model.model.layers.0..." or "module...", which no other program loads."""
    tensors = model.tensors
    for wrapper in _TRAINING:
        if tensors and all(name.startswith(wrapper) for name in tensors):
            tensors = {name.removeprefix(wrapper): info for name, info in tensors.items()}
    return model if tensors is model.tensors else replace(model, tensors=tensors)


def renamed(model: Checkpoint) -> list[tuple[str, str]]:
    """(its own name, the base's) of every tensor of a model that `named_as` found."""
    if model.parts:  # a view's names are the result's
        return []
    tensors = model.tensors
    own = ((info.name, name) for name, info in tensors.items())
    return [(old, new) for old, new in own if old != new and old not in tensors]


def _by_core(base: dict[str, TensorInfo], tensors: dict[str, TensorInfo]) -> dict[str, TensorInfo]:
    """Takes a name for another where they differ only in parts that say who holds the tensor
    ("model.layers.0..." and "model.language_model.layers.0...")."""
    absent = Counter(_core(name) for name in base if name not in tensors)
    targets = {_core(name): name for name in base if name not in tensors}
    renamed: dict[str, TensorInfo] = {}
    for name, info in tensors.items():
        core = _core(name)
        fits = name not in base and absent[core] == 1 and targets[core] not in renamed
        renamed[targets[core] if fits else name] = info
    return renamed if len(renamed) == len(tensors) else tensors


def _core(name: str) -> str:
    return ".".join(part for part in name.split(".") if part not in WRAPPERS)


def _without_prefix(
    base: dict[str, TensorInfo], tensors: dict[str, TensorInfo]
) -> dict[str, TensorInfo]:
    """Adds or removes one leading part of the names, where most of them then fit."""
    enough = min(len(base), len(tensors))
    if not enough or sum(name in tensors for name in base) * 2 >= enough:
        return tensors
    first = Counter(name.partition(".")[0] + "." for name in tensors).most_common(1)
    longer = Counter(name.partition(".")[0] + "." for name in base).most_common(1)
    for taken, added in (*((part, "") for part, _ in first), *(("", part) for part, _ in longer)):
        renamed = {
            added + name.removeprefix(taken) if name.startswith(taken) else name: info
            for name, info in tensors.items()
        }
        fitting = sum(name in renamed for name in base)
        if len(renamed) == len(tensors) and fitting * 2 >= enough:
            return renamed
    return tensors
