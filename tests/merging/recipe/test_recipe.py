"""Recipes: mergekit's schema and ours, every default spelled out, every mistake named."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from merging.errors import RecipeError
from merging.methods import BLENDS, CONSENSUS, PRESETS, PRUNERS, RULES
from merging.recipe import Recipe, build, describe, dump, from_mapping, load, parse
from merging.recipe.values import SWITCHES
from tests.engines import experts_of
from tests.families import document

TESTS = Path(__file__).parents[1]


def refused(text: str | dict) -> str:
    with pytest.raises(RecipeError) as error:
        parse(text) if isinstance(text, str) else from_mapping(text)
    assert "\n" not in str(error.value)
    return str(error.value)


# what is declared


@pytest.mark.parametrize("axis", [*PRUNERS.values(), *RULES.values()], ids=lambda a: a.id)
def test_every_axis_names_its_source_and_has_a_test(axis) -> None:
    assert axis.title
    assert axis.summary.endswith(".")
    assert axis.formula
    if axis.paper:
        assert axis.url.startswith("https://")
    module = axis.decide.__module__.rpartition(".")[2]
    assert (TESTS / "methods" / f"test_{module}.py").exists()


@pytest.mark.parametrize("axis", [*PRUNERS.values(), *RULES.values()], ids=lambda a: a.id)
def test_every_knob_has_a_default_inside_its_bounds(axis) -> None:
    for knob in axis.knobs:
        assert knob.label
        assert knob.info.endswith(".")
        if knob.choices:
            assert knob.default in knob.choices
        elif not isinstance(knob.default, bool):
            defaults = knob.default if isinstance(knob.default, tuple) else (knob.default,)
            assert knob.low is not None
            assert knob.high is not None
            assert all(knob.low <= value <= knob.high for value in defaults)
            assert knob.step > 0


@pytest.mark.parametrize("preset", PRESETS.values(), ids=lambda p: p.id)
def test_every_preset_is_a_valid_recipe_and_can_be_described(preset) -> None:
    recipe = from_mapping(document(preset.id, min(2, experts_of(preset.id))))
    assert (recipe.prune, recipe.consensus) == (preset.prune, preset.consensus)
    start = "Take " if preset.consensus in BLENDS else "Start from base"
    assert describe(recipe).startswith(start)


@pytest.mark.parametrize("prune", sorted(PRUNERS))
@pytest.mark.parametrize("consensus", sorted(CONSENSUS))
def test_the_axes_combine_freely(prune: str, consensus: str) -> None:
    recipe = from_mapping(document("ties", 2, {"prune": prune, "consensus": consensus}))
    assert (recipe.prune, recipe.consensus) == (prune, consensus)
    assert parse(dump(recipe)) == recipe


# values


def test_defaults_are_filled_in() -> None:
    recipe = parse("{merge_method: ties, base_model: b, models: [{model: x}, y]}")
    assert [source.model for source in recipe.sources] == ["x", "y"]
    assert recipe.sources[0].weight.constant == 1.0
    assert recipe.sources[0].density.constant == 1.0  # as mergekit; screens begin with 0.2
    assert recipe.parameters["normalize"].constant is True
    assert recipe.strength.constant == 1.0
    assert recipe.dtype is None


def test_a_model_s_own_value_goes_before_the_recipe_s() -> None:
    recipe = from_mapping(document("ties", [{"density": 0.7}, {}], {"density": 0.3, "weight": 2}))
    assert [s.density.constant for s in recipe.sources] == [0.7, 0.3]
    assert [s.weight.constant for s in recipe.sources] == [2.0, 2.0]


def test_mergekit_s_way_of_writing_values() -> None:
    recipe = parse(
        """
        merge_method: ties
        base_model: {model: {path: org/base}}
        models:
          - model: org/base
          - model: {model: {path: org/a}}
            parameters:
              weight: [0, 0.5, 1]
              density:
                - {filter: mlp, value: [1, 0.5]}
                - {filter: self_attn, value: 0.25}
                - {value: 0.1}
        parameters: {normalize: true, int8_mask: true, lambda: 1.2, rescale: false}
        dtype: torch.bfloat16
        tokenizer_source: base
        chat_template: auto
        """
    )
    assert recipe.base == "org/base"
    assert [source.model for source in recipe.sources] == ["org/a"]
    (source,) = recipe.sources
    assert source.weight.at("model.layers.1.mlp.up_proj.weight", 1, 3) == 0.5
    assert source.density.at("model.layers.2.mlp.up_proj.weight", 2, 3) == 0.5
    assert source.density.at("model.layers.2.self_attn.q_proj.weight", 2, 3) == 0.25
    assert source.density.at("lm_head.weight", None, 3) == 0.1
    assert recipe.strength.constant == 1.2
    assert recipe.dtype == "bfloat16"


SLICED = """
merge_method: ties
base_model: b
slices:
  - sources:
      - {model: x, layer_range: [0, 12], parameters: {weight: 0.5}}
      - {model: y, layer_range: [0, 12]}
    parameters: {density: 0.3}
parameters: {density: 0.9, lambda: 0.7}
"""


def test_a_slice_of_all_layers_is_the_long_form_of_whole_models() -> None:
    recipe = parse(SLICED)
    assert recipe == from_mapping(
        {
            "merge_method": "ties",
            "base_model": "b",
            "models": [{"model": "x", "parameters": {"weight": 0.5}}, "y"],
            "parameters": {"density": 0.3, "lambda": 0.7},  # the slice's own goes first
        }
    )
    assert recipe.layers == 12
    assert parse(dump(recipe)) == recipe
    assert parse(dump(recipe)).layers == 12  # models may have more, of which these are taken


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("[0, 12]}", "[0, 11]}", ["slices[0]", "[0, 11] of y", "[0, 12] of x"]),
        ("layer_range: [0, 12]", "layer_range: [4, 12, 1]", ["slices[0]", "[4, 12, 1]"]),
        ("layer_range: [0, 12]", "layr_range: [0, 12]", ["slices[0]", "layr_range"]),
        ("layer_range: [0, 12]", "layer_range: 12", ["layer_range"]),
        (", layer_range: [0, 12]", "", ["layer_range", "None"]),
        ("  - sources:", "  - {sources: []}\n  - sources:", ["one slice"]),
        ("    parameters: {density: 0.3}", "    parmeters: {}", ["parmeters", "sources"]),
        ("  - sources:", "  - surces:", ["surces"]),
        ("slices:", "models: [x]\nslices:", ["not both"]),
    ],
)
def test_slices_with_a_mistake_are_refused(old: str, new: str, words: list[str]) -> None:
    text = refused(SLICED.replace(old, new))
    assert all(word in text for word in words), text


SEVERAL = """
merge_method: task_arithmetic
base_model: b
slices:
  - sources:
      - {model: x, layer_range: [0, 4], parameters: {weight: 0.5}}
      - {model: y, layer_range: [0, 4], parameters: {weight: [1, 0]}}
      - {model: b, layer_range: [0, 4]}
  - sources:
      - {model: x, layer_range: [4, 12], parameters: {weight: 2}}
      - {model: b, layer_range: [4, 12]}
    parameters: {lambda: 0.1}
parameters: {lambda: 0.7}
"""


def by_layer(schedule, layers: list[int | None], name: str = "model.layers.0.mlp.w") -> list[float]:
    return [schedule.at(name, layer, 12) for layer in layers]


def test_slices_that_join_up_say_values_by_layer() -> None:
    recipe = parse(SEVERAL)
    x, y = recipe.sources
    assert recipe.layers == 12
    assert by_layer(x.weight, [0, 3, 4, 11]) == [0.5, 0.5, 2.0, 2.0]
    assert by_layer(y.weight, [0, 1, 3, 4, 11]) == pytest.approx([1, 2 / 3, 0, 0, 0])
    assert by_layer(recipe.strength, [0, 3, 4, 11]) == [0.7, 0.7, 0.1, 0.1]
    assert x.weight.at("model.embed_tokens.weight", None, 12) == 0.5
    assert x.weight.at("model.norm.weight", None, 12) == 2.0
    assert x.weight.at("lm_head.weight", None, 12) == 2.0
    assert parse(dump(recipe)) == recipe


def test_slices_that_say_the_same_are_whole_models() -> None:
    text = SEVERAL.replace("weight: 2", "weight: 0.5").replace("    parameters: {lambda: 0.1}", "")
    x, y = parse(text).sources
    assert x.weight.constant == 0.5
    assert y.weight.constant is None


def test_one_module_named_default_is_what_it_holds() -> None:
    inside = {"default": {"slices": yaml.safe_load(SLICED)["slices"]}}
    document = {k: v for k, v in yaml.safe_load(SLICED).items() if k != "slices"}
    assert from_mapping({**document, "modules": inside}) == parse(SLICED)
    inside = {"default": {"models": ["x", "y"], "parameters": {"density": 0.3}}}
    (x, y) = from_mapping({**document, "modules": inside}).sources
    assert (x.model, y.model, x.density.constant) == ("x", "y", 0.3)


@pytest.mark.parametrize(
    ("modules", "words"),
    [
        ({"text": {}, "vision": {}}, ["text, vision", "default"]),
        ({"text": {}}, ["text", "default"]),
        ([], ["modules"]),
        ({"default": []}, ["default", "models: or slices:"]),
        ({"default": {"model": []}}, ["'model'"]),
    ],
)
def test_other_modules_are_refused(modules: object, words: list[str]) -> None:
    text = refused({"merge_method": "ties", "base_model": "b", "modules": modules})
    assert all(word in text for word in words), text


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("[4, 12]", "[4, 4]", ["[4, 4]", "no layer"]),
        ("{lambda: 0.1}", "{scope: model}", ["scope", "whole recipe"]),
        ("task_arithmetic", "pcb", ["slices[1]", "missing"]),
        ("{model: x, layer_range: [4, 12]", "{model: b, layer_range: [4, 12]", ["listed twice"]),
    ],
)
def test_several_slices_with_a_mistake_are_refused(old: str, new: str, words: list[str]) -> None:
    text = refused(SEVERAL.replace(old, new))
    assert all(word in text for word in words), text


@pytest.mark.parametrize("asked", ["base", "./base", "elsewhere/../base", "absolute"])
def test_a_tokenizer_source_that_is_the_base_changes_nothing(asked: str, tmp_path) -> None:
    (tmp_path / "base").mkdir()
    asked = str(tmp_path / "base") if asked == "absolute" else asked
    plain = from_mapping(document("ties", 2), tmp_path)
    assert from_mapping(document("ties", 2, tokenizer_source=asked), tmp_path) == plain
    assert from_mapping(document("ties", 2, tokenizer={"source": asked}), tmp_path) == plain


def test_a_tokenizer_is_taken_from_an_expert(tmp_path) -> None:
    (tmp_path / "expert1").mkdir()
    recipe = from_mapping(document("ties", 2, tokenizer_source="./expert1"), tmp_path)
    assert recipe.tokenizer == "expert1"
    assert parse(dump(recipe), tmp_path) == recipe


@pytest.mark.parametrize("template", ["auto", "chatml", "{{ messages[0]['content'] }} and more"])
def test_what_else_a_recipe_says_of_the_result_is_kept(template: str) -> None:
    recipe = from_mapping(document("ties", 2, chat_template=template, keep_base=["lm_head", "x"]))
    assert (recipe.chat_template, recipe.keep_base) == (template, ("lm_head", "x"))
    assert parse(dump(recipe)) == recipe


def test_a_slice_s_filters_let_the_recipe_s_values_through() -> None:
    text = SLICED.replace("{density: 0.3}", "{density: [{filter: mlp, value: 0.3}]}")
    density = parse(text).sources[1].density
    assert density.at("model.layers.1.mlp.up_proj.weight", 1, 12) == 0.3
    assert density.at("model.layers.1.self_attn.q_proj.weight", 1, 12) == 0.9


def test_switches_and_numbers_as_mergekit_s_recipes_write_them() -> None:
    recipe = from_mapping(
        {
            **document("ties", [{"weight": "0.5", "density": "4e-1", "int8_mask": True}]),
            "parameters": {"normalize": 0.0, "rescale": "true", "int8_mask": 1.0},
            "tokenizer": {"source": "base"},
            "name": "mine",
        }
    )
    (source,) = recipe.sources
    assert (source.weight.constant, source.density.constant) == (0.5, 0.4)
    assert [recipe.parameters[one].constant for one in SWITCHES] == [True, False]
    written = {"normalize": "yes", "rescale": "off"}
    recipe = from_mapping(document("ties", [{}], parameters=written))
    assert [recipe.parameters[one].constant for one in SWITCHES] == [False, True]
    recipe = from_mapping(document("karcher", 2, parameters={"max_iter": "3"}))
    assert recipe.parameters["max_iter"].constant == 3


def test_a_key_with_nothing_after_it_is_as_if_it_were_not_there() -> None:
    plain = document("ties", [{"weight": 0.5}])
    nothing = dict.fromkeys(("slices", "modules", "dtype", "tokenizer", "chat_template"))
    assert from_mapping({**plain, **nothing}) == from_mapping(plain)


def test_an_average_counts_its_base_where_every_model_has_a_weight() -> None:
    models = [{"model": "x"}, {"model": "y"}]
    plain = {"merge_method": "linear", "base_model": "b", "models": models}
    recipe = from_mapping({**plain, "parameters": {"weight": 1.0}})
    assert [source.model for source in recipe.sources] == ["x", "y", "b"]
    assert [source.model for source in from_mapping(plain).sources] == ["x", "y"]


def test_numbers_may_have_an_exponent() -> None:
    recipe = parse("{merge_method: ties, base_model: b, models: [x], parameters: {weight: 1e-3}}")
    assert recipe.sources[0].weight.constant == 0.001


def test_dare_divides_by_the_density_unless_asked_for_mergekit_s_rule() -> None:
    rescaled = from_mapping(document("dare_ties", 1)).parameters["rescale_by"]
    assert rescaled.constant == "density"
    recipe = from_mapping(document("dare_ties", 1, {"rescale_by": "l1"}))
    assert recipe.parameters["rescale_by"].constant == "l1"


def test_only_linear_does_without_a_base() -> None:
    recipe = parse("{merge_method: linear, models: [x, y]}")
    assert recipe.base == "x"
    assert [source.model for source in recipe.sources] == ["x", "y"]
    assert "base_model" in refused("{merge_method: ties, models: [x, y]}")


def test_pcb_s_share_is_its_density() -> None:
    recipe = from_mapping(document("pcb", 2, {"density": 0.3}))
    assert recipe.parameters["pcb_density"] == 0.3
    both = from_mapping(document("pcb", 2, {"density": 0.5, "prune": "magnitude"}))
    assert both.parameters["pcb_density"] == 0.1
    assert both.sources[0].density.constant == 0.5
    words = refused(document("pcb", [{"density": 0.3}, {}]))
    assert "expert0: density is one for all models" in words


@pytest.mark.parametrize("method", ["pcb", "task_arithmetic", "linear", "dppa", "dare_linear"])
def test_pcb_competes_over_the_whole_model_as_its_paper_however_it_is_asked_for(method) -> None:
    assert from_mapping(document(method, 2, {"consensus": "pcb"})).parameters["scope"] == "model"


def test_a_magnitude_prune_and_pcb_share_one_scope() -> None:
    recipe = from_mapping(document("pcb", 2, {"prune": "magnitude"}))
    assert recipe.parameters["scope"] == "model"
    recipe = from_mapping(document("ties", 2, {"consensus": "pcb"}))
    assert recipe.parameters["scope"] == "tensor"


def test_only_an_average_takes_normalize_from_linear() -> None:
    words = refused(document("linear", 2, {"consensus": "pcb", "normalize": False}))
    assert "normalize: false is not supported with consensus: pcb" in words


def test_amplification_may_be_one_number() -> None:
    recipe = from_mapping(document("dppa", [{"amplification": 1.5}, {}], {"amplification": [2, 1]}))
    assert [s.amplification for s in recipe.sources] == [(1.5,), (2.0, 1.0)]
    assert recipe.partitions == 2


def test_weights_may_be_zero_or_negative() -> None:
    recipe = from_mapping(document("task_arithmetic", [{"weight": 0}, {"weight": -2.5}]))
    assert [s.weight.constant for s in recipe.sources] == [0.0, -2.5]


def test_a_density_without_pruning_is_remarked_on() -> None:
    recipe = from_mapping(document("task_arithmetic", [{"density": 0.5}]))
    assert any("density has no effect" in note for note in recipe.notes)


def test_a_recipe_that_lists_only_its_base_is_remarked_on() -> None:
    recipe = parse("{merge_method: ties, base_model: b, models: [b]}")
    assert any("only the base" in note for note in recipe.notes)


def test_build_takes_plain_values(tmp_path) -> None:
    recipe = build(
        method="dppa",
        base="b",
        models=[("x", {"density": 0.1}), ("y", {})],
        parameters={"density_shift": 0.0},
        dtype="float16",
        folder=tmp_path,
    )
    assert [s.density.constant for s in recipe.sources] == [0.1, 0.2]
    assert (recipe.dtype, recipe.folder) == ("float16", tmp_path)


def test_relative_models_are_read_against_the_file_s_folder(tmp_path) -> None:
    file = tmp_path / "recipe.yaml"
    file.write_text(yaml.safe_dump(document("ties", 1)))
    assert load(file).folder == tmp_path.resolve()


def test_words_call_models_by_short_names_that_tell_them_apart(tmp_path) -> None:
    for name in ("a/base", "b/base", "b/sql"):
        (tmp_path / name).mkdir(parents=True)
    models = [str(tmp_path / "b" / "base"), "b/sql", "demo:add"]
    recipe = from_mapping(
        {"merge_method": "ties", "base_model": "a/base", "models": models}, tmp_path
    )
    assert describe(recipe).startswith(
        "Start from a/base and take the changes of b/base, sql and demo:add."
    )


def test_a_task_is_described_by_its_expert() -> None:
    models = ["demo:add", "demo:sort"]
    document = {"merge_method": "emr", "base_model": "demo:base", "models": models}
    recipe = from_mapping(document | {"parameters": {"task": 2}})
    assert "take demo:sort's share of it" in describe(recipe)
    assert "take sort's share of it" in describe(recipe, {m: m[5:] for m in (*models, "demo:base")})


def test_a_folder_by_two_names_is_one_model(tmp_path) -> None:
    for name in ("base", "x"):
        (tmp_path / name).mkdir()
    (tmp_path / "link").symlink_to("x")
    text = "{merge_method: ties, base_model: base, models: [./base, x]}"
    assert [source.model for source in parse(text, tmp_path).sources] == ["x"]
    for other in ("./x", str(tmp_path / "x"), "base/../x", "link"):
        with pytest.raises(RecipeError, match=f"x and {other} are one folder"):
            parse(f"{{merge_method: ties, base_model: base, models: [x, {other}]}}", tmp_path)
    with pytest.raises(RecipeError, match="base is listed twice"):
        parse("{merge_method: ties, base_model: base, models: [base, ./base, x]}", tmp_path)


@pytest.mark.parametrize("method", ["breadcrumbs", "della", "della_linear"])
def test_a_density_of_1_that_leaves_a_method_without_effect_is_remarked(method: str) -> None:
    text = "{{merge_method: {}, base_model: b, models: [x, y], parameters: {{density: {}}}}}"
    assert any("keeps every change" in note for note in parse(text.format(method, 1)).notes)
    assert parse(text.format(method, 0.5)).notes == ()
    assert parse(text.format(method, "[1, 0.9]")).notes == ()


@pytest.mark.parametrize("method", ["emr", "tall_masks"])
def test_a_task_is_a_place_or_a_models_name(method: str) -> None:
    text = "{{merge_method: {}, base_model: b, models: [org/x, y], parameters: {{task: {}}}}}"
    for task, place in ((1, 1), (2, 2), ("y", 2), ("x", 1), ("org/x", 1)):
        assert parse(text.format(method, task)).parameters["task"] == place
    with pytest.raises(RecipeError, match="task: 'z' is no model of the recipe; valid: x, y"):
        parse(text.format(method, "z"))
    with pytest.raises(RecipeError, match="task: 2 models are called x; write the place, from 1"):
        parse(text.format(method, "x").replace("y]", "other/x]"))
    with pytest.raises(RecipeError, match="task: 3 is asked for, the recipe has 2 models"):
        parse(text.format(method, 3))
    assert parse(text.format(method, "2, container: true")).notes == (
        "task: 2 has no effect, a container holds every task",
    )


# mistakes


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"merge_method": "tis"}, ["'tis'", "did you mean ties?"]),
        ({"merge_method": "della_ties"}, ["'della_ties'", "did you mean della?"]),
        ({"merge_method": "dare"}, ["'dare'", "did you mean dare_linear or dare_ties?"]),
        ({"merge_method": "core_space"}, ["core_space", "is not known; valid:", "ties"]),
        ({"merge_method": None}, ["merge_method"]),
        ({"merge_method": ["ties"]}, ["merge_method"]),
        ({"base_modle": "b"}, ["base_modle", "did you mean base_model?"]),
        ({1: 2}, ["unknown key 1"]),
        ({"slices": []}, ["slices", "not both"]),
        ({"slices": [], "models": None}, ["slices", "list one slice"]),
        ({"modules": {}}, ["modules"]),
        ({"tokenizer": {"source": "union"}}, ["tokenizer: union", "leave it out"]),
        ({"tokenizer": {"source": "base", "tokens": {}}}, ["tokenizer: only source"]),
        ({"tokenizer": {"source": "base"}, "tokenizer_source": "base"}, ["not both"]),
        ({"tokenizer_source": "union"}, ["tokenizer_source: union", "leave it out"]),
        ({"tokenizer_source": "elsewhere"}, ["elsewhere", "none of this recipe's models"]),
        ({"chat_template": "chatlm"}, ["chatlm", "chatml", "auto"]),
        ({"chat_template": 3}, ["chat_template"]),
        ({"keep_base": [1]}, ["keep_base", "parts of tensors' names"]),
        ({"dtype": "fp16"}, ["fp16", "float16"]),
        ({"dtype": "int8"}, ["int8"]),
        ({"dtype": "flaot32", "out_dtype": "float16"}, ["dtype 'flaot32'", "float32"]),
        ({"dtype": "float16", "out_dtype": "half"}, ["out_dtype 'half'"]),
        (
            {"models": [{"model": "base", "parameters": {"wieght": 1}}, "x"]},
            ["models: base", "wieght", "did you mean weight?"],
        ),
        ({"models": [{"model": "base", "parameters": {"density": 7}}, "x"]}, ["base", "7"]),
        ({"models": None}, ["models"]),
        ({"models": []}, ["models"]),
        ({"models": "x"}, ["models"]),
        ({"models": [3]}, ["models[0]"]),
        ({"models": [{"model": 3}]}, ["models[0]"]),
        ({"models": [{"model": ""}]}, ["models[0]"]),
        ({"models": [{"modle": "x"}]}, ["models[0]", "model"]),
        ({"models": [{"model": "x", "weight": 1}]}, ["models[0]", "weight"]),
        ({"models": [{"model": "x", "parameters": [1]}]}, ["parameters"]),
        ({"models": ["x", "x"]}, ["x", "twice"]),
        ({"models": [{"model": {"model": {"path": "x", "revision": "a"}}}]}, ["revision"]),
        ({"base_model": ["b"]}, ["base_model"]),
        ({"parameters": 3}, ["parameters"]),
        ({"parameters": {"densty": 0.1}}, ["densty", "did you mean density?"]),
        ({"parameters": {"normalise": True}}, ["normalise", "did you mean normalize?"]),
        ({"parameters": {"density_shift": 0.1}}, ["density_shift", "prune: dynamic"]),
        ({"parameters": {"rescale": True, "prune": "dynamic"}}, ["rescale", "prune: dynamic"]),
        (
            {"parameters": {"density": 1, "pcb_density": 1, "prune": "none", "consensus": "pcb"}},
            ["density", "pcb_density", "one of them"],
        ),
        ({"parameters": {"normalize": "yes please"}}, ["normalize", "true or false"]),
        ({"parameters": {"scope": "layer"}}, ["scope", "layer", "tensor"]),
        ({"parameters": {"prune": "magnitud"}}, ["prune", "did you mean magnitude?"]),
        ({"parameters": {"prune": ["none"]}}, ["prune"]),
        ({"parameters": {"consensus": {"a": 1}}}, ["consensus"]),
        ({"parameters": {"density": 1.7}}, ["density", "1.7", "0 to 1"]),
        ({"parameters": {"density": -0.1}}, ["density", "0 to 1"]),
        ({"parameters": {"density": float("nan")}}, ["density"]),
        ({"parameters": {"density": "a lot"}}, ["density", "a lot"]),
        ({"parameters": {"density": [0.1, 3]}}, ["density", "3"]),
        ({"parameters": {"density": [0.1, 0.3], "scope": "model"}}, ["density", "scope: model"]),
        ({"parameters": {"weight": float("inf")}}, ["weight", "finite"]),
        ({"parameters": {"weight": 10**400}}, ["weight"]),
        ({"parameters": {"lambda": float("nan")}}, ["lambda", "finite"]),
        ({"parameters": {"lambda": "x"}}, ["lambda"]),
        ({"parameters": {"amplification": []}}, ["amplification"]),
        ({"parameters": {"amplification": [1] * 17}}, ["amplification", "17"]),
        ({"parameters": {"amplification": [-1]}}, ["amplification", "-1"]),
        ({"parameters": {"amplification": [float("inf")]}}, ["amplification"]),
        ({"parameters": {"amplification": ["x"]}}, ["amplification"]),
        ({"parameters": {"amplification": [10**400]}}, ["amplification"]),
        ({"parameters": {"seed": 10**400, "prune": "random"}}, ["seed"]),
        ({"parameters": {"amplification": 2, "prune": "none"}}, ["amplification", "none"]),
        ({"models": [{"model": "x", "parameters": {"scope": "model"}}]}, ["scope", "parameters:"]),
    ],
)
def test_a_mistake_is_named_with_what_would_be_valid(change: dict, words: list[str]) -> None:
    message = refused({**document("ties", 2), **change})
    assert all(word in message for word in words), message


@pytest.mark.parametrize("method", ["linear", "ties", "pcb"])
def test_every_method_refuses_parameters_it_does_not_have(method: str) -> None:
    assert "linear_outlier" in refused(document(method, 2, {"linear_outlier": 4}))


def test_an_average_with_weights_that_cancel_is_refused() -> None:
    message = refused(document("linear", [{"weight": 1}, {"weight": -1}]))
    assert "sum to 0" in message
    from_mapping(document("linear", [{"weight": 1}, {"weight": -1}], {"normalize": False}))


@pytest.mark.parametrize("seed", [1.5, -1, 2**31, True, "x", float("nan")])
def test_a_seed_is_a_whole_number(seed) -> None:
    assert "seed" in refused(document("dare_ties", 1, {"seed": seed}))


@pytest.mark.parametrize(
    "text",
    [
        "",
        "3",
        "[1, 2]",
        "just words",
        "a: [1",
        "a: b: c",
        "\x00",
        "a: &x [*x",
        "--- 1\n--- 2",
        "a: !!python/object:os.system {}",
        "model: 2001-99-99",
        "[" * 5000,
        "\t- a",
    ],
)
def test_text_that_is_no_recipe_is_refused(text: str) -> None:
    assert refused(text)


def test_a_key_given_twice_is_refused() -> None:
    text = (
        "{merge_method: ties, base_model: b, models: [x], parameters: {density: 1, density: 0.1}}"
    )
    assert "density" in refused(text)


def test_a_file_that_cannot_be_read_is_named(tmp_path) -> None:
    for path in (tmp_path / "absent.yaml", tmp_path):
        with pytest.raises(RecipeError, match=str(path)):
            load(path)
    binary = tmp_path / "binary.yaml"
    binary.write_bytes(b"\xff\xfe\x00\x81")
    with pytest.raises(RecipeError, match=str(binary)):
        load(binary)


# round trip

NUMBER = st.floats(-2, 3, allow_nan=False).map(lambda x: round(x, 6))
SHARE = st.floats(0, 1).map(lambda x: round(x, 6))


SWITCH = st.booleans()


def scheduled(value: st.SearchStrategy) -> st.SearchStrategy:
    knots = st.one_of(value, st.lists(value, min_size=2, max_size=4))
    rule = st.fixed_dictionaries({"filter": st.sampled_from(["mlp", "q_proj"]), "value": knots})
    return st.one_of(knots, st.lists(rule, min_size=1, max_size=2))


@st.composite
def recipes(draw) -> Recipe:
    method = draw(st.sampled_from(sorted(PRESETS)))
    parameters: dict = {}
    if PRESETS[method].consensus in CONSENSUS:
        if any(knob.name == "lambda" for knob in CONSENSUS[PRESETS[method].consensus].knobs):
            parameters["lambda"] = draw(scheduled(NUMBER))
        if any(knob.name == "normalize" for knob in CONSENSUS[PRESETS[method].consensus].knobs):
            parameters["normalize"] = draw(scheduled(SWITCH))
        if draw(st.booleans()):
            parameters["prune"] = draw(st.sampled_from(sorted(PRUNERS)))
    prune = parameters.get("prune", PRESETS[method].prune)
    if method == "pcb" and prune == "magnitude":
        parameters["scope"] = "tensor"  # over the model, the density may not vary
    models = []
    rule = BLENDS.get(PRESETS[method].consensus)
    least = rule.least if rule and rule.base != "point" else 1
    for index in range(draw(st.integers(least, max(least, experts_of(method))))):
        values = {"weight": draw(scheduled(NUMBER.filter(lambda x: x > 0)))}
        if any(knob.name == "density" for knob in PRUNERS[prune].knobs):
            values["density"] = draw(scheduled(SHARE))
        if prune in ("magnitude", "dynamic"):
            values["amplification"] = draw(st.lists(SHARE, min_size=1, max_size=4))
        models.append((f"expert {index}", values))
    return build(
        method=method,
        base="the base",
        models=models,
        parameters=parameters,
        dtype=draw(st.sampled_from([None, "float32", "bfloat16", "float16"])),
    )


@settings(max_examples=150, deadline=None)
@given(recipes())
def test_a_dumped_recipe_parses_back_to_itself(recipe: Recipe) -> None:
    text = dump(recipe)
    assert parse(text) == recipe
    assert dump(parse(text)) == text
    assert describe(recipe)
