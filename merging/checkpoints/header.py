"""What a safetensors file says it holds. The safetensors package opens and judges every file.

It maps the file and reads the header alone, so that opening costs what the header takes. It
refuses whatever is not laid out without gaps and overlaps, which is why the place of every tensor
follows from the order of all. Of a name that is listed twice it takes the last, which we refuse.
The tensors' bytes are read by us, in the pieces that a merge needs.
"""

from __future__ import annotations

import json
import os
import struct
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from safetensors import SafetensorError, safe_open

from merging.errors import BadCheckpoint, BadFile, shown
from merging.later import torch
from merging.system.documents import opened

WIDTHS = {
    "F64": 8, "F32": 4, "F16": 2, "BF16": 2, "I64": 8, "I32": 4, "I16": 2, "I8": 1, "U8": 1,
    "BOOL": 1, "U16": 2, "U32": 4, "U64": 8, "F8_E4M3": 1, "F8_E5M2": 1, "F8_E8M0": 1,
}  # fmt: skip
"""Bytes per element of the types that are read, by safetensors' names."""
_SMALL = 8_000_000  # bytes of a header that take little memory whatever they say
_MOST_BYTES = 100_000_000  # of a header: the package's own limit
_MOST = {b'"': 2_400_000, b",": 2_400_000}  # of a large one: 300,000 tensors, described in full


@dataclass(frozen=True)
class TensorInfo:
    """One tensor of a checkpoint as its header describes it.

    Attributes:
        dtype: safetensors' name of the type ("BF16").
        offset: bytes from the start of `file` to the first element.
        size_bytes: bytes the tensor takes there.
    """

    name: str
    dtype: str
    shape: tuple[int, ...]
    file: Path
    offset: int
    size_bytes: int

    @property
    def numel(self) -> int:
        """Number of elements; 1 for a scalar."""
        count = 1
        for side in self.shape:
            count *= side
        return count

    @property
    def torch_dtype(self) -> torch.dtype:
        """The torch type."""
        return torch_dtype(self.dtype)

    @property
    def width(self) -> int:
        """Bytes per element."""
        return WIDTHS[self.dtype]


def torch_dtype(dtype: str) -> torch.dtype:
    """The torch type of a safetensors type name."""
    return {
        "F64": torch.float64, "F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16,
        "I64": torch.int64, "I32": torch.int32, "I16": torch.int16, "I8": torch.int8,
        "U8": torch.uint8, "BOOL": torch.bool, "U16": torch.uint16, "U32": torch.uint32,
        "U64": torch.uint64, "F8_E4M3": torch.float8_e4m3fn, "F8_E5M2": torch.float8_e5m2,
        "F8_E8M0": torch.float8_e8m0fnu,
    }[dtype]  # fmt: skip


def read_header(file: Path) -> list[TensorInfo]:
    """The tensors of one safetensors file, in the order of their bytes.

    Raises:
        BadCheckpoint: it is no such file, or holds a type that is not read. Begins with the path.
    """
    try:
        with opened(file) as handle:
            position, described = _glance(handle)
    except BadFile as error:
        raise BadCheckpoint(str(error)) from None
    except (SafetensorError, struct.error, OSError) as error:
        raise _broken(file, error) from None
    try:
        with safe_open(file, framework="np") as archive:
            slices = [(name, archive.get_slice(name)) for name in archive.offset_keys()]
            listed = [(name, piece.get_dtype(), tuple(piece.get_shape())) for name, piece in slices]
    except MemoryError:  # whole files are mapped, which takes addresses and no memory
        raise BadCheckpoint(
            f"{file}: a limit on this program's memory (ulimit -v) is smaller than the file; raise "
            "the limit"
        ) from None
    except (SafetensorError, OSError, ValueError) as error:
        raise _broken(file, error) from None
    if described != len(listed) and (twice := _listed_twice(file, position)):
        raise BadCheckpoint(
            f"{file}: its header lists {shown(twice)} twice; copy or download it again"
        )
    tensors = []
    for name, dtype, shape in listed:
        if dtype not in WIDTHS:
            raise BadCheckpoint(
                f"{file}: tensor {name} has type {dtype}, which is not supported; save the model "
                "as bfloat16, float16 or float32"
            )
        size = WIDTHS[dtype]
        for side in shape:
            size *= side
        tensors.append(TensorInfo(name, dtype, shape, file, position, size))
        position += size
    return tensors


def _glance(handle: int) -> tuple[int, int | None]:
    """Where the tensors' bytes begin, and how many are described (None where a glance does not
    tell). Raises what says that the header is none.

    The package holds about ten times a header's bytes while it reads it: of a large one what it
    describes is counted first.
    """
    (length,) = struct.unpack("<Q", os.pread(handle, 8, 0))
    text = os.pread(handle, length, 8) if length <= _MOST_BYTES else b""
    if length > _SMALL and any(text.count(mark) > most for mark, most in _MOST.items()):
        raise SafetensorError("the header describes more than 300,000 tensors")
    return 8 + length, None if b"\\u" in text else text.count(b'"data_offsets"')


def _listed_twice(file: Path, position: int) -> str | None:
    """A name that a header lists more than once."""
    try:
        with file.open("rb") as handle:
            pairs = json.loads(handle.read(position)[8:], object_pairs_hook=list)
    except (OSError, ValueError):
        return None  # it has changed meanwhile, which is told later
    counts = Counter(name for name, _ in pairs)
    return next((name for name, count in counts.items() if count > 1), None)


def _broken(file: Path, error: Exception) -> BadCheckpoint:
    reason = str(error).removeprefix("Error while deserializing header: ")
    if isinstance(error, struct.error):
        reason = "it has less than 8 bytes"
    return BadCheckpoint(
        f"{file}: is not a safetensors file or is truncated ({reason}); copy or download it again"
    )


__all__ = ["WIDTHS", "TensorInfo", "read_header", "torch_dtype"]
