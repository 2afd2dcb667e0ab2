"""What `evaluate` and `search` say and leave when they are stopped."""

from __future__ import annotations

import argparse
from pathlib import Path

import pytest

from merging import recipe as recipes
from merging.trial.commands import _Clock, _tell_result
from merging.trial.search import SearchResult

RECIPE = recipes.build(
    method="task_arithmetic", base="demo:base", models=[("demo:add", {"weight": 0.25})]
)


def test_a_search_that_was_stopped_leaves_its_best_and_says_so(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "found.yaml"
    _tell_result(argparse.Namespace(out=out, json=False), SearchResult(RECIPE, (2.0, 1.0), 200))
    output = capsys.readouterr()
    assert output.out == f"{out}\n"
    assert (
        output.err == "interrupted after 2 of 200 steps; the recipe has the best weights so far\n"
    )
    assert recipes.load(out).sources[0].weight.constant == 0.25


def test_a_whole_search_says_nothing_more(capsys: pytest.CaptureFixture[str]) -> None:
    _tell_result(argparse.Namespace(out=None, json=True), SearchResult(RECIPE, (2.0, 1.0), 2))
    output = capsys.readouterr()
    assert '"loss": {"first": 2.0, "last": 1.0}' in output.out
    assert output.err == ""


def test_progress_stands_on_stderr_where_that_is_no_terminal(
    capsys: pytest.CaptureFixture[str],
) -> None:
    clock = _Clock()
    clock._tell._due = 0.0  # ten seconds have passed
    clock(0.25, "demo:add")
    clock(0.26, "demo:add")
    assert capsys.readouterr().err.strip() == "25% demo:add"
