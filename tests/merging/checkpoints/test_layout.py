"""Where a tensor sits, from its name and shape, in the architectures people merge."""

from __future__ import annotations

import pytest

from merging.checkpoints.layout import (
    Place,
    blocks_of,
    is_after_layers,
    is_vocabulary,
    place,
    places,
)

SQUARE, VECTOR = (8, 8), (8,)


@pytest.mark.parametrize(
    ("name", "shape", "expected"),
    [
        ("model.layers.7.self_attn.q_proj.weight", SQUARE, Place(7, "q", True)),
        ("model.layers.12.mlp.down_proj.weight", SQUARE, Place(12, "down", True)),
        ("model.layers.0.input_layernorm.weight", VECTOR, Place(0, "input_layernorm", False)),
        ("model.layers.0.self_attn.q_proj.bias", VECTOR, Place(0, "q_proj.bias", False)),
        ("model.embed_tokens.weight", SQUARE, Place(None, "embed_tokens", False)),
        ("model.norm.weight", VECTOR, Place(None, "norm", False)),
        ("lm_head.weight", SQUARE, Place(None, "lm_head", False)),
        ("transformer.h.3.attn.c_attn.weight", SQUARE, Place(3, "c_attn", True)),
        ("transformer.h.3.ln_1.weight", VECTOR, Place(3, "ln_1", False)),
        ("h.3.mlp.c_fc.weight", SQUARE, Place(3, "c_fc", True)),
        ("transformer.wte.weight", SQUARE, Place(None, "transformer.wte", False)),
        ("transformer.blocks.2.ffn.up_proj.weight", SQUARE, Place(2, "up", True)),
    ],
)
def test_places(name: str, shape: tuple[int, ...], expected: Place) -> None:
    spot = place(name, shape)
    assert (spot.layer, spot.is_linear) == (expected.layer, expected.is_linear)
    if spot.is_linear or spot.layer is None:
        assert spot.module == expected.module


@pytest.mark.parametrize(
    ("name", "shape", "layer"),
    [
        ("model.layers.1.block_sparse_moe.experts.3.w1.weight", SQUARE, 1),
        ("model.layers.1.mlp.experts.gate_up_proj", (4, 8, 8), 1),
        ("model.layers.1.block_sparse_moe.gate.weight", SQUARE, 1),
        ("encoder.block.2.layer.0.SelfAttention.q.weight", SQUARE, 2),
        ("decoder.block.5.layer.1.EncDecAttention.k.weight", SQUARE, 5),
        ("bert.encoder.layer.4.attention.self.query.weight", SQUARE, 4),
        ("language_model.model.layers.9.mlp.gate_proj.weight", SQUARE, 9),
    ],
)
def test_matrices_of_any_block_are_linears(name: str, shape, layer: int) -> None:
    assert place(name, shape).layer == layer
    assert place(name, shape).is_linear


def test_experts_of_one_block_have_different_names() -> None:
    names = {
        place(f"model.layers.0.block_sparse_moe.experts.{i}.w{k}.weight", SQUARE).module
        for i in range(4)
        for k in (1, 2, 3)
    }
    assert len(names) == 12


@pytest.mark.parametrize(
    "name",
    [
        "encoder.block.0.layer.0.SelfAttention.relative_attention_bias.weight",
        "model.layers.0.self_attn.q_proj.bias",
        "model.layers.0.mlp.experts.down_proj_bias",
    ],
)
def test_biases_are_no_linears_whatever_their_shape(name: str) -> None:
    assert not place(name, SQUARE).is_linear


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("model.embed_tokens.weight", True),
        ("lm_head.weight", True),
        ("transformer.wte.weight", True),
        ("wte.weight", True),
        ("shared.weight", True),
        ("language_model.lm_head.weight", True),
        ("gpt_neox.embed_in.weight", True),
        ("embed_out.weight", True),
        ("transformer.wpe.weight", False),
        ("model.layers.0.mlp.up_proj.weight", False),
        ("model.norm.weight", False),
    ],
)
def test_vocabulary_tensors_are_known_by_name(name: str, expected: bool) -> None:
    assert is_vocabulary(name) is expected


def test_blocks_of_two_stacks_are_different_blocks() -> None:
    names = [
        "decoder.block.0.layer.0.wi.weight",
        "encoder.block.10.layer.0.wi.weight",
        "encoder.block.2.layer.0.wi.weight",
        "encoder.block.2.layer.1.wo.weight",
        "decoder.block.0.layer.2.wo.weight",
    ]
    assert blocks_of(names).tolist() == [0, 2, 1, 1, 0]  # 2 goes before 10
    assert blocks_of([]).tolist() == []


def test_a_stack_has_its_own_name_and_depth() -> None:
    names = ["model.visual.blocks.3.w", "model.language_model.layers.1.w", "lm_head.weight"]
    spots = places(dict.fromkeys(names, SQUARE))
    assert [(p.stack, p.depth, p.title) for p in spots.values()] == [
        ("visual", 4, "visual 3"),
        ("text", 2, "text 1"),
        ("", 2, None),
    ]
    alone = places({"model.layers.1.w": SQUARE, "lm_head.weight": SQUARE})
    assert [(p.stack, p.depth, p.title) for p in alone.values()] == [("", 2, 1), ("", 2, None)]
    both = places({"model.encoder.layers.5.w": SQUARE, "model.decoder.layers.1.w": SQUARE})
    assert [p.title for p in both.values()] == ["encoder 5", "decoder 1"]
    like = places({"a.vision.global.layers.0.w": SQUARE, "a.vision.local.layers.0.w": SQUARE})
    assert [p.title for p in like.values()] == [
        "a.vision.global.layers 0",
        "a.vision.local.layers 0",
    ]


@pytest.mark.parametrize(
    ("name", "after"),
    [
        ("model.norm.weight", True),
        ("lm_head.weight", True),
        ("transformer.ln_f.bias", True),
        ("gpt_neox.final_layer_norm.weight", True),
        ("embed_out.weight", True),
        ("model.decoder.final_layer_norm.weight", True),
        ("score.weight", True),
        ("model.embed_tokens.weight", False),
        ("transformer.wpe.weight", False),
        ("transformer.word_embeddings_layernorm.weight", False),
        ("model.visual.norm.weight", False),
        ("model.decoder.layernorm_embedding.weight", False),
    ],
)
def test_what_comes_after_the_layers_is_known_by_name(name: str, after: bool) -> None:
    assert is_after_layers(name) is after
