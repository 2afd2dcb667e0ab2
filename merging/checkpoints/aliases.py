"""One model's tensors under another's names.

The same weights go by different names: with a prefix that a head's model adds ("transformer.h.0..."
and "h.0..."), or, where a config ties the output head to the token embedding, once for both.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

from merging.checkpoints.checkpoint import Checkpoint, TensorInfo
from merging.checkpoints.layout import is_vocabulary


def named_as(base: Checkpoint, model: Checkpoint) -> Checkpoint:
    """`model` with its tensors under the names that `base` has for them; others keep theirs."""
    tensors = _without_prefix(base.tensors, model.tensors)
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


def _without_prefix(
    wanted: dict[str, TensorInfo], tensors: dict[str, TensorInfo]
) -> dict[str, TensorInfo]:
    """Adds or removes one leading part of the names, where most of them then fit."""
    if not wanted or sum(name in tensors for name in wanted) * 2 >= len(wanted):
        return tensors
    first = Counter(name.partition(".")[0] + "." for name in tensors).most_common(1)
    longer = Counter(name.partition(".")[0] + "." for name in wanted).most_common(1)
    for taken, added in (*((part, "") for part, _ in first), *(("", part) for part, _ in longer)):
        renamed = {
            added + name.removeprefix(taken) if name.startswith(taken) else name: info
            for name, info in tensors.items()
        }
        fitting = sum(name in renamed for name in wanted)
        if len(renamed) == len(tensors) and fitting * 2 >= len(wanted):
            return renamed
    return tensors
