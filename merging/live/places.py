"""Where the tensors of a result lie in a loaded network."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import torch

from merging.checkpoints import Checkpoint, Family
from merging.checkpoints.checkpoint import MERGEABLE
from merging.errors import BadCheckpoint

_SAMPLE = 1 << 15  # values compared at the beginning, in the middle and at the end of a tensor


def places_of(network: Any, family: Family) -> dict[str, torch.Tensor]:
    """The network's own values of every tensor that may be merged, flat, by the tensor's name.

    A network loads some checkpoints under other names, or turns their tensors round: a place counts
    only where the base's values lie in it. Of tensors that share their values one has a place.

    Args:
        network: a transformers model that holds the base of the family.

    Raises:
        BadCheckpoint: a merged tensor lies nowhere in it as it is in the file, or on the disk.
    """
    state: Mapping[str, torch.Tensor] = network.state_dict()
    prefix = str(getattr(network, "base_model_prefix", ""))
    merged = {entry.name for entry in family.merged}
    places: dict[str, torch.Tensor] = {}
    taken: set[int] = set()
    for name, info in family.base.tensors.items():
        if info.dtype not in MERGEABLE:
            continue
        values = next((state[own] for own in _names(name, prefix) if own in state), None)
        if values is not None and values.device.type != "meta" and values.data_ptr() in taken:
            continue
        if values is None or not _holds(values, family.base, name):
            if name in merged:
                raise BadCheckpoint(
                    f"{family.base.name}: transformers does not keep tensor {name} in memory as it "
                    "is in the file; write the merge, and open the result in Chat"
                )
            continue
        taken.add(values.data_ptr())
        places[name] = values.detach().view(-1)
    return places


def _names(name: str, prefix: str) -> Iterator[str]:
    """What a network may call a checkpoint's tensor: files leave out its prefix, or have it."""
    yield name
    yield f"{prefix}.{name}"
    if prefix and name.startswith(f"{prefix}."):
        yield name[len(prefix) + 1 :]


def _holds(values: torch.Tensor, base: Checkpoint, name: str) -> bool:
    """True where a network's values are those of the base, in the network's type."""
    info = base.tensors[name]
    if tuple(values.shape) != info.shape or not values.is_contiguous():
        return False
    if values.device.type == "meta":  # on the disk
        return False
    flat, size = values.detach().view(-1), min(_SAMPLE, info.numel)
    for start in {0, (info.numel - size) // 2, info.numel - size}:
        own = base.read_flat(name, start, start + size).to(values.dtype)
        if not torch.equal(own, flat[start : start + size].cpu()):
            return False
    return True
