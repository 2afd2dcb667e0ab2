"""A tokenizer in a process of its own, where time and memory are bounded and Stop works at once."""

from __future__ import annotations

import atexit
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
import weakref
from collections.abc import Sequence
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from merging.errors import BadCheckpoint, Cancelled, MergeError
from merging.system.locks import held
from merging.trial.nursery import MOST_BYTES, OPEN_S
from merging.trial.tokenizer import Ids
from merging.trial.turns import Message, PromptError

_CALL_S = 1.5  # of processor time, for any call
_PER_S = 100_000  # characters or tokens that are worth another second
_WALL = 10  # times as long may pass on the clock: the machine may be busy
_NURSERY_S = 60.0  # on the clock, until the nursery must have answered
_LOOK_S = 0.02  # between two looks at whether the answer is still wanted


class Killed(BadCheckpoint):
    """A tokenizer's process was killed from outside."""


class ConfinedTokenizer:
    """A `Language` whose tokenizer and chat template run in a process of their own.

    Safe to share between threads: calls are answered one after another. A call that takes too long
    or too much memory ends the process; the next call starts another.

    Raises:
        BadCheckpoint: the tokenizer cannot be read within the bounds.
        Cancelled: `stop` was set.
    """

    def __init__(self, folder: Path, name: str = "", stop: threading.Event | None = None) -> None:
        self._folder, self._name = Path(folder).resolve(), name or Path(folder).name
        self._lock = threading.Lock()
        self._process: _Process | None = None
        with held(self._lock, stop):
            self.has_template, self.end, self.padding = self._opened(stop)

    def prompts(
        self, chats: Sequence[Sequence[Message]], stop: threading.Event | None = None
    ) -> list[Ids]:
        """As `Language.prompts`. Raises Cancelled where `stop` is set meanwhile."""
        size = sum(len(message["content"]) for chat in chats for message in chat)
        return self._call("prompts", [list(map(list, chats))], size, stop)

    def ids(self, texts: Sequence[str]) -> list[Ids]:
        """As `Language.ids`."""
        return self._call("ids", [list(texts)], sum(map(len, texts)))

    def texts(self, rows: Sequence[Sequence[int]]) -> list[str]:
        """As `Language.texts`."""
        return self._call("texts", [list(map(list, rows))], sum(map(len, rows)))

    def token(self, token_id: int) -> str:
        """As `Language.token`."""
        return self._call("token", [token_id], 1)

    def _call(
        self, method: str, arguments: list[Any], size: int, stop: threading.Event | None = None
    ) -> Any:
        with held(self._lock, stop):
            seconds = _CALL_S + size / _PER_S
            for again in (True, False):
                if self._process is None:
                    self._opened(stop)
                try:
                    return self._answered(method, arguments, seconds, stop)
                except Killed:
                    if not again:
                        raise
            raise AssertionError("answered, or raised")

    def _opened(self, stop: threading.Event | None) -> list[Any]:
        self._process = _Process(self._folder, self._name)
        return self._answered("open", [], OPEN_S, stop)

    def _answered(
        self, method: str, arguments: list[Any], seconds: float, stop: threading.Event | None
    ) -> Any:
        assert self._process is not None
        try:
            answer = self._process.ask(method, arguments, seconds, stop)
        except BaseException as error:
            status = self._process.end()
            self._process = None
            if not isinstance(error, (EOFError, OSError, TimeoutError)):
                raise
            late = isinstance(error, TimeoutError) or status == -signal.SIGPROF
            raise self._failed(method, seconds if late else None, status) from None
        if "result" in answer:
            return answer["result"]
        raise self._refused(method, answer)

    def _failed(self, method: str, seconds: float | None, status: int) -> MergeError:
        """What a process that ended before it answered means; seconds: where they were over."""
        if seconds is not None:
            return self._error(method, f"takes more than {seconds:.1f} s")
        if status == -signal.SIGKILL:  # not by us
            return Killed(
                f"{self._name}: the process of its tokenizer was killed, as systems do where "
                "memory is short; close other programs and try again"
            )
        return self._error(method, "asks for more memory than it may have, or ends its process")

    def _refused(self, method: str, answer: dict[str, str]) -> MergeError:
        kinds: dict[str, type[MergeError]] = {
            "PromptError": PromptError,
            "BadCheckpoint": BadCheckpoint,
        }
        kind, message = answer["error"], answer["message"]
        if kind in kinds:
            return kinds[kind](message)
        if kind == "MemoryError":
            return self._error(method, "asks for more memory than it may have")
        return self._error(method, f"fails ({message or kind})")

    def _error(self, method: str, why: str) -> MergeError:
        if method == "prompts" and self.has_template:
            return PromptError(
                f"{self._name}: its chat template or tokenizer {why} with this prompt; correct "
                "chat_template.jinja or tokenizer.json"
            )
        return BadCheckpoint(
            f"{self._name}: its tokenizer {why}; copy tokenizer.json and tokenizer_config.json "
            "again from the model it was made from"
        )


class _Process:
    """A child of the nursery, and the socket that it answers on."""

    def __init__(self, folder: Path, name: str) -> None:
        ours, theirs = socket.socketpair()
        try:
            self._pid = _NURSERY.start(theirs, folder, name)
        except BaseException:
            ours.close()
            raise
        finally:
            theirs.close()
        self._calls = Connection(ours.detach())
        weakref.finalize(self, self._calls.close)  # the child ends when nobody can ask it

    def ask(
        self, method: str, arguments: list[Any], seconds: float, stop: threading.Event | None
    ) -> dict[str, Any]:
        """One call and its answer.

        Raises:
            EOFError, OSError: the process ended.
            TimeoutError: it neither answered nor ended.
            Cancelled: `stop` was set.
        """
        self._calls.send_bytes(json.dumps([method, arguments, seconds]).encode())
        latest = time.monotonic() + _WALL * seconds
        while not self._calls.poll(_LOOK_S):
            if stop is not None and stop.is_set():
                raise Cancelled("stopped")
            if time.monotonic() > latest:
                raise TimeoutError
        return json.loads(self._calls.recv_bytes(MOST_BYTES))

    def end(self) -> int:
        """Ends the process; its exit status, negative for the signal that ended it."""
        self._calls.close()
        return _NURSERY.end(self._pid)


class _Nursery:
    """The process that tokenizers' processes are forked from: one, started when it is needed."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._process: subprocess.Popen[bytes] | None = None
        self._control: socket.socket | None = None

    def start(self, calls: socket.socket, folder: Path, name: str) -> int:
        """Forks a process that serves the socket `calls`; its number."""
        request = {"open": str(folder), "name": name}
        with self._lock:
            if self._process is None or self._process.poll() is not None:
                self._begin()
            try:
                return self._ask(request, [calls.fileno()])["pid"]
            except (OSError, ValueError):  # it was killed meanwhile
                self._begin()
                return self._ask(request, [calls.fileno()])["pid"]

    def end(self, pid: int) -> int:
        """Ends one of its processes; the exit status."""
        with self._lock:
            try:
                status = self._ask({"end": pid}, [])["status"]
            except (OSError, ValueError):
                status = None
        return -signal.SIGKILL if status is None else status

    def warm(self) -> None:
        """Starts it, so that the first tokenizer need not wait."""
        with self._lock:
            if self._process is None:
                self._begin()

    def close(self) -> None:
        """Ends it: what it started ends with the sockets."""
        if self._control is not None:
            self._control.close()

    def _ask(self, request: dict[str, Any], handles: list[int]) -> dict[str, Any]:
        assert self._control is not None
        socket.send_fds(self._control, [json.dumps(request).encode()], handles)
        return json.loads(self._control.recv(1 << 16))

    def _begin(self) -> None:
        if self._control is not None:
            self._control.close()
        self._control, theirs = socket.socketpair()
        self._control.settimeout(_NURSERY_S)
        root = str(Path(__file__).parents[2])
        environment = {
            **os.environ,
            "PYTHONPATH": os.pathsep.join(filter(None, [root, os.environ.get("PYTHONPATH")])),
            "OMP_NUM_THREADS": "1",  # a process with threads cannot be forked safely
            "OPENBLAS_NUM_THREADS": "1",
            "TOKENIZERS_PARALLELISM": "false",
            "TRANSFORMERS_VERBOSITY": "critical",
        }
        with theirs:
            self._process = subprocess.Popen(
                [sys.executable, "-P", "-m", "merging.trial.nursery", str(theirs.fileno())],
                pass_fds=[theirs.fileno()],
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                start_new_session=True,  # an interrupt at the keyboard is for us
            )


_NURSERY = _Nursery()
warm = _NURSERY.warm
atexit.register(_NURSERY.close)
