"""DELLA: probabilities by rank, and what is left."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from merging import recipe as recipes
from merging.engines.eager import Stream
from merging.engines.fused import FusedStream, sizes
from merging.instructions import draws, elections, ranked, sums
from merging.methods.della import draws_by_rank, narrowed
from merging.methods.random import draw_keys
from merging.recipe import from_mapping
from merging.run.merge import merge
from tests.families import document, load_model, write_family
from tests.shelf import Case, cases

KEYS = draw_keys(3, "expert", "weight")


def probabilities(delta: torch.Tensor, density: float, epsilon: float) -> torch.Tensor:
    return ranked.limits(delta, draws_by_rank(density, epsilon, KEYS)) / draws.RANGE


def prune(
    delta: torch.Tensor,
    first: int,
    keys: tuple[int, int],
    *,
    density: float,
    epsilon: float,
    by_probability: bool = False,
) -> torch.Tensor:
    if density >= 1:
        return delta
    if density <= 0:
        return delta * 0.0
    drawn = replace(draws_by_rank(density, epsilon, keys), by_chance=by_probability)
    return ranked.draw(drawn, delta, first)


def l1_scale(before: float, after: float) -> float:
    return before / after if min(before, after) >= 1e-7 else 1.0


def per_model(value: float | list[float], count: int) -> list[float]:
    return value if isinstance(value, list) else [value] * count


def left_of(case: Case) -> list[torch.Tensor]:
    values, left = case.parameters, []
    densities = per_model(values["density"], len(case.changes))
    epsilons = per_model(values["epsilon"], len(case.changes))
    rows = zip(case.changes, densities, epsilons, strict=True)
    for index, (delta, density, epsilon) in enumerate(rows):
        keys = draw_keys(case.more["seed"], f"expert{index + 1}", "w")
        matrix = delta.reshape(-1, delta.shape[-1])
        one = prune(matrix, 0, keys, density=density, epsilon=epsilon).flatten()
        if values.get("rescale", True) and density < 1:
            one = one * l1_scale(delta.abs().sum().item(), one.abs().sum().item())
        left.append(one)
    return left


def accepted(case: Case) -> bool:
    return case.expected is not None


@pytest.mark.parametrize("case", cases("della", accepted))
def test_with_the_same_draws_numbers_are_those_of_mergekit(case: Case) -> None:
    merged = elections.elect_and_merge(left_of(case), case.parameters["weight"], normalize=True)
    assert case.close(case.from_base(merged))


@pytest.mark.parametrize("case", cases("della_linear", accepted))
def test_sums_of_the_same_draws_are_those_of_mergekit(case: Case) -> None:
    total = sums.weighted_sum(left_of(case), case.parameters["weight"], False)
    assert case.close(case.from_base(total))


def drawn(case: Case) -> bool:
    return bool(case.more.get("probabilities")) and not isinstance(case.parameters["density"], list)


@pytest.mark.parametrize("case", cases("della", drawn))
def test_probabilities_are_those_of_mergekit(case: Case) -> None:
    density, epsilon = case.parameters["density"], case.parameters["epsilon"]
    for delta, expected in zip(case.changes, case.more["probabilities"], strict=True):
        matrix = delta.reshape(-1, delta.shape[-1])
        found = probabilities(matrix, density, epsilon).flatten()
        assert (found - torch.tensor(expected)).abs().max() <= 3e-7


def test_probabilities_by_hand() -> None:
    delta = torch.tensor([[0.1, -0.4, 0.2, 0.3, -0.05]])
    expected = torch.tensor([[0.55, 0.70, 0.60, 0.65, 0.50]])
    assert torch.allclose(probabilities(delta, 0.6, 0.1), expected, atol=1e-6)


def test_equal_magnitudes_have_equal_probabilities_and_the_mean_is_the_density() -> None:
    delta = torch.tensor([[0.0, 0.5, -0.5, 0.0, 0.0, 1.0, 0.5, -2.0]]).bfloat16().float()
    found = probabilities(delta, 0.4, 0.2)
    # ranks 1 for three zeros, 4 for three halves, then 6 and 7, of 0 to 7
    ranks = torch.tensor([[1.0, 4.0, 4.0, 1.0, 1.0, 6.0, 4.0, 7.0]])
    assert torch.allclose(found, 0.2 + 0.4 * ranks / 7, atol=1e-6)
    assert found.mean().item() == pytest.approx(0.4, abs=1e-6)


def test_rows_are_ranked_apart() -> None:
    both = torch.tensor([[1.0, 2.0, 3.0], [300.0, 200.0, 100.0]])
    found = probabilities(both, 0.5, 0.25)
    assert torch.allclose(found, torch.tensor([[0.25, 0.5, 0.75], [0.75, 0.5, 0.25]]), atol=1e-6)


def test_a_row_of_one_entry_is_kept_with_the_density() -> None:
    assert torch.allclose(probabilities(torch.ones(3, 1), 0.3, 0.2), torch.tensor(0.3), atol=1e-6)


@pytest.mark.parametrize(
    ("density", "epsilon", "expected"),
    [(0.5, 0.15, 0.15), (0.9, 0.15, 0.1), (0.1, 0.15, 0.1), (1.0, 0.15, 0.0), (0.5, 0.7, 0.5)],
)
def test_epsilon_is_narrowed_to_what_leaves_probabilities(
    density: float, epsilon: float, expected: float
) -> None:
    assert narrowed(density, epsilon) == pytest.approx(expected)
    row = torch.arange(1.0, 102.0)[None]
    found = probabilities(row, density, epsilon)
    assert found.min() >= 0 and found.max() <= 1
    assert found.mean().item() == pytest.approx(density, abs=1e-6)


def test_a_narrowed_epsilon_is_remarked_on() -> None:
    models = [{"model": "a"}, {"model": "c", "parameters": {"density": 0.5}}]
    recipe = recipes.from_mapping(
        {
            "merge_method": "della",
            "base_model": "b",
            "models": models,
            "parameters": {"density": 0.9, "epsilon": 0.15},
        }
    )
    (note,) = recipe.notes
    assert note.startswith("a: epsilon 0.15 ") and note.endswith("0.1 is taken there")


def test_draws_depend_on_the_index_not_on_the_chunks() -> None:
    delta = torch.randn(40, 16, generator=torch.Generator().manual_seed(0))
    whole = prune(delta, 0, KEYS, density=0.5, epsilon=0.3)
    parts = [
        prune(delta[a:b], 16 * a, KEYS, density=0.5, epsilon=0.3) for a, b in ((0, 7), (7, 40))
    ]
    assert torch.equal(whole, torch.cat(parts))


def test_large_changes_survive_more_often() -> None:
    row = torch.arange(1.0, 20_001.0)[None]
    kept = prune(row, 0, KEYS, density=0.5, epsilon=0.4)[0] != 0
    shares = kept.view(4, -1).double().mean(dim=1)  # quarters of the ranks: 0.2, 0.4, 0.6, 0.8
    assert (shares - torch.tensor([0.2, 0.4, 0.6, 0.8])).abs().max() <= 0.035  # 5 deviations


def test_by_probability_every_survivor_is_divided_by_its_own() -> None:
    row = torch.arange(1.0, 101.0)[None]
    left = prune(row, 0, KEYS, density=0.5, epsilon=0.3, by_probability=True)
    kept = left != 0
    expected = row / probabilities(row, 0.5, 0.3)
    assert 30 <= int(kept.sum()) <= 70
    assert torch.allclose(left[kept], expected[kept], rtol=1e-6)


def test_density_one_keeps_all_and_density_zero_nothing() -> None:
    row = torch.arange(1.0, 11.0)[None]
    assert torch.equal(prune(row, 0, KEYS, density=1.0, epsilon=0.15), row)
    assert not prune(row, 0, KEYS, density=0.0, epsilon=0.15).any()


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_what_is_not_finite_is_seen(value: float) -> None:
    row = torch.tensor([[1.0, value, 2.0, 0.0]])
    for seed in range(8):
        keys = draw_keys(seed, "expert", "weight")
        left = prune(row, 0, keys, density=0.5, epsilon=0.2)
        assert not torch.isfinite(left[0, 1])


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_loops_and_torch_keep_the_same_entries(
    dtype: torch.dtype, tmp_path: Path, monkeypatch
) -> None:
    # ties in crowds, rows of one value, a row of zeros, and one long row
    generator = torch.Generator().manual_seed(4)
    delta = (torch.randn(30, 257, generator=generator) * 8).round() / 8
    delta[3], delta[4] = 0.0, 0.25
    tensors = {
        "model.layers.0.mlp.up_proj.weight": delta,
        "model.norm.weight": delta.flatten().clone(),
    }
    base = {name: torch.zeros_like(value).to(dtype) for name, value in tensors.items()}
    parent = write_family(tmp_path, base, [{n: t.to(dtype) for n, t in tensors.items()}])
    recipe = from_mapping(document("della_linear", [{"density": 0.4, "epsilon": 0.3}]), parent)
    results = []
    for engine in (Stream, FusedStream):
        merge(recipe, tmp_path / engine.engine, device="cpu", engine=engine)
        results.append(load_model(tmp_path / engine.engine))
    monkeypatch.setattr(sizes, "DRAWN", 0)  # no room for the bits: through torch
    merge(recipe, tmp_path / "third", device="cpu", engine=FusedStream)
    third = load_model(tmp_path / "third")
    for name in tensors:
        assert torch.equal(results[0][name], third[name])
        assert torch.equal(results[0][name], results[1][name])
        kept = float((results[0][name] != 0).double().mean() / (tensors[name] != 0).double().mean())
        assert kept == pytest.approx(0.4, abs=0.05)
        size = results[0][name].double().abs().sum() / tensors[name].double().abs().sum()
        assert float(size) == pytest.approx(1.0, abs=5e-3)  # rescaled; bfloat16 rounds


@pytest.mark.parametrize("columns", [1, 2, 33, 1100])
def test_rows_of_any_spread_keep_the_same_entries_in_loops_and_torch(
    columns: int, tmp_path: Path
) -> None:
    generator = torch.Generator().manual_seed(5)
    delta = torch.randn(8, columns, generator=generator)
    delta[1, 0] = 1e9  # beside it, all others are small
    delta[2, : columns // 2] *= 2.0**-40
    delta[3, 1:] = 0.0
    delta[4] *= 1e-42  # subnormal
    delta[5] = torch.exp(20 * delta[5])
    delta[6] = torch.where(torch.rand(columns, generator=generator) < 0.05, delta[6], 0.0)
    delta[7] = torch.exp(30 * delta[7] - 40)
    name = "model.layers.0.mlp.up_proj.weight"
    parent = write_family(tmp_path, {name: torch.zeros_like(delta)}, [{name: delta}])
    recipe = from_mapping(document("della_linear", [{"density": 0.4, "epsilon": 0.3}]), parent)
    for engine in (Stream, FusedStream):
        merge(recipe, tmp_path / engine.engine, device="cpu", engine=engine)
    eager, fused = (load_model(tmp_path / one.engine)[name] for one in (Stream, FusedStream))
    assert torch.equal(eager, fused)
