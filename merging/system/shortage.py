"""Memory, disk and handles that run out: what the system said, as words of ours.

A limit on memory (`ulimit -v`) shows in many ways: MemoryError, a library that cannot be mapped, a
thread that cannot be started, often as the cause of another error.
"""

from __future__ import annotations

import errno
import resource
from collections.abc import Iterator

from merging.errors import NotEnoughSpace

_LEAST = 192_000_000  # of address space: below, numpy ends the process without a word of ours
_MEMORY = (
    "failed to map segment",
    "cannot allocate memory",
    "can't start new thread",
    "bad_alloc",
    "can't allocate memory",
    "not enough memory",
    "cannot map zero-fill pages",
)
_SYSTEM = {
    errno.ENOSPC: "the disk is full; free space, or choose another disk",
    errno.EDQUOT: "the disk quota is used up; free space, or choose another disk",
    errno.EROFS: "the disk can only be read; choose another place",
    errno.EMFILE: "too many files are open; raise the limit: ulimit -n 4096",
    errno.ENFILE: "the machine has too many files open; close other programs",
    errno.EIO: "the disk cannot be read or written; see that it is there and sound",
}


def check_limit() -> None:
    """Raises NotEnoughSpace where this process may not have the memory to begin with."""
    limit = _limit()
    if limit is not None and limit < _LEAST:
        raise NotEnoughSpace(
            f"this shell allows {limit / 1e6:.0f} MB of memory (ulimit -v), and the least is "
            f"{_LEAST / 1e6:.0f} MB; raise it: ulimit -v unlimited"
        )


def in_words(error: BaseException) -> NotEnoughSpace | None:
    """What ran out, if that is what an error comes from; else None."""
    for cause in _causes(error):
        if isinstance(cause, OSError) and cause.errno in _SYSTEM:
            where = f"{cause.filename}: " if cause.filename else ""
            return NotEnoughSpace(f"{where}{_SYSTEM[cause.errno]}")
        is_short = isinstance(cause, OSError) and cause.errno == errno.ENOMEM
        if (
            isinstance(cause, MemoryError)
            or is_short
            or any(w in str(cause).lower() for w in _MEMORY)
        ):
            limit = _limit()
            allowed = (
                f"this shell allows {limit / 1e6:.0f} MB (ulimit -v): raise that"
                if limit is not None
                else "close other programs"
            )
            return NotEnoughSpace(f"memory ran out; {allowed}, or use a machine with more")
    return None


def _limit() -> int | None:
    """Bytes of memory that this process may have; None where that is not limited."""
    soft = [resource.getrlimit(kind)[0] for kind in (resource.RLIMIT_AS, resource.RLIMIT_DATA)]
    return min((limit for limit in soft if limit != resource.RLIM_INFINITY), default=None)


def _causes(error: BaseException) -> Iterator[BaseException]:
    """An error and what it came from."""
    identities: set[int] = set()
    pending: list[BaseException | None] = [error]
    while pending:
        cause = pending.pop()
        if cause is None or id(cause) in identities:
            continue
        identities.add(id(cause))
        yield cause
        pending += [cause.__context__, cause.__cause__]
