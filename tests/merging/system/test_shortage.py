"""What runs out is said in words, however the system says it."""

from __future__ import annotations

import errno
import resource
import subprocess
import sys
from pathlib import Path

import pytest

from merging.system import shortage

ROOT = Path(__file__).parents[3]


def words(error: BaseException) -> str:
    message = shortage.in_words(error)
    assert message is not None
    return str(message)


@pytest.mark.parametrize(
    "error",
    [
        MemoryError(),
        OSError(errno.ENOMEM, "Cannot allocate memory"),
        ImportError("libtorch_cpu.so: failed to map segment from shared object"),
        OSError("kernels.so: failed to map segment from shared object: Cannot allocate memory"),
        RuntimeError("can't start new thread"),
        RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 4 bytes"),
        RuntimeError("std::bad_alloc"),
    ],
    ids=str,
)
def test_memory_that_runs_out_is_named(error: BaseException, monkeypatch) -> None:
    monkeypatch.setattr(shortage, "_limit", lambda: None)
    assert words(error) == "memory ran out; close other programs, or use a machine with more"
    monkeypatch.setattr(shortage, "_limit", lambda: 409_600_000)
    assert "this shell allows 410 MB (ulimit -v): raise that" in words(error)


def test_the_cause_counts_not_what_it_led_to() -> None:
    try:
        try:
            raise MemoryError
        except MemoryError:
            raise AttributeError("partially initialized module 'torch'") from None
    except AttributeError as error:
        assert "memory ran out" in words(error)


def test_a_full_disk_and_too_many_files_are_named_with_their_path() -> None:
    assert words(OSError(errno.ENOSPC, "x", "/a/b")).startswith("/a/b: the disk is full")
    assert "ulimit -n" in words(OSError(errno.EMFILE, "x"))


@pytest.mark.parametrize("error", [ValueError("no"), OSError(errno.ENOENT, "x", "y"), KeyError(1)])
def test_a_defect_stays_one(error: BaseException) -> None:
    assert shortage.in_words(error) is None


@pytest.mark.parametrize(
    ("megabytes", "arguments", "line"),
    [
        (100, ["check", "demo:add_sort"], "allows 100 MB of memory (ulimit -v), and the least is"),
        (400, ["evaluate", "demo:add", "--n", "1"], "memory ran out; this shell allows 400 MB"),
    ],
)
def test_a_limited_process_ends_in_words(megabytes: int, arguments: list[str], line: str) -> None:
    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_AS, (megabytes * 10**6, megabytes * 10**6))

    command = [sys.executable, "-m", "merging", *arguments]
    done = subprocess.run(command, cwd=ROOT, preexec_fn=limit, capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("error: ")
    assert done.stderr.count("\n") == 1
    assert line in done.stderr
