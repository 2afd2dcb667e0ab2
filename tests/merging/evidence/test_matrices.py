"""Which tensors methods of whole matrices work on, and what becomes of the others: whole merges."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from merging.checkpoints import open_family
from merging.declarations.methods import TORCH_BYTES
from merging.methods import RULES, emr, iso, resmerge, tall, tsv, wudi
from merging.recipe import from_mapping
from tests.families import Tensors, document, llama, load_model, merged, tuned, write_family

MATRIX, EMBEDDING = "model.layers.1.mlp.up_proj.weight", "model.embed_tokens.weight"
NORM = "model.layers.0.input_layernorm.weight"
WEIGHTS = [{"weight": 0.5}, {"weight": 2.0}]


@pytest.fixture(scope="module")
def family(tmp_path_factory: pytest.TempPathFactory) -> Path:
    parent = tmp_path_factory.mktemp("matrices")
    base = llama(layers=2, hidden=32, kv=16, inner=48)
    return write_family(parent, base, [tuned(base, seed, scale=1e-2) for seed in range(2)])


@pytest.fixture(scope="module")
def changes(family: Path) -> list[Tensors]:
    base, *experts = (load_model(family / name) for name in ("base", "expert0", "expert1"))
    return [{name: one[name] - base[name] for name in base} for one in experts]


@pytest.mark.parametrize(
    ("method", "function"),
    [
        ("iso_c", iso.common),
        ("iso_cts", iso.common_and_specific),
        ("tsv_m", tsv.merge),
        ("wudi", wudi.descend),
        ("resmerge", lambda changes: resmerge.merge(changes)[0]),
    ],
)
def test_matrices_of_blocks_are_merged_and_the_mean_taken_of_others(
    method: str, function, family: Path, changes: list[Tensors], tmp_path: Path
) -> None:
    base = load_model(family / "base")
    result = merged(document(method, WEIGHTS, {"lambda": 0.9}), family, tmp_path / "out")
    weighted = [
        {n: t * w for n, t in one.items()} for one, w in zip(changes, (0.5, 2.0), strict=True)
    ]
    expected = base[MATRIX] + function([one[MATRIX] for one in weighted]) * 0.9
    assert torch.allclose(result[MATRIX], expected, atol=1e-6)
    for name in (EMBEDDING, NORM, "lm_head.weight"):
        mean = (weighted[0][name] + weighted[1][name]) / 2
        assert torch.allclose(result[name], base[name] + mean * 0.9, atol=1e-6), name


def test_layers_that_hold_their_matrices_turned_are_turned(
    family: Path, changes: list[Tensors], tmp_path: Path
) -> None:
    names = {"h.0.mlp.c_fc.weight": (24, 40), "h.0.ln_1.weight": (24,)}
    generator = torch.Generator().manual_seed(5)
    models = [{n: torch.randn(s, generator=generator) for n, s in names.items()} for _ in range(3)]
    config = {"model_type": "gpt2", "architectures": ["GPT2LMHeadModel"], "n_layer": 1}
    parent = write_family(tmp_path / "family", models[0], models[1:], config)
    result = merged(document("wudi", 2, {"solver": "closed"}), parent, tmp_path / "out")
    name = "h.0.mlp.c_fc.weight"
    turned = [(model[name] - models[0][name]).T for model in models[1:]]
    expected = models[0][name] + wudi.solve(turned).T
    assert torch.allclose(result[name], expected, atol=1e-5)


def test_a_stack_of_matrices_is_merged_one_by_one(tmp_path: Path) -> None:
    name = "model.layers.0.mlp.experts.gate_up_proj"
    generator = torch.Generator().manual_seed(6)
    models = [{name: torch.randn(3, 8, 6, generator=generator)} for _ in range(3)]
    parent = write_family(tmp_path / "family", models[0], models[1:])
    result = merged(document("iso_c", 2), parent, tmp_path / "out")[name]
    for index in range(3):
        moved = [model[name][index] - models[0][name][index] for model in models[1:]]
        expected = models[0][name][index] + iso.common(moved)
        assert torch.allclose(result[index], expected, atol=1e-5)


@pytest.mark.parametrize("rescaler", ["element", "tensor_mean", "none"])
def test_a_task_takes_its_share_of_the_unified_change(
    rescaler: str, family: Path, changes: list[Tensors], tmp_path: Path
) -> None:
    base = load_model(family / "base")
    recipe = document("emr", 2, {"task": 2, "rescaler": rescaler})
    result = merged(recipe, family, tmp_path / "out")
    unions = {name: emr.unified([one[name] for one in changes]) for name in base}
    sums = [emr.sums(changes[1][name], unions[name]) for name in sorted(base)]
    scale = emr.rescaler(sums, rescaler)
    for name, union in unions.items():
        expected = emr.task(base[name], union, emr.mask(changes[1][name], union), scale)
        assert torch.allclose(result[name], expected, atol=1e-7), name


def test_consensus_and_one_task_of_a_sum(
    family: Path, changes: list[Tensors], tmp_path: Path
) -> None:
    base = load_model(family / "base")
    values = [{"threshold": 0.4}, {"threshold": 0.8}]
    both = merged(document("consensus_ta", values, {"lambda": 0.5}), family, tmp_path / "a")
    one = merged(document("tall_masks", values, {"task": 2}), family, tmp_path / "b")
    for name in base:
        pair = [change[name] for change in changes]
        expected = base[name] + tall.consensus(pair, [0.4, 0.8]) * 0.5
        assert torch.allclose(both[name], expected, atol=1e-7)
        expected = tall.task(base[name], pair[0] + pair[1], pair[1], 0.8)
        assert torch.allclose(one[name], expected, atol=1e-7)


def test_lines_grow_over_the_depth(family: Path, changes: list[Tensors], tmp_path: Path) -> None:
    base = load_model(family / "base")
    result = merged(document("lines", 2, {"beta": 0.4}), family, tmp_path / "out")
    for name, share in {EMBEDDING: 0.5, NORM: 0.5, MATRIX: 0.9}.items():
        expected = base[name] + (changes[0][name] + changes[1][name]) * share
        assert torch.allclose(result[name], expected, atol=1e-7), name


def test_memory_is_foreseen_by_the_largest_matrix(family: Path) -> None:
    models = {f"expert{i}": family / f"expert{i}" for i in range(2)}
    merged_entries = open_family(family / "base", models).merged
    recipe = from_mapping(document("iso_c", 2), family)
    # 48 x 32: base, two changes and four copies in float32, three squares of 32 in float64
    expected = TORCH_BYTES + 7 * 4 * 48 * 32 + 3 * 8 * 32**2
    assert RULES["iso_c"].memory(recipe, merged_entries) == expected
    assert RULES["sum"].memory(recipe, merged_entries) == 0
