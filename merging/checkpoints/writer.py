"""Writes a model folder that appears complete or not at all.

Every size is known before the first tensor, so headers come first and chunks go straight to their
place. Work happens in a hidden folder beside the target, renamed once all of it is on the disk;
whatever goes wrong before that, the target does not exist (or is what it was).
"""

from __future__ import annotations

import errno
import json
import os
import shutil
import struct
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from merging.checkpoints import staging
from merging.checkpoints.checkpoint import WIDTHS
from merging.checkpoints.output import check_output, in_words

SHARD_BYTES = 5_000_000_000
_ALIGN = 64
_FLUSH_BYTES = 1 << 27  # written from one flush to the next
_CANNOT = (errno.EOPNOTSUPP, errno.EINVAL, errno.ENOSYS, errno.EBADF)


@dataclass(frozen=True)
class TensorSpec:
    """A tensor to be written.

    Attributes:
        dtype: safetensors' name of the type, "BF16".
        file: the file that it goes to; empty for the model's shards.
    """

    name: str
    dtype: str
    shape: tuple[int, ...]
    file: str = ""

    @property
    def size_bytes(self) -> int:
        """Bytes it will take."""
        count = 1
        for side in self.shape:
            count *= side
        return count * WIDTHS[self.dtype]


def plan_shards(specs: Sequence[TensorSpec], shard_bytes: int) -> list[list[TensorSpec]]:
    """Groups tensors in order into shards of at most `shard_bytes` (a larger tensor is alone)."""
    shards: list[list[TensorSpec]] = [[]]
    used = 0
    for spec in specs:
        if shards[-1] and used + spec.size_bytes > shard_bytes:
            shards.append([])
            used = 0
        shards[-1].append(spec)
        used += spec.size_bytes
    return shards


class ModelWriter:
    """Writes tensors of known shape into safetensors shards, chunk by chunk.

    Args:
        out: the folder to appear. Its parent is created if absent.
        specs: every tensor, in the order of the files.
        shard_bytes: upper bound of one file.
        overwrite: replace an existing folder when complete.
        metadata: written into every shard's header.
        taken_up: a hidden folder of a merge that ended early, with the same tensors: its files are
            written on.

    Attributes:
        folder: the hidden folder, this process's own as long as the writer works.

    Raises:
        OutputExists: `out` exists and `overwrite` is False, or it can be no folder.
        NotEnoughSpace: the disk does not hold the files, or cannot be written.
    """

    def __init__(
        self,
        out: Path,
        specs: Sequence[TensorSpec],
        *,
        shard_bytes: int = SHARD_BYTES,
        overwrite: bool = False,
        metadata: Mapping[str, str] | None = None,
        taken_up: staging.Staging | None = None,
    ) -> None:
        self.out = Path(out)
        self._flush = Flush(self.out)
        self._overwrite = overwrite
        self._places: dict[tuple[str, str], tuple[Path, int, TensorSpec]] = {}
        try:
            check_output(self.out, overwrite)
            self._staging = taken_up or staging.new(self.out)
        except BaseException as error:
            if taken_up is not None:
                taken_up.let_go()
            raise in_words(error, self.out) from error
        self.folder = self._staging.folder
        try:
            staging.remove_abandoned(self.out)
            self._create(specs, shard_bytes, dict(metadata or {}))
            self._flush.start(sorted({path for path, _, _ in self._places.values()}))
        except BaseException as error:
            self.discard()
            raise in_words(error, self.out) from error

    def write(self, name: str, start: int, data: memoryview, file: str = "") -> None:
        """Writes raw elements at element `start` of tensor `name`.

        Args:
            data: bytes of whole elements of the tensor's type, contiguous.
            file: as in its `TensorSpec`.
        """
        path, offset, spec = self._places[file, name]
        data, width = memoryview(data).cast("B"), WIDTHS[spec.dtype]
        size = len(data)
        if len(data) % width or start * width + len(data) > spec.size_bytes:
            raise ValueError(f"{name}: {len(data)} bytes at element {start} do not fit {spec}")
        position = offset + start * width
        try:
            with path.open("r+b", buffering=0) as handle:
                while data:
                    count = os.pwrite(handle.fileno(), data, position)
                    data, position = data[count:], position + count
            self._flush.note(size)
        except OSError as error:
            raise in_words(error, self.out) from error

    def flush(self) -> Flush:
        """All is written: brings the rest of it to the disk; it can be read meanwhile."""
        self._flush.finish()
        return self._flush

    def publish(self, settled: Callable[[], object] = lambda: None) -> None:
        """Renames the hidden folder to its final name: the model appears, all of it on the disk.

        Args:
            settled: called once all is on the disk; what it raises keeps the model from appearing.
        """
        self.flush().done()
        try:
            self._staging.bring_to_disk(but={path for path, _, _ in self._places.values()})
            settled()
            self._staging.unlock()
            self._rename()
            for folder in (self.out, *self._staging.made):
                staging.sync_folder(folder.parent)
        except OSError as error:
            raise in_words(error, self.out) from error
        self._staging.let_go()

    def discard(self) -> None:
        """Removes everything written."""
        self._flush.stop()
        self._staging.remove()

    def leave(self) -> None:
        """Keeps what is written where it is, for whoever takes it up."""
        self._flush.stop()
        self._staging.let_go()

    def _rename(self) -> None:
        if not os.path.lexists(self.out):
            self.folder.rename(self.out)
            return
        check_output(self.out, self._overwrite)
        if staging.exchange(self.folder, self.out):
            old = self.folder
        else:
            old = staging.unused(self.out, "old")
            self.out.rename(old)
            try:
                self.folder.rename(self.out)
            except OSError:
                old.rename(self.out)
                raise
        if old.is_symlink():
            old.unlink()
        else:
            shutil.rmtree(old, ignore_errors=True)

    def _create(
        self, specs: Sequence[TensorSpec], shard_bytes: int, metadata: dict[str, str]
    ) -> None:
        for file in dict.fromkeys(spec.file for spec in specs if spec.file):
            inside = [spec for spec in specs if spec.file == file]
            self._create_shard(self.folder / file, inside, metadata)
        specs = [spec for spec in specs if not spec.file]
        if not specs and self._places:
            return
        shards = plan_shards(specs, shard_bytes)
        names = _shard_names(len(shards))
        for shard, file in zip(shards, names, strict=True):
            self._create_shard(self.folder / file, shard, metadata)
        if len(shards) > 1:
            weight_map = {
                spec.name: file for shard, file in zip(shards, names, strict=True) for spec in shard
            }
            total = sum(spec.size_bytes for spec in specs)
            index = {"metadata": {"total_size": total}, "weight_map": weight_map}
            path = self.folder / "model.safetensors.index.json"
            path.write_text(json.dumps(index, indent=2, sort_keys=True) + "\n")

    def _create_shard(
        self, path: Path, specs: Sequence[TensorSpec], metadata: dict[str, str]
    ) -> None:
        header: dict[str, object] = {"__metadata__": {"format": "pt", **metadata}}
        offset = 0
        for spec in specs:
            header[spec.name] = {
                "dtype": spec.dtype,
                "shape": list(spec.shape),
                "data_offsets": [offset, offset + spec.size_bytes],
            }
            offset += spec.size_bytes
        text = json.dumps(header, separators=(",", ":")).encode()
        text += b" " * (-(8 + len(text)) % _ALIGN)
        with path.open("r+b" if path.exists() else "x+b") as handle:
            handle.write(struct.pack("<Q", len(text)) + text)
            handle.flush()
            _reserve(handle.fileno(), 8 + len(text) + offset)
        position = 8 + len(text)
        for spec in specs:
            self._places[spec.file, spec.name] = (path, position, spec)
            position += spec.size_bytes


class Flush:
    """Brings files to the disk while they are written, by a thread that nobody has to wait for."""

    def __init__(self, out: Path) -> None:
        self._files: Sequence[Path] = ()
        self._out = out
        self._dirty = 0
        self._wake, self._last, self._over = threading.Event(), False, False
        self._error: OSError | None = None
        self._thread = threading.Thread(target=self._run, name="flush", daemon=True)

    def start(self, files: Sequence[Path]) -> None:
        """These files are there and will be written."""
        self._files = files
        self._thread.start()

    def note(self, size: int) -> None:
        """So many bytes more have been written."""
        self._dirty += size  # a race loses a few bytes of a hint
        if self._dirty >= _FLUSH_BYTES:
            self._wake.set()

    def finish(self) -> None:
        """Nothing more will be written."""
        self._last = True
        self._wake.set()

    def stop(self) -> None:
        """What was written is not wanted."""
        self._over = True
        self._wake.set()

    def done(self, timeout: float | None = None) -> bool:
        """Waits for at most `timeout` seconds. True once all is on the disk, after `finish`.

        Raises:
            NotEnoughSpace: it could not be written.
        """
        self._thread.join(timeout)
        if self._error is not None:
            raise in_words(self._error, self._out) from self._error
        return not self._thread.is_alive()

    def _run(self) -> None:
        last = False
        try:
            while not last and not self._over:
                self._wake.wait()
                self._wake.clear()
                last, self._dirty = self._last, 0
                for path in self._files:
                    if not self._over:
                        with path.open("r+b", buffering=0) as handle:
                            os.fsync(handle.fileno())
        except OSError as error:
            self._error = error


def _reserve(handle: int, size: int) -> None:
    """Gives a file its size and, where the file system can, its place on the disk."""
    try:
        os.posix_fallocate(handle, 0, size)
    except (AttributeError, OSError) as error:  # not every system and file system has it
        if getattr(error, "errno", errno.EOPNOTSUPP) not in _CANNOT:
            raise
        os.truncate(handle, size)


def _shard_names(count: int) -> list[str]:
    if count == 1:
        return ["model.safetensors"]
    return [f"model-{i + 1:05d}-of-{count:05d}.safetensors" for i in range(count)]
