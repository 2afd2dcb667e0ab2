"""One model folder, read lazily: headers first, tensors when asked for.

Safetensors only. Pickle files and remote code are refused with what to do instead. Tensors are
read with plain positioned reads rather than memory maps, so that resident memory is what the
caller holds and nothing else.
"""

from __future__ import annotations

import contextlib
import json
import mmap
import operator
import os
import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from io import FileIO
from pathlib import Path
from typing import Any

from merging.checkpoints.layout import is_buffer
from merging.checkpoints.tying import ties_embeddings
from merging.errors import BadCheckpoint, ModelNotFound, UnsafeFile
from merging.later import torch

WIDTHS = {
    "F64": 8, "F32": 4, "F16": 2, "BF16": 2, "I64": 8, "I32": 4, "I16": 2, "I8": 1, "U8": 1,
    "BOOL": 1, "U16": 2, "U32": 4, "U64": 8, "F8_E4M3": 1, "F8_E5M2": 1, "F8_E8M0": 1,
}  # fmt: skip
"""Bytes per element of the types that are read, by safetensors' names."""
MERGEABLE = frozenset({"F64", "F32", "F16", "BF16"})
PAGE = mmap.PAGESIZE
_BLOCK = 1 << 20  # bytes that are held at a time where all are passed through
_PICKLES = ("*.bin", "*.pt", "*.pth", "*.ckpt", "*.pkl")


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


@dataclass(frozen=True)
class Checkpoint:
    """A model folder: its config and the index of its tensors.

    Attributes:
        name: what messages call it: the reference the user wrote.
        tensors: name -> TensorInfo, sorted by name.
    """

    name: str
    folder: Path
    config: dict[str, Any] = field(repr=False)
    tensors: dict[str, TensorInfo] = field(repr=False)

    @property
    def size_bytes(self) -> int:
        """Bytes of all tensors together."""
        return sum(info.size_bytes for info in self.tensors.values())

    @property
    def parameters(self) -> int:
        """Number of elements of all floating-point tensors together, buffers apart."""
        return sum(
            info.numel
            for info in self.tensors.values()
            if info.dtype in MERGEABLE and not is_buffer(info.name, info.shape)
        )

    @property
    def ties_embeddings(self) -> bool:
        """True where the config says that the output head is the token embedding."""
        return ties_embeddings(self.config)

    def read(self, name: str) -> torch.Tensor:
        """Returns the whole tensor `name` in its stored type and shape, on the CPU."""
        info = self.tensors[name]
        return self.read_flat(name, 0, info.numel).reshape(info.shape)

    def read_flat(self, name: str, start: int, stop: int) -> torch.Tensor:
        """Returns elements [start, stop) of tensor `name`, flat, in the stored type.

        Raises:
            BadCheckpoint: the file ends before the tensor does.
        """
        info = self.tensors[name]
        out = torch.empty(stop - start, dtype=info.torch_dtype)
        if stop > start:
            self.read_into(info, start * info.width, out.view(torch.uint8).numpy().data)
        return out

    def read_into(self, info: TensorInfo, skip_bytes: int, view: memoryview) -> None:
        """Fills the writable bytes `view` with the bytes of `info` from `skip_bytes` on."""
        # opened anew each time: no limit on the number of shards, and safe in any thread
        with _opened(info) as handle:
            _read_at(handle.fileno(), info, skip_bytes, view)

    def blocks(
        self, info: TensorInfo, ranges: Sequence[tuple[int, int]] | None = None
    ) -> Iterator[tuple[int, memoryview]]:
        """(start, bytes) of some ranges of a tensor's bytes, each until the next is asked for.

        Args:
            ranges: (start, stop) in bytes; None for all of them, block by block.
        """
        if ranges is None:
            size, step = info.size_bytes, _BLOCK
            ranges = [(start, min(start + step, size)) for start in range(0, size, step)]
        if not ranges:
            return
        buffer = pages(max(stop - start for start, stop in ranges) + PAGE)
        with _opened(info) as handle:
            for start, stop in ranges:
                shift = (info.offset + start) % PAGE
                block = buffer[shift : shift + stop - start]
                _read_at(handle.fileno(), info, start, block)
                yield start, block


def pages(size: int) -> memoryview:
    """Writable bytes that begin where a page of memory does.

    Bytes of a file are best read to the same place in a page as they have in the file: some
    processors copy four times slower to a place a few bytes further on.
    """
    return memoryview(mmap.mmap(-1, size))


@contextlib.contextmanager
def _opened(info: TensorInfo) -> Iterator[FileIO]:
    """The file of a tensor. What the system refuses becomes an error that names the tensor."""
    try:
        with info.file.open("rb", buffering=0) as handle:
            yield handle
    except OSError as error:
        raise BadCheckpoint(
            f"{info.file}: tensor {info.name} cannot be read ({(error.strerror or '').lower()}); "
            "see that the disk is there and sound, or copy the model again"
        ) from error


def _read_at(handle: int, info: TensorInfo, skip_bytes: int, view: memoryview) -> None:
    position = info.offset + skip_bytes
    while view:
        count = os.preadv(handle, [view], position)
        if count <= 0:
            raise BadCheckpoint(
                f"{info.file}: the file ends inside tensor {info.name} (at byte {position}); it is "
                "truncated, copy or download it again"
            )
        view, position = view[count:], position + count


def torch_dtype(dtype: str) -> torch.dtype:
    """The torch type of a safetensors type name."""
    return {
        "F64": torch.float64, "F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16,
        "I64": torch.int64, "I32": torch.int32, "I16": torch.int16, "I8": torch.int8,
        "U8": torch.uint8, "BOOL": torch.bool, "U16": torch.uint16, "U32": torch.uint32,
        "U64": torch.uint64, "F8_E4M3": torch.float8_e4m3fn, "F8_E5M2": torch.float8_e5m2,
        "F8_E8M0": torch.float8_e8m0fnu,
    }[dtype]  # fmt: skip


def open_checkpoint(folder: Path, name: str | None = None) -> Checkpoint:
    """Opens a model folder by its headers; no tensor is read.

    Args:
        folder: holds config.json and model.safetensors, or shards with their index.
        name: what messages call the model; the folder's own name if None.

    Raises:
        ModelNotFound: there is no such folder.
        UnsafeFile: the weights are pickle files, or the config asks for remote code.
        BadCheckpoint: a file is missing, truncated or malformed.
    """
    folder = Path(folder)
    name = name or folder.name
    if not folder.is_dir():
        raise ModelNotFound(f"{name}: no folder {folder}")
    config = _read_json(folder / "config.json", name)
    _refuse_code(folder, config, name)
    if config.get("quantization_config"):
        raise BadCheckpoint(
            f"{name}: the checkpoint is quantized; merge the original bfloat16 or float16 weights "
            "and quantize the result"
        )
    tensors: dict[str, TensorInfo] = {}
    files, promised = _weight_files(folder, name)
    for file in files:
        for info in _read_header(file, name):
            if info.name in tensors:
                raise BadCheckpoint(
                    f"{name}: tensor {info.name} stands in both {tensors[info.name].file.name} "
                    f"and {file.name}; remove the stale shard"
                )
            tensors[info.name] = info
    for tensor in promised:
        if tensor not in tensors:
            raise BadCheckpoint(
                f"{name}: tensor {tensor} is in the index but in no file; download the model again"
            )
    return Checkpoint(name, folder, config, dict(sorted(tensors.items())))


def _refuse_code(folder: Path, config: dict[str, Any], name: str) -> None:
    """Raises UnsafeFile where a model or its tokenizer would run code of its own."""
    asking = "config.json" if config.get("auto_map") else None
    for file in ("tokenizer_config.json", "processor_config.json", "preprocessor_config.json"):
        if (folder / file).is_file() and _read_json(folder / file, name).get("auto_map"):
            asking = asking or file
    if asking:
        raise UnsafeFile(
            f"{name}: {asking} asks to run code from the repository (auto_map); "
            "use a version of the model that transformers supports by itself"
        )


def _read_json(path: Path, name: str) -> dict[str, Any]:
    try:
        value = json.loads(path.read_text())
    except FileNotFoundError:
        raise BadCheckpoint(f"{name}: {path} is missing; give a complete model folder") from None
    except (ValueError, OSError) as error:
        raise BadCheckpoint(f"{name}: {path} cannot be read: {error}") from None
    if not isinstance(value, dict):
        raise BadCheckpoint(f"{name}: {path} is not a JSON object")
    return value


def _weight_files(folder: Path, name: str) -> tuple[list[Path], list[str]]:
    """The files that hold the tensors, and the tensors that an index says are in them."""
    index = folder / "model.safetensors.index.json"
    single = folder / "model.safetensors"
    if index.exists():
        weight_map = _read_json(index, name).get("weight_map")
        if not isinstance(weight_map, dict):
            raise BadCheckpoint(f"{name}: {index} has no weight_map")
        shards = [str(shard) for shard in weight_map.values()]
        outside = [shard for shard in shards if Path(shard).name != shard]
        if outside:
            raise BadCheckpoint(f"{name}: {index} points outside its folder: {outside[0]}")
        files = [folder / shard for shard in sorted(set(shards))]
        missing = [file.name for file in files if not file.exists()]
        if missing:
            raise BadCheckpoint(
                f"{name}: {len(missing)} of {len(files)} shards are missing, first {missing[0]}; "
                "download the model again"
            )
        return files, list(weight_map)
    if single.exists():
        return [single], []
    files = sorted(folder.glob("*.safetensors"))
    if len(files) == 1:
        return files, []
    if files:
        raise BadCheckpoint(
            f"{name}: {len(files)} safetensors files but no model.safetensors.index.json in "
            f"{folder}; add the index or keep one file"
        )
    pickles = [path.name for pattern in _PICKLES for path in folder.glob(pattern)]
    if pickles:
        raise UnsafeFile(
            f"{name}: holds only pickle weights ({pickles[0]}), which can run code; load it once "
            "with transformers and save_pretrained(folder) to get safetensors"
        )
    raise BadCheckpoint(f"{name}: no *.safetensors file in {folder}")


def _read_header(file: Path, name: str) -> list[TensorInfo]:
    """Returns the tensors of one safetensors file, checked against its size."""
    try:
        size = file.stat().st_size
        with file.open("rb") as handle:
            (length,) = struct.unpack("<Q", handle.read(8))
            if length > size - 8:
                raise ValueError("the header is longer than the file")
            header = json.loads(handle.read(length))
        if not isinstance(header, dict):
            raise ValueError("the header is not a JSON object")
        infos = [
            _tensor_info(tensor, entry, file, 8 + length)
            for tensor, entry in header.items()
            if tensor != "__metadata__"
        ]
    except OSError as error:
        raise BadCheckpoint(f"{name}: {file} cannot be read: {error.strerror}") from None
    except (struct.error, ValueError, RecursionError) as error:
        raise BadCheckpoint(
            f"{name}: {file} is not a safetensors file or is truncated ({error}); "
            "copy or download it again"
        ) from None
    for info in infos:
        if info.dtype not in WIDTHS:
            raise BadCheckpoint(
                f"{name}: {file}: tensor {info.name} has type {info.dtype}, which is not "
                "supported; save the model as bfloat16, float16 or float32"
            )
        if info.offset + info.size_bytes > size:
            raise BadCheckpoint(
                f"{name}: {file} has {size} bytes but tensor {info.name} ends at byte "
                f"{info.offset + info.size_bytes}; the file is truncated, copy or download it again"
            )
    return infos


def _tensor_info(tensor: str, entry: Any, file: Path, start: int) -> TensorInfo:
    """One entry of a header whose data begins at byte `start`. Raises ValueError."""
    try:
        dtype, (begin, end) = str(entry["dtype"]), entry["data_offsets"]
        shape = tuple(operator.index(side) for side in entry["shape"])
        info = TensorInfo(tensor, dtype, shape, file, start + begin, end - begin)
    except (KeyError, TypeError, ValueError):
        raise ValueError(f"tensor {tensor} is not described by type, shape and offsets") from None
    width = WIDTHS.get(dtype)
    expected = info.size_bytes if width is None else info.numel * width
    if begin < 0 or info.size_bytes != expected or min(shape, default=0) < 0:
        raise ValueError(
            f"tensor {tensor} of type {dtype} and shape {list(shape)} does not take the "
            f"{info.size_bytes} bytes it is given"
        )
    return info
