"""Tensors stored alike, cut into parts of one size, for kernels that pass over many of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from merging.later import torch

if TYPE_CHECKING:
    from merging.engines.sources import KeptTensor


@dataclass(frozen=True)
class Alike:
    """Tensors stored alike, as a kernel finds them.

    Attributes:
        members: which of all tensors they are.
        kinds: the models' stored types, base first, as Triton has them.
        addresses, numels: (T, 1 + M) int64 as of the table (`merging.gpu.table`), (T,) int32.
        parts: (P, 2) int32: a tensor, and the first of its elements; tensor by tensor.
        each: (T,) int64, parts of every tensor.
    """

    members: list[int]
    kinds: tuple[Any, ...]
    addresses: torch.Tensor
    numels: torch.Tensor
    parts: torch.Tensor
    each: torch.Tensor


def groups(tensors: Sequence[KeptTensor], step: int) -> list[Alike]:
    """Some tensors by stored types, cut into parts of `step` elements."""
    members: dict[tuple[str, ...], list[int]] = {}
    for index, one in enumerate(tensors):
        members.setdefault(one.types, []).append(index)
    return [_alike(tensors, one, step) for one in members.values()]


def _alike(tensors: Sequence[KeptTensor], members: list[int], step: int) -> Alike:
    from merging.gpu.elements import TYPES

    chosen = [tensors[index] for index in members]
    device = chosen[0].models[0].device
    numels = np.array([one.models[0].numel() for one in chosen], dtype=np.int64)
    each = -(-numels // step)
    owner = np.repeat(np.arange(len(chosen)), each)
    first = (np.arange(owner.size) - np.repeat(np.cumsum(each) - each, each)) * step
    addresses = [(0, *(model.data_ptr() for model in one.models)) for one in chosen]

    def there(values: Any, kind: type) -> torch.Tensor:
        return torch.from_numpy(np.ascontiguousarray(values, dtype=kind)).to(device)

    return Alike(
        members, tuple(TYPES[name] for name in chosen[0].types), there(addresses, np.int64),
        there(numels, np.int32), there(np.stack([owner, first], 1), np.int32),
        there(each, np.int64),
    )  # fmt: skip
