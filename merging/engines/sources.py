"""Where a reader's raw tensors come from: files, or a device's memory that holds the family.

On a GPU files are read into page-locked buffers, so that the copy runs beside the arithmetic of
other threads; a family that fits stays in the device's memory, and its next merge reads nothing.
"""

from __future__ import annotations

import functools
import threading
from collections import deque
from collections.abc import Hashable, Iterator
from dataclasses import dataclass, field
from typing import Any, NamedTuple, Protocol

import numpy as np

from merging.checkpoints import Checkpoint, Family
from merging.checkpoints.stamp import stamp
from merging.gpu import order, ranking
from merging.gpu.selecting import Population
from merging.instructions import elementary, masks
from merging.later import torch

HEADROOM = 0.25  # share of a device's memory left to the arithmetic when a family is kept there
_LOAD = 1 << 24  # elements copied at a time when a family is loaded
FINDINGS = 16  # remembered of a family that stays


class RawTensors(Protocol):
    """Hands out pieces of a family's tensors.

    Attributes:
        findings: what was measured of the family alone (`engines.eager.Stream.remembered`), where
            that may be asked for again; None where nothing is remembered.
    """

    findings: dict[Hashable, Any] | None

    def read(self, model: Checkpoint, name: str, start: int, stop: int) -> torch.Tensor:
        """Elements [start, stop) of a tensor, flat, in the stored type, on the device."""
        ...


class Files:
    """Reads files as they are needed.

    Args:
        findings: see RawTensors; whoever gives one asks for one family with it.
    """

    def __init__(self, device: str = "cpu", findings: dict[Hashable, Any] | None = None) -> None:
        self.findings = findings
        self._device = device
        self._staging = Staging(device, locked=True) if device.startswith("cuda") else None

    def read(self, model: Checkpoint, name: str, start: int, stop: int) -> torch.Tensor:
        """As RawTensors."""
        if self._staging is None:
            return model.read_flat(name, start, stop).to(self._device)
        return self._staging.read(model, name, start, stop)


class Staging:
    """Two buffers per thread, filled from a file in turn and copied to a device.

    A buffer is filled again only once its last copy is over; meanwhile the other one is filled.

    Args:
        locked: page-locked buffers, which a GPU copies from while the program goes on.
    """

    def __init__(self, device: str, *, locked: bool) -> None:
        self._device, self._locked = device, locked
        self._local = threading.local()

    def read(self, model: Checkpoint, name: str, start: int, stop: int) -> torch.Tensor:
        """As RawTensors."""
        info = model.tensors[name]
        size = (stop - start) * info.width
        buffer = self._next(size)
        piece = buffer[:size]
        if size:
            model.read_into(info, start * info.width, piece.numpy().data)
        copy = torch.empty(size, dtype=torch.uint8, device=self._device)
        copy.copy_(piece, non_blocking=self._locked)
        if self._locked:
            event = torch.cuda.Event()
            event.record()
            self._local.events[self._local.turn] = event
        return copy.view(info.torch_dtype)

    def _next(self, size: int) -> torch.Tensor:
        """This thread's other buffer, at least `size` bytes long and free to be filled."""
        local = self._local
        if not hasattr(local, "buffers"):
            local.buffers, local.events, local.turn = [None, None], [None, None], 0
        local.turn = 1 - local.turn
        event = local.events[local.turn]
        if event is not None:
            event.synchronize()
        buffer = local.buffers[local.turn]
        if buffer is None or buffer.numel() < size:
            buffer = torch.empty(max(size, 1), dtype=torch.uint8, pin_memory=self._locked)
            local.buffers[local.turn] = buffer
        return buffer


class Variances(NamedTuple):
    """What is known of a tensor's variances over the experts.

    Attributes:
        marks: theirs (`merging.gpu.order`).
        differing: how many are above 0.
        energy: the sum of squares of all experts' changes.
    """

    marks: torch.Tensor
    differing: int
    energy: float


@dataclass
class KeptTensor:
    """One tensor of all models in a device's memory, and what is known of it.

    Attributes:
        models: (n,) raw values, base first.
        types: theirs (safetensors' names).
        gram: inner products of the base and the changes, once they are measured.
    """

    models: list[torch.Tensor]
    types: tuple[str, ...]
    gram: np.ndarray | None = None
    _marks: dict[int, torch.Tensor] = field(default_factory=dict)
    _ranks: dict[int, torch.Tensor] = field(default_factory=dict)
    _addresses: dict[tuple[tuple[bool, ...], ...], tuple[int, ...]] = field(default_factory=dict)
    _changed: list[int] | None = None
    _squared: float | None = None

    @staticmethod
    def of(family: Family, name: str, models: list[torch.Tensor]) -> KeptTensor:
        """A tensor whose values of all models, base first, lie in a device's memory."""
        return KeptTensor(models, tuple(model.tensors[name].dtype for model in family.models))

    def addresses(
        self, located: tuple[bool, ...], by_rank: tuple[bool, ...], columns: int, selects: bool
    ) -> tuple[int, ...]:
        """Where the models' values lie in the device's memory, and the marks or ranks of every
        expert.

        Args:
            located, by_rank: whose marks and whose ranks are needed; 0 stands for the others'.
            columns: entries of a row.
            selects: the marks of the variances are needed, too.
        """
        key = located, by_rank, (selects,)
        if key not in self._addresses:
            values = [model.data_ptr() for model in self.models]
            marks = {e: self.marks(e) for e, needed in enumerate(located) if needed}
            ranks = {e: self.ranks(e, columns) for e, needed in enumerate(by_rank) if needed}
            known = marks | ranks
            experts = range(len(located))
            rows = [known[expert].data_ptr() if expert in known else 0 for expert in experts]
            last = [self.variances.marks.data_ptr()] if selects else []
            self._addresses[key] = (*values, *rows, *last)
        return self._addresses[key]

    def marks(self, expert: int) -> torch.Tensor:
        """The marks (`merging.gpu.order`) of one expert, made once. They are there when this
        returns: later merges read them from queues of their own."""
        if expert not in self._marks:
            self._marks[expert] = _ready(order.marks(self.models[0], self.models[1 + expert]))
        return self._marks[expert]

    def ranks(self, expert: int, columns: int) -> torch.Tensor:
        """The ranks (`merging.gpu.ranking`) of one expert in rows of so many entries, made once;
        they are there, as marks are."""
        if expert not in self._ranks:
            made = ranking.planes(self.models[0], self.models[1 + expert], columns)
            self._ranks[expert] = _ready(made)
        return self._ranks[expert]

    @functools.cached_property
    def norms(self) -> torch.Tensor:
        """`l1_norms`, made once; they are there, as marks are."""
        return _ready(self.l1_norms())

    def l1_norms(self) -> torch.Tensor:
        """Sums of |delta|, (E,) float64 on the device. Nothing waits for it."""
        return torch.stack([change.sum(dtype=torch.float64) for change in self._magnitudes()])

    def _magnitudes(self) -> Iterator[torch.Tensor]:
        """|delta| of one expert after the other, (n,) float32."""
        base, *experts = self.models
        base = base.float()
        for expert in experts:
            yield (expert.float() - base).abs_()

    def changed(self) -> list[int]:
        """How many entries of every expert differ from the base, counted once."""
        if self._changed is None:
            counts = [torch.count_nonzero(change) for change in self._magnitudes()]
            self._changed = torch.stack(counts).tolist()
        return self._changed

    @functools.cached_property
    def variances(self) -> Variances:
        """What is known of the variances over the experts, found once."""
        base, *experts = self.models
        values = torch.zeros(base.numel(), dtype=torch.float32, device=base.device)
        energy = torch.zeros((), dtype=torch.float64, device=base.device)
        for start in range(0, base.numel(), _LOAD):
            here = slice(start, start + _LOAD)
            deltas = [expert[here].float() - base[here].float() for expert in experts]
            values[here] = masks.variance(deltas)
            for delta in deltas:
                energy += (delta * delta).sum(dtype=torch.float64)
        marks = _ready(order.marks_of(values))
        return Variances(marks, int(torch.count_nonzero(values)), float(energy))

    @functools.cached_property
    def population(self) -> Population:
        """Its elements, and what is known of their order."""
        return Population([self])

    def squared(self) -> float:
        """The sum of squares of the base, made once."""
        if self._squared is None:
            self._squared = elementary.total(self.models[0].float().square_())
        return self._squared


def _ready(made: torch.Tensor) -> torch.Tensor:
    """What a queue of work makes, once it is made."""
    if made.is_cuda:
        torch.cuda.current_stream(made.device).synchronize()
    return made


class Latest(dict[Any, Any]):
    """A dictionary of the latest few."""

    def __init__(self, most: int) -> None:
        super().__init__()
        self._most = most

    def __setitem__(self, key: Hashable, value: Any) -> None:
        super().__setitem__(key, value)
        if len(self) > self._most:
            del self[next(iter(self))]


class KeptFamily:
    """A family whose merged tensors all lie in a device's memory.

    Attributes:
        tensors: by name.
        findings: see RawTensors; the latest few.

    Raises torch.OutOfMemoryError where they do not fit.
    """

    def __init__(self, family: Family, device: str) -> None:
        files = Files(device)
        self.device = device
        self.key = family_key(family)
        self._place = {model.key: index for index, model in enumerate(family.models)}
        self.tensors: dict[str, KeptTensor] = {}
        self.findings: dict[Hashable, Any] | None = Latest(FINDINGS)
        for entry in family.merged:
            models = [
                self._loaded(files, model, entry.name, entry.numel) for model in family.models
            ]
            self.tensors[entry.name] = KeptTensor.of(family, entry.name, models)
        if device.startswith("cuda"):
            torch.cuda.synchronize()  # other threads read on streams of their own

    @functools.cached_property
    def population(self) -> Population:
        """All elements, and what is known of their order."""
        return Population(list(self.tensors.values()))

    @functools.cached_property
    def has_room_for_ranks(self) -> bool:
        """True where the device's memory holds the ranks of all changes, too, as it does once."""
        changes = sum(
            one.models[0].numel() * (len(one.models) - 1) for one in self.tensors.values()
        )
        return not self.device.startswith("cuda") or ranking.BYTES * changes <= _room()

    def _loaded(self, files: Files, model: Checkpoint, name: str, numel: int) -> torch.Tensor:
        whole = torch.empty(numel, dtype=model.tensors[name].torch_dtype, device=self.device)
        for start in range(0, numel, _LOAD):
            stop = min(start + _LOAD, numel)
            whole[start:stop] = files.read(model, name, start, stop)
        return whole

    def read(self, model: Checkpoint, name: str, start: int, stop: int) -> torch.Tensor:
        """As RawTensors. A view: not to be changed in place."""
        return self.tensors[name].models[self._place[model.key]][start:stop]


def family_key(family: Family) -> tuple:
    """What tells one family's contents from another's without reading them."""
    stamps = [(str(file), stamp(file)) for model in family.models for file in model.stamps]
    views = tuple(model.key for model in family.models if model.parts)
    return (tuple(stamps), tuple((entry.name, entry.numel) for entry in family.merged), views)


def resident_bytes(family: Family) -> int:
    """Bytes of a family's merged tensors, all models together."""
    return sum(
        entry.numel * model.tensors[entry.name].width
        for model in family.models
        for entry in family.merged
    )


def fits(family: Family, device: str) -> bool:
    """True where a device's free memory holds the family and room for the arithmetic."""
    if not device.startswith("cuda"):
        return False
    return resident_bytes(family) <= _room()


def _room() -> float:
    """Bytes of a GPU's memory that may be taken for long."""
    free, total = torch.cuda.mem_get_info()
    return free - HEADROOM * total


class Queues:
    """One queue of GPU work (CUDA stream) per worker thread; on other devices nothing.

    Kept for all passes: torch keeps free memory per queue, so new queues would hoard it.
    """

    def __init__(self, device: str, workers: int) -> None:
        count = workers if device.startswith("cuda") else 0
        self._free = deque(torch.cuda.Stream() for _ in range(count))

    def take(self) -> None:
        """Gives the calling thread a queue of its own."""
        if self._free:
            queue = self._free.popleft()
            self._free.append(queue)
            torch.cuda.set_stream(queue)


__all__ = [
    "FINDINGS", "Files", "KeptFamily", "KeptTensor", "Latest", "Queues", "RawTensors", "Staging",
    "family_key", "fits", "resident_bytes",
]  # fmt: skip
