"""A model made of layers of others: a view, whose tensors lie in the others' files.

A view is a checkpoint like any other: families, engines and plans do not know the difference. Its
tensors have the names of the result, and their `TensorInfo`s say what each really is and where it
lies, so that whatever is wrong with it is told of the real model and the real tensor.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

from merging.checkpoints.checkpoint import Checkpoint, Part, TensorInfo
from merging.checkpoints.depth import layers_in, restacked
from merging.checkpoints.layout import depths, is_after_layers, is_tower, stack_of
from merging.errors import RecipeError


def stacked(name: str, parts: Sequence[Part]) -> Checkpoint:
    """The layers of several models, one part on the other.

    What a text meets before the layers, and what reads images or sound, is the first part's; final
    norm and head are the last's. Config and small files are the first's.

    Args:
        name: what messages call the whole.
        parts: their tensors under one model's names.

    Raises:
        RecipeError: a part names layers that its model lacks, or it has several stacks of layers.
    """
    first, last = parts[0].model, parts[-1].model
    stack = text_stack(first)
    tensors = {
        name: info
        for name, info in first.tensors.items()
        if stack_of(name) != stack and not is_after_layers(name)
    }
    tensors |= {name: info for name, info in last.tensors.items() if is_after_layers(name)}
    layers = {id(part.model): _by_layer(part.model, stack) for part in parts}
    rows: list[tuple[Mapping[str, Any], int]] = []
    for part in parts:
        _check_layers(part, stack)
        for layer in range(part.start, part.stop):
            inside = layers[id(part.model)].get(layer, {})
            tensors |= {f"{stack}.{len(rows)}.{rest}": info for rest, info in inside.items()}
            rows.append((part.model.config, layer))
    stamps = {file: stamp for part in parts for file, stamp in part.model.stamps.items()}
    config = restacked(first.config, rows)
    ordered = dict(sorted(tensors.items()))
    return Checkpoint(name, first.folder, config, ordered, stamps, tuple(parts))


def text_stack(model: Checkpoint) -> str:
    """The stack of layers that slices count ("model.layers").

    Raises:
        RecipeError: there is none, or an encoder's beside a decoder's.
    """
    counts = {stack: count for stack, count in depths(model.tensors).items() if "mtp" not in stack}
    texts = [stack for stack in counts if not is_tower(stack)] or list(counts)
    if not texts:
        raise RecipeError(f"slices: {model.name} has no numbered layers that could be stacked")
    if len(texts) > 1:
        raise RecipeError(
            f"slices: {model.name} has several stacks of layers ({', '.join(texts)}), and slices "
            "do not say which they mean; list whole models under models:"
        )
    return texts[0]


def depth_of(model: Checkpoint) -> int:
    """How many layers of it slices may name: those that its config counts (further ones predict
    tokens ahead), or that it stores."""
    stored = depths(model.tensors)[text_stack(model)]
    return min(stored, layers_in(model.config) or stored)


def originals(models: Iterable[Checkpoint]) -> Iterator[Checkpoint]:
    """The models that some models are made of, each once; one that is no view is its own."""
    names = set()
    for model in models:
        for one in [part.model for part in model.parts] or [model]:
            if one.name not in names:
                names.add(one.name)
                yield one


def members(models: Sequence[Checkpoint]) -> list[Checkpoint]:
    """The models that some views are made of, without what tells their depths: to compare the
    rest of them."""
    view = models[0]
    return [
        replace(one, config=restacked(one.config, ()), tensors=view.tensors)
        for one in originals(models)
    ]


def _by_layer(model: Checkpoint, stack: str) -> dict[int, dict[str, TensorInfo]]:
    """The tensors of every layer, by what follows its number in their names."""
    layers: dict[int, dict[str, TensorInfo]] = {}
    for name, info in model.tensors.items():
        if stack_of(name) == stack:
            number, _, rest = name[len(stack) + 1 :].partition(".")
            layers.setdefault(int(number), {})[rest] = info
    return layers


def _check_layers(part: Part, stack: str) -> None:
    count = depth_of(part.model)
    if part.stop > count:
        raise RecipeError(
            f"slices: layer_range [{part.start}, {part.stop}] of {part.model.name}, which has "
            f"{count} layers; write at most {count}"
        )


__all__ = ["Part", "TensorInfo", "depth_of", "members", "originals", "stacked", "text_stack"]
