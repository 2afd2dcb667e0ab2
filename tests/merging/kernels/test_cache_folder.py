"""Where compiled loops and sketches go, whoever runs the program and wherever it is installed."""

from __future__ import annotations

import os
import stat
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from merging.kernels import cache_folder


@pytest.fixture(autouse=True)
def anew(monkeypatch, tmp_path) -> Iterator[None]:
    for name in ("AMALGAM_CACHE", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    cache_folder.cache_clear()
    yield
    cache_folder.cache_clear()


def test_it_is_the_user_s_unless_another_is_chosen(monkeypatch, tmp_path) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    assert cache_folder() == tmp_path / ".cache" / "amalgam"
    cache_folder.cache_clear()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "x"))
    assert cache_folder() == tmp_path / "x" / "amalgam"
    cache_folder.cache_clear()
    monkeypatch.setenv("AMALGAM_CACHE", str(tmp_path / "y"))
    assert cache_folder() == tmp_path / "y"


@pytest.mark.parametrize("home", ["/proc/none", "/dev/null"])
def test_without_a_home_it_is_a_folder_of_the_user_s_own(monkeypatch, tmp_path, home) -> None:
    monkeypatch.setenv("HOME", home)
    own = tmp_path / f"amalgam-{os.getuid()}"
    assert cache_folder() == own
    assert stat.S_IMODE(own.stat().st_mode) == 0o700


def test_a_folder_that_another_put_there_is_not_taken(monkeypatch, tmp_path) -> None:
    monkeypatch.setenv("HOME", "/dev/null")
    (tmp_path / "theirs").mkdir()
    own = tmp_path / f"amalgam-{os.getuid()}"
    own.symlink_to(tmp_path / "theirs")
    chosen: Path = cache_folder()
    assert chosen.parent == tmp_path
    assert chosen not in (own, tmp_path / "theirs")
    assert cache_folder() == chosen
