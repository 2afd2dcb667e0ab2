"""Where a model may go: nothing that is no model is ever replaced."""

from __future__ import annotations

import errno
import json
import os
import shutil
import socket
from pathlib import Path

import pytest

from merging.checkpoints.output import check_output, in_words, located
from merging.errors import MergeError, NotEnoughSpace, OutputExists

BOTH = pytest.mark.parametrize("overwrite", [False, True])


def refused(out: Path, overwrite: bool = False, kind: type[MergeError] = OutputExists) -> str:
    with pytest.raises(kind) as error:
        check_output(out, overwrite)
    assert "\n" not in str(error.value)
    assert len(str(error.value)) <= 500
    return str(error.value)


def model(folder: Path) -> Path:
    folder.mkdir()
    (folder / "config.json").write_text("{}")
    return folder


@BOTH
def test_devices_sockets_and_fifos_are_named(overwrite: bool, tmp_path) -> None:
    os.mkfifo(tmp_path / "fifo")
    (tmp_path / "file").touch()
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(tmp_path / "socket"))
        assert refused(tmp_path / "socket", overwrite).endswith("is a socket; give a folder")
    assert refused(tmp_path / "fifo", overwrite).endswith("is a FIFO; give a folder")
    assert refused(tmp_path / "file", overwrite).endswith("is a file; give a folder")
    assert refused(Path("/dev/null"), overwrite) == "/dev/null is a device; give a folder"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["fifo", "file", "socket"]


@BOTH
def test_links_to_what_is_no_folder_are_named(overwrite: bool, tmp_path) -> None:
    out = tmp_path / "out"
    targets = {
        "absent": "is a link that leads nowhere (no such file or directory)",
        "out": "is a link that leads nowhere (too many levels of symbolic links)",
        "/dev/null": "is a link to a device",
        "file": "is a link to a file",
    }
    (tmp_path / "file").touch()
    for target, words in targets.items():
        out.symlink_to(target)
        assert words in refused(out, overwrite)
        out.unlink()


def test_a_link_to_a_folder_is_replaced_only_when_asked(tmp_path) -> None:
    (tmp_path / "out").symlink_to(model(tmp_path / "target"))
    message = refused(tmp_path / "out")
    assert message.startswith(f"{tmp_path}/out is a link to {tmp_path}/target; give that folder")
    check_output(tmp_path / "out", True)


@BOTH
def test_places_that_are_never_a_model(overwrite: bool, tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    (tmp_path / "home").mkdir()
    assert "is the folder you are in" in refused(tmp_path, overwrite)
    assert "is your home folder" in refused(tmp_path / "home", overwrite)
    assert "is the root of the file system" in refused(Path("/"), overwrite)
    assert "is where a disk is mounted" in refused(Path("/dev"), overwrite)


def test_what_is_no_model_is_never_replaced(tmp_path) -> None:
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes" / "thesis.txt").write_text("years of work")
    assert "exists and is not empty" in refused(tmp_path / "notes")
    assert "not a model folder" in refused(tmp_path / "notes", True)


def test_folders_inside_a_model_are_not_deleted_with_it(tmp_path) -> None:
    (model(tmp_path / "out") / "checkpoint-5").mkdir()
    assert "checkpoint-5, which --overwrite would delete" in refused(tmp_path / "out", True)


def test_folders_that_a_model_names_go_with_it(tmp_path) -> None:
    out = model(tmp_path / "out")
    (out / "modules.json").write_text(json.dumps([{"path": ""}, {"path": "1_Pooling"}]))
    for name in ("additional_chat_templates", "1_Pooling"):
        (out / name).mkdir()
        (out / name / "config.json").write_text("{}")
    check_output(out, True)
    (out / "1_Pooling" / "photos").mkdir()
    assert "holds the folder 1_Pooling" in refused(out, True)
    shutil.rmtree(out / "1_Pooling")
    for damage in ("[" * 10_000, "3", '["a", {"path": ["b"]}]', '[{"path": "../.."}]'):
        (out / "modules.json").write_text(damage)
        check_output(out, True)


@BOTH
def test_a_place_where_no_folder_can_be_made(overwrite: bool, tmp_path, monkeypatch) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "link").symlink_to("absent")
    for parent in ("file", "link"):
        assert f"{parent} is no folder" in refused(tmp_path / parent / "deep" / "out", overwrite)
    assert "file name too long" in refused(tmp_path / ("x" * 300) / "out", overwrite)
    assert "the name is too long" in refused(tmp_path / ("ä" * 101), overwrite)
    assert "is on no disk" in refused(Path("/proc/out"), overwrite, NotEnoughSpace)
    monkeypatch.setattr(os, "access", lambda *_: False)
    message = refused(tmp_path / "new" / "out", overwrite, NotEnoughSpace)
    assert message.endswith(f"{tmp_path} cannot be written by you; choose another folder")


def test_a_new_or_empty_folder_will_do(tmp_path) -> None:
    (tmp_path / "empty").mkdir()
    for out in ("empty", "new", "deep/er/new"):
        check_output(tmp_path / out, False)


def test_a_current_folder_that_is_gone_is_one_line(tmp_path, monkeypatch) -> None:
    gone = tmp_path / "gone"
    gone.mkdir()
    monkeypatch.chdir(gone)
    gone.rmdir()
    with pytest.raises(OutputExists, match="the folder you are in has been removed"):
        located(Path("out"))
    check_output(tmp_path / "out", False)


@pytest.mark.parametrize(
    ("number", "words"),
    [
        (errno.ENOSPC, "the disk is full ("),
        (errno.EDQUOT, "the disk is full ("),
        (errno.EFBIG, "give --shard-size"),
        (errno.ENOENT, "has been removed meanwhile"),
        (errno.EROFS, "cannot be written (read-only file system); choose another folder"),
    ],
)
def test_what_the_system_refuses_is_said_in_words(number: int, words: str, tmp_path) -> None:
    message = in_words(OSError(number, os.strerror(number)), tmp_path / "a" / "out")
    assert isinstance(message, NotEnoughSpace)
    assert str(message).startswith(f"{tmp_path}/a/out: ")
    assert words in str(message)


def test_what_is_no_refusal_of_the_disk_stays_what_it_is(tmp_path) -> None:
    for error in (ValueError("x"), BrokenPipeError(errno.EPIPE, "x")):
        assert in_words(error, tmp_path) is error
