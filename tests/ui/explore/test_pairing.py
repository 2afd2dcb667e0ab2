"""Every pair of chips leads to what can be planned, and back."""

from __future__ import annotations

from dataclasses import replace
from itertools import product
from typing import Any

import gradio as gr
import pytest

from merging.declarations.methods import goes_with
from merging.methods import BLENDS, CONSENSUS, PRESETS, PRUNERS, RULES
from merging.sketches.plan import plan
from tests.ui.sketches import sketch
from ui import controls, spelling
from ui.explore.pairing import NOTHING, Aside, Choice, fitted, on_pruner, on_rule, remark, values_of

FOUR = ("a", "b", "c", "d")
NAMES = {name: name for name in FOUR}


@pytest.fixture(scope="module")
def values() -> dict[str, Any]:
    """What the controls hold at first."""
    models = [(name, name) for name in ("base", *FOUR)]
    with gr.Blocks():
        parts = controls.layout(models, "base", FOUR)
    return {name: part.value for name, part in parts.named().items()}


@pytest.fixture(scope="module")
def sketches() -> dict[int, Any]:
    """A family of each size."""
    return {count: sketch(count, layers=2) for count in (1, 2, 3, 4)}


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("count", [2, 3, 4])
def test_no_pair_of_chips_ends_in_a_plan_error(values, sketches, rule: str, count: int) -> None:
    for prune in PRUNERS:
        pair = Choice(prune, rule, FOUR[:count])
        for choice, _ in (on_rule(pair, Aside()), on_pruner(pair, Aside())):
            recipe = spelling.to_recipe({**values, **values_of(choice)})
            assert (recipe.prune, recipe.consensus) == (choice.prune, choice.consensus)
            plan(recipe, sketches[len(choice.experts)])
            assert fitted(choice) == choice


def test_a_pair_that_goes_together_stays() -> None:
    for prune, rule in product(PRUNERS, CONSENSUS):
        pair = Choice(prune, rule, FOUR)
        assert on_rule(pair, Aside()) == (pair, Aside(consensus=rule))
        assert on_pruner(pair, Aside()) == (pair, Aside())
        assert remark(pair, pair, NAMES) == ""


@pytest.mark.parametrize("blend", BLENDS)
@pytest.mark.parametrize("prune", PRUNERS)
def test_a_blend_sets_the_pruner_aside_until_a_rule_prunes_again(blend: str, prune: str) -> None:
    before = Choice(prune, "ties", FOUR)
    _, aside = on_rule(before, Aside())
    with_blend, aside = on_rule(replace(before, consensus=blend), aside)
    assert goes_with(PRUNERS[with_blend.prune], RULES[blend])
    assert with_blend.prune == NOTHING
    after, aside = on_rule(replace(with_blend, consensus="ties"), aside)
    assert after == before and aside == Aside(consensus="ties")


@pytest.mark.parametrize("blend", BLENDS)
def test_a_pruner_brings_back_the_rule_before_a_blend(blend: str) -> None:
    _, aside = on_rule(Choice(NOTHING, "pcb", FOUR), Aside())
    with_blend, aside = on_rule(Choice(NOTHING, blend, FOUR), aside)
    after, aside = on_pruner(replace(with_blend, prune="random"), aside)
    assert after == Choice("random", "pcb", FOUR)
    assert aside.prune == ""


def test_experts_chosen_since_some_were_left_out_stay() -> None:
    choice, aside = on_rule(Choice(NOTHING, "slerp", FOUR), Aside())
    assert choice.experts == ("a", "b")
    other = replace(choice, experts=("c",), consensus="sum")
    assert on_rule(other, aside)[0].experts == ("c",)
    next_blend, aside = on_rule(replace(choice, consensus="passthrough"), aside)
    assert next_blend.experts == ("a",)
    assert on_rule(replace(next_blend, consensus="karcher"), aside)[0].experts == FOUR


def test_nothing_chosen_by_hand_stays() -> None:
    choice, aside = on_pruner(Choice(NOTHING, "sum", FOUR), Aside(prune="random"))
    assert on_rule(replace(choice, consensus="ties"), aside)[0].prune == NOTHING


@pytest.mark.parametrize("preset", PRESETS.values(), ids=list(PRESETS))
def test_a_preset_stays_what_it_is(preset) -> None:
    choice, _ = on_rule(Choice(preset.prune, preset.consensus, FOUR), Aside())
    assert (choice.prune, choice.consensus) == (preset.prune, preset.consensus)


def test_what_was_set_besides_is_told_by_the_declared_names() -> None:
    pair = Choice("random", "karcher", FOUR)
    assert remark(pair, on_rule(pair, Aside())[0], NAMES) == (
        f"{RULES['karcher'].title} combines whole models: nothing is pruned before it."
    )
    assert remark(pair, on_pruner(pair, Aside())[0], NAMES) == (
        f"{RULES['karcher'].title} takes no pruned changes: {RULES['sum'].title} combines instead."
    )
    pair = Choice(NOTHING, "passthrough", FOUR)
    assert remark(pair, fitted(pair), NAMES).endswith("takes one expert: b, c and d are left out.")
