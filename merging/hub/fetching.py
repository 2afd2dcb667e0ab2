"""Fetching a model of the Hub into its cache: with progress, ended at any time, and resumed.

Of a large file what has come is kept until the rest is here, however the fetching ended, and only
bytes that add up to its checksum become the file. (huggingface_hub drops what it had of a file.)
Whoever fetches the same file at the same time waits for the one who began.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from http import HTTPStatus
from io import FileIO
from pathlib import Path

from huggingface_hub import get_session, hf_hub_url
from huggingface_hub.errors import HfHubHTTPError, HTTPError
from huggingface_hub.utils import build_hf_headers, hf_raise_for_status

from merging.checkpoints import open_checkpoint
from merging.errors import BadCheckpoint, Cancelled, NotEnoughSpace
from merging.hub.cache import Snapshot
from merging.hub.files import RemoteFile
from merging.hub.listing import Repository
from merging.hub.refusals import told_of

AT_ONCE = 3  # files
TRIES = 5  # without a byte that came
_CHUNK = 1 << 20
_SILENCE_S = 10.0  # until a connection counts as broken
_LOOK_S = 0.2
_SPARE = 64 << 20  # bytes of the disk that are left to others


@dataclass
class Progress:
    """How far a fetching is.

    Attributes:
        done, total: in bytes, what was here before included.
    """

    done: int
    total: int


@dataclass
class _Fetching:
    """One fetching, over its threads.

    Attributes:
        here: bytes of every file that are here.
        pause_s: as in `fetch`.
        failed: a file cannot be had: the others need not be, either.
    """

    snapshot: Snapshot
    report: Callable[[Progress], None]
    cancel: threading.Event
    total: int
    here: dict[str, int]
    pause_s: float
    failed: threading.Event = field(default_factory=threading.Event)

    def note(self, file: RemoteFile, size: int) -> None:
        """So many bytes of a file are here now."""
        self.here[file.name] = size
        self.report(Progress(sum(list(self.here.values())), self.total))

    def check(self) -> None:
        """Raises Cancelled where the fetching is to end."""
        if self.cancel.is_set() or self.failed.is_set():
            raise Cancelled("stopped; what has come is kept")


def fetch(
    repository: Repository,
    progress: Callable[[Progress], None] | None = None,
    cancel: threading.Event | None = None,
    pause_s: float = 1.0,
) -> Path:
    """Fetches what is not here yet of a model, and returns its folder.

    Args:
        pause_s: before a broken line is tried again, in seconds.

    Raises:
        NotEnoughSpace: the disk does not hold it.
        Cancelled: `cancel` was set; the next call goes on from there.
        ModelNotFound: the Hub refused, or could not be reached.
        BadCheckpoint, UnsafeFile: it is no model that can be merged.
    """
    name = repository.pinned.short
    snapshot, files = repository.snapshot, repository.files
    total = sum(file.size_bytes for file in files)
    here = {file.name: snapshot.bytes_here(file) for file in files}
    check_space(name, total - sum(here.values()), snapshot.hub.free_bytes())
    report = progress or (lambda _: None)
    work = _Fetching(snapshot, report, cancel or threading.Event(), total, here, pause_s)
    report(Progress(sum(here.values()), total))
    with told_of(name):
        _fetch_all(work, [file for file in files if not snapshot.has(file)])
    open_checkpoint(snapshot.folder, name)
    return snapshot.folder


def check_space(name: str, missing: int, free: int) -> None:
    """Raises NotEnoughSpace where `missing` bytes do not fit into `free` ones."""
    if missing and missing + _SPARE > free:
        raise NotEnoughSpace(
            f"{name}: {missing / 1e9:.2f} GB are still to be fetched, and {free / 1e9:.2f} GB are "
            "free where the Hub's cache is; free space, or set HF_HOME to a folder on another disk"
        )


def _fetch_all(work: _Fetching, files: Sequence[RemoteFile]) -> None:
    """Fetches files, some at a time; the first that fails ends the others."""

    def one(file: RemoteFile) -> None:
        try:
            _fetch_one(work, file)
        except BaseException:
            work.failed.set()
            raise

    if not files:
        return
    with ThreadPoolExecutor(AT_ONCE) as threads:
        futures = [threads.submit(one, file) for file in files]
    errors = [error for future in futures if (error := future.exception())]
    told = [error for error in errors if not isinstance(error, Cancelled)]
    if errors:
        raise (told or errors)[0]


def _fetch_one(work: _Fetching, file: RemoteFile) -> None:
    work.check()
    snapshot = work.snapshot
    if not file.sha256:
        snapshot.link(file)
        work.note(file, file.size_bytes)
        return
    blob, partial = snapshot.blob(file), snapshot.partial(file)
    blob.parent.mkdir(parents=True, exist_ok=True)
    with _own(partial, work) as handle:
        if not blob.exists():
            _complete(work, file, handle)
            os.fsync(handle.fileno())
            os.replace(partial, blob)
        else:
            partial.unlink(missing_ok=True)
    snapshot.link(file)
    work.note(file, file.size_bytes)


@contextlib.contextmanager
def _own(partial: Path, work: _Fetching) -> Iterator[FileIO]:
    """The file that a large one's bytes gather in, while nobody else writes it."""
    while True:
        number = os.open(partial, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o666)
        with FileIO(number, "r+b") as handle:
            _locked(handle, work)
            with contextlib.suppress(FileNotFoundError):
                if os.path.samestat(os.fstat(handle.fileno()), os.stat(partial)):
                    yield handle
                    return
        # whoever had it finished, and it is another file by now


def _locked(handle: FileIO, work: _Fetching) -> None:
    while True:
        work.check()
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return
        except BlockingIOError:
            work.cancel.wait(_LOOK_S)
        except OSError:
            return  # a file system without locks: the checksum tells


def _complete(work: _Fetching, file: RemoteFile, handle: FileIO) -> None:
    """Appends what is missing. Raises BadCheckpoint where the whole is not the file."""
    checksum = hashlib.sha256()
    while block := handle.read(_CHUNK):
        work.check()
        checksum.update(block)
    tries = 0
    while handle.tell() < file.size_bytes:
        tries += 1
        try:
            for chunk in _stream(work.snapshot, file, handle.tell()):
                work.check()
                if chunk is None:
                    handle.seek(0)
                    handle.truncate()
                    checksum = hashlib.sha256()
                    continue
                _write(handle, chunk)
                checksum.update(chunk)
                work.note(file, handle.tell())
                tries = 0
        except HTTPError as error:  # the line, or the Hub
            is_final = isinstance(error, HfHubHTTPError) and error.response.status_code < 500
            if is_final or tries >= TRIES:
                raise
        if tries >= TRIES:
            break
        if tries:
            work.cancel.wait(work.pause_s)
    if handle.tell() != file.size_bytes or checksum.hexdigest() != file.sha256:
        handle.seek(0)
        handle.truncate()
        raise BadCheckpoint(
            f"{work.snapshot.repo}: {file.name} is not what the Hub says it is, so it was dropped; "
            "try again"
        )


def _write(handle: FileIO, chunk: bytes) -> None:
    """Writes all of it, through no buffer: what was told of as here is here, however we end."""
    rest = memoryview(chunk)
    while rest:
        rest = rest[handle.write(rest) :]


def _stream(snapshot: Snapshot, file: RemoteFile, start: int) -> Iterator[bytes | None]:
    """A file's bytes from `start` on; None first where they come from its beginning instead."""
    url = hf_hub_url(
        snapshot.repo, file.name, revision=snapshot.commit, endpoint=snapshot.hub.endpoint
    )
    headers = build_hf_headers() | {"Accept-Encoding": "identity"}
    if start:
        headers["Range"] = f"bytes={start}-"
    with get_session().stream("GET", url, headers=headers, timeout=_SILENCE_S) as response:
        hf_raise_for_status(response)
        if start and response.status_code != HTTPStatus.PARTIAL_CONTENT:
            yield None
        yield from response.iter_raw()  # as it arrives: little is lost where the line breaks
