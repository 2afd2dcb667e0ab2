"""Models of several stacks of layers: each tensor's layer is counted in its own stack."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from merging import recipe as recipes
from merging.errors import RecipeError
from merging.run.merge import merge
from merging.run.preflight import check, open_recipe
from merging.run.stacks import layers_of
from merging.sketches.plan import plan
from merging.sketches.scan import scan
from tests.families import Tensors, document, merged, tuned, write_family
from ui.bins import cells

TEXT, TOWER = (
    "model.language_model.layers.{}.mlp.up_proj.weight",
    "model.visual.blocks.{}.mlp.w.weight",
)
ENCODER, DECODER = "encoder.block.{}.layer.0.q.weight", "decoder.block.{}.layer.0.q.weight"
OUTSIDE = ("model.language_model.embed_tokens.weight", "model.language_model.norm.weight")


def tower_beside_text() -> Tensors:
    """Two layers of text beside four of a tower."""
    generator = torch.Generator().manual_seed(0)
    names = [TEXT.format(i) for i in range(2)] + [TOWER.format(i) for i in range(4)]
    tensors = {name: torch.randn(24, 16, generator=generator) for name in names}
    return tensors | {OUTSIDE[0]: torch.randn(9, 16), OUTSIDE[1]: torch.ones(16)}


def encoder_beside_decoder() -> Tensors:
    """An encoder of four layers beside a decoder of two."""
    names = [ENCODER.format(i) for i in range(4)] + [DECODER.format(i) for i in range(2)]
    return {name: torch.randn(8, 8, generator=torch.Generator().manual_seed(1)) for name in names}


def family(base: Tensors, parent: Path, experts: int = 1) -> Path:
    return write_family(parent, base, [tuned(base, i + 1) for i in range(experts)])


def shares(result: Tensors, base: Tensors, expert: Tensors, names: str, count: int) -> list[float]:
    """The weight that each of some tensors' changes got."""
    weights = []
    for layer in range(count):
        name = names.format(layer)
        delta = (expert[name] - base[name]).double()
        change = (result[name] - base[name]).double()
        weights.append(float((change * delta).sum() / (delta * delta).sum()))
    return weights


def test_the_last_layer_of_every_stack_gets_the_last_weight(tmp_path) -> None:
    base = tower_beside_text()
    parent = family(base, tmp_path)
    result = merged(document("task_arithmetic", [{"weight": [0.0, 1.0]}]), parent, parent / "out")
    expert = tuned(base, 1)
    assert shares(result, base, expert, TEXT, 2) == pytest.approx([0, 1], abs=1e-3)
    assert shares(result, base, expert, TOWER, 4) == pytest.approx([0, 1 / 3, 2 / 3, 1], abs=1e-3)
    assert torch.equal(result[OUTSIDE[1]], base[OUTSIDE[1]])  # the first knot


def test_an_encoder_and_a_decoder_count_their_own_layers(tmp_path) -> None:
    base = encoder_beside_decoder()
    parent = family(base, tmp_path)
    result = merged(document("task_arithmetic", [{"weight": [1.0, 0.0]}]), parent, parent / "out")
    expert = tuned(base, 1)
    assert shares(result, base, expert, ENCODER, 4) == pytest.approx([1, 2 / 3, 1 / 3, 0], abs=1e-3)
    assert shares(result, base, expert, DECODER, 2) == pytest.approx([1, 0], abs=1e-3)


@pytest.mark.parametrize("method", ["magnitude", "dppa"])
def test_pruners_and_the_plan_take_the_density_of_a_tensor_s_own_stack(method, tmp_path) -> None:
    base = tower_beside_text()
    parent = family(base, tmp_path)
    own = {"density_shift": 0.0} if method == "dppa" else {}
    asked = document(method, [{"density": [1.0, 0.25], "amplification": 1.0}], own)
    recipe = recipes.from_mapping(asked, parent)
    opened = open_recipe(recipe)
    predicted = plan(recipe, scan(opened)).density[0, :, 0]
    plans = dict(zip((entry.name for entry in opened.merged), predicted, strict=True))
    assert [plans[TEXT.format(i)] for i in range(2)] == pytest.approx([1.0, 0.25])
    assert [plans[TOWER.format(i)] for i in range(4)] == pytest.approx([1.0, 0.75, 0.5, 0.25])
    result = merged(asked, parent, tmp_path / "out")
    shares_of = {name: float((result[name] != base[name]).float().mean()) for name in plans}
    assert all(abs(shares_of[name] - plans[name]) <= 0.02 for name in plans if "mlp" in name), (
        shares_of
    )


def test_layers_are_called_by_their_stack_where_there_are_several(tmp_path) -> None:
    parent = family(tower_beside_text(), tmp_path)
    recipe = recipes.from_mapping(document("task_arithmetic", 1), parent)
    titles = ["text 0", "text 1", "visual 0", "visual 1", "visual 2", "visual 3"]
    assert list(layers_of(check(recipe).account)) == titles
    layers = []
    result = merge(
        recipe, tmp_path / "out", device="cpu", progress=lambda p: layers.append(p.layer)
    )
    assert list(result.drift) == [*titles, None]
    assert set(titles) <= set(layers)
    table = cells(scan(open_recipe(recipe)).tensors)
    assert list(table.layers) == titles
    assert table.row.tolist()[:6] == [0, 1, 2, 3, 4, 5]
    assert plan(recipe, scan(open_recipe(recipe))).worst_layer is None  # nothing is pruned
    pruned = recipes.from_mapping(document("magnitude", [{"density": 0.5}]), parent)
    worst = plan(pruned, scan(open_recipe(pruned))).worst_layer
    assert worst is not None and worst[0] in titles


def sliced(spans: list[tuple[int, int, float]]) -> dict:
    slices = [
        {
            "sources": [
                {"model": "expert0", "layer_range": [start, stop], "parameters": {"weight": weight}}
            ]
        }
        for start, stop, weight in spans
    ]
    return {"merge_method": "task_arithmetic", "base_model": "base", "slices": slices}


def test_slices_count_the_layers_of_the_text(tmp_path) -> None:
    base = tower_beside_text()
    parent = family(base, tmp_path)
    result = merged(sliced([(0, 1, 1.0), (1, 2, 0.25)]), parent, tmp_path / "out")
    expert = tuned(base, 1)
    assert shares(result, base, expert, TEXT, 2) == pytest.approx([1, 0.25], abs=1e-3)
    assert shares(result, base, expert, TOWER, 4) == pytest.approx([1] * 4, abs=1e-3)
    embedding, norm = (shares(result, base, expert, name, 1)[0] for name in OUTSIDE)
    assert (embedding, norm) == pytest.approx((1.0, 0.25), abs=1e-3)
    with pytest.raises(RecipeError, match=r"\[0, 4\] is not all of base, which has 2 layers"):
        open_recipe(recipes.from_mapping(sliced([(0, 4, 1.0)]), parent))


@pytest.mark.parametrize("layers", [4, 2])
def test_a_slice_may_count_the_encoder_or_the_decoder(layers: int, tmp_path) -> None:
    parent = family(encoder_beside_decoder(), tmp_path)
    assert check(recipes.from_mapping(sliced([(0, layers, 1.0)]), parent)).ok
    with pytest.raises(RecipeError, match="2 and 4 layers"):
        open_recipe(recipes.from_mapping(sliced([(0, 3, 1.0)]), parent))
