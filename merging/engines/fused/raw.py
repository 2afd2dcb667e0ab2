"""Raw tensors where they lie: windows of mapped files, and loops called on them."""

from __future__ import annotations

import ctypes
import itertools
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np

from merging import kernels
from merging.checkpoints import Entry
from merging.engines.eager import TensorReader
from merging.engines.fused import sizes
from merging.errors import BadCheckpoint
from merging.instructions import (
    Ranked,
)
from merging.kernels.windows import Window, gather, lost
from merging.selection.collected import Collected
from merging.selection.tied import edges

if TYPE_CHECKING:
    from merging.engines.fused.stream import FusedStream


_BLOCK = 1 << 10  # pieces are whole blocks of the loops
_Held = tuple[int, int, int, "Window | np.ndarray"]
"""First and last element, their address, and what holds them."""
TYPES = {"F32": 0, "BF16": 1, "F16": 2, "F64": 3}
SPREAD = 4  # the type of several experts taken as one


class RawReader(TensorReader):
    """One tensor of all models, a piece at a time."""

    stream: FusedStream

    def __init__(self, stream: FusedStream, entry: Entry) -> None:
        super().__init__(stream, entry)
        self._models = stream.family.models
        self._infos = [model.tensors[entry.name] for model in self._models]
        self._types = [TYPES[info.dtype] for info in self._infos]
        widths = [info.width for info in self._infos]
        self._widths = widths
        self._step = self._piece(sizes.PIECE_BYTES)
        self._fits = self._step == entry.numel
        self._loaded: dict[int, _Held] = {}
        self._stays: dict[tuple[int, int], _Held] = {}
        self._room = 0
        self._collected: list[Collected] = []
        self._drawn: dict[tuple[int, Ranked], np.ndarray] = {}

    def _piece(self, size_bytes: int) -> int:
        """Elements of a piece whose raw bytes in all models are about so many."""
        return min(self.numel, max(_BLOCK, size_bytes // sum(self._widths) // _BLOCK * _BLOCK))

    def blocks(self, one_in: int, size: int) -> np.ndarray:
        """As TensorReader."""
        if self.numel == 0:
            return np.zeros((1 + self.experts, 0), dtype=np.float32)
        run = min(size, self.numel)
        count = (self.numel - run) // (one_in * run) + 1
        rows = [self._gather(model, run, one_in * run, count) for model in range(len(self._infos))]
        return np.stack(rows)

    def _gather(self, model: int, size: int, step: int, count: int) -> np.ndarray:
        """(count * size,) float32: blocks of a model's tensor, `step` elements apart."""
        info, width = self._infos[model], self._widths[model]
        try:
            raw, readable = gather(info.file, info.offset, step * width, size * width, count)
        except OSError:
            readable = 0
        if readable < count:  # reading the next one says what is wrong
            block = memoryview(bytearray(size * width))
            self._models[model].read_into(info, readable * step * width, block)
            raise BadCheckpoint(f"tensor {info.name}: {info.file} cannot be read")
        return as_float32(raw.reshape(-1), info.dtype, slice(None))

    def _values(self, model: int, start: int, stop: int, chosen: slice | np.ndarray) -> np.ndarray:
        """Some of a model's entries [start, stop), float32."""
        raw = bytes_at(self._pointer(model, start, stop), (stop - start) * self._widths[model])
        return as_float32(raw, self._infos[model].dtype, chosen)

    def _sample(self, start: int, stop: int, skip: int, stride: int) -> np.ndarray:
        """(1 + E, s) float32: every stride-th base value and delta of [start, stop) from `skip`
        on."""
        chosen = slice(skip, None, stride)
        base, *rows = [self._values(m, start, stop, chosen) for m in range(len(self._infos))]
        return np.stack([base, *(row - base for row in rows)])

    def _blocks(self) -> Iterator[tuple[int, int]]:
        """(start, stop) of pieces that hold whole blocks of a Gram matrix."""
        for start in range(0, self.numel, max(self._step, 1)):
            self.stream.check_cancelled()
            yield start, min(start + self._step, self.numel)

    def _pieces(self, offset: int = 0, most: int = 1 << 62) -> Iterator[tuple[int, int]]:
        """(start, stop) of pieces inside which every ring's bounds are constant.

        Args:
            offset: index of the tensor's first entry in the scope of the cuts.
            most: elements of a piece.
        """
        stops = [edge - offset for edge in edges(offset, offset + self.numel)]
        for start in range(0, self.numel, max(self._step, 1)):
            stop = min(start + self._step, self.numel)
            inner = (edge for edge in stops if start < edge < stop)
            ends = sorted({start, stop, *inner, *range(start, stop, most)})
            for a, b in itertools.pairwise(ends):
                self.stream.check_cancelled()
                yield a, b

    def _rows(self) -> Iterator[tuple[int, int]]:
        """(start, stop) of pieces of whole rows."""
        step = max(self._step // self.columns, 1) * self.columns
        for start in range(0, self.numel, step):
            self.stream.check_cancelled()
            yield start, min(start + step, self.numel)

    def _pointer(self, model: int, start: int, stop: int) -> int:
        """Address of element `start` of a model's raw tensor, at hand as far as `stop`."""
        width = self._widths[model]
        span = self._loaded.get(model)
        if span is None or not span[0] <= start <= stop <= span[1]:
            self._loaded.pop(model, None)  # one window at a time, but for those that stay
            low = start - start % self._step if self._step else 0
            if (model, low) not in self._stays:
                high = min(low + self._step, self.numel)
                size = (high - low) * width
                span = (low, high, *self._hold(model, low * width, size))
                if size <= self._room and isinstance(span[3], Window):
                    self._stays[model, low] = span
                    self._room -= size
            else:
                span = self._stays[model, low]
            self._loaded[model] = span
        low, _, address, _held = span
        return address + (start - low) * width

    def _hold(self, model: int, skip: int, size: int) -> tuple[int, Window | np.ndarray]:
        """Address of `size` bytes of a model's tensor from byte `skip` on, and what holds them.

        The file itself is mapped; where that cannot be, its bytes are read into a buffer.
        """
        info = self._infos[model]
        position = info.offset + skip
        if size and position % info.width == 0:
            try:
                window = Window(self.stream.mapping(info.file), position, size)
            except OSError:
                pass  # reading says what is wrong, if anything is
            else:
                return window.address, window
        raw = self.stream.buffer(model, max(size, 1))[:size]
        self._models[model].read_into(info, skip, raw.data)
        return raw.ctypes.data, raw

    def _call(self, name: str, start: int, stop: int, *arguments: Any) -> Any:
        """Calls a fused loop with the base's address and type first.

        Raises:
            BadCheckpoint: a file ended, or its disk failed, while it was read.
        """
        function = getattr(kernels.library(), name)
        result = function(self._pointer(0, start, stop), self._types[0], *arguments)
        self._check_lost()
        return result

    def _check_lost(self) -> None:
        """Raises what reading the tensor's last byte raises, where a file ended meanwhile."""
        if not lost():
            return
        for model, info in zip(self._models, self._infos, strict=True):
            model.read_into(info, info.size_bytes - 1, memoryview(bytearray(1)))
        raise BadCheckpoint(
            f"tensor {self.entry.name}: its file changed, or its disk failed, while it was read; "
            "wait until the models are complete and run again"
        )


def bytes_at(address: int, size: int) -> np.ndarray:
    """(size,) uint8 over memory that the caller holds."""
    return np.ctypeslib.as_array((ctypes.c_uint8 * size).from_address(address))


def as_float32(raw: np.ndarray, dtype: str, chosen: slice | np.ndarray) -> np.ndarray:
    """Some elements of a raw tensor, float32. bfloat16 is the upper half of a float32."""
    if dtype == "BF16":
        return (raw.view(np.uint16)[chosen].astype(np.uint32) << 16).view(np.float32)
    kinds = {"F32": np.float32, "F16": np.float16, "F64": np.float64}
    return raw.view(kinds[dtype])[chosen].astype(np.float32)
