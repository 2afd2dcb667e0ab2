"""The finding's sentences, held to hand-made plans and to the ends of every knob."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from merging import recipe as recipes
from merging.sketches.plan import plan
from merging.sketches.sketch import FamilySketch
from tests.ui.sketches import sketch
from ui import findings

NAMES = ("json", "words", "caps", "code")


def recipe(method: str, experts: int, model: dict | None = None, **parameters: object):
    values = {} if method in ("task_arithmetic", "pcb") else {"density": 0.2}
    return recipes.build(
        method=method,
        base="base",
        models=[(f"expert{i}", {**values, **(model or {})}) for i in range(experts)],
        parameters=parameters,
    )


def words_of(mixture: recipes.Recipe, made: FamilySketch) -> tuple[str, str]:
    """The sentence and the reason, with plain spaces."""
    finding = findings.headline(plan(mixture, made), made, NAMES[: len(made.experts)])
    return finding["sentence"], finding["reason"].replace(findings.THIN, " ")


def with_cosines(made: FamilySketch, values: np.ndarray) -> FamilySketch:
    return replace(made, dots=np.repeat(values[..., None], len(made.tensors), axis=2))


@pytest.mark.parametrize(
    ("method", "says"),
    [
        ("dppa", "Keeps 20 % of the entries and"),
        ("magnitude", "Keeps 20 % of the entries and"),
        ("dare_linear", "Keeps 20 % of the entries and 20 % of the energy"),
        ("task_arithmetic", "Keeps every change; about"),
        ("pcb", "Each expert competes with 20 % of the entries; about"),
    ],
)
def test_the_finding_says_of_what_a_share_is_kept(method: str, says: str) -> None:
    extra = {"density": 0.2} if method == "pcb" else {}
    sentence = words_of(recipe(method, 4, **extra), sketch())[0]
    assert sentence.startswith(says)
    assert (" of linear layers" in sentence) is (method == "dppa")


def test_what_signs_drawn_at_random_would_give_stands_beside_the_clash() -> None:
    sentence, _ = words_of(recipe("task_arithmetic", 4), sketch())
    assert sentence.endswith("of all changes clash in sign (by chance: 88 %).")  # 1 - 1/8


def test_changes_of_one_sign_do_not_clash_whatever_chance_says() -> None:
    made = sketch(experts=2)
    sentence, _ = words_of(recipe("task_arithmetic", 2), replace(made, sample=abs(made.sample)))
    assert "about 0 % of all changes clash in sign (by chance: 50 %)" in sentence


def test_a_negative_weight_turns_signs() -> None:
    made = sketch(experts=2)
    same = replace(made, sample=abs(made.sample))
    mixture = recipes.build(
        method="task_arithmetic",
        base="base",
        models=[("expert0", {"weight": 1.0}), ("expert1", {"weight": -0.5})],
    )
    assert "about 100 % of all changes clash" in words_of(mixture, same)[0]


def test_the_worst_layer_is_told_with_what_it_keeps() -> None:
    made = sketch(2)
    energy = made.l2.copy()
    energy[:, [tensor.layer == 2 for tensor in made.tensors]] = made.counts[
        :, [tensor.layer == 2 for tensor in made.tensors]
    ]  # as if all changes of layer 2 were of one size: a fifth of them holds a fifth
    reason = words_of(recipe("magnitude", 2), replace(made, l2=energy))[1]
    assert "Layer 2 keeps least of its energy: 20 %." in reason


@pytest.mark.parametrize(("density", "says"), [(0.0, "least of its energy: 0 %."), (1.0, "")])
def test_the_worst_layer_at_the_ends(density: float, says: str) -> None:
    reason = words_of(recipe("magnitude", 2, {"density": density}), sketch(2))[1]
    assert says in reason
    assert ("keeps least" in reason) is bool(says)


def test_a_partition_with_factor_0_is_not_kept_and_that_is_said() -> None:
    sentence, reason = words_of(recipe("magnitude", 2, {"amplification": [0.0, 1.0]}), sketch(2))
    assert sentence.startswith("Keeps 10 % of the entries and")
    assert "Asked for 20 %, kept 10 %: partitions with factor 0 are dropped." in reason


def test_nothing_kept_is_told_without_a_clash() -> None:
    sentence, _ = words_of(recipe("magnitude", 2, {"amplification": [0.0, 0.0]}), sketch(2))
    assert sentence == "Keeps 0 % of the entries and 0 % of the energy."


def test_an_expert_of_weight_0_takes_no_part() -> None:
    mixture = recipes.build(
        method="task_arithmetic",
        base="base",
        models=[("expert0", {"weight": 0.0}), ("expert1", {"weight": 1.0})],
    )
    sentence, reason = words_of(mixture, sketch(2))
    assert sentence == "Keeps every change."
    assert "json has weight 0 and takes no part." in reason
    assert words_of(recipe("ties", 2, {"weight": 0.0}), sketch(2))[0] == (
        "Nothing is merged: every weight is 0."
    )


def test_strength_0_leaves_the_base() -> None:
    mixture = recipe("task_arithmetic", 2, **{"lambda": 0.0})
    assert "The strength is 0: the result is the base." in words_of(mixture, sketch(2))[1]


@pytest.mark.parametrize(
    ("scale", "says"),
    [
        ("one", "keep their whole change."),
        ("none", "stay as the base has them."),
        ("max", "keep their whole change, times the largest factor."),
    ],
)
def test_what_becomes_of_tensors_that_are_not_pruned_is_told(scale: str, says: str) -> None:
    made = sketch(2)
    outside = made.l2.sum(axis=2)[:, [not t.is_linear for t in made.tensors]].sum() / made.l2.sum()
    reason = words_of(recipe("dppa", 2, scale_dense=scale), made)[1]
    assert f"Other tensors, {100 * outside:.1f} % of all energy, {says}" in reason


@pytest.mark.parametrize("rescale", [True, False])
def test_random_pruning_says_whether_it_rescales(rescale: bool) -> None:
    reason = words_of(recipe("dare_linear", 2, rescale=rescale), sketch(2))[1]
    assert ("what is left is rescaled" in reason) is rescale
    assert ("nothing is rescaled" in reason) is not rescale


def test_one_expert_cannot_clash() -> None:
    sentence, reason = words_of(recipe("ties", 1), sketch(experts=1))
    assert "clash" not in sentence
    assert "nothing can clash" in reason


@pytest.mark.parametrize(
    ("cosine", "says"),
    [
        (0.15, "pull partly the same way (cosine 0.15)"),
        (0.9, "pull much the same way"),
        (0.01, "are nearly unrelated (cosine 0.01)"),
        (-0.3, "pull against each other"),
        (-0.001, "are nearly unrelated (cosine 0.00)"),
    ],
)
def test_two_experts_are_named_with_their_cosine(cosine: float, says: str) -> None:
    made = with_cosines(sketch(2), np.array([[1.0, cosine], [cosine, 1.0]]))
    assert says in words_of(recipe("ties", 2), made)[1]


def test_of_many_pairs_the_most_and_the_least_alike_are_named() -> None:
    values = np.full((4, 4), 0.01)
    np.fill_diagonal(values, 1.0)
    values[0, 2] = values[2, 0] = 0.15
    values[1, 3] = values[3, 1] = -0.02
    assert (
        "Of 6 pairs, json and caps are most alike (cosine 0.15), words and code least "
        "(\N{MINUS SIGN}0.02); unrelated changes have 0."
    ) in words_of(recipe("ties", 4), with_cosines(sketch(4), values))[1]


def test_pairs_that_share_nothing_are_told_as_unrelated() -> None:
    assert (
        "All 6 pairs of experts are nearly unrelated" in words_of(recipe("ties", 4), sketch(4))[1]
    )


def test_an_expert_that_equals_the_base_has_no_direction() -> None:
    made = sketch(experts=2)
    counts, zeros = made.counts.copy(), made.zeros.copy()
    counts[1], zeros[1] = 0, made.numel
    dots = made.dots.copy()
    dots[1, 1] = 0
    same = replace(
        made,
        dots=dots,
        counts=counts,
        zeros=zeros,
        fine=made.fine * (counts[..., None] > 0),
        l1=made.l1 * (counts > 0),
        l2=made.l2 * (counts > 0),
        sample=made.sample * np.array([[1], [0]], dtype=np.float32),
    )
    values = findings.cosines(same)
    assert np.isnan(values[0, 1])
    assert values[1, 1] == 1
    _, reason = words_of(recipe("magnitude", 2), same)
    assert "words equals the base." in reason
    assert "cosine" not in reason
    assert "Asked for 20 %, kept 10 %: the other entries equal the base." in reason


@pytest.mark.parametrize(
    ("share", "text"),
    [
        (0.2, "20 %"),
        (0.0, "0 %"),
        (0.034, "3.4 %"),
        (1, "100 %"),
        (0.0006, "0.06 %"),
        (0.00001, "under 0.01 %"),
    ],
)
def test_percent(share: float, text: str) -> None:
    assert findings.percent(share).replace(findings.THIN, " ") == text
