"""Explore's controls and handlers, called as functions."""

from __future__ import annotations

import threading
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gradio as gr
import pytest

from merging import recipe as recipes
from merging.engines.eager import Progress
from merging.errors import ModelNotFound, RecipeError
from merging.methods import CONSENSUS, PRESETS, PRUNERS, RULES
from merging.sketches.plan import plan
from tests.engines import experts_of
from tests.ui.sketches import sketch
from ui import controls, explore, looks, spelling
from ui.explore import answers, scanning, shape, view
from ui.explore.pairing import Aside
from ui.explore.readings import Reading


@dataclass(frozen=True)
class Model:
    id: str
    label: str
    folder: Path
    kind: str = "demo"
    shape: tuple = ()
    layers: int = 4


class FakeLibrary:
    """A base and four experts whose sketch is made up."""

    def __init__(self, names: tuple[str, ...] = ("base", "a", "b", "c", "d")) -> None:
        self.now = names
        self.refresh()

    def refresh(self) -> None:
        self._models = {f"demo:{n}": Model(f"demo:{n}", n, Path(n)) for n in self.now}

    def labels(self, recipe: recipes.Recipe) -> dict[str, str]:
        models = (recipe.base, *(source.model for source in recipe.sources))
        return {model: self._models[model].label for model in models}

    def seat(self, model: str) -> int:
        return list(self._models).index(model)

    def misfits(self, base: str) -> dict[str, str]:
        return {}

    def left_out(self) -> list[tuple[str, str]]:
        return []

    def models(self) -> list[Model]:
        return list(self._models.values())

    def get(self, model: str) -> Model:
        if model not in self._models:
            raise ModelNotFound(f"{model} is not on offer")
        return self._models[model]

    def default_selection(self) -> tuple[str, list[str]]:
        ids = list(self._models)
        return (ids[0] if ids else ""), ids[1:]

    def sketch(
        self, base: str, experts: list[str], progress: Any = None, cancel: Any = None
    ) -> Any:
        return sketch(len(experts))

    def sketched(self, recipe: recipes.Recipe) -> Any:
        return sketch(len(recipe.sources))

    def preview(self, base: str, experts: list[str], cancel: Any = None) -> Any:
        return None


_OWN = controls.MAX_EXPERTS + len(controls.places()) + 2  # what a family fills beside the panels


@pytest.fixture(scope="module")
def library() -> FakeLibrary:
    return FakeLibrary()


@pytest.fixture(scope="module")
def built(library: FakeLibrary) -> tuple[gr.Blocks, explore.ExploreRefs]:
    with gr.Blocks() as page:
        refs = explore.build(explore.memory(), library)  # type: ignore[arg-type]
        explore.wire(page, refs, library)  # type: ignore[arg-type]
    return page, refs


@pytest.fixture
def values(built: tuple[gr.Blocks, explore.ExploreRefs]) -> dict[str, Any]:
    return {name: part.value for name, part in built[1].controls.named().items()}


def test_first_paint_holds_the_histograms_and_a_valid_recipe(built) -> None:
    refs = built[1]
    assert '"counts":' in refs.map.value
    recipe = recipes.parse(refs.recipe.value)
    assert (recipe.prune, recipe.sources[0].density.constant) == ("dynamic", 0.3)
    assert '"sentence":"Keeps 30 %' in refs.headline.value


def test_every_event_is_private(built) -> None:
    for block_function in built[0].fns.values():
        assert block_function.api_visibility == "private"


def test_every_declared_knob_has_a_control(values) -> None:
    for axis in (*PRUNERS.values(), *RULES.values()):
        for knob in controls.extra(axis):
            assert f"{axis.id}.{knob.name}" in values


@pytest.mark.parametrize("prune", PRUNERS)
@pytest.mark.parametrize("consensus", CONSENSUS)
def test_every_point_of_the_two_axes_is_a_recipe(values, prune: str, consensus: str) -> None:
    recipe = spelling.to_recipe({**values, "prune": prune, "consensus": consensus})
    assert (recipe.prune, recipe.consensus) == (prune, consensus)
    assert recipes.parse(recipes.dump(recipe)) == recipe
    plan(recipe, sketch())


def test_nothing_is_settled_while_one_axis_is_about_to_follow_the_other(library, values) -> None:
    values |= {"prune": "dynamic", "consensus": "karcher"}
    answer = answers.settled(library, values, list(values["experts"]))
    assert answer == [gr.skip()] * len(answer)
    spelled = recipes.parse(explore.spelled(library, values, values["experts"]))
    assert (spelled.prune, spelled.consensus) == ("none", "karcher")


def test_a_choice_tells_what_it_set_besides(library, values) -> None:
    chosen = {**values, "prune": "dynamic", "consensus": "slerp"}
    prune, rule, experts, aside, told, times = answers.paired(library, chosen, Aside(), "consensus")
    assert (prune, rule, experts, times) == ("none", "slerp", ["demo:a", "demo:b"], 1)
    assert told == (
        "SLERP combines whole models: nothing is pruned before it. "
        "SLERP takes 2 experts: c and d are left out."
    )
    back = {"prune": "none", "consensus": "pcb", "experts": experts}
    prune, rule, experts, _, told, _ = answers.paired(library, back, aside, "consensus")
    assert (prune, rule, experts) == ("dynamic", "pcb", values["experts"])
    assert told == "Pruned by Dynamic again. c and d are back."


def test_a_task_is_chosen_by_the_name_of_its_expert(built, library, values) -> None:
    task = built[1].controls.knobs["emr", "task"]
    assert task.choices == [("a", 1), ("b", 2), ("c", 3), ("d", 4)]
    chosen = {**values, "experts": ["demo:b", "demo:d"], "emr.task": 4, "tall_masks.task": 1}
    *_, filled = scanning.changed(library, built[1].controls.named(), chosen, values["experts"])
    emr, tall = filled[-4:-2]
    assert emr["choices"] == tall["choices"] == [("b", 1), ("d", 2)]
    assert (emr["value"], tall["value"]) == (2, 1)  # d stays chosen; a is gone


def test_a_task_beyond_the_experts_is_the_last(values) -> None:
    chosen = {**values, "prune": "none", "consensus": "emr", "emr.task": 4}
    recipe = spelling.to_recipe({**chosen, "experts": values["experts"][:2]})
    assert recipe.parameters["task"] == 2


@pytest.mark.parametrize("preset", PRESETS.values(), ids=list(PRESETS))
def test_a_preset_sets_every_control(built, values, preset) -> None:
    parts = built[1].controls
    outputs = shape.preset_outputs(parts)
    names = {part: name for name, part in parts.named().items()}
    values |= {"prune": preset.prune, "consensus": preset.consensus}
    for part, value in zip(outputs, shape.preset(preset.id), strict=True):
        values[names[part]] = value
    values["experts"] = values["experts"][: experts_of(preset.id)]
    recipe = spelling.to_recipe(values)
    assert (recipe.method, recipe.prune, recipe.consensus) == (
        preset.id,
        preset.prune,
        preset.consensus,
    )
    for name, default in controls.settings(preset).items():
        if name in recipe.parameters:
            value = recipe.parameters[name]
            assert getattr(value, "constant", value) == default
        elif name == "density":
            assert recipe.sources[0].density.constant == default


def test_rate_becomes_density_without_rounding_noise(values) -> None:
    recipe = spelling.to_recipe({**values, "rate": 0.9})
    assert recipe.sources[0].density.constant == 0.1


def test_partitions_beyond_the_chosen_number_stay_out_of_the_recipe(values) -> None:
    recipe = spelling.to_recipe({**values, "partitions": 2})
    assert recipe.sources[0].amplification == (1.7, 1.4)


def test_partition_labels_name_their_share() -> None:
    labels = controls.amplification_labels(0.8, 4)
    assert labels[0] == "top 5 %"
    assert [label.split("\N{EN DASH}") for label in labels[1:]] == [
        ["5", "10 %"],
        ["10", "15 %"],
        ["15", "20 %"],
    ]


def test_settling_answers_with_numbers_recipe_and_labels(library, values) -> None:
    answer = answers.settled(library, values, values["experts"])
    assert answer[0]["asked"]["rate"] == 0.7
    assert set(answer[0]["exact"]) == {"entries", "l1", "l2", "clash", "whole"}
    assert recipes.parse(answer[1]).partitions == 4
    assert answer[3]["label"] == "top 7.5 %"


def test_settings_that_cannot_be_planned_say_so_in_the_headline(library, values) -> None:
    answer = answers.settled(library, {**values, "rate": 1.5}, values["experts"])
    assert answer[0]["sentence"].startswith("These settings cannot be planned. ")
    assert "density" in answer[0]["reason"]
    assert answer[1].startswith("# models: demo:a: density -0.5 is outside") and answer[2] == ""
    assert len(answer) == 3 + controls.MAX_PARTITIONS


def test_nothing_is_settled_for_a_family_that_is_not_shown(library, values) -> None:
    answer = answers.settled(library, values, values["experts"][:2])
    assert answer == [gr.skip()] * len(answer)


def test_the_recipe_is_spelled_from_the_controls_as_they_stand(library, values) -> None:
    now = {**values, "experts": ["demo:d", "demo:b"], "weight.0": 0.3, "weight.1": 0.7}
    recipe = recipes.parse(explore.spelled(library, now, ["demo:a", "demo:b"]))
    weights = {source.model: source.weight.constant for source in recipe.sources}
    assert weights == {"demo:b": 0.7, "demo:d": 1.0}  # b's own; a's 0.3 belongs to nobody now


def test_experts_come_in_the_order_on_offer(library, values) -> None:
    shuffled = {**values, "experts": ["demo:c", "demo:a"]}
    assert view.ordered(library, shuffled)["experts"] == ["demo:a", "demo:c"]


@pytest.mark.parametrize("name", ["../../etc", "/etc/passwd", "org/model"])
def test_a_model_that_is_not_on_offer_is_refused(library, values, name: str) -> None:
    with pytest.raises(ModelNotFound):
        view.ordered(library, {**values, "experts": [name]})
    with pytest.raises(ModelNotFound):
        view.ordered(library, {**values, "base": name})


def test_no_expert_and_too_many_are_said_in_words(values) -> None:
    with pytest.raises(RecipeError, match="at least one expert"):
        spelling.to_recipe({**values, "experts": []})
    with pytest.raises(RecipeError, match="up to 8"):
        spelling.to_recipe({**values, "experts": [f"demo:{i}" for i in range(9)]})


def test_a_new_family_says_that_it_reads_and_then_fills_the_panels(built, library, values) -> None:
    named = built[1].controls.named()
    chosen = {**values, "experts": ["demo:b", "demo:d"], "weight.0": 0.3}
    reading, *_, filled = scanning.changed(library, named, chosen)
    assert "Reading" in reading[0]["parts"][0][0]
    family = filled[3]["family"]
    assert [look["name"] for look in family["looks"]] == ["b", "d"]
    assert family["looks"][1]["colour"] == looks.COLOURS[4]  # colour stays with expert
    *weights, _, _, weighed, stop = filled[-_OWN:]
    assert (reading[-1]["visible"], stop["visible"]) == (True, False)
    assert [update["visible"] for update in weights] == [True] * 2 + [False] * 6
    assert weighed == ["demo:b", "demo:d"]


def test_an_expert_that_stays_keeps_its_weight(built, library, values) -> None:
    named = built[1].controls.named()
    chosen = {**values, "experts": ["demo:b", "demo:d"], "weight.0": 0.3, "weight.1": 0.7}
    *_, filled = scanning.changed(library, named, chosen, ["demo:a", "demo:b"])
    weights = filled[-_OWN:]
    assert [update["value"] for update in weights[:3]] == [0.7, 1.0, 1.0]
    assert "weight: 0.7" in filled[1]


def test_a_long_scan_says_how_far_it_is_and_for_how_long(
    built, library, values, monkeypatch
) -> None:
    shown = threading.Event()

    def slow(*_: Any) -> Any:
        _[2](Progress("scan", 3, 4, "tensor", 0, 6.0, 1e9, 2.0))
        assert shown.wait(30)
        return sketch(4)

    monkeypatch.setattr(library, "sketch", slow)
    monkeypatch.setattr(scanning, "_TELL_S", 0.01)
    changing = scanning.changed(library, built[1].controls.named(), values)
    next(changing)
    headline = next(changing)[0]
    assert "75%" in headline["parts"][0][0]
    assert "About 2 s left" in headline["reason"]
    shown.set()
    *_, filled = changing
    assert filled[3]["family"]


def test_a_first_look_is_drawn_and_says_what_it_is(built, library, values, monkeypatch) -> None:
    monkeypatch.setattr(library, "preview", lambda *_: sketch(4))
    reading, *rest, filled = scanning.changed(library, built[1].controls.named(), values)
    assert "Reading the changes" in reading[0]["parts"][0][0]
    first = "A first look, from some of the entries"
    look = next(row for row in rest if row[0]["reason"].startswith(first))
    assert look[0]["parts"] == filled[0]["parts"]
    assert look[3]["family"]
    assert "first look" not in filled[0]["reason"]


@pytest.mark.parametrize(
    ("done", "eta_s", "title", "reason"),
    [
        (1999, 0.4, "Reading the changes\N{HORIZONTAL ELLIPSIS} 99%", "is kept."),
        (1000, 75.2, "Reading the changes\N{HORIZONTAL ELLIPSIS} 50%", "About 1 min 15 s left."),
        (2000, 0.0, "Reading the changes\N{HORIZONTAL ELLIPSIS} 100%", "being put together."),
    ],
)
def test_what_is_read_is_put_together_before_it_is_shown(done, eta_s, title, reason) -> None:
    progress = Progress("scan", done, 2000, "tensor", 0, 6.0, 1e9, eta_s)
    headline = scanning.progress_headline(2, progress, None)
    assert headline["parts"] == [(title, "")]
    assert headline["reason"].endswith(reason)
    beside = scanning.progress_headline(2, progress, {"parts": [("Keeps", "")]})
    assert headline["reading"]  # the plots are those of another family
    assert "reading" not in beside
    assert ("put together" in beside["reason"]) is (done == 2000)
    assert "0 s" not in beside["reason"].replace("10 s", "")


@pytest.mark.parametrize("replaced", [False, True])
@pytest.mark.parametrize("slow", ["sketch", "preview"])
def test_a_reading_that_was_stopped_says_so_unless_a_newer_one_took_its_place(
    built, library, values, monkeypatch, slow: str, replaced: bool
) -> None:
    over = threading.Event()

    def deaf(*_: Any) -> Any:
        """As what cannot be ended: a compiler, a disk."""
        assert over.wait(30)

    monkeypatch.setattr(library, slow, deaf)
    monkeypatch.setattr(scanning, "_TELL_S", 0.01)
    reading = Reading()
    changing = scanning.changed(library, built[1].controls.named(), values, (), reading)
    next(changing)
    reading.replaced = replaced
    reading.over.set()
    rest = [row[0]["sentence"] for row in changing]
    over.set()
    stopped = "Reading was stopped. Choose experts to read them again."
    assert rest == ([] if replaced else [stopped])


def test_a_model_that_was_deleted_leaves_the_choice(values) -> None:
    library = FakeLibrary(("base", "a", "b"))
    lists, changed = answers.refreshed(library, values := {**values, "experts": ["demo:a"]})
    assert not changed
    library.now = ("base", "b", "new")
    lists, changed = answers.refreshed(library, values)
    assert changed
    assert lists[1]["value"] == values["experts"] == []
    assert ("new", "demo:new") in lists[1]["choices"]
    library.now = ("b",)
    assert answers.refreshed(library, values)[0][0]["value"] == values["base"] == "demo:b"


def test_new_models_are_listed_and_the_choice_stays(values) -> None:
    library = FakeLibrary(("base", "a"))
    library.now = ("base", "a", "new")
    library.refresh()
    bases, experts, openable = answers.listed(library, "demo:base")
    assert ("new", "demo:new") in bases["choices"] and ("new", "demo:new") in experts["choices"]
    assert experts["signs"]["demo:new"]["misfit"] == "" and openable["choices"]
    assert not any("value" in update for update in (bases, experts, openable))


def test_without_experts_the_panels_are_emptied(built, library, values) -> None:
    named = built[1].controls.named()
    (emptied,) = scanning.changed(library, named, {**values, "experts": []})
    assert emptied[1] == "" and emptied[3] is None


def test_another_base_offers_the_others_and_keeps_what_fits(library) -> None:
    update = answers.rebased(library, "demo:a", ["demo:a", "demo:b"])
    assert ("base", "demo:base") in update["choices"]
    assert update["value"] == ["demo:b"]


def test_an_empty_library_builds_a_page_that_says_so() -> None:
    with gr.Blocks():
        refs = explore.build(explore.memory(), FakeLibrary(()))  # type: ignore[arg-type]
    assert "Nothing to explore yet" in refs.headline.value
    assert refs.recipe.value == ""


def test_words_escape_what_they_quote(values) -> None:
    recipe = spelling.to_recipe({**values, "base": "<img src=x>"})
    called = {name: name for name in ("<img src=x>", *values["experts"])}
    text = view.words(recipe, called)
    assert "&lt;img" in text and "<img" not in text


def memory_of(values: dict[str, Any], **changed: Any) -> dict[str, Any]:
    return {**values, "weighed": values["experts"], **changed}


def test_a_reload_brings_back_what_the_browser_kept(built, library, values) -> None:
    named = built[1].controls.named()
    memory = memory_of(values, rate=0.95, experts=["demo:b"], weighed=["demo:b"])
    *parts, weighed, due = answers.restored(library, named, memory, values)
    back = dict(zip(named, parts, strict=True))
    assert back["rate"] == 0.95
    assert back["experts"]["value"] == weighed == ["demo:b"]
    assert due, "other experts than the page shows at first"
    *_, due = answers.restored(library, named, memory_of(values, rate=0.95), values)
    assert not due
    *_, due = answers.restored(library, named, memory_of(values, weighed=["demo:b"]), values)
    assert due, "left before the experts that were chosen last were shown"


@pytest.mark.parametrize(
    "change",
    [
        {"rate": 7},
        {"rate": "x"},
        {"rate": None},
        {"prune": "no such"},
        {"experts": []},
        {"experts": ["demo:gone"]},
        {"base": "demo:gone"},
        {"experts": ["demo:base"]},
        {"weighed": None},
        {"weighed": [["x"]]},
        {"weighed": ["demo:b"] * 9},
        {"lambda": float("nan")},
        {"partitions": True},
        {"emr.task": 5},
        {"tall_masks.task": "a"},
    ],
    ids=str,
)
def test_what_was_kept_and_does_not_hold_any_more_is_left(built, library, values, change) -> None:
    named = built[1].controls.named()
    base, experts, *rest = answers.restored(library, named, memory_of(values, **change), values)
    assert base["value"] == "demo:base"
    assert "value" not in experts
    assert rest == [*[gr.skip()] * (len(named) - 1), False]
    for nothing in ({}, None, [], "x", {"rate": 1}):
        assert answers.restored(library, named, nothing, values)[-1] is False


@pytest.mark.parametrize("preset", PRESETS.values(), ids=lambda preset: preset.id)
def test_what_a_control_begins_with_is_what_a_recipe_would_take(built, values, preset) -> None:
    """Small numbers are not rounded away on their way through a component."""
    for axis in (PRUNERS[preset.prune], RULES[preset.consensus]):
        for knob in controls.extra(axis):
            component = built[1].controls.knobs[axis.id, knob.name]
            shown = component.postprocess(knob.default)
            assert component.preprocess(shown) == knob.default, knob.name


def test_controls_that_spell_nothing_leave_no_older_recipe(library, values) -> None:
    values |= {"prune": "none", "consensus": "model_stock", "experts": ["demo:a"]}
    answer = answers.settled(library, values, ["demo:a"])
    assert answer[1] == "# Model Stock takes at least 2 experts; 1 is chosen\n"
    assert answer[2] == ""


def test_a_base_among_the_models_is_planned_as_no_change(library, values) -> None:
    values |= {"prune": "none", "consensus": "karcher", "experts": values["experts"][:2]}
    recipe = spelling.to_recipe(values)
    assert recipe.base in [source.model for source in recipe.sources]
    assert any("one more model" in note for note in recipe.notes)
    headline = answers.settled(library, values, list(values["experts"]))[0]
    assert "cannot be planned" not in headline["sentence"]


@pytest.mark.parametrize("rule", RULES)
def test_only_what_a_rule_declares_shows(rule: str, built) -> None:
    *_, weighing, strength = shape.shape("none", rule, 1, 0.5)
    assert weighing["visible"] == controls.has(RULES[rule], "weight")
    assert strength["visible"] == controls.has(RULES[rule], "lambda")
