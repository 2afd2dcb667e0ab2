"""Undo, redo and two settings side by side: what the controls are given."""

from __future__ import annotations

import json
from typing import Any

import gradio as gr
import numpy as np
import pytest

from tests.ui.explore.test_explore import FakeLibrary
from ui import controls
from ui.explore import bench, beside, view
from ui.explore.beside import Other
from ui.explore.trail import Bench, Page, Sides, Trail

ALL = ["demo:a", "demo:b", "demo:c", "demo:d"]


@pytest.fixture(scope="module")
def named() -> dict[str, Any]:
    with gr.Blocks():
        return controls.layout(view.choices(FakeLibrary()), "demo:base", ALL).named()


@pytest.fixture
def settings(named: dict[str, Any]) -> dict[str, Any]:
    return {**{name: one.value for name, one in named.items()}, "weighed": ALL}


def values(led: list[Any], named: dict[str, Any]) -> dict[str, Any]:
    return dict(zip(named, led, strict=False))


def test_a_step_back_gives_every_control_its_value(named, settings) -> None:
    before = {**settings, "rate": 0.25, "experts": ALL[:2], "weighed": ALL[:2]}
    there = bench.undone(Bench(Trail(settings, (before,))))
    led = bench.restored(FakeLibrary(), named, Page(there), settings)
    assert values(led, named)["rate"] == 0.25
    assert values(led, named)["experts"]["value"] == ALL[:2]
    weighed, is_due, state, side, undo, redo, *said = led[len(named) :]
    assert (weighed, is_due, side, said[:2]) == (ALL[:2], True, "A", ["", ""])
    assert state.bench.trail == Trail(before, (), (settings,))
    assert (undo["interactive"], redo["interactive"]) == (False, True)


def test_the_same_experts_are_no_family_to_read(named, settings) -> None:
    there = Bench(Trail({**settings, "rate": 0.5}))
    led = bench.restored(FakeLibrary(), named, Page(there), {**settings, "experts": ALL[::-1]})
    assert led[len(named) + 1] is False


def test_settings_whose_models_are_gone_are_left_with_a_word(named, settings) -> None:
    gone = FakeLibrary(("base", "a", "b"))
    led = bench.restored(
        gone, named, Page(Bench(Trail(settings))), {**settings, "experts": ALL[:2]}
    )
    assert all(value == gr.skip() for value in led[: len(named) + 1])
    assert led[len(named) + 6] == "Models of those settings are not on offer any more."


def test_the_other_side_says_how_it_differs(named, settings) -> None:
    moved = {**settings, "rate": 0.5}
    two = bench.switched(Bench(Trail(settings)))
    assert bench.compared(FakeLibrary(), two) == "A is the same."
    two = two.settled(moved)
    assert bench.compared(FakeLibrary(), two) == "A has density 0.3 instead of 0.5."
    back = bench.switched(two)
    assert back.trail.present == settings
    assert bench.compared(FakeLibrary(), back) == "B has density 0.5 instead of 0.3."


def test_the_browser_is_told_of_the_other_side(named, settings) -> None:
    page = Page(bench.switched(Bench(Trail(settings))))
    assert beside.other(FakeLibrary(), page) == Other()  # a copy: it is the same
    page.bench = page.bench.settled({**settings, "rate": 0.5})
    other = beside.other(FakeLibrary(), page)
    facts = json.loads(other.facts)
    assert (facts["side"], facts["values"]["rate"], facts["densities"]) == ("A", 0.7, None)
    assert np.shape(facts["offsets"]) == (4, 30)  # experts, cells
    assert other.words.startswith("A keeps 30\u202f% of the entries".replace("\u202f", " "))
    assert other.words in bench.compared(FakeLibrary(), page.bench, other.words)
    assert [*beside.sides(page)] == ["B", "A"]


def test_a_side_whose_family_is_not_in_memory_is_looked_for_again(named, settings) -> None:
    class Forgetful(FakeLibrary):
        def sketched(self, recipe: object) -> None:
            return None

    page = Page(bench.switched(Bench(Trail(settings))).settled({**settings, "rate": 0.5}))
    assert beside.other(Forgetful(), page) == Other()
    assert beside.other(FakeLibrary(), page).facts


def test_a_side_that_spells_no_recipe_says_why(named, settings) -> None:
    alone = {**settings, "experts": []}
    two = Bench(Trail(settings), Sides("A", alone))
    assert bench.compared(FakeLibrary(), two).startswith("B cannot be compared: choose a base")
