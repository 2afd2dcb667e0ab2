"""Where a model lies: on one device, over several, the rest in memory or on disk.

accelerate places the modules in order, as many as each device holds, and brings what lies elsewhere
to where it is computed. Weights on disk are read from the model's own files, nothing is copied.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from transformers import PreTrainedModel

from merging.errors import DeviceUnavailable, NotEnoughSpace
from merging.trial.memory import free_bytes, gigabytes

Memory = Mapping[int | str, int]
"""Bytes that a model may take of each device: {0: ..., 1: ..., "cpu": ...}."""

_SHARE = 0.8  # of what is free: the rest is for the tokens that are read and written


@dataclass(frozen=True)
class Placement:
    """Where a model's weights lie, in bytes.

    Attributes:
        main: the device that tokens are given to.
        held: bytes by device: "cuda:0", "cpu", "disk".
    """

    main: torch.device
    held: Mapping[str, int]

    @property
    def is_whole(self) -> bool:
        """True where everything lies on one device."""
        return len(self.held) == 1 and "disk" not in self.held

    @property
    def memory_bytes(self) -> int:
        """Bytes of memory that the model holds, on all devices."""
        return sum(size for device, size in self.held.items() if device != "disk")

    def __str__(self) -> str:
        """In words, with what it costs: "0.2 GB on cpu, 0.3 GB on disk (read for every token)"."""
        names = {"cpu": "in memory", "disk": "on disk"}
        costs = {"disk": " (read for every token)"}
        if self.main.type != "cpu":
            costs["cpu"] = f" (brought to {self.main} for every token)"
        return ", ".join(
            f"{gigabytes(size)} {names.get(device, f'on {device}')}"
            f"{'' if self.is_whole else costs.get(device, '')}"
            for device, size in self.held.items()
        )


def main_device(choice: str) -> torch.device:
    """The device of "auto" (CUDA where present), "cpu", "cuda" or "mps".

    Raises:
        DeviceUnavailable: it is not there.
    """
    if choice == "auto":
        return torch.device("cuda:0" if torch.cuda.is_available() else "cpu")
    if choice.startswith("cuda") and not torch.cuda.is_available():
        raise DeviceUnavailable("there is no CUDA device here; choose cpu or auto")
    if choice == "mps" and not torch.backends.mps.is_available():
        raise DeviceUnavailable("there is no Apple GPU here; choose cpu or auto")
    return torch.device("cuda:0" if choice == "cuda" else choice)


def usable_memory(device: torch.device) -> dict[int | str, int]:
    """Bytes that a model may take of `device`, of other GPUs where it is one, and of memory."""
    memory: dict[int | str, int] = {}
    if device.type == "cuda":
        first = device.index or 0
        others = [one for one in range(torch.cuda.device_count()) if one != first]
        for index in (first, *others):
            memory[index] = int(_SHARE * free_bytes(torch.device("cuda", index)))
    memory["cpu"] = int(_SHARE * free_bytes())
    return memory


def at_most(memory: Memory, total: int) -> dict[int | str, int]:
    """The same devices with `total` bytes of all of them together, the first ones first."""
    limited: dict[int | str, int] = {}
    for device, size in memory.items():
        limited[device] = min(size, total)
        total -= limited[device]
    return limited


def weight_bytes(network: PreTrainedModel, dtype: torch.dtype | None = None) -> int:
    """Bytes of a model's parameters and buffers, in a type or in their own."""
    tensors = [*network.parameters(), *network.buffers()]
    return sum(t.numel() * (dtype.itemsize if dtype else t.element_size()) for t in tensors)


def check_largest(name: str, network: PreTrainedModel, memory: Memory) -> None:
    """Raises NotEnoughSpace where not even one tensor fits: a model on disk is read by modules."""
    largest = max((p.numel() * p.element_size() for p in network.parameters()), default=0)
    most = max(memory.values())
    if 2 * largest > most:
        raise NotEnoughSpace(
            f"{name}: its largest tensor needs {gigabytes(2 * largest)} of memory, "
            f"{gigabytes(most)} may be taken; close other programs, or give it more memory"
        )


def placement_of(network: PreTrainedModel, main: torch.device) -> Placement:
    """Where a loaded model's weights lie."""
    places: Mapping[str, Any] = getattr(network, "hf_device_map", None) or {"": main}
    held: dict[str, int] = {}
    for name, tensor in [*network.named_parameters(), *network.named_buffers()]:
        inside = (place for place in places if not place or f"{name}.".startswith(f"{place}."))
        place = places[max(inside, key=len)]
        device = place if place == "disk" else str(torch.device(place))
        held[device] = held.get(device, 0) + tensor.numel() * tensor.element_size()
    order = sorted(held, key=lambda device: (device == "disk", device == "cpu", device))
    return Placement(main, {device: held[device] for device in order})
