"""An error of a recipe's text names the line it is about: here the one that ends in `# <-`."""

from __future__ import annotations

from pathlib import Path

import pytest

from merging import recipe as recipes
from merging.errors import RecipeError
from merging.recipe.places import line_about
from merging.run.preflight import check

HEAD = "merge_method: ties\nbase_model: demo:base\n"
PAIR = "models:\n- model: demo:add\n- model: demo:sort\n"
SLICES = """slices:
- sources:
  - model: demo:add
    layer_range: [0, 2]
  - model: demo:sort
    layer_range: [0, 2]
    parameters: {weight: 0.5}
- sources:
  - model: demo:add
    layer_range: [2, 4]
  - model: demo:sort
    layer_range: [2, 4]
    parameters:
      weight: 0.7
"""

WRONG = {
    "no YAML": HEAD + "models: [\n# the end # <-",
    "a tab": HEAD + "models:\n\t- demo:add # <-",
    "a key given twice": HEAD + PAIR + "base_model: demo:sort # <-",
    "an unknown key": HEAD + "mdels: # <-\n- demo:add",
    "an unknown method": "# of mine\nmerge_method: tis # <-\nmodels: [a, b]",
    "a parameter at the top": HEAD + PAIR + "density: 0.5 # <-",
    "an unknown parameter": HEAD + PAIR + "parameters:\n  weight: 1\n  densty: 1 # <-",
    "another method's parameter": HEAD + PAIR + "parameters:\n  solver: closed # <-",
    "a value out of range": HEAD + PAIR + "parameters:\n  weight: 1\n  density: 7 # <-",
    "a value of another kind": HEAD + PAIR + "parameters:\n  normalize: maybe # <-",
    "one value of many": HEAD + PAIR + "parameters:\n  density:\n  - 0.1\n  - 7 # <-\n  - 0.2",
    "a factor": "merge_method: dppa\nbase_model: b\nmodels:\n- model: a\n"
    "  parameters:\n    amplification:\n    - 1\n    - -2 # <-",
    "a rule": HEAD + PAIR + "parameters:\n  weight:\n  - filter: mlp\n    valu: 1 # <-",
    "a rule's filter": HEAD + PAIR + "parameters:\n  weight:\n  - value: 1\n    filter: [mlp] # <-",
    "a rule's layers": HEAD
    + PAIR
    + "parameters:\n  weight:\n  - value: 1\n    layers: [4, 2] # <-",
    "one model's value": HEAD + PAIR + "  parameters:\n    weight: heavy # <-",
    "one model's stray value": HEAD + PAIR + "  parameters:\n    lambda: 2 # <-",
    "the value of all beside one of a model": HEAD
    + PAIR
    + "  parameters: {density: 0.5}\nparameters: {density: 3} # <-",
    "a model twice": HEAD + PAIR + "- model: demo:add # <-",
    "a model by its name alone, twice": HEAD + "models:\n- demo:add\n- demo:add # <-",
    "no model": HEAD + PAIR + "- 3 # <-",
    "too few models": "merge_method: slerp\nmodels: # <-\n- a\nparameters: {t: 0.5}",
    "a base that is no name": "merge_method: ties\nmodels: [a]\nbase_model: 4 # <-",
    "a pruner that changes nothing": "merge_method: slerp\n"
    + PAIR
    + "parameters:\n  t: 1\n  prune: magnitude # <-",
    "a type": HEAD + PAIR + "dtype: fp16 # <-",
    "a tokenizer": HEAD + PAIR + "tokenizer_source: union # <-",
    "a chat template": HEAD + PAIR + "chat_template: none # <-",
    "a task that is no model": "merge_method: emr\nbase_model: b\nmodels: [a]\n"
    "parameters:\n  task: c # <-",
    "a task beyond the models": "merge_method: emr\nbase_model: b\nmodels: [a]\n"
    "parameters:\n  task: 5 # <-",
    "weights that cancel": "merge_method: linear\nmodels:\n- model: a\n- model: b\n"
    "parameters:\n  weight: 0 # <-",
    "a slice's key": HEAD + "slices:\n- sourc: [] # <-",
    "a slice's length": HEAD + SLICES.replace("[2, 4]\n    p", "[2, 3] # <-\n    p"),
    "a slice's layers": HEAD + SLICES.replace("[2, 4]\n  - ", "[4, 2] # <-\n  - "),
    "a value of the second slice": HEAD + SLICES.replace("0.7", "heavy # <-"),
    "a range of the second slice": HEAD + SLICES.replace("weight: 0.7", "density: 7 # <-"),
    "a value that slices differ in": HEAD
    + SLICES.replace("0.7\n", "0.7\n  parameters:\n    int8: 1 # <-"),
    "a model twice in a slice": HEAD
    + SLICES.replace("[2, 4]\n    p", "[2, 4]\n    p").replace(
        "- model: demo:sort\n    layer_range: [2", "- model: demo:add # <-\n    layer_range: [2"
    ),
    "a module": HEAD + "modules:\n  vision_tower: # <-\n    models: [a]",
    "a value inside a module": HEAD
    + "modules:\n  default:\n    models: [demo:add]\n    parameters:\n      density: 9 # <-",
    "the second document": HEAD + "name: one\n" + PAIR + "---\nmerge_method: tis # <-",
    "a document without a method": HEAD + "name: one\n" + PAIR + "---\nmodels: [one] # <-",
    "a name given twice": f"name: one\n{HEAD}{PAIR}---\nname: one # <-\n{HEAD}{PAIR}---\n"
    f"{HEAD}models: [one]",
    "no recipe of that name": f"name: one\n{HEAD}{PAIR}---\n{HEAD}models:\n- one\n- oen # <-",
    "an alias": HEAD
    + "models:\n- model: demo:add\n  parameters: &own\n    density: 4 # <-\n"
    + "- model: demo:sort\n  parameters: *own",
    "a merged mapping": HEAD
    + "models:\n- model: demo:add\n  parameters: &own {density: 4} # <-\n"
    + "- model: demo:sort\n  parameters:\n    <<: *own\n    weight: 1",
}


def marked(text: str) -> int:
    return next(at for at, line in enumerate(text.splitlines(), 1) if line.endswith("# <-"))


@pytest.mark.parametrize("case", WRONG)
def test_an_error_has_the_line_it_is_about(case: str) -> None:
    text = WRONG[case]
    with pytest.raises(RecipeError) as error:
        recipes.parse(text)
    assert error.value.line == marked(text), error.value
    assert str(error.value) == f"line {marked(text)}: {error.value.reason}"


FOUND_LATER = {
    "a model that is not there": HEAD + "models:\n- model: demo:add\n- model: demo:srt # <-",
    "a base that is not there": "merge_method: ties\nbase_model: demo:bse # <-\n" + PAIR,
    "in a slice": HEAD + SLICES.replace("demo:sort\n    layer_range: [0", "demo:srt # <-\n"
    "    layer_range: [0"),
    "layers that are not there": HEAD + SLICES.replace("slices:", "slices: # <-").replace(
        "[2, 4]", "[2, 9]"),
    "weights that cancel in a tensor": "merge_method: linear\nmodels:\n- model: demo:add\n"
    "  parameters:\n    weight: {filter: mlp, value: 0} # <-\n- demo:sort\nparameters: {weight: 0}",
    "what has no effect for one model": "merge_method: task_arithmetic\nbase_model: demo:base\n"
    "models:\n- demo:add\n- model: demo:sort\n  parameters:\n    density: 0.5 # <-",
    "what has no effect": HEAD + PAIR + "parameters:\n  int8_mask: true # <-",
    "of a stage": HEAD + "name: one\nmodels: [demo:add, demo:nope] # <-\n---\n" + HEAD
    + "models: [one]",
}  # fmt: skip


@pytest.mark.parametrize("case", FOUND_LATER)
def test_what_the_preflight_finds_has_its_line(case: str, tmp_path: Path) -> None:
    text = FOUND_LATER[case]
    (problem,) = (one for one in check(recipes.parse(text)).problems if one.severity != "note")
    assert problem.line == marked(text), problem
    assert problem.sentence == f"line {marked(text)}: {problem.text}"


def test_what_no_line_fits_has_none() -> None:
    with pytest.raises(RecipeError) as error:
        recipes.parse(PAIR)  # a method is missing
    assert error.value.line is None
    with pytest.raises(RecipeError) as error:
        recipes.from_mapping({"merge_methd": "ties"})
    assert error.value.line is None
    assert str(error.value).startswith("unknown key 'merge_methd'")


def test_a_recipe_is_the_same_wherever_its_lines_are() -> None:
    recipe = recipes.parse(HEAD + PAIR)
    moved = recipes.parse("# mine\n\n" + HEAD + PAIR)
    assert recipe == moved
    assert recipe.lines["demo:sort"] + 2 == moved.lines["demo:sort"]
    assert recipes.parse(recipes.dump(recipe)) == recipe


@pytest.mark.parametrize(
    ("message", "line"),
    [
        ("task: 3 is asked for", 2),
        ("task 3 is asked for", 2),
        ("models: a: task: 3 is asked for", 2),
        ("models: a: it is too large", 5),
        ("it has no task", None),
        ("", None),
    ],
)
def test_a_message_begins_with_what_it_is_about(message: str, line: int | None) -> None:
    assert line_about({"task": 2, "models": 4, "a": 5}, message) == line
