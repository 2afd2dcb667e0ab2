"""The hidden folder of a merge: whose it is, what is left of it, and what reaches the disk."""

from __future__ import annotations

import errno
import fcntl
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from merging.checkpoints import staging
from merging.checkpoints.staging import LOCK, abandoned, exchange, remove_abandoned

HOLD = """
import sys
from pathlib import Path
from merging.checkpoints import staging
held = staging.new(Path(sys.argv[1]))
print(held.folder, flush=True)
sys.stdin.read()
"""


def remnant(out: Path, name: str, *, age_s: float = 3600) -> Path:
    """A hidden folder without a lock, as old as said."""
    folder = out.parent / f".{out.name}.{name}"
    folder.mkdir()
    (folder / "model.safetensors").write_bytes(b"x")
    os.utime(folder, (time.time() - age_s,) * 2)
    return folder


def test_a_folder_belongs_to_its_process_until_that_ends(tmp_path) -> None:
    out = tmp_path / "out"
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(out)],
        text=True,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    assert process.stdout is not None
    folder = Path(process.stdout.readline().strip())
    os.utime(folder, (1, 1))
    remove_abandoned(out)
    assert folder.is_dir(), "its process lives"
    process.kill()
    process.communicate()
    (rest,) = abandoned(out)
    assert rest.folder == folder
    assert list(abandoned(out)) == [], "it is ours"
    rest.let_go()
    remove_abandoned(out)
    assert list(tmp_path.iterdir()) == []


def test_process_numbers_say_nothing(tmp_path) -> None:
    out = tmp_path / "out"
    held = staging.new(out)
    mine = remnant(out, f"partial-{os.getpid()}-abcdef")
    others = remnant(out, "partial-1-abcdef")
    remove_abandoned(out)
    assert list(tmp_path.iterdir()) == [held.folder]
    assert not mine.exists() and not others.exists()


def test_a_folder_that_may_just_be_getting_its_lock_is_left(tmp_path) -> None:
    young = remnant(tmp_path / "out", "partial-abcdef012345", age_s=5)
    remove_abandoned(tmp_path / "out")
    assert young.exists()


@pytest.mark.parametrize("name", ["partial-xyz", "partial-", "old-abcdef.partial-abc", "other-abc"])
def test_what_is_named_otherwise_is_nobodys_work(name: str, tmp_path) -> None:
    folder = remnant(tmp_path / "out", name)
    remove_abandoned(tmp_path / "out")
    assert folder.exists()


def test_links_are_not_followed(tmp_path) -> None:
    target = tmp_path / "target"
    target.mkdir()
    os.utime(target, (1, 1))
    (tmp_path / ".out.partial-abcdef").symlink_to(target)
    remove_abandoned(tmp_path / "out")
    assert list(target.iterdir()) == []


def test_where_no_locks_are_known_nothing_counts_as_abandoned(tmp_path, monkeypatch) -> None:
    def refuse(*_: object) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "flock", refuse)
    held = staging.new(tmp_path / "out")
    assert not held.is_locked
    held.let_go()
    remove_abandoned(tmp_path / "out")
    assert held.folder.is_dir()


def test_where_a_process_may_lock_twice_its_own_folder_stays(tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(fcntl, "flock", lambda *_: None)
    held = staging.new(tmp_path / "out")
    remove_abandoned(tmp_path / "out")
    assert held.folder.is_dir()
    held.let_go()
    remove_abandoned(tmp_path / "out")
    assert not held.folder.exists()


def test_what_is_left_of_a_replaced_model_goes_once_the_new_one_is_there(tmp_path) -> None:
    old = remnant(tmp_path / "out", "old-abcdef012345")
    remove_abandoned(tmp_path / "out")
    assert old.exists(), "there is no new one: this is all there is"
    (tmp_path / "out").mkdir()
    remove_abandoned(tmp_path / "out")
    assert not old.exists()


def test_replacing_never_leaves_the_name_without_a_model(tmp_path) -> None:
    one, other = tmp_path / "one", tmp_path / "other"
    one.mkdir()
    other.mkdir()
    (one / "here").touch()
    assert exchange(one, other)
    assert (other / "here").exists() and not (one / "here").exists()
    assert not exchange(one, tmp_path / "absent")


def test_the_lock_is_no_part_of_what_is_published(tmp_path) -> None:
    held = staging.new(tmp_path / "out")
    (held.folder / "file").touch()
    assert (held.folder / LOCK).exists()
    held.bring_to_disk()
    assert list(abandoned(tmp_path / "out")) == [], "it is ours until it is renamed"
    held.unlock()
    assert [path.name for path in held.folder.iterdir()] == ["file"]
    assert [*abandoned(tmp_path / "out")] == []


def test_folders_made_for_it_go_with_it(tmp_path) -> None:
    (tmp_path / "there").mkdir()
    out = tmp_path / "there" / "new" / "deep" / "out"
    staging.new(out).remove()
    assert list((tmp_path / "there").iterdir()) == []
    held = staging.new(out)
    (tmp_path / "there" / "new" / "note").touch()
    held.remove()
    assert [path.name for path in (tmp_path / "there" / "new").iterdir()] == ["note"]
