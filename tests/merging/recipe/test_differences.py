"""What one recipe has otherwise than another, in words."""

from __future__ import annotations

import pytest

from merging.recipe import Recipe, differences, parse

TIES = """
merge_method: ties
base_model: base
models:
- {model: one, parameters: {weight: 1.0, density: 0.3}}
- {model: two, parameters: {weight: 1.0, density: 0.3}}
"""


def changed(*replacements: tuple[str, str]) -> Recipe:
    text = TIES
    for old, new in replacements:
        text = text.replace(old, new)
    return parse(text)


@pytest.mark.parametrize(
    ("replacements", "words"),
    [
        ([], []),
        ([("density: 0.3", "density: 0.2")], ["density 0.2 instead of 0.3"]),
        (
            [("two, parameters: {weight: 1.0", "two, parameters: {weight: 0.5")],
            ["weight of Two 0.5 instead of 1"],
        ),
        (
            [("two, parameters: {weight: 1.0", "two, parameters: {weight: [0.5, 1.0]")],
            ["weight of Two varied along the model instead of 1"],
        ),
        ([("base_model: base", "base_model: root")], ["base root instead of base"]),
        ([("model: two", "model: three")], ["with three", "without Two"]),
        ([("merge_method: ties", "merge_method: dare_ties")], ["Random instead of Magnitude"]),
    ],
)
def test_what_differs_is_named(replacements, words) -> None:
    told = differences(parse(TIES), changed(*replacements), {"two": "Two"})
    assert told[: len(words)] == words
    assert bool(told) == bool(words)


def test_a_knob_of_the_second_alone_is_named_where_it_is_not_at_its_default() -> None:
    linear = changed(("merge_method: ties", "merge_method: linear"), (", density: 0.3", ""))
    told = differences(linear, parse(TIES))
    assert "density 0.3" in told
    assert all("instead of nothing" not in phrase for phrase in told)
