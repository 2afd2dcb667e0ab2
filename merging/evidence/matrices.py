"""Methods of whole matrices: which tensors they work on, and what becomes of the others.

Matrices inside blocks are merged by the method, (out, in) as a linear layer holds them; a stack of
them (experts of a mixture) one by one. Of everything else, embeddings and heads among it, the mean
of the changes is taken, as the methods' authors do.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

from merging.checkpoints import Entry
from merging.declarations.measures import Passes, Reader
from merging.declarations.methods import TORCH_BYTES, Evidence
from merging.declarations.values import Recipe
from merging.instructions import Combination, Eager, Sum
from merging.later import torch

_TRANSPOSED = ("gpt2", "imagegpt", "openai-gpt", "decision_transformer")
"""Families of models (config's model_type) whose layers hold their matrices as (in, out)."""
_EMBEDDED = ("c_attn", "c_proj", "c_fc", "q_attn")  # their layers of that kind

Memory = Callable[[Recipe, Sequence[Entry]], int]
Merge = Callable[[Sequence["torch.Tensor"]], "torch.Tensor"]
"""The changes to one matrix, each (out, in) float32 -> the merged change."""


def layout(recipe: Recipe, passes: Passes, *_: Any) -> Evidence:
    """Whether the family's layers hold matrices as (in, out); measures nothing."""
    return Evidence(passes.family.base.config.get("model_type") in _TRANSPOSED)


def memory(copies: int, squares: int, *, per_expert: int = 1) -> Memory:
    """What a method of whole matrices holds at its peak, torch included: `Method.memory`.

    Args:
        copies: float32 copies of the largest matrix, beside the base's.
        squares: float64 squares of its smaller side.
        per_expert: further copies for every expert.
    """

    def of(recipe: Recipe, entries: Sequence[Entry]) -> int:
        largest = 0
        for entry in entries:
            if not entry.place.is_linear:
                continue
            sides = entry.shape[-2:]
            stack = math.prod(entry.shape[:-2]) * math.prod(sides)
            held = (1 + per_expert * len(recipe.sources)) * 4 * stack
            working = copies * 4 * math.prod(sides) + squares * 8 * min(sides) ** 2
            largest = max(largest, held + working)
        return TORCH_BYTES + largest

    return of


def of_matrices(recipe: Recipe, reader: Reader, transposed: bool, merge: Merge) -> Combination:
    """The combination of one tensor: every change times its weight goes in.

    Args:
        transposed: from `layout`.
    """
    weights = recipe.weights_at(reader.entry)
    if not reader.entry.place.is_linear:
        return Sum(tuple(weight / len(weights) for weight in weights))

    def weighted(changes: Sequence[torch.Tensor]) -> torch.Tensor:
        pairs = zip(changes, weights, strict=True)
        return merge([change if w == 1.0 else change * w for change, w in pairs])

    return each_matrix(reader, transposed, weighted)


def each_matrix(reader: Reader, transposed: bool, merge: Merge) -> Eager:
    """Merges one matrix after the other of a tensor, weights left to `merge`."""
    turned = transposed and any(part in reader.entry.name for part in _EMBEDDED)

    def combine(deltas: Sequence[torch.Tensor], start: int) -> torch.Tensor:
        shape = deltas[0].shape
        stacks = [delta.reshape(-1, *shape[-2:]) for delta in deltas]
        merged = [
            _merged([stack[index] for stack in stacks], merge, turned)
            for index in range(stacks[0].shape[0])
        ]
        return torch.stack(merged).reshape(shape) if merged else deltas[0]

    return Eager(combine, "tensor")


def _merged(changes: list[torch.Tensor], merge: Merge, turned: bool) -> torch.Tensor:
    if not changes[0].numel():
        return changes[0]
    return merge([change.T for change in changes]).T if turned else merge(changes)
