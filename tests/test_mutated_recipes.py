"""Recipes that nobody should have written: each is refused in a line, or merged."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from tests.mutated_recipes import Outcome, mutations

ROOT = Path(__file__).parents[1]


def test_no_recipe_stops_the_program() -> None:
    command = [sys.executable, "-m", "tests.mutated_recipes", "--together", "--count", "150"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.startswith("150 recipes, 0 at fault")


def test_the_same_seed_makes_the_same_recipes(tmp_path) -> None:
    def texts(seed: int) -> list[bytes]:
        made = [one for one in mutations(120, seed) if one.name.startswith(("changed", "torn"))]
        for one in made:
            one.make(tmp_path / one.name)
        return [(tmp_path / one.name).read_bytes() for one in made]

    assert texts(1) == texts(1) != texts(2)
    assert len(texts(1)) > 40


def test_every_fault_is_named() -> None:
    assert Outcome(0, "", 1.0, 10**8).faults == []
    assert Outcome(2, "error: no\n", 1.0, 10**8).faults == []
    assert Outcome(1, "Traceback\n", 1.0, 10**8).faults == ["status 1", "a traceback"]
    assert Outcome(2, "", 6.0, 2 * 10**9).faults == ["0 error lines", "6.0 s", "2000 MB"]
    line = "error: \x1b" + "x" * 600 + "\n"
    assert Outcome(2, line, 1.0, 1).faults == ["a line too long", "a control character"]
