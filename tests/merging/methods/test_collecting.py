"""Methods are found by being there, and refused where a part is missing."""

from __future__ import annotations

import ast
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

from merging.declarations.laws import Law
from merging.declarations.methods import Consensus, Preset, Pruned, Pruner
from merging.instructions import Keep, Sum
from merging.methods import PRESETS, PRUNERS, RULES, RULES_BY_GROUP, collect

ROOT = Path(__file__).parents[3]
PRUNER = Pruner(
    id="half",
    title="Half",
    summary="Halve every change.",
    formula="delta / 2",
    words="Halve every change.",
    law=Law("all"),
    decide=lambda recipe, reader, evidence: Pruned([Keep(0.5)] * reader.experts),
)
RULE = Consensus(
    id="first",
    title="First",
    summary="Take the first.",
    formula="delta_1",
    words="Take the first.",
    decide=lambda recipe, reader, decisions, evidence: Sum((1.0,)),
)
PRESET = Preset(
    id="half_first",
    title="Half of the first",
    group="sums",
    summary="Halves the first.",
    use_when="Never.",
    prune="half",
    consensus="first",
)


def module(**parts: Any) -> ModuleType:
    return SimpleNamespace(__name__="odd", **parts)  # type: ignore[return-value]


def test_a_file_brings_its_methods_and_their_usual_names() -> None:
    pruners, consensus, blends, presets = collect(
        [module(METHODS=(PRUNER, RULE), PRESETS=(PRESET,))]
    )
    assert (list(pruners), list(consensus), list(blends)) == (["half"], ["first"], [])
    assert presets == {"half_first": PRESET}


def test_a_file_without_a_method_is_refused() -> None:
    with pytest.raises(TypeError, match="odd declares no METHODS"):
        collect([module(PRESETS=(PRESET,))])


def test_a_name_is_given_once() -> None:
    with pytest.raises(ValueError, match="the method half is there already"):
        collect([module(METHODS=(PRUNER,)), module(METHODS=(replace(PRUNER, title="Other"),))])
    both = [module(METHODS=(PRUNER, RULE), PRESETS=(PRESET, replace(PRESET, title="Other")))]
    with pytest.raises(ValueError, match="the preset half_first is there already"):
        collect(both)


def test_a_preset_names_a_pruner_a_rule_and_knobs_that_are_there() -> None:
    for wrong in ({"prune": "absent"}, {"consensus": "half"}):
        with pytest.raises(ValueError, match="a pruner and a rule are needed"):
            collect([module(METHODS=(PRUNER, RULE), PRESETS=(replace(PRESET, **wrong),))])
    odd = replace(PRESET, shown={"density": 0.5})
    with pytest.raises(ValueError, match="sets \\['density'\\], which is no knob"):
        collect([module(METHODS=(PRUNER, RULE), PRESETS=(odd,))])
    with pytest.raises(ValueError, match="is in no group"):
        replace(PRESET, group="none")


@pytest.mark.parametrize("part", ["id", "title", "summary", "formula", "words"])
def test_a_method_that_says_nothing_of_a_part_is_refused(part: str) -> None:
    with pytest.raises(ValueError, match=f"lacks its {part}"):
        replace(PRUNER, **{part: ""})


def test_a_pruner_without_its_law_or_its_decision_is_refused() -> None:
    words = {"id": "x", "title": "x", "summary": "x", "formula": "x", "words": "x"}
    with pytest.raises(TypeError, match="law"):
        Pruner(**words, decide=PRUNER.decide)  # type: ignore[call-arg]
    with pytest.raises(TypeError, match="decide"):
        Pruner(**words, law=Law("all"))  # type: ignore[call-arg]


def test_words_name_knobs_that_are_there() -> None:
    with pytest.raises(ValueError, match="name \\['density'\\], which is no knob"):
        replace(PRUNER, words="Keep {density}.")


NAMES = {*PRUNERS, *RULES, *PRESETS}
CHOOSERS = {"prune", "consensus", "method", "merge_method", "prune_id", "consensus_id"}
TABLES = {"PRUNERS", "CONSENSUS", "BLENDS", "RULES", "PRESETS"}
OUTSIDE = [
    path
    for room in ("merging", "ui", "benchmarks")
    for path in sorted((ROOT / room).rglob("*.py"))
    if "methods" not in path.parts
]


@pytest.mark.parametrize("path", OUTSIDE, ids=lambda path: str(path.relative_to(ROOT)))
def test_no_method_is_named_outside_its_file(path: Path) -> None:
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Compare):
            sides = [node.left, *node.comparators]
            compared = {side.attr for side in sides if isinstance(side, ast.Attribute)}
            compared |= {side.id for side in sides if isinstance(side, ast.Name)}
            assert not (compared & CHOOSERS and texts(sides) & NAMES), (path, node.lineno)
        looked_up: list[ast.expr] = []
        if isinstance(node, ast.Subscript) and isinstance(node.value, ast.Name):
            looked_up = [node.slice] if node.value.id in TABLES else []
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
            owner = node.func.value
            looked_up = node.args if isinstance(owner, ast.Name) and owner.id in TABLES else []
        assert not texts(looked_up) & NAMES, (path, node.lineno)


def texts(nodes: Sequence[ast.AST]) -> set[str]:
    """Every text that stands in some expressions."""
    parts = [part for node in nodes for part in ast.walk(node) if isinstance(part, ast.Constant)]
    return {part.value for part in parts if isinstance(part.value, str)}


def test_a_law_needs_its_knobs() -> None:
    words = {"id": "x", "title": "x", "summary": "x", "formula": "x", "words": "x"}
    for law in (Law("largest"), Law("random"), Law("largest", skip="gamma")):
        with pytest.raises(ValueError, match="the law of x needs the knob"):
            Pruner(**words, law=law, decide=PRUNER.decide)


def test_a_rule_is_in_the_group_of_its_preset_or_says_its_own() -> None:
    collect([module(METHODS=(PRUNER, RULE), PRESETS=(PRESET,))])
    collect([module(METHODS=(PRUNER, replace(RULE, group="elect")))])
    for group in ("", "none"):
        with pytest.raises(ValueError, match="first is in no group: sums"):
            collect([module(METHODS=(PRUNER, replace(RULE, group=group)))])
    everything = [rule.id for rules in RULES_BY_GROUP.values() for rule in rules]
    assert sorted(everything) == sorted(RULES)
