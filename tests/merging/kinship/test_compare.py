"""What is said of models that may not belong together; nothing is said of those that do."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest

from merging import recipe as recipes
from merging.checkpoints import open_checkpoint
from merging.errors import FamilyMismatch
from merging.kinship import Problem
from merging.kinship.configs import compare as compare_configs
from merging.run.merge import merge
from merging.run.preflight import check, open_recipe
from tests.families import document, llama, small_family, tuned, write_family, write_model

SMALL = {"layers": 2, "hidden": 16, "kv": 8, "inner": 24, "vocab": 14}
WORDS = ("hello", "world", "add", "one", "two")
CHAT = "{% for m in messages %}<|im_start|>{{ m['content'] }}<|im_end|>{% endfor %}"


def tokenizer(
    folder: Path, words: Sequence[str] = WORDS, eos: str = "</s>", added: Sequence[str] = ()
) -> None:
    tokens = ["<unk>", "<s>", "</s>", *words, *added]
    special = [{"id": tokens.index(token), "content": token} for token in ("<unk>", "</s>", *added)]
    model = {"type": "WordLevel", "vocab": {token: i for i, token in enumerate(tokens)}}
    text = json.dumps({"added_tokens": special, "model": model})
    (folder / "tokenizer.json").write_text(text)
    (folder / "tokenizer_config.json").write_text(json.dumps({"eos_token": eos}))


def settings(folder: Path, file: str = "config.json", **values: object) -> None:
    path = folder / file
    before = json.loads(path.read_text()) if path.exists() else {}
    path.write_text(json.dumps({**before, **values}))


@pytest.fixture
def parent(tmp_path) -> Path:
    folder = small_family(tmp_path / "family", **SMALL)
    for name in ("base", "expert0", "expert1"):
        tokenizer(folder / name)
        settings(folder / name, num_hidden_layers=2, hidden_size=16, num_attention_heads=2)
    return folder


def problems_of(parent: Path, **keys: object) -> list[Problem]:
    return list(check(recipes.from_mapping(document("ties", 2, **keys), parent)).problems)


def test_a_family_says_nothing(parent) -> None:
    assert problems_of(parent) == []
    demo = {"merge_method": "ties", "base_model": "demo:base", "models": ["demo:add", "demo:sort"]}
    assert check(recipes.from_mapping(demo)).problems == ()


def test_ids_that_mean_other_tokens_are_counted(parent) -> None:
    tokenizer(parent / "expert1", words=("hello", "one", "two", "add", "world"))
    (problem,) = problems_of(parent)
    assert (problem.severity, problem.kind, problem.where) == ("warning", "tokenizer", "expert1")
    assert problem.message.startswith(
        "4 of 8 token ids mean another token than in the base (id 4 is 'one', there 'world')"
    )


def test_tokens_that_the_result_will_not_know_are_named(parent) -> None:
    tokenizer(parent / "expert0", added=["<x>", "<y>"])
    (problem,) = problems_of(parent)
    assert problem.kind == "tokenizer"
    assert problem.message.startswith(
        "2 tokens of its tokenizer will be unknown to the result: '<x>' (8) and '<y>' (9)"
    )


def test_ids_beyond_the_embedding_s_rows_are_told_with_their_tokens(parent) -> None:
    for name in ("base", "expert0", "expert1"):
        tokenizer(parent / name, words=[f"w{i}" for i in range(10)], added=["<x>", "<y>"])
    (problem,) = problems_of(parent)
    assert problem.message == (
        "the tokenizer has ids up to 14, the embedding 14 rows: a prompt with <y> cannot be read"
    )


def test_end_tokens_and_templates_of_the_experts_are_one_line_each(parent) -> None:
    for name in ("base", "expert0", "expert1"):
        tokenizer(parent / name, added=["<|im_start|>", "<|im_end|>"])
    for name in ("expert0", "expert1"):
        settings(parent / name, "tokenizer_config.json", eos_token="<|im_end|>", chat_template=CHAT)
        settings(parent / name, "generation_config.json", eos_token_id=[9, 2])
    settings(parent / "base", "generation_config.json", eos_token_id=2)
    lines = {problem.kind: problem for problem in problems_of(parent)}
    assert len(problems_of(parent)) == 3
    assert lines["template"].message.startswith(
        "the base has no chat template, expert0 and expert1 have one; the result has none"
    )
    assert "eos_token_id is 2 in the base, [9, 2] in expert0 and expert1" in (
        lines["generation"].message
    )
    assert "'</s>' in the base, '<|im_end|>' in expert0 and expert1" in lines["tokenizer"].message
    assert problems_of(parent, chat_template="auto")[1].severity == "note"


def test_a_template_s_words_are_no_tokens_where_its_own_model_knows_none(parent) -> None:
    (parent / "base" / "chat_template.jinja").write_text(CHAT)
    (parent / "expert0" / "chat_template.jinja").write_text(CHAT)
    (parent / "expert1" / "chat_template.jinja").write_text(CHAT + "\n")
    assert problems_of(parent) == []
    (parent / "base" / "chat_template.jinja").unlink()
    assert [problem.severity for problem in problems_of(parent, chat_template="auto")] == ["note"]
    for name in ("expert0", "expert1"):
        tokenizer(parent / name, added=["<|im_start|>"])
    assert "template writes <|im_start|>, which its tokenizer does not know" in (
        " ".join(problem.message for problem in problems_of(parent, chat_template="auto"))
    )


def test_templates_that_only_an_expert_has_by_name_are_told(parent) -> None:
    (parent / "expert1" / "additional_chat_templates").mkdir()
    (parent / "expert1" / "additional_chat_templates" / "tool_use.jinja").write_text(CHAT)
    (problem,) = problems_of(parent)
    assert (problem.severity, problem.message) == (
        "note",
        "the base has no chat template called tool_use, expert1 has; the result has none",
    )


def test_a_base_without_a_tokenizer_names_who_has_one(parent) -> None:
    for file in ("tokenizer.json", "tokenizer_config.json"):
        (parent / "base" / file).unlink()
    (problem,) = problems_of(parent)
    assert problem.message == (
        "the base has no tokenizer that can be read, expert0 and expert1 have one; "
        "tokenizer_source: expert0 gives it to the result"
    )
    assert problems_of(parent, tokenizer_source="expert0") == []


def test_auto_writes_the_template_that_most_models_have(parent, tmp_path) -> None:
    for name in ("expert0", "expert1"):
        (parent / name / "chat_template.jinja").write_text(CHAT)
    run(parent, tmp_path / "auto", chat_template="auto")
    assert (tmp_path / "auto" / "chat_template.jinja").read_text() == CHAT
    run(parent, tmp_path / "named", chat_template="chatml")
    assert "<|im_start|>" in (tmp_path / "named" / "chat_template.jinja").read_text()
    run(parent, tmp_path / "none")
    assert not (tmp_path / "none" / "chat_template.jinja").exists()


def run(parent: Path, out: Path, **keys: object) -> None:
    merge(recipes.from_mapping(document("ties", 2, **keys), parent), out, device="cpu")


def test_a_tokenizer_from_an_expert_brings_its_settings(parent, tmp_path) -> None:
    tokenizer(parent / "expert0", added=["<x>"], eos="<x>")
    settings(parent / "expert0", "generation_config.json", eos_token_id=8)
    settings(parent / "expert0", eos_token_id=8)
    settings(parent / "base", eos_token_id=2)
    (parent / "base" / "LICENSE").write_text("free")
    run(parent, tmp_path / "out", tokenizer_source="expert0")
    for file in ("tokenizer.json", "tokenizer_config.json", "generation_config.json"):
        assert (tmp_path / "out" / file).read_text() == (parent / "expert0" / file).read_text()
    assert json.loads((tmp_path / "out" / "config.json").read_text())["eos_token_id"] == 8
    assert (tmp_path / "out" / "LICENSE").read_text() == "free"


@pytest.mark.parametrize(
    ("words", "added", "reason"),
    [
        (tuple(reversed(WORDS)), (), "4 of its token ids mean another token in the base"),
        (WORDS, [f"<{i}>" for i in range(9)], "it has ids up to 16, the base's embedding 14 rows"),
    ],
)
def test_a_tokenizer_whose_ids_do_not_agree_is_not_taken(words, added, reason, parent) -> None:
    tokenizer(parent / "expert0", words=words, added=added)
    errors = [p for p in problems_of(parent, tokenizer_source="expert0") if p.severity == "error"]
    assert errors and reason in errors[0].message
    with pytest.raises(FamilyMismatch, match="tokenizer_source: expert0"):
        open_recipe(recipes.from_mapping(document("ties", 2, tokenizer_source="expert0"), parent))


def configs(base: Mapping, expert: Mapping, parent: Path) -> list[Problem]:
    models = []
    for name, config in (("base", base), ("expert", expert)):
        models.append(open_checkpoint(write_model(parent / name, llama(0, layers=1), config), name))
    return compare_configs(models[0], models[1:])


SAME = [
    ({"rope_theta": 5e5}, {"rope_parameters": {"rope_theta": 500000, "rope_type": "default"}}),
    ({}, {"rope_parameters": {"rope_theta": 10000.0, "rope_type": "default"}}),
    (
        {"rope_scaling": {"type": "linear", "factor": 4.0}, "rope_theta": 1e4},
        {"rope_parameters": {"rope_type": "linear", "factor": 4.0, "rope_theta": 1e4}},
    ),
    (
        {"text_config": {"rope_theta": 1e6, "rope_local_base_freq": 1e4}},
        {
            "text_config": {
                "rope_parameters": {
                    "full_attention": {"rope_theta": 1e6},
                    "sliding_attention": {"rope_theta": 1e4},
                }
            }
        },
    ),
    (
        {
            "dtype": "float32",
            "use_cache": True,
            "transformers_version": "5.1",
            "_name_or_path": "a",
        },
        {"torch_dtype": "bfloat16", "use_cache": False, "attention_dropout": 0.1},
    ),
    (
        {},
        {
            "attention_bias": False,
            "mlp_bias": False,
            "sliding_window": None,
            "head_dim": 16,
            "layer_types": ["full_attention"],
            "tie_word_embeddings": False,
        },
    ),
    ({"rms_norm_eps": 1e-5}, {"rms_norm_eps": 9.999999747378752e-06}),
    (
        {"num_attention_heads": 4, "rms_norm_eps": 1e-6},
        {"num_attention_heads": 4, "num_key_value_heads": 4, "rms_norm_eps": 1e-6},
    ),
    ({"use_sliding_window": False, "sliding_window": 9}, {"sliding_window": None}),
    ({"id2label": {"0": "no", "1": "yes"}}, {"id2label": {"0": "LABEL_0", "1": "LABEL_1"}}),
    (
        {"pad_token_id": 1, "dropout_rate": 0.1, "mask_time_prob": 0.1, "forced_eos_token_id": 2},
        {"pad_token_id": 0, "dropout_rate": 0.2, "mask_time_prob": 0.2, "forced_eos_token_id": 3},
    ),
]


@pytest.mark.parametrize(("base", "expert"), SAME)
def test_the_same_settings_in_two_spellings_say_nothing(base, expert, tmp_path) -> None:
    assert configs(base, expert, tmp_path / "one") == []
    assert configs(expert, base, tmp_path / "other") == []


DIFFERENT = [
    (
        {"rope_theta": 1e4},
        {"rope_parameters": {"rope_theta": 1e6}},
        "warning",
        "rope_parameters.rope_theta: 1000000.0, the base 10000.0",
    ),
    ({}, {"rope_scaling": {"type": "linear", "factor": 4.0}}, "warning", "'factor': 4.0"),
    (
        {"text_config": {"sliding_window": 8}},
        {"text_config": {}},
        "warning",
        "text_config.sliding_window: null, the base 8",
    ),
    (
        {"layer_types": ["sliding_attention"]},
        {"layer_types": ["full_attention"]},
        "warning",
        "layer_types: ['full_attention'], the base ['sliding_attention']",
    ),
    (
        {"model_type": "xlm-roberta", "pad_token_id": 1},
        {"model_type": "xlm-roberta", "pad_token_id": 0},
        "warning",
        "pad_token_id: 0, the base 1",
    ),
    ({"hidden_act": "silu"}, {"hidden_act": "gelu"}, "warning", "hidden_act: gelu, the base silu"),
    ({}, {"attention_bias": True}, "warning", "attention_bias: true, the base false"),
    (
        {"max_position_embeddings": 64},
        {"max_position_embeddings": 128},
        "warning",
        "max_position_embeddings: 128, the base 64; a limit",
    ),
    ({}, {"made_up": 3}, "note", "made_up: 3 in expert alone"),
    ({"made_up": 2}, {"made_up": 3}, "warning", "it may change what the weights compute"),
    ({"norm_eps": 1e-5}, {"norm_eps": 1e-6}, "warning", "it changes what the weights compute"),
    ({"tie_word_embeddings": True}, {}, "warning", "tie_word_embeddings: false, the base true"),
    (
        {"id2label": {"0": "no", "1": "yes"}},
        {"id2label": {"0": "yes", "1": "no"}},
        "warning",
        "the classifier's rows stand for other labels",
    ),
    (
        {"num_hidden_layers": 2},
        {"num_hidden_layers": 3},
        "error",
        "expert has 3 layers, the base 2 (num_hidden_layers)",
    ),
    ({"num_hidden_layers": 2}, {"num_hidden_layers": 10**400}, "error", "expert has 1000000"),
    (
        {"text_config": {"num_attention_heads": 8}},
        {"num_attention_heads": 4},
        "error",
        "expert has 4 attention heads, the base 8 (text_config.num_attention_heads)",
    ),
    ({"num_key_value_heads": 2}, {"num_key_value_heads": 4}, "error", "4 key-value heads"),
    ({"hidden_size": 64}, {"hidden_size": 32}, "error", "expert has 32 hidden units, the base 64"),
    ({"model_type": "llama"}, {"model_type": "qwen2"}, "error", "model_type qwen2, the base llama"),
]


@pytest.mark.parametrize(("base", "expert", "severity", "words"), DIFFERENT)
def test_other_settings_are_told_with_both_values(base, expert, severity, words, tmp_path) -> None:
    (problem,) = configs(base, expert, tmp_path)
    assert problem.severity == severity
    assert words in problem.message


def test_an_expert_of_another_depth_is_refused_in_one_line(tmp_path) -> None:
    base, deeper = llama(0, layers=2), llama(0, layers=3)
    parent = write_family(tmp_path, base, [deeper])
    recipe = recipes.from_mapping(document("linear", 1), parent)
    (problem,) = check(recipe).problems
    assert problem.message.startswith("expert0 has 3 layers, the base 2 (model.layers)")
    with pytest.raises(FamilyMismatch, match="expert0 has 3 layers, the base 2"):
        merge(recipe, tmp_path / "out")


def test_many_tensors_of_one_reason_are_one_line(tmp_path) -> None:
    base = llama(0, layers=2)
    expert = {name: tensor for name, tensor in tuned(base, 1).items() if "attn" not in name}
    parent = write_family(tmp_path, base, [expert])
    recipe = recipes.from_mapping(document("ties", 1, keep_base=["lm_head"]), parent)
    copies, missing = check(recipe).problems
    assert (copies.severity, copies.where) == ("note", "lm_head.weight")
    assert missing.message.startswith("8 copied: missing in expert0: model.layers.0.self_attn.k_")
    assert missing.message.endswith("and 5 more")


def test_a_base_that_lacks_part_of_a_layer_is_refused(tmp_path) -> None:
    base = llama(0, layers=2)
    hole = "model.layers.1.mlp.up_proj.weight"
    less = {name: tensor for name, tensor in base.items() if name != hole}
    parent = write_family(tmp_path, less, [tuned(base, 1), tuned(base, 2)])
    (problem,) = check(recipes.from_mapping(document("ties", 2), parent)).problems
    assert problem.severity == "error"
    assert problem.sentence == (
        f"base: lacks {hole}, which its other layers and all experts have; copy or download it "
        "again"
    )


def test_values_that_are_0_everywhere_are_noted(parent) -> None:
    recipe = document("ties", [{"weight": 0}, {"density": 0}])
    problems = check(recipes.from_mapping(recipe, parent)).problems
    assert [problem.where for problem in problems] == ["expert0", "expert1", "models"]
    assert {problem.severity for problem in problems} == {"note"}


def test_an_adapter_inside_a_model_is_refused(parent) -> None:
    tensors = tuned(llama(0, **SMALL), 1)
    name = "base_model.model.model.layers.0.self_attn.q_proj.lora_A.weight"
    write_model(parent / "wrapped", {**tensors, name: tensors["model.norm.weight"] + 1})
    recipe = {"merge_method": "ties", "base_model": "base", "models": ["wrapped"]}
    (problem,) = check(recipes.from_mapping(recipe, parent)).problems
    assert (problem.severity, "merge_and_unload" in problem.message) == ("error", True)
