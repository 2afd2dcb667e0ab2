"""One model folder, read lazily: headers first, tensors when asked for.

Safetensors only. Pickle files and remote code are refused with what to do instead. Tensors are
read with plain positioned reads rather than memory maps, so that resident memory is what the
caller holds and nothing else.
"""

from __future__ import annotations

import contextlib
import mmap
import os
import stat
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from io import FileIO
from pathlib import Path
from typing import Any, NamedTuple

from merging.checkpoints.folders import inner_folders, not_a_model
from merging.checkpoints.header import WIDTHS, TensorInfo, read_header, torch_dtype
from merging.checkpoints.layout import is_buffer
from merging.checkpoints.stamp import Stamp, check_unchanged, stamp
from merging.checkpoints.tying import ties_embeddings
from merging.errors import BadCheckpoint, BadFile, ModelNotFound, UnsafeFile
from merging.later import torch
from merging.system.documents import OBJECT_BYTES, kind_of, read_bytes, read_object

MERGEABLE = frozenset({"F64", "F32", "F16", "BF16"})
CONFIG, INDEX = "config.json", "model.safetensors.index.json"
CONFIG_BYTES = 4_000_000
SMALL_BYTES = 200_000_000  # of a file beside the weights: tokenizers have up to 40 MB
_SMALL_FILES = (".json", ".jinja", ".model", ".tiktoken", ".txt")
PAGE = mmap.PAGESIZE
_BLOCK = 1 << 20  # bytes that are held at a time where all are passed through
_PICKLES = ("*.bin", "*.pt", "*.pth", "*.ckpt", "*.pkl")


@dataclass(frozen=True)
class Checkpoint:
    """A model folder: its config and the index of its tensors.

    Attributes:
        name: what messages call it: the reference the user wrote.
        tensors: name -> TensorInfo, sorted by name.
        stamps: of every file that was opened, as it was then.
        parts: of a view (`checkpoints.views`): the layers that it is made of, in order.
    """

    name: str
    folder: Path
    config: dict[str, Any] = field(repr=False)
    tensors: dict[str, TensorInfo] = field(repr=False)
    stamps: dict[Path, Stamp | None] = field(repr=False, default_factory=dict)
    parts: tuple[Part, ...] = field(repr=False, default=())

    def check_unchanged(self) -> None:
        """Raises BadCheckpoint where a file is no longer the one that was opened."""
        for part in self.parts:
            part.model.check_unchanged()
        if not self.parts:
            check_unchanged(self.name, self.stamps)

    @property
    def key(self) -> str:
        """What tells it from other models that lie where it does: its folder, and its parts."""
        parts = (f"{part.model.key} {part.start} {part.stop}" for part in self.parts)
        return "\n".join((str(self.folder), *parts))

    def origin(self, name: str) -> tuple[str, str]:
        """The model and the tensor that tensor `name` really is: of a view, those that it shows."""
        info = self.tensors[name]
        for part in self.parts:
            if info.file in part.model.stamps:
                return part.model.name, info.name
        return self.name, name

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


class Part(NamedTuple):
    """Layers [start, stop) of one model."""

    model: Checkpoint
    start: int
    stop: int


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
        looked = "" if str(folder) == name else f" (looked for {folder})"
        raise ModelNotFound(f"{name}: there is no such folder{looked}; give the folder of a model")
    if what := not_a_model(folder):
        raise BadCheckpoint(f"{name}: {what}")
    stamps = {folder / CONFIG: stamp(folder / CONFIG)}
    config = _config(folder / CONFIG, name)
    _refuse_specials(folder, name)
    _refuse_code(folder, config, name)
    check_config(config, name)
    if (folder / INDEX).exists():
        stamps[folder / INDEX] = stamp(folder / INDEX)
    tensors: dict[str, TensorInfo] = {}
    files, promised = _weight_files(folder, name)
    for file in files:
        stamps[file] = stamp(file)
        for info in _tensors(file, name):
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
    return Checkpoint(name, folder, config, dict(sorted(tensors.items())), stamps)


def _refuse_specials(folder: Path, name: str) -> None:
    """Raises BadCheckpoint where what is named as a model's small file is none: a FIFO, a device, a
    link to nothing, ten gigabytes. Whoever copied or loaded it would wait for ever."""
    entries: list[os.DirEntry[str]] = []
    for place in (folder, *(folder / inner for inner in inner_folders(folder))):
        kinds = _SMALL_FILES if place == folder else (*_SMALL_FILES, ".safetensors")
        try:
            entries += [entry for entry in os.scandir(place) if _is_small_file(entry, kinds)]
        except OSError as error:
            raise BadCheckpoint(
                f"{name}: {place} cannot be listed ({(error.strerror or str(error)).lower()})"
            ) from None
    for entry in sorted(entries, key=lambda entry: entry.path):
        problem = _problem(entry)
        if problem:
            raise BadCheckpoint(f"{name}: {entry.path} {problem}; put the model's own in its place")


def _problem(entry: os.DirEntry[str]) -> str:
    """Why a small file cannot be read; "" where it can."""
    try:
        status = entry.stat()
    except OSError as error:
        linked = "(a link) " if entry.is_symlink() else ""
        return f"{linked}cannot be read ({(error.strerror or str(error)).lower()})"
    if not stat.S_ISREG(status.st_mode):
        return f"is {kind_of(status.st_mode)}, not a file"
    if status.st_size > SMALL_BYTES:
        return f"has {status.st_size / 1e6:.0f} MB, over {SMALL_BYTES / 1e6:.0f} MB"
    if status.st_size == 0:
        try:  # as files of the system do that go on for ever, or are to be waited for
            read_bytes(Path(entry.path), 0)
        except BadFile:
            return "claims to be empty and is not"
    return ""


def _is_small_file(entry: os.DirEntry[str], kinds: tuple[str, ...]) -> bool:
    """True for what a result takes over from its base, by its name."""
    return entry.name.endswith(kinds) or (entry.name.startswith("LICENSE") and not entry.is_dir())


def check_config(config: dict[str, Any], name: str) -> None:
    """Refuses what a model cannot be merged as, by its config alone.

    Raises:
        UnsafeFile: it would run code of its own.
        BadCheckpoint: it is quantized.
    """
    if config.get("auto_map"):
        raise _asks_for_code(CONFIG, name)
    if config.get("quantization_config"):
        raise BadCheckpoint(
            f"{name}: the checkpoint is quantized; merge the original bfloat16 or float16 weights "
            "and quantize the result"
        )


def _refuse_code(folder: Path, config: dict[str, Any], name: str) -> None:
    """Raises UnsafeFile where a model or its tokenizer would run code of its own."""
    asking = CONFIG if config.get("auto_map") else None
    for file in ("tokenizer_config.json", "processor_config.json", "preprocessor_config.json"):
        if (folder / file).is_file() and _read_json(folder / file, name, OBJECT_BYTES).get(
            "auto_map"
        ):
            asking = asking or file
    if asking:
        raise _asks_for_code(asking, name)


def _asks_for_code(file: str, name: str) -> UnsafeFile:
    return UnsafeFile(
        f"{name}: {file} asks to run code from the repository (auto_map); "
        "use a version of the model that transformers supports by itself"
    )


def _config(path: Path, name: str) -> dict[str, Any]:
    if not os.path.lexists(path):
        raise BadCheckpoint(f"{name}: {path} is missing; give a complete model folder")
    return _read_json(path, name, CONFIG_BYTES)


def _read_json(path: Path, name: str, most: int) -> dict[str, Any]:
    try:
        return read_object(path, most)
    except BadFile as error:
        raise BadCheckpoint(f"{name}: {error}; copy or download it again") from None


def _weight_files(folder: Path, name: str) -> tuple[list[Path], list[str]]:
    """The files that hold the tensors, and the tensors that an index says are in them."""
    index = folder / INDEX
    single = folder / "model.safetensors"
    if index.exists():
        weight_map = _read_json(index, name, OBJECT_BYTES).get("weight_map")
        if not isinstance(weight_map, dict):
            raise BadCheckpoint(f"{name}: {index} has no weight_map")
        shards = sorted({shard for shard in weight_map.values() if isinstance(shard, str)})
        odd = [shard for shard in weight_map.values() if not isinstance(shard, str)]
        odd += [shard for shard in shards if not _is_shard(shard)]
        if odd:
            raise BadCheckpoint(
                f"{name}: {index} names {str(odd[0])[:80]!r} as a shard, which is no *.safetensors "
                "file of its folder (it may point outside); download the model again"
            )
        files = [folder / shard for shard in shards]
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
    raise BadCheckpoint(
        f"{name}: no *.safetensors file in {folder}; give a folder that holds the model's weights"
    )


def _is_shard(name: str) -> bool:
    """True for the plain name of a safetensors file, which leads nowhere else."""
    return (
        len(os.fsencode(name)) < 256
        and name.endswith(".safetensors")
        and name.isprintable()
        and not {"/", os.sep} & set(name)
    )


def _tensors(file: Path, name: str) -> list[TensorInfo]:
    """The tensors of one safetensors file."""
    try:
        return read_header(file)
    except BadCheckpoint as error:
        raise BadCheckpoint(f"{name}: {error}") from None


__all__ = [
    "CONFIG",
    "INDEX",
    "MERGEABLE",
    "PAGE",
    "WIDTHS",
    "Checkpoint",
    "Part",
    "TensorInfo",
    "check_config",
    "open_checkpoint",
    "pages",
    "torch_dtype",
]
