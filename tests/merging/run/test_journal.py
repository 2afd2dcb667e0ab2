"""The journal of a merge: what counts as finished, and for whom."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from merging import recipe as recipes
from merging.checkpoints import staging
from merging.run import journal as journals
from merging.run.journal import FILE, Journal, Written, key_of, resumable
from merging.run.preflight import open_recipe
from tests.families import document, small_family

A, B = Written(0.1, 1 / 3, 2**64 - 1), Written(2.0, 3.0, 0)


@pytest.fixture
def parent(tmp_path: Path) -> Path:
    return small_family(tmp_path / "family", experts=2, layers=1, hidden=16, kv=8, inner=24)


def key(parent: Path, method: str = "ties", shard_bytes: int = 100, engine: str = "fused") -> str:
    recipe = recipes.from_mapping(document(method, 2), parent)
    return key_of(recipe, open_recipe(recipe), shard_bytes, engine)


def test_what_was_noted_is_found_by_the_same_key_only(tmp_path: Path) -> None:
    first = Journal(tmp_path, "key")
    assert first.finished == {}
    first.note("a", A)
    first.note("b", B)
    assert Journal(tmp_path, "key").finished == {"a": A, "b": B}
    assert Journal(tmp_path, "other").finished == {}
    assert Journal(tmp_path, "key").finished == {}, "the other one began anew"


HUGE = '{"tensor": "c", "sums": [1%s, 1, 1]}' % ("0" * 400)
TORN = ['{"tensor": "c", "su', '{"tensor": "c"}', "[]", "\x00\x00", "[" * 9999, HUGE]


@pytest.mark.parametrize("torn", TORN, ids=lambda text: text[:9])
def test_a_torn_line_ends_the_journal(tmp_path: Path, torn: str) -> None:
    Journal(tmp_path, "key").note("a", A)
    with (tmp_path / FILE).open("a") as file:
        file.write(torn)
    assert list(Journal(tmp_path, "key").finished) == ["a"]


@pytest.mark.parametrize("text", ["", "{}", "[1]\n", "no json\n", "[" * 9999])
def test_a_file_that_is_no_journal_is_none(tmp_path: Path, text: str) -> None:
    (tmp_path / FILE).write_text(text)
    assert Journal(tmp_path, "key").finished == {}


def test_the_key_changes_with_all_that_decides_the_bytes(parent: Path, monkeypatch) -> None:
    keys = [key(parent), key(parent, "pcb"), key(parent, shard_bytes=99)]
    keys.append(key(parent, engine="eager on cpu"))
    weights = parent / "expert1" / "model.safetensors"
    os.utime(weights, (1, 1))
    keys.append(key(parent))
    monkeypatch.setattr(journals, "_BOOT", parent / "another-boot")
    (parent / "another-boot").write_text("since then the machine was started again")
    keys.append(key(parent))
    assert len(set(keys)) == len(keys)
    assert key(parent) == key(parent)


def test_only_what_nobody_has_is_taken_up(tmp_path: Path) -> None:
    out = tmp_path / "out"
    held, free = staging.new(out), staging.new(out)
    for one in (held, free):
        Journal(one.folder, "key").note("a", A)
    assert resumable(out, "key") is None
    free.let_go()
    assert resumable(out, "other") is None
    assert resumable(tmp_path / "elsewhere", "key") is None
    remnant = resumable(out, "key")
    assert remnant is not None
    assert remnant.folder == free.folder
    assert resumable(out, "key") is None, "it is taken"
