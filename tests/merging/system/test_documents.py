"""Small files: whatever stands at a path, a text, an object or one line that names it."""

from __future__ import annotations

import json
import os
import socket
from pathlib import Path

import pytest

from merging.errors import BadFile, one_line
from merging.system.documents import MOST_LEVELS, read_bytes, read_object, read_text


def refused(path: Path, read=read_object) -> str:
    with pytest.raises(BadFile) as error:
        read(path)
    assert str(error.value).startswith(f"{one_line(path)}: ")
    return str(error.value).removeprefix(f"{one_line(path)}: ")


def nested(levels: int) -> str:
    return '{"a": ' * levels + "1" + "}" * levels


def test_text_is_utf_8_with_or_without_a_mark(tmp_path) -> None:
    (tmp_path / "a").write_bytes("äß€😀".encode())
    (tmp_path / "b").write_bytes("\ufeffäß€😀".encode())
    assert read_text(tmp_path / "a") == read_text(tmp_path / "b") == "äß€😀"
    (tmp_path / "c").write_bytes("ok: ä".encode("latin-1"))
    assert refused(tmp_path / "c", read_text) == "is not UTF-8 text (byte 4)"


def test_what_is_no_file_is_told_at_once(tmp_path) -> None:
    os.mkfifo(tmp_path / "fifo")
    (tmp_path / "folder").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "link")
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(tmp_path / "socket"))
        assert refused(tmp_path / "socket") == "is a socket, not a file"
    assert refused(tmp_path / "fifo") == "is a FIFO, not a file"
    assert refused(tmp_path / "folder") == "is a folder, not a file"
    assert refused(Path("/dev/zero")) == "is a device, not a file"
    assert refused(Path("/proc/kmsg")), "a file that has to be waited for"
    assert refused(tmp_path / "link") == "too many levels of symbolic links"
    assert refused(tmp_path / "absent") == "no such file or directory"
    with pytest.raises(BadFile, match=r"x: file name too long$"):
        read_text(tmp_path / ("x" * 5000))
    assert refused(tmp_path / "a\0b") == "no file has such a name"


def test_large_files_are_refused_unread(tmp_path) -> None:
    file = tmp_path / "sparse"
    file.touch()
    os.truncate(file, 1 << 40)
    assert refused(file) == "has more than 32 MB, too much for such a file"
    assert refused(file, read_text) == "has more than 8 MB, too much for such a file"
    os.truncate(file, 10)
    assert read_bytes(file, 10) == bytes(10)
    assert "more than" in refused(file, lambda path: read_bytes(path, 9))


def test_an_object_is_what_json_says(tmp_path) -> None:
    file = tmp_path / "config.json"
    value = {"a": [1, {"b": None}], "emoji": "😀"}
    file.write_text(json.dumps(value))
    assert "\\ud83d" in file.read_text(), "an escaped pair is one character"
    assert read_object(file) == value


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "is not JSON"),
        ("[]", "is not a JSON object"),
        ("null", "is not a JSON object"),
        ('{"a": 1', "is not JSON"),
        ("[" * 100_000, "is nested deeper than 64 levels"),
        ('{"a": "\\ud800"}', "half of a character"),
        ('{"a": {"\\udfff": [1]}}', "half of a character"),
        ('{"a": ' + "1" * 5000 + "}", "is not JSON"),
        ('{"a": [' + "[]," * 400_001 + "[]]}", "holds more than 400,000 values"),
    ],
    ids=lambda text: text[:20],
)
def test_what_is_no_plain_object_is_refused(text: str, reason: str, tmp_path) -> None:
    (tmp_path / "config.json").write_text(text)
    assert reason in refused(tmp_path / "config.json")


def test_nesting_is_bounded(tmp_path) -> None:
    file = tmp_path / "config.json"
    file.write_text(nested(MOST_LEVELS))
    read_object(file)
    for levels in (MOST_LEVELS + 2, 500):
        file.write_text(nested(levels))
        assert refused(file) == "is nested deeper than 64 levels"
