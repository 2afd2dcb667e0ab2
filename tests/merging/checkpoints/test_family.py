"""Families: which tensors are merged, which are not, and the line that says why."""

from __future__ import annotations

import pytest
import torch

from merging.checkpoints import Family, open_checkpoint, open_family
from merging.checkpoints.family import _BUFFER as BUFFER
from merging.errors import FamilyMismatch
from tests.families import Tensors, document, llama, merged, tuned, write_family, write_model

UP = "model.layers.0.mlp.up_proj.weight"
EMBED, HEAD = "model.embed_tokens.weight", "lm_head.weight"


def opened(tmp_path, base: Tensors, experts: list[Tensors], configs=None) -> Family:
    configs = configs or [{}] * (1 + len(experts))
    root = open_checkpoint(write_model(tmp_path / "base", base, configs[0]))
    tunes = [
        open_checkpoint(write_model(tmp_path / f"expert{i}", expert, configs[i + 1]))
        for i, expert in enumerate(experts)
    ]
    return open_family(root, tunes)


def line(family: Family, name: str) -> tuple[str, str]:
    (entry,) = [entry for entry in family.account if entry.name == name]
    return entry.status, entry.reason


def test_every_tensor_of_every_model_has_one_line(tmp_path) -> None:
    base = llama(0)
    first, second = tuned(base, 1), tuned(base, 2)
    del first["model.norm.weight"]
    second["adapter.weight"] = torch.ones(3)
    family = opened(tmp_path, base, [first, second])
    assert [entry.name for entry in family.account] == sorted({*base, *first, *second})
    assert line(family, UP) == ("merged", "")
    assert line(family, "model.norm.weight") == ("copied", "missing in expert0")
    status, reason = line(family, "adapter.weight")
    assert status == "left_out"
    assert "only in expert1" in reason
    assert "base" in reason


def test_a_tensor_missing_in_one_expert_is_copied_from_the_base(tmp_path) -> None:
    base = llama(0, layers=2)
    first, second = tuned(base, 1), tuned(base, 2)
    del second[UP]
    parent = write_family(tmp_path, base, [first, second])
    result = merged(document("task_arithmetic", 2), parent, tmp_path / "out")
    assert torch.equal(result[UP], base[UP])
    assert set(result) == set(base)


def test_another_shape_is_copied_and_says_both_shapes(tmp_path) -> None:
    base = llama(0)
    expert = tuned(base, 1)
    expert[UP] = torch.zeros(100, 64)
    family = opened(tmp_path, base, [expert])
    assert line(family, UP) == ("copied", "shape [100, 64] in expert0, [96, 64] in the base")


@pytest.mark.parametrize(("base_rows", "rows"), [(64, 70), (70, 64)])
@pytest.mark.parametrize(
    "method", ["linear", "task_arithmetic", "ties", "dare_ties", "dppa", "pcb"]
)
def test_vocabularies_of_different_size_merge_their_shared_rows(
    base_rows, rows, method, tmp_path
) -> None:
    base = llama(0, layers=1, vocab=base_rows)
    other = tuned(llama(0, layers=1, vocab=rows), 1)
    same = tuned(base, 2)
    for name in other:
        if name not in (EMBED, HEAD):
            other[name] = tuned(base, 1)[name]
    parent = write_family(tmp_path, base, [other, same], {"vocab_size": base_rows})
    result = merged(document(method, 2), parent, tmp_path / "out")
    for name in (EMBED, HEAD):
        assert result[name].shape == base[name].shape
        assert not torch.equal(result[name][:64], base[name][:64])
        assert torch.equal(result[name][64:], base[name][64:])
        if method == "task_arithmetic":
            change = (other[name][:64] - base[name][:64]) + (same[name] - base[name])[:64]
            assert (result[name][:64] - base[name][:64] - change).abs().max() <= 1e-7
    family = open_family(parent / "base", {"a": parent / "expert0", "b": parent / "expert1"})
    status, reason = line(family, EMBED)
    assert status == "merged"
    assert f"[{rows}, 64] in a, [{base_rows}, 64] in the base" in reason
    assert "the first 64 rows" in reason


def test_vocabularies_of_another_width_are_not_merged(tmp_path) -> None:
    base = llama(0)
    expert = tuned(base, 1)
    expert[EMBED] = torch.zeros(70, 32)
    assert line(opened(tmp_path, base, [expert]), EMBED)[0] == "copied"


@pytest.mark.parametrize("dtype", [torch.int64, torch.uint8, torch.bool], ids=str)
def test_tables_of_whole_numbers_are_copied(dtype, tmp_path) -> None:
    base = llama(0, layers=1)
    base["model.table"] = torch.arange(6).to(dtype)
    expert = tuned({k: v for k, v in base.items() if v.is_floating_point()}, 1)
    expert["model.table"] = torch.zeros(6, dtype=dtype)
    parent = write_family(tmp_path, base, [expert])
    result = merged(document("ties", 1, dtype=None), parent, tmp_path / "out")
    assert result["model.table"].dtype == dtype
    assert torch.equal(result["model.table"], base["model.table"])
    family = open_family(parent / "base", {"a": parent / "expert0"})
    status, reason = line(family, "model.table")
    assert status == "copied"
    assert "floating-point" in reason


def test_a_tensor_of_whole_numbers_in_one_expert_alone_is_copied(tmp_path) -> None:
    base = llama(0)
    expert = tuned(base, 1)
    expert[UP] = torch.zeros(96, 64, dtype=torch.int8)
    status, reason = line(opened(tmp_path, base, [expert]), UP)
    assert (status, reason) == ("copied", "type I8 in expert0 is not a floating-point type")


TIED = {"tie_word_embeddings": True}


def test_a_tied_head_stored_twice_is_merged_once(tmp_path) -> None:
    base = llama(0, layers=1)
    base[HEAD] = base[EMBED].clone()
    expert = tuned(base, 1)
    expert[HEAD] = expert[EMBED].clone()
    parent = write_family(tmp_path, base, [expert], TIED)
    result = merged(document("dare_ties", 1), parent, tmp_path / "out")
    assert HEAD not in result
    family = open_family(parent / "base", {"a": parent / "expert0"})
    assert line(family, HEAD) == ("left_out", f"tied to {EMBED}, which is merged once")


def test_an_expert_that_untied_its_head_is_reported(tmp_path) -> None:
    base = llama(0, layers=1)
    expert = tuned(base, 1)
    del base[HEAD]
    family = opened(tmp_path, base, [expert], [TIED, {"tie_word_embeddings": False}])
    status, reason = line(family, HEAD)
    assert status == "left_out"
    assert "expert0" in reason
    assert "ties" in reason


def test_the_head_of_an_expert_that_ties_it_is_its_embedding(tmp_path) -> None:
    base = llama(0)
    expert = tuned(base, 1)
    del expert[HEAD]
    family = opened(tmp_path, base, [expert], [{}, TIED])
    assert line(family, HEAD) == ("merged", "")
    (same,) = family.experts
    assert torch.equal(same.read(HEAD), expert[EMBED])


def test_an_expert_without_a_head_that_ties_nothing_leaves_the_base_s(tmp_path) -> None:
    base = llama(0)
    expert = tuned(base, 1)
    del expert[HEAD]
    family = opened(tmp_path, base, [expert])
    assert line(family, HEAD) == ("copied", "missing in expert0")


@pytest.mark.parametrize(("ours", "theirs"), [("", "transformer."), ("transformer.", "")])
def test_a_leading_part_of_the_names_may_differ(ours: str, theirs: str, tmp_path) -> None:
    names = [f"h.{layer}.mlp.c_fc.weight" for layer in range(3)] + ["wte.weight"]
    base = {ours + name: torch.full((2, 3), 1.0) for name in names}
    expert = {theirs + name: torch.full((2, 3), 2.0) for name in names}
    expert["lm_head.weight"] = torch.ones(2, 3)  # has no prefix, stands in one model only
    family = opened(tmp_path, base, [expert])
    assert [entry.name for entry in family.merged] == sorted(base)
    assert line(family, "lm_head.weight")[0] == "left_out"
    parent = write_family(tmp_path / "again", base, [expert])
    result = merged(document("task_arithmetic", 1), parent, tmp_path / "out")
    assert all(torch.equal(result[name], torch.full((2, 3), 2.0)) for name in base)


def test_all_float_types_merge_with_each_other(tmp_path) -> None:
    base = llama(0, layers=1, dtype=torch.bfloat16)
    wide = {name: tensor.float() for name, tensor in base.items()}
    experts = [
        tuned(wide, 1),
        {k: v.half() for k, v in tuned(wide, 2).items()},
        {k: v.double() for k, v in tuned(wide, 3).items()},
    ]
    parent = write_family(tmp_path, base, experts)
    result = merged(document("task_arithmetic", 3), parent, tmp_path / "out")
    for name, tensor in result.items():
        assert tensor.dtype == torch.bfloat16
        start = base[name].double()
        exact = start + sum(expert[name].double() - start for expert in experts)
        assert ((tensor.double() - exact).abs() <= 2**-8 * exact.abs() + 1e-9).all()


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
def test_the_output_type_is_the_one_asked_for(dtype: str, tmp_path) -> None:
    base = llama(0, layers=1, dtype=torch.float16)
    base["ids"] = torch.arange(3)
    parent = write_family(tmp_path, base, [{**base}])
    result = merged(document("ties", 1, dtype=dtype), parent, tmp_path / "out")
    assert result.pop("ids").dtype == torch.int64
    assert {tensor.dtype for tensor in result.values()} == {getattr(torch, dtype)}


def test_sharded_models_merge_as_single_files_do(tmp_path) -> None:
    base = llama(0, layers=2)
    expert = tuned(base, 1)
    one = write_family(tmp_path / "one", base, [expert])
    many = tmp_path / "many"
    write_model(many / "base", base, shards=4)
    write_model(many / "expert0", expert, shards=3)
    first = merged(document("ties", 1), one, tmp_path / "first")
    second = merged(document("ties", 1), many, tmp_path / "second")
    assert all(torch.equal(first[name], second[name]) for name in base)


MIXTURE = "model.layers.{}.block_sparse_moe.experts.{}.w1.weight"


def other_names(style: str) -> Tensors:
    generator = torch.Generator().manual_seed(0)
    names = {
        "mixture": [MIXTURE.format(i, j) for i in range(2) for j in range(4)]
        + [f"model.layers.{i}.block_sparse_moe.gate.weight" for i in range(2)],
        "gpt2": [f"h.{i}.attn.c_attn.weight" for i in range(3)] + ["wte.weight", "wpe.weight"],
        "t5": [
            f"{s}.block.{i}.layer.0.SelfAttention.q.weight"
            for s in ("encoder", "decoder")
            for i in range(2)
        ]
        + ["shared.weight"],
        "unknown": ["body.a", "body.b.kernel", "x"],
    }
    return {name: torch.randn(24, 16, generator=generator) for name in names[style]}


@pytest.mark.parametrize("style", ["mixture", "gpt2", "t5", "unknown"])
@pytest.mark.parametrize("method", ["ties", "dppa", "pcb", "dare_linear"])
def test_any_architecture_s_names_merge(style: str, method: str, tmp_path) -> None:
    base = other_names(style)
    experts = [tuned(base, 1), tuned(base, 2)]
    parent = write_family(tmp_path, base, experts)
    result = merged(document(method, 2), parent, tmp_path / "out")
    assert set(result) == set(base)
    assert any(not torch.equal(result[name], base[name]) for name in base)


@pytest.mark.parametrize("method", ["linear", "ties", "dare_ties", "dppa", "pcb"])
def test_scalars_and_empty_tensors_take_part(method: str, tmp_path) -> None:
    base = {
        "scale": torch.tensor(2.0),
        "none": torch.empty(0, 4),
        UP: torch.randn(8, 8),
        "one": torch.ones(1),
    }
    expert = {**base, "scale": torch.tensor(3.0), UP: base[UP] + 1, "one": torch.zeros(1)}
    parent = write_family(tmp_path, base, [expert, expert])
    result = merged(document(method, 2), parent, tmp_path / "out")
    assert {name: tuple(t.shape) for name, t in result.items()} == {
        name: tuple(t.shape) for name, t in base.items()
    }
    assert all(torch.isfinite(tensor).all() for tensor in result.values())


def test_another_architecture_is_refused_with_both_names(tmp_path) -> None:
    configs = [{}, {"model_type": "gpt2"}]
    with pytest.raises(FamilyMismatch) as error:
        opened(tmp_path, llama(0), [other_names("gpt2")], configs)
    message = str(error.value)
    assert "0 of" in message
    assert "base llama" in message
    assert "expert0 gpt2" in message
    assert "\n" not in message


@pytest.mark.parametrize("sizes", [{"hidden": 32}, {"layers": 1}], ids=str)
def test_another_size_of_the_same_architecture_is_refused(sizes: dict, tmp_path) -> None:
    with pytest.raises(FamilyMismatch, match="can be merged"):
        opened(tmp_path, llama(0, layers=5), [llama(0, **{"layers": 5, **sizes})])


def test_the_expert_that_does_not_fit_is_named(tmp_path) -> None:
    fitting, other = llama(0, layers=5), llama(0, layers=5, hidden=32)
    with pytest.raises(FamilyMismatch, match=r"^expert1 does not fit the base: .* shape \["):
        opened(tmp_path, llama(0, layers=5), [fitting, other, fitting])


def test_a_base_without_parameters_or_experts_is_refused(tmp_path) -> None:
    with pytest.raises(FamilyMismatch):
        opened(tmp_path / "a", {"ids": torch.arange(3)}, [{"ids": torch.arange(3)}])
    with pytest.raises(FamilyMismatch, match="no expert"):
        opened(tmp_path / "b", llama(0, layers=1), [])


def test_a_config_that_does_not_mention_tying_means_its_architectures_default(tmp_path) -> None:
    base = llama(0, layers=1)
    base[HEAD] = base[EMBED].clone()
    expert = tuned(base, 1)
    del expert[HEAD]
    family = opened(tmp_path, base, [expert], [{"model_type": "gemma"}] * 2)
    assert line(family, HEAD) == ("left_out", f"tied to {EMBED}, which is merged once")


def test_an_encoder_and_a_decoder_that_share_an_embedding_have_it_merged_once(tmp_path) -> None:
    base = {"shared.weight": torch.zeros(4, 2), "decoder.block.0.wo.weight": torch.zeros(2, 2)}
    base |= {f"{side}.embed_tokens.weight": torch.zeros(4, 2) for side in ("encoder", "decoder")}
    family = opened(tmp_path, base, [base], [{"model_type": "t5"}] * 2)
    assert [entry.name for entry in family.merged] == ["decoder.block.0.wo.weight", "shared.weight"]
    assert "tied to shared.weight" in line(family, "encoder.embed_tokens.weight")[1]


def test_masks_and_frequencies_that_old_checkpoints_store_are_no_parameters(tmp_path) -> None:
    base = llama(0, layers=1)
    mask, frequencies = "h.0.attn.bias", "model.layers.0.self_attn.rotary_emb.inv_freq"
    expert = tuned(base, 1)
    base |= {mask: torch.ones(1, 1, 90, 90), frequencies: torch.ones(8)}
    expert |= {frequencies: torch.full((8,), 0.5)}
    family = opened(tmp_path, base, [expert])
    assert line(family, mask) == line(family, frequencies) == ("copied", BUFFER)
    parent = write_family(tmp_path / "two", base, [expert])
    result = merged(document("task_arithmetic", 1), parent, tmp_path / "out")
    assert torch.equal(result[frequencies], base[frequencies])


def test_rows_that_an_expert_has_beyond_the_base_are_named(tmp_path) -> None:
    base = {EMBED: torch.zeros(6, 2), UP: torch.zeros(4, 4)}
    more, fewer = {**base, EMBED: torch.zeros(8, 2)}, {**base, EMBED: torch.zeros(5, 2)}
    status, reason = line(opened(tmp_path, base, [more, fewer]), EMBED)
    assert status == "merged"
    assert reason == (
        "shape [8, 2] in expert0, [5, 2] in expert1, [6, 2] in the base: the first 5 rows are "
        "merged; further rows of expert0 are left out"
    )


def test_eight_bit_floats_are_called_what_they_are(tmp_path) -> None:
    base = {UP: torch.zeros(4, 4), EMBED: torch.zeros(4, 2)}
    expert = {**base, EMBED: torch.zeros(4, 2).to(torch.float8_e4m3fn)}
    status, reason = line(opened(tmp_path, base, [expert]), EMBED)
    assert (status, "8-bit floats (F8_E4M3) in expert0" in reason) == ("copied", True)
    with pytest.raises(FamilyMismatch, match="no parameters that can be merged"):
        opened(tmp_path / "all", {EMBED: expert[EMBED]}, [{EMBED: expert[EMBED]}])
