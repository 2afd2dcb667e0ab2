"""The README's table of methods: every preset in its group, and up to date or told."""

from __future__ import annotations

from dataclasses import replace

import pytest

from merging.commands import table
from merging.declarations.methods import GROUPS
from merging.methods import PRESETS


def readme(tmp_path, between: str = "\n"):
    path = tmp_path / "README.md"
    path.write_text(f"# Title\n\n{table.BEGIN}{between}{table.END}\n\nMore.\n")
    return path


def test_every_method_stands_once_under_its_group() -> None:
    group, rows = "", {}
    titles = {f"| **{title}** | | | |": key for key, title in GROUPS.items()}
    for line in table.table().splitlines()[2:]:
        group = titles.get(line, group)
        if line not in titles:
            name = line.split("`")[1]
            assert name not in rows
            rows[name] = group
    assert rows == {preset.id: preset.group for preset in PRESETS.values()}


def test_a_row_in_full() -> None:
    ties = PRESETS["ties"]
    row = (
        f"| `ties` | [TIES](https://arxiv.org/abs/2306.01708) | {ties.summary} | {ties.use_when} |"
    )
    assert row in table.table().splitlines()


def test_what_would_end_a_cell_does_not(monkeypatch) -> None:
    odd = replace(PRESETS["ties"], summary="|delta| * 2")
    monkeypatch.setitem(table.PRESETS, "ties", odd)
    assert "| \\|delta\\| \\* 2 |" in table.table()


def test_writing_makes_it_up_to_date_and_touches_nothing_else(tmp_path, capsys) -> None:
    path = readme(tmp_path, "\nan old table\n")
    assert table.main([str(path), "--check"]) == 1
    assert (
        "README.md: the table of methods is not up to date: make table\n" in capsys.readouterr().err
    )
    assert "an old table" in path.read_text()
    assert table.main([str(path)]) == 0
    text = path.read_text()
    assert text.startswith("# Title\n") and text.endswith("\n\nMore.\n")
    assert "an old table" not in text and table.table() in text
    assert table.main([str(path), "--check"]) == 0


def test_a_readme_without_marks_is_an_error(tmp_path) -> None:
    (tmp_path / "README.md").write_text("# Title\n")
    with pytest.raises(ValueError, match="lacks the marks"):
        table.main([str(tmp_path / "README.md")])
