"""What commands say: results that cannot be written, streams that are not there, odd names."""

from __future__ import annotations

import argparse
import io
import sys

import pytest

from merging.commands import console
from merging.errors import OutputLost


class Full(io.StringIO):
    """A stream on a full disk."""

    def write(self, text: str) -> int:
        raise OSError(28, "No space left on device")

    def fileno(self) -> int:
        return self.target


@pytest.fixture
def full(tmp_path) -> Full:
    stream = Full()
    with (tmp_path / "stdout").open("w") as file:
        stream.target = file.fileno()
        yield stream


def test_a_result_that_cannot_be_written_is_an_error(full, monkeypatch) -> None:
    monkeypatch.setattr(sys, "stdout", full)
    with pytest.raises(OutputLost, match=r"stdout cannot be written \(no space left on device\)"):
        console.say("a line")


def test_what_cannot_be_said_on_stderr_stops_nothing(full, monkeypatch) -> None:
    for stream in (full, None):
        monkeypatch.setattr(sys, "stderr", stream)
        console.tell("note", "a line")
        console.status("50%")
        console.Bar()(argparse.Namespace(done=1, total=2, eta_s=None, phase="merge", tensor="w"))


def test_without_stdout_nothing_is_said(monkeypatch) -> None:
    monkeypatch.setattr(sys, "stdout", None)
    console.say("a line")


def test_a_line_to_a_person_is_one_line(capsys) -> None:
    console.tell("error", "bad\n\x1b[31mname" + "x" * 1000)
    err = capsys.readouterr().err
    assert err.startswith("error: bad \\x1b[31mnamexxx")
    assert err.count("\n") == 1
    assert len(err) <= 501
    console.tell("interrupted")
    assert capsys.readouterr().err == "interrupted\n"


def test_a_name_that_the_encoding_lacks_is_written_with_escapes(monkeypatch) -> None:
    raw = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(raw, encoding="ascii"))
    console.write_whatever_comes()
    console.say("é \udcff")
    assert raw.getvalue() == b"\\xe9 \\udcff\n"
