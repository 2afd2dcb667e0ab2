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
from merging.kernels.windows import Mapping, Window, gather, lost
from merging.run.merge import merge
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


PLACES = [(0, 1), (0, 25_100), (4095, 2), (4096, 4096), (25_099, 1), (7, 9000)]


@pytest.mark.parametrize(("offset", "size"), PLACES)
def test_a_window_shows_the_files_bytes(file: Path, offset: int, size: int) -> None:
    window = Window(Mapping(file), offset, size)  # keeps the mapping alive
    assert seen(window, size) == BYTES[offset : offset + size]
    assert not lost()


def test_windows_of_a_mapping_go_one_by_one(file: Path) -> None:
    mapping = Mapping(file)
    windows = [Window(mapping, at, 100) for at in range(0, 20_000, 500)]
    del windows[::2]
    assert [seen(window, 100) for window in windows] == [
        BYTES[at : at + 100] for at in range(500, 20_000, 1000)
    ]
    assert mapping.shown == 40 * 100


def resident(mapping: Mapping) -> int:
    """Bytes of a mapping that count as this process' memory."""
    lines = iter(Path("/proc/self/smaps").read_text().splitlines())
    for line in lines:
        if line.startswith(f"{mapping.start:x}-"):
            return next(int(one.split()[1]) for one in lines if one.startswith("Rss:")) << 10
    raise AssertionError("not mapped")


def test_only_what_a_window_shows_is_memory(tmp_path: Path) -> None:
    file = tmp_path / "large.bin"
    file.write_bytes(bytes(range(256)) * (1 << 16))
    mapping = Mapping(file)
    assert resident(mapping) == 0
    window = Window(mapping, 1 << 22, 1 << 20)
    assert seen(window, 1 << 20) == bytes(range(256)) * (1 << 12)
    assert 1 << 20 <= resident(mapping) <= 1 << 21
    del window
    assert resident(mapping) <= 1 << 12


def test_a_window_beyond_the_file_is_an_os_error(file: Path) -> None:
    with pytest.raises(OSError, match="shorter"):
        Window(Mapping(file), 25_000, 101)


def test_bytes_that_are_gone_are_zeros_and_told_once(file: Path) -> None:
    window = Window(Mapping(file), 100, 20_000)
    whole = seen(window, 20_000)
    os.truncate(file, 2 * PAGE)
    after = seen(window, 20_000)
    kept = 2 * PAGE - 100
    assert after[:kept] == whole[:kept]
    assert after[kept:] == bytes(20_000 - kept)
    assert lost()
    assert not lost()


def test_every_window_of_a_file_cut_short_is_told(file: Path) -> None:
    mapping = Mapping(file)
    first, second = Window(mapping, 3 * PAGE, PAGE), Window(mapping, 5 * PAGE, 100)
    os.truncate(file, PAGE)
    for window in (first, second):
        assert seen(window, 100) == bytes(100)
        assert lost()


def test_a_file_that_is_not_there_is_an_os_error(tmp_path: Path) -> None:
    (tmp_path / "empty").touch()
    for name in ("missing", "empty", "."):
        with pytest.raises(OSError):
            Mapping(tmp_path / name)


def test_blocks_are_gathered_as_far_as_the_file_goes(file: Path) -> None:
    found, count = gather(file, 10, 1000, 30, 25)
    assert count == 25
    assert [bytes(row) for row in found] == [BYTES[at : at + 30] for at in range(10, 25_000, 1000)]
    assert gather(file, 10, 1000, 30, 40)[1] == 26
    with pytest.raises(OSError):
        gather(file.with_name("missing"), 0, 1, 1, 1)


def test_other_bus_errors_end_the_process_as_ever(file: Path) -> None:
    code = (
        "import mmap, os, sys\n"
        "from pathlib import Path\n"
        "from merging.kernels.windows import Mapping, Window\n"
        f"window = Window(Mapping(Path({str(file)!r})), 0, 100)\n"
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
