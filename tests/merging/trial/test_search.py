"""The search for weights: what it learns, what it keeps, what it refuses."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest
import torch
from torch.func import functional_call
from transformers import Qwen2Config, Qwen2ForCausalLM

from merging import recipe as recipes
from merging.demo.build import Curriculum, new_model
from merging.demo.tasks import Task
from merging.demo.tokenizer import build_tokenizer
from merging.errors import Cancelled, RecipeError
from merging.run.preflight import open_recipe
from merging.trial.likelihood import padded
from merging.trial.loading import load
from merging.trial.search import _group, _learn, _Mixture, _rows, _saved_bytes, search
from merging.trial.turns import PromptError

TINY = Curriculum(hidden=32, layers=2, heads=2, intermediate=32)
TASKS = [Task("add", "What is 1 + 1?", "2"), Task("add", "What is 2 + 1?", "3")]


@pytest.fixture(scope="module")
def family(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A base, an expert trained on two answers, and one that is its opposite."""
    folder, tokenizer = tmp_path_factory.mktemp("search"), build_tokenizer()
    base = new_model(TINY, tokenizer, seed=1)
    expert = new_model(TINY, tokenizer, seed=1)
    optimiser = torch.optim.Adam(expert.parameters(), lr=3e-3)
    rows = [
        (tokenizer(f"<user>{t.prompt}<assistant>")["input_ids"], tokenizer(t.answer)["input_ids"])
        for t in TASKS
    ]
    tokens, labels = padded(rows)
    for _ in range(15):
        logits = expert(input_ids=tokens).logits
        loss = torch.nn.functional.cross_entropy(logits.flatten(0, 1), labels.flatten())
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    opposite = new_model(TINY, tokenizer, seed=1)
    with torch.no_grad():
        for mine, theirs, start in zip(
            opposite.parameters(), expert.parameters(), base.parameters(), strict=True
        ):
            mine.copy_(2 * start - theirs)
    for name, model in {"base": base, "good": expert, "bad": opposite}.items():
        model.save_pretrained(folder / name)
        tokenizer.save_pretrained(folder / name)
    return folder


def recipe(family: Path, weight: object = 0.5, **parameters: object) -> recipes.Recipe:
    return recipes.build(
        method="task_arithmetic",
        base="base",
        models=[("good", {"weight": weight}), ("bad", {"weight": weight})],
        parameters=parameters,
        folder=family,
    )


def test_good_changes_gain_weight_and_bad_ones_lose_it(family: Path) -> None:
    result = search(recipe(family), TASKS, steps=20, learning_rate=0.05, batch=4)
    assert result.losses[-1] < 0.8 * result.losses[0]
    good, bad = (source.weight.values for source in result.recipe.sources)
    assert sum(good) / len(good) > 0.6
    assert sum(bad) / len(bad) < 0.4


def test_a_rule_per_module_with_a_value_per_layer_and_one_for_the_rest(family: Path) -> None:
    result = search(recipe(family), TASKS, steps=1, batch=2)
    rules = result.recipe.sources[0].weight.rules
    assert [rule.filter for rule in rules] == [
        "mlp.down_proj.weight",
        "mlp.gate_proj.weight",
        "mlp.up_proj.weight",
        "self_attn.k_proj.weight",
        "self_attn.o_proj.weight",
        "self_attn.q_proj.weight",
        "self_attn.v_proj.weight",
        "*",
    ]
    assert [len(rule.knots) for rule in rules] == [2] * 7 + [1]
    assert recipes.parse(recipes.dump(result.recipe), family) == result.recipe


def test_a_bias_is_weighed_with_the_rest_as_it_was_learned(tmp_path: Path) -> None:
    tokenizer = build_tokenizer()
    config = Qwen2Config(
        vocab_size=len(tokenizer),
        hidden_size=32,
        intermediate_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=2,
        eos_token_id=tokenizer.eos_token_id,
    )
    for seed, name in enumerate(("base", "good", "bad")):
        torch.manual_seed(seed)
        Qwen2ForCausalLM(config).save_pretrained(tmp_path / name)
        tokenizer.save_pretrained(tmp_path / name)
    result = search(recipe(tmp_path), TASKS, steps=2, learning_rate=0.1, batch=2)
    weight = result.recipe.sources[0].weight
    bias, matrix, norm = (
        weight.at(f"model.layers.1.{name}", 1, 2)
        for name in ("self_attn.q_proj.bias", "self_attn.q_proj.weight", "input_layernorm.weight")
    )
    assert bias == norm != matrix


def test_a_loss_that_is_not_finite_is_an_error_not_a_recipe(family: Path) -> None:
    with pytest.raises(RecipeError, match="the loss is nan at step 1"):
        search(recipe(family, 1e30), TASKS, steps=2, batch=2)


def test_it_starts_from_the_recipes_weights(family: Path) -> None:
    weight = [{"filter": "mlp", "value": [0.2, 0.4]}, {"value": 0.9}]
    result = search(recipe(family, weight), TASKS, steps=1, learning_rate=0.0, batch=2)
    schedule = result.recipe.sources[1].weight
    assert schedule.at("model.layers.0.mlp.up_proj.weight", 0, 2) == pytest.approx(0.2)
    assert schedule.at("model.layers.1.mlp.up_proj.weight", 1, 2) == pytest.approx(0.4)
    assert schedule.at("model.layers.1.self_attn.q_proj.weight", 1, 2) == pytest.approx(0.9)
    assert schedule.at("model.embed_tokens.weight", None, 2) == pytest.approx(0.9)


def test_the_same_seed_finds_the_same_weights(family: Path) -> None:
    first, second = (search(recipe(family), TASKS, steps=3, batch=2, seed=5) for _ in range(2))
    assert first == second


def test_cancel_before_the_first_step_finds_nothing(family: Path) -> None:
    cancel = threading.Event()
    cancel.set()
    with pytest.raises(Cancelled):
        search(recipe(family), TASKS, cancel=cancel)


def test_a_search_that_is_stopped_keeps_its_best(family: Path) -> None:
    cancel = threading.Event()
    result = search(
        recipe(family),
        TASKS,
        steps=50,
        batch=2,
        cancel=cancel,
        learning_rate=0.05,
        progress=lambda step, _: cancel.set() if step == 12 else None,
    )
    assert (len(result.losses), result.steps, result.is_whole) == (12, 50, False)
    assert sum(result.recipe.sources[0].weight.values) > sum(result.recipe.sources[1].weight.values)


def test_of_a_search_that_only_got_worse_the_start_is_kept(family: Path) -> None:
    cancel = threading.Event()
    result = search(
        recipe(family),
        TASKS[:1],
        steps=9,
        batch=2,
        cancel=cancel,
        learning_rate=5.0,
        progress=lambda step, _: cancel.set() if step == 2 else None,
    )
    assert result.losses[1] > result.losses[0]
    assert set(result.recipe.sources[0].weight.values) == {0.5}


def test_gradients_are_those_of_the_merged_model_however_many_rows_at_a_time(
    family: Path,
) -> None:
    """Against autograd through base + sum of weight x change, one batch, written out."""
    opened = open_recipe(recipe(family))
    model = load(family / "base", torch.float32)
    rows = _rows(model, [*TASKS, Task("add", "What is 12 + 31?", "43")])
    mixture = _Mixture(recipe(family), opened, model.network)
    learned = {g: w.clone().requires_grad_() for g, w in mixture.weights.items()}
    merged = {
        e.name: opened.base.read(e.name)
        + sum(
            learned[_group(e)][i] * (expert.read(e.name) - opened.base.read(e.name))
            for i, expert in enumerate(opened.experts)
        )
        for e in opened.merged
    }
    tokens, labels = padded(rows)
    logits = functional_call(model.network, merged, (), {"input_ids": tokens}).logits
    loss = torch.nn.functional.cross_entropy(
        logits.flatten(0, 1), labels.flatten(), ignore_index=-100
    )
    loss.backward()
    for size in (1, 3):
        mixture.merge()
        assert _learn(model.network, rows, size) == pytest.approx(loss.item(), rel=1e-5)
        mixture.differentiate()
        for group, weight in mixture.weights.items():
            assert torch.allclose(weight.grad, learned[group].grad, rtol=1e-3, atol=1e-6), group


def test_what_a_row_takes_grows_with_its_length(family: Path) -> None:
    model = load(family / "base", torch.float32)
    short, long = ([1] * 8, [2, 3]), ([1] * 40, [2, 3])
    assert 0 < _saved_bytes(model.network, short) < _saved_bytes(model.network, long)


def test_a_prompt_without_room_for_its_answer_is_named(family: Path) -> None:
    tasks = [Task("add", "7 " * 300, "2")]
    with pytest.raises(PromptError, match="base: "):
        search(recipe(family), tasks, steps=1, batch=1)


@pytest.mark.parametrize(
    "parameters", [{"consensus": "ties"}, {"prune": "magnitude"}, {"lambda": 0.5}]
)
def test_other_recipes_are_refused(parameters: dict, family: Path) -> None:
    with pytest.raises(RecipeError, match="search"):
        search(recipe(family, **parameters), TASKS)
