"""Pieces of files as memory, and what happens when a file shrinks under them."""

from __future__ import annotations

import ctypes
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from merging import recipe as recipes
from merging.errors import BadCheckpoint
from merging.kernels.windows import Window, lost
from merging.merge import merge
from tests.families import document, small_family

PAGE = 4096
BYTES = bytes(range(251)) * 100  # 25,100: seven pages, and no period of a page


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "file.bin"
    path.write_bytes(BYTES)
    return path


def seen(window: Window, size: int) -> bytes:
    return ctypes.string_at(window.address, size)


@pytest.mark.parametrize("sparse", [False, True])
@pytest.mark.parametrize(
    ("offset", "size"), [(0, 1), (0, 25_100), (4095, 2), (4096, 4096), (25_099, 1), (7, 9000)]
)
def test_a_window_shows_the_files_bytes(file: Path, offset: int, size: int, sparse: bool) -> None:
    window = Window(file, offset, size, sparse=sparse)
    assert seen(window, size) == BYTES[offset : offset + size]
    assert not lost()


def test_windows_stand_side_by_side_and_go_one_by_one(file: Path) -> None:
    windows = [Window(file, at, 100) for at in range(0, 20_000, 500)]
    del windows[::2]
    assert [seen(window, 100) for window in windows] == [
        BYTES[at : at + 100] for at in range(500, 20_000, 1000)
    ]


def test_bytes_that_are_gone_are_zeros_and_told_once(file: Path) -> None:
    window = Window(file, 100, 20_000)
    whole = seen(window, 20_000)
    os.truncate(file, 2 * PAGE)
    after = seen(window, 20_000)
    kept = 2 * PAGE - 100
    assert after[:kept] == whole[:kept]
    assert after[kept:] == bytes(20_000 - kept)
    assert lost()
    assert not lost()


def test_a_file_that_is_not_there_is_an_os_error(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="missing"):
        Window(tmp_path / "missing", 0, 10)
    with pytest.raises(OSError):
        Window(tmp_path, 0, 10)


def test_other_bus_errors_end_the_process_as_ever(file: Path) -> None:
    code = (
        "import mmap, os, sys\n"
        "from merging.kernels.windows import Window\n"
        f"window = Window({str(file)!r}, 0, 100)\n"
        f"handle = open({str(file)!r}, 'r+b')\n"
        "other = mmap.mmap(handle.fileno(), 20_000)\n"
        "handle.truncate(0)\n"
        "other[10_000]\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True)
    assert done.returncode == -signal.SIGBUS


@pytest.mark.parametrize("method", ["ties", "pcb", "linear"])
def test_a_model_cut_short_during_a_merge_is_one_line(tmp_path: Path, method: str) -> None:
    parent = small_family(tmp_path / "family", experts=3, layers=6, hidden=256, inner=512, kv=128)
    weights = parent / "expert1" / "model.safetensors"
    before = weights.stat().st_size

    def cut(_progress: object) -> None:
        if weights.stat().st_size == before:
            os.truncate(weights, before // 3)

    recipe = recipes.from_mapping(document(method, 3), parent)
    with pytest.raises(BadCheckpoint, match=r"expert1.*ends inside tensor .*truncated"):
        merge(recipe, tmp_path / "out", device="cpu", progress=cut)
    assert [path.name for path in tmp_path.iterdir()] == ["family"]
