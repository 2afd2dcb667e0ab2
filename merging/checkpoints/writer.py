"""Writes a model folder that appears complete or not at all.

Every size is known before the first tensor, so headers come first and chunks go straight to their
place. Work happens in a hidden folder beside the target, renamed at the end; whatever goes wrong
before that, the target does not exist (or is what it was).
"""

from __future__ import annotations

import ctypes
import errno
import glob
import json
import os
import shutil
import struct
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from merging.checkpoints.checkpoint import WIDTHS
from merging.errors import NotEnoughSpace, OutputExists

SHARD_BYTES = 5_000_000_000
_ALIGN = 64
_FLUSH_BYTES = 1 << 27  # written from one flush to the next
_CANNOT_RESERVE = (errno.EOPNOTSUPP, errno.EINVAL, errno.ENOSYS, errno.EBADF)
_LONGEST_NAME = 200  # leaves room for the hidden folder's marks within a file system's 255


@dataclass(frozen=True)
class TensorSpec:
    """A tensor to be written: its name, type (safetensors' name, "BF16") and shape."""

    name: str
    dtype: str
    shape: tuple[int, ...]

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

    Raises:
        OutputExists: `out` exists and `overwrite` is False.
        NotEnoughSpace: the disk does not hold the files.
    """

    def __init__(
        self,
        out: Path,
        specs: Sequence[TensorSpec],
        *,
        shard_bytes: int = SHARD_BYTES,
        overwrite: bool = False,
        metadata: Mapping[str, str] | None = None,
        taken_up: Path | None = None,
    ) -> None:
        self.out = Path(out)
        check_output(self.out, overwrite)
        self.folder = staging_folder(self.out)
        self._flush = Flush(self.out)
        self._overwrite = overwrite
        self._places: dict[str, tuple[Path, int, TensorSpec]] = {}
        try:
            if taken_up is not None:
                taken_up.rename(self.folder)
            else:
                self.folder.mkdir(parents=True)
            remove_abandoned(self.out)
            self._create(specs, shard_bytes, dict(metadata or {}))
            self._flush.start(sorted({path for path, _, _ in self._places.values()}))
        except BaseException as error:
            self.discard()
            raise in_words(error, self.out) from error

    def write(self, name: str, start: int, data: memoryview) -> None:
        """Writes raw elements at element `start` of tensor `name`.

        Args:
            data: bytes of whole elements of the tensor's type, contiguous.
        """
        path, offset, spec = self._places[name]
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

    def publish(self) -> None:
        """Renames the hidden folder to its final name: the model appears."""
        self.flush().done()
        if not os.path.lexists(self.out):
            self.folder.rename(self.out)
            return
        check_output(self.out, self._overwrite)
        if exchange(self.folder, self.out):
            old = self.folder
        else:
            old = staging_folder(self.out, "old")
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

    def discard(self) -> None:
        """Removes everything written."""
        self._flush.stop()
        shutil.rmtree(self.folder, ignore_errors=True)

    def _create(
        self, specs: Sequence[TensorSpec], shard_bytes: int, metadata: dict[str, str]
    ) -> None:
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
            self._places[spec.name] = (path, position, spec)
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


def exchange(one: Path, other: Path) -> bool:
    """Swaps two names in one step: neither is ever absent. False where the system cannot."""
    rename = getattr(ctypes.CDLL(None), "renameat2", None)
    if rename is None:
        return False
    here, swap = -100, 2  # AT_FDCWD, RENAME_EXCHANGE
    return rename(here, os.fsencode(one), here, os.fsencode(other), swap) == 0


def abandoned(out: Path, kind: str = "partial") -> list[Path]:
    """Hidden folders of `out` whose process ended before they were complete."""
    found = []
    for folder in sorted(out.parent.glob(f".{glob.escape(out.name)}.{kind}-*-*")):
        process = folder.name.rsplit("-", 2)[1]
        if process.isdigit() and not _runs(int(process)):
            found.append(folder)
    return found


def remove_abandoned(out: Path) -> None:
    """Removes them, and an old `out` whose process ended after it had been replaced."""
    old = abandoned(out, "old") if out.exists() else []  # else it is all there is
    for folder in (*abandoned(out), *old):
        shutil.rmtree(folder, ignore_errors=True)


def _runs(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except OSError:
        return True  # it runs, as somebody else
    return True


def staging_folder(out: Path, kind: str = "partial") -> Path:
    """A hidden, unused sibling of `out` for work in progress."""
    return out.parent / f".{out.name}.{kind}-{os.getpid()}-{os.urandom(3).hex()}"


def check_output(out: Path, overwrite: bool) -> None:
    """Raises OutputExists where writing to `out` would destroy something unasked."""
    if len(out.name.encode()) > _LONGEST_NAME:
        raise OutputExists(f"{out.name[:40]}...: the name is too long; give a shorter one")
    if out.is_file():
        raise OutputExists(f"{out} is a file; give a folder")
    if out.is_dir() and out.samefile(Path.cwd()):
        raise OutputExists(f"{out} is the folder you are in; give the name of a new one")
    if out.is_dir() and any(out.iterdir()):
        if not overwrite:
            raise OutputExists(f"{out} exists and is not empty; give another name or --overwrite")
        if not (out / "config.json").exists():
            raise OutputExists(f"{out} is not a model folder; --overwrite replaces models only")
        inside = sorted(path.name for path in out.iterdir() if path.is_dir())
        if inside:
            raise OutputExists(
                f"{out} holds the folder {inside[0]}, which --overwrite would delete; move it, or "
                "give another name"
            )


def _reserve(handle: int, size: int) -> None:
    """Gives a file its size and, where the file system can, its place on the disk."""
    try:
        os.posix_fallocate(handle, 0, size)
    except (AttributeError, OSError) as error:  # not every system and file system has it
        if getattr(error, "errno", errno.EOPNOTSUPP) not in _CANNOT_RESERVE:
            raise
        os.truncate(handle, size)


def _shard_names(count: int) -> list[str]:
    if count == 1:
        return ["model.safetensors"]
    return [f"model-{i + 1:05d}-of-{count:05d}.safetensors" for i in range(count)]


def in_words(error: BaseException, out: Path) -> BaseException:
    """What an OSError met while `out` was written means for its user; other errors unchanged."""
    if not isinstance(error, OSError) or isinstance(error, BrokenPipeError):
        return error  # a pipe is not the output: whoever read our messages went away
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        free = shutil.disk_usage(out.parent if out.parent.exists() else Path.cwd()).free
        return NotEnoughSpace(
            f"{out}: the disk is full ({free / 1e9:.2f} GB free); free space or choose another disk"
        )
    reason = (error.strerror or str(error)).lower()
    return NotEnoughSpace(f"{out}: cannot be written ({reason}); choose another folder")
