"""A process that starts others, one for each tokenizer: `python -m merging.trial.nursery FD`.

Chat templates and tokenizers are programs that came with a model: they may run for ever, or ask
for all the memory there is. Here they run where the system bounds both. The nursery has imported
what tokenizers need, so that a child is there in milliseconds: it is a fork of it.

Requests arrive on a socket as JSON: `{"open": folder, "name": ...}` with a socket for the child,
answered by `{"pid": ...}`; `{"end": pid}` ends a child, answered by `{"status": ...}`, negative
for the signal that ended it. A child answers `[method, arguments, seconds of processor time]` by
`{"result": ...}` or `{"error": class, "message": ...}`. Children end when their socket is closed,
the nursery ends with its own.
"""

from __future__ import annotations

import contextlib
import json
import os
import resource
import signal
import socket
import sys
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

MOST_BYTES = 1 << 26  # of one message
OPEN_S = 20.0  # of processor time, for opening a tokenizer
_SPARE_BYTES = 256 << 20  # address space beyond what is taken: for opening, and for calls after it
_PER_BYTE = 40  # address space that opening may take for each byte of a tokenizer's files
_REMEMBERED = 64  # exit statuses


def main(control: socket.socket) -> None:
    """Serves requests until the other end is closed."""
    children: dict[int, int | None] = {}  # process number -> exit status, None while it runs
    while True:
        data, handles, _, _ = socket.recv_fds(control, 1 << 16, 1)
        if not data:
            return
        _collect(children)
        request = json.loads(data)
        if "end" in request:
            answer = {"status": _end(request["end"], children)}
        else:
            pid = _start(control, handles[0], request)
            children[pid] = None
            answer = {"pid": pid}
        control.sendall(json.dumps(answer).encode())


def _start(control: socket.socket, handle: int, request: dict[str, Any]) -> int:
    """Forks a child that serves the socket `handle`; its process number."""
    pid = os.fork()
    if pid == 0:
        status = 1
        try:
            control.close()
            _serve(Connection(handle), Path(request["open"]), request["name"])
            status = 0
        finally:
            os._exit(status)
    os.close(handle)
    return pid


def _end(pid: int, children: dict[int, int | None]) -> int | None:
    """Kills a child where it still runs; its exit status, negative for a signal."""
    if pid in children and children[pid] is None:
        os.kill(pid, signal.SIGKILL)  # its number is its own until we have waited for it
        children[pid] = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    return children.pop(pid, None)


def _collect(children: dict[int, int | None]) -> None:
    """Takes note of children that ended by themselves, and forgets those of long ago."""
    with contextlib.suppress(ChildProcessError):
        while (child := os.waitpid(-1, os.WNOHANG))[0]:
            children[child[0]] = os.waitstatus_to_exitcode(child[1])
    over = [pid for pid, status in children.items() if status is not None]
    for pid in over[:-_REMEMBERED]:
        del children[pid]


def _serve(calls: Connection, folder: Path, name: str) -> None:
    """Opens a tokenizer and answers calls until the other end is closed."""
    from merging.errors import MergeError
    from merging.trial.reason import reason
    from merging.trial.tokenizer import Tokenizer

    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    size = sum(path.stat().st_size for path in folder.iterdir() if path.suffix != ".safetensors")
    most = _address_space() + _SPARE_BYTES + size * _PER_BYTE
    language: Any = None
    with contextlib.suppress(EOFError, BrokenPipeError, ConnectionResetError):
        while True:
            method, arguments, seconds = json.loads(calls.recv_bytes())
            _bound(seconds, most)
            try:
                if language is None:
                    language = Tokenizer.open(folder, name)
                    result: Any = [language.has_template, language.end, language.padding]
                    most = _address_space() + _SPARE_BYTES
                else:
                    result = getattr(language, method)(*arguments)
                answer = json.dumps({"result": result}).encode()
            except BaseException as error:  # a tokenizer's own panics have no other base
                kind = type(error).__name__
                message = str(error) if isinstance(error, MergeError) else reason(error)
                answer = json.dumps({"error": kind, "message": message}).encode()
            signal.setitimer(signal.ITIMER_PROF, 0)
            calls.send_bytes(answer)


def _bound(seconds: float, most: int) -> None:
    """Ends this process after so much more processor time; gives it `most` bytes of addresses."""
    signal.setitimer(signal.ITIMER_PROF, seconds)  # SIGPROF ends a process that does not handle it
    _, hard = resource.getrlimit(resource.RLIMIT_AS)
    if hard != resource.RLIM_INFINITY:
        most = min(most, hard)
    with contextlib.suppress(ValueError, OSError):  # macOS knows no such limit
        resource.setrlimit(resource.RLIMIT_AS, (most, hard))


def _address_space() -> int:
    """Bytes of address space that this process takes."""
    try:
        return int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    except OSError:  # no Linux: what is resident, and a margin
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss + (1 << 30)


if __name__ == "__main__":
    sys.modules["torch"] = None  # type: ignore[assignment]  # tokenizers do without: 2 s, 200 MB
    from transformers import AutoTokenizer  # noqa: F401

    import merging.trial.tokenizer  # noqa: F401

    main(socket.socket(fileno=int(sys.argv[1])))
