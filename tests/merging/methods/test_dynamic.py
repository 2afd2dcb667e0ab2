"""Dynamic pruning: densities by outliers, cuts, and the cases the released code fails on."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from merging.declarations.laws import dense_factor
from merging.declarations.shifts import densities, fitted, layer_offsets, linear_offsets
from merging.methods.dynamic import cut_rank
from merging.selection.tied import places
from tests.families import document, llama, merged, merged_one, tuned, write_family

LINEAR = "model.layers.{}.mlp.{}_proj.weight"


def reference_densities(
    deltas: dict[str, np.ndarray], sparsity: float, shift: float, layer_at: float, linear_at: float
) -> dict[str, float]:
    """The six steps in plain numpy, float64; `deltas` holds the linears alone."""
    layer_of = {name: int(name.split(".")[2]) for name in deltas}
    rates = {}
    for layer in sorted(set(layer_of.values())):
        pooled = np.concatenate([abs(deltas[n]).ravel() for n in deltas if layer_of[n] == layer])
        rates[layer] = 100 * (pooled > layer_at * pooled.mean()).mean()
    r = np.array(list(rates.values()))
    centred = r - r.mean()
    a = dict(zip(rates, centred / abs(centred).max(), strict=True))
    names = sorted(deltas)
    q = np.array([100 * (abs(deltas[n]) > linear_at * abs(deltas[n]).mean()).mean() for n in names])
    n = np.array([deltas[name].size for name in names])
    u = q / q.mean()
    u = u - (n * u).sum() / n.sum()
    b = dict(zip(names, u / abs(u).max(), strict=True))
    return {name: (1 - sparsity) + shift * a[layer_of[name]] + shift * b[name] for name in names}


def linears(base, expert) -> dict[str, np.ndarray]:
    return {
        name: (expert[name] - base[name]).numpy().astype(np.float64)
        for name in base
        if "_proj" in name
    }


@pytest.mark.parametrize("density", [0.1, 0.2, 0.5])
@pytest.mark.parametrize("outliers", [(3.0, 5.0), (2.0, 3.0)])
def test_a_merge_follows_the_six_steps(density, outliers, tmp_path) -> None:
    base = llama(0)
    expert = tuned(base, 1)
    parent = write_family(tmp_path, base, [expert])
    parameters = {
        "density": density,
        "amplification": [1.0],
        "density_shift": 0.05,
        "layer_outlier": outliers[0],
        "linear_outlier": outliers[1],
        "tie_rule": "drop",
    }
    result = merged(document("dppa", 1, parameters), parent, tmp_path / "out")
    deltas = linears(base, expert)
    rho = reference_densities(deltas, 1 - density, 0.05, *outliers)
    for name, tensor in result.items():
        if name not in deltas:
            assert torch.equal(tensor, base[name] + (expert[name] - base[name]))
            continue
        size = np.sort(abs(deltas[name]).ravel())
        cut = size[int(size.size * (1 - rho[name]))]
        expected = base[name] + torch.from_numpy(
            np.where(abs(deltas[name]) > cut, deltas[name], 0.0).astype(np.float32)
        )
        assert torch.equal(tensor, expected), name


def test_layer_offsets_by_hand() -> None:
    # mean 3: centred -2, -1, 3, largest 3
    rates = np.array([1.0, 2.0, 6.0])
    assert layer_offsets(rates).tolist() == pytest.approx([-2 / 3, -1 / 3, 1.0])


def test_linear_offsets_weigh_by_entries() -> None:
    # q / mean = 0.5, 1.5; weighted mean (1 * 0.5 + 3 * 1.5) / 4 = 1.25: centred -0.75, 0.25
    offsets = linear_offsets(np.array([1.0, 3.0]), np.array([1.0, 3.0]))
    assert offsets.tolist() == pytest.approx([-1.0, 1 / 3])


@pytest.mark.parametrize("rates", [[], [2.0], [0.3, 0.3, 0.3], [0.0, 0.0], [0.1, 0.1, 0.1 + 1e-17]])
def test_equal_rates_move_nothing(rates) -> None:
    values = np.array(rates, dtype=np.float64)
    assert not layer_offsets(values).any()
    assert not linear_offsets(values, np.full(values.size, 7.0)).any()


def test_densities_add_both_offsets() -> None:
    rho = densities(0.2, 0.08, np.array([1.0, -1.0]), np.array([0.5, 0.0]))
    assert rho.tolist() == pytest.approx([0.2 + 0.12, 0.2 - 0.08])


@pytest.mark.parametrize(
    ("numel", "rho", "rank"),
    [
        (100, 0.1, 90),
        (100, 0.105, 89),
        (7, 0.5, 3),
        (100, 1.0, -1),
        (100, 1.7, -1),
        (100, 0.0, 100),
        (100, -0.3, 100),
        (0, 0.5, 0),
        (1, 0.5, 0),
    ],
)
def test_the_rank_of_the_cut(numel: int, rho: float, rank: int) -> None:
    assert cut_rank(numel, rho) == rank


def test_factors_for_tensors_that_are_not_pruned() -> None:
    assert dense_factor("one", [1.8, 0.5]) == 1.0
    assert dense_factor("max", [1.8, 0.5]) == 1.8
    assert dense_factor("none", [1.8, 0.5]) == 0.0


@pytest.mark.parametrize(("scale", "factor"), [("one", 1.0), ("max", 2.5), ("none", 0.0)])
def test_unpruned_tensors_are_scaled_as_asked(scale, factor, tmp_path) -> None:
    base = llama(0, layers=2)
    expert = tuned(base, 1)
    parent = write_family(tmp_path, base, [expert])
    parameters = {"amplification": [0.5, 2.5], "scale_dense": scale}
    result = merged(document("dppa", 1, parameters), parent, tmp_path / "out")
    for name in (
        "model.embed_tokens.weight",
        "lm_head.weight",
        "model.norm.weight",
        "model.layers.1.input_layernorm.weight",
    ):
        expected = base[name] + (expert[name] - base[name]) * factor
        assert torch.equal(result[name], expected), name


def test_on_average_the_density_asked_for_is_kept(tmp_path) -> None:
    base = llama(0, layers=4, kv=64)
    expert = tuned(base, 1)
    parent = write_family(tmp_path, base, [expert])
    result = merged(document("dppa", 1, {"density": 0.2}), parent, tmp_path / "out")
    deltas = linears(base, expert)
    kept = sum(int((result[name] != base[name]).sum()) for name in deltas)
    assert kept / sum(d.size for d in deltas.values()) == pytest.approx(0.2, abs=0.002)


def test_partitions_are_nested(tmp_path) -> None:
    base = llama(0)
    parent = write_family(tmp_path, base, [tuned(base, 1)])

    def support(density: float, name: str) -> dict[str, torch.Tensor]:
        recipe = document("dppa", 1, {"density": density, "amplification": [1.0]})
        result = merged(recipe, parent, tmp_path / name)
        return {k: result[k] != base[k] for k in base if "_proj" in k}

    narrow, wide = support(0.1, "narrow"), support(0.2, "wide")
    assert all((wide[name] | ~narrow[name]).all() for name in wide)
    assert any((wide[name] & ~narrow[name]).any() for name in wide)


def test_each_partition_has_its_own_offsets_and_factor(tmp_path) -> None:
    base = llama(0)
    expert = tuned(base, 1)
    parent = write_family(tmp_path, base, [expert])
    recipe = document("dppa", 1, {"density": 0.4, "amplification": [3.0, 2.0], "tie_rule": "drop"})
    result = merged(recipe, parent, tmp_path / "out")
    deltas = linears(base, expert)
    first = reference_densities(deltas, 0.8, 0.08, 3.0, 5.0)
    both = reference_densities(deltas, 0.6, 0.08, 3.0, 5.0)
    for name, delta in deltas.items():
        size = np.sort(abs(delta).ravel())
        inner = abs(delta) > size[int(size.size * (1 - first[name]))]
        outer = abs(delta) > size[int(size.size * (1 - both[name]))]
        factor = np.where(inner, 3.0, np.where(outer, 2.0, 0.0))
        expected = base[name].double() + torch.from_numpy(delta * factor)
        assert (result[name].double() - expected).abs().max() <= 1e-8 + 2**-23, name


@pytest.mark.parametrize("partitions", range(1, 9))
def test_any_number_of_partitions_merges(partitions: int, tmp_path) -> None:
    base = llama(0, layers=2, hidden=16, kv=8, inner=24, vocab=16)
    parent = write_family(tmp_path, base, [tuned(base, 1)])
    parameters = {"density": 0.4, "amplification": [1.0] * partitions}
    result = merged(document("dppa", 1, parameters), parent, tmp_path / "out")
    once = merged(
        document("dppa", 1, {"density": 0.4, "amplification": [1.0]}), parent, tmp_path / "once"
    )
    assert all(torch.equal(result[name], once[name]) for name in once)


# where the released code gives NaN, an index error or a wrapped index


def test_a_single_layer_has_the_density_of_its_linears_alone(tmp_path) -> None:
    base = llama(0, layers=1)
    expert = tuned(base, 1)
    parent = write_family(tmp_path, base, [expert])
    recipe = document("dppa", 1, {"density": 0.2, "amplification": [1.0]})
    result = merged(recipe, parent, tmp_path / "out")
    for name, delta in linears(base, expert).items():
        share = int((result[name] != base[name]).sum()) / delta.size
        assert 0.2 - 0.081 <= share <= 0.2 + 0.081


def test_a_single_linear_is_pruned_at_the_density_asked_for(tmp_path) -> None:
    delta = torch.randn(1000, 1, generator=torch.Generator().manual_seed(0))
    parameters = {"density": 0.2, "amplification": [1.0]}
    change = merged_one(tmp_path, "dppa", torch.zeros(1000, 1), [delta], None, parameters)
    assert int((change != 0).sum()) == 200
    parameters["tie_rule"] = "drop"  # as the authors, one fewer
    change = merged_one(tmp_path, "dppa", torch.zeros(1000, 1), [delta], None, parameters)
    assert int((change != 0).sum()) == 1000 - 800 - 1


def test_of_equal_magnitudes_as_many_stay_as_were_asked_for(tmp_path) -> None:
    delta = torch.full((50, 2), 0.5)
    change = merged_one(tmp_path, "dppa", torch.zeros(50, 2), [delta], None, {"density": 0.3})
    lowest = places(np.arange(100)).argsort()[:30]
    assert sorted(np.flatnonzero(change.flatten())) == sorted(lowest)
    drop = {"density": 0.3, "tie_rule": "drop"}
    change = merged_one(tmp_path, "dppa", torch.zeros(50, 2), [delta], None, drop)
    assert change.abs().max() == 0


@pytest.mark.parametrize("density", [0.1, 0.3])
def test_every_ring_gets_its_share_of_equal_magnitudes(density: float, tmp_path) -> None:
    """Changes of three magnitudes only, as between bfloat16 checkpoints."""
    generator = torch.Generator().manual_seed(0)
    delta = torch.randint(1, 4, (200, 100), generator=generator) * 0.25
    parameters = {"density": density, "amplification": [8.0, 4.0, 2.0, 1.0]}
    change = merged_one(tmp_path, "dppa", torch.zeros(200, 100), [delta], None, parameters)
    gain = (change / delta).flatten()
    assert [int((gain == factor).sum()) for factor in (8.0, 4.0, 2.0, 1.0)] == (
        [int(20_000 * density / 4)] * 4
    )


def test_the_whole_keeps_what_was_asked_where_densities_end_at_zero(tmp_path) -> None:
    base = llama(0, layers=4, kv=64)
    expert = tuned(base, 1)
    parent = write_family(tmp_path, base, [expert])
    parameters = {"density": 0.1, "density_shift": 0.2, "amplification": [2.0, 1.0]}
    result = merged(document("dppa", 1, parameters), parent, tmp_path / "out")
    deltas = linears(base, expert)
    total = sum(delta.size for delta in deltas.values())
    for asked, at_least in ((0.05, 1.5), (0.1, 0.0)):
        kept = sum(
            int((abs((result[n] - base[n]).double().numpy()) > at_least * abs(d)).sum())
            for n, d in deltas.items()
        )
        assert asked * total - len(deltas) <= kept <= asked * total


def test_what_the_ends_cut_off_is_given_to_the_others_by_hand() -> None:
    numels = np.array([100.0, 100.0, 200.0])
    asked = np.full(3, 0.1)
    # -0.1, 0.1 and 0.2 ask for 0.1 on average; cut at 0 they would keep 50 of 400, not 40
    assert fitted(np.array([-0.1, 0.1, 0.15]), numels, asked).tolist() == pytest.approx(
        [0.0, 0.1, 0.15]
    )
    moved = fitted(np.array([-0.1, 0.1, 0.2]), numels, asked)
    assert moved.tolist() == pytest.approx([0.0, 0.2 / 3, 0.5 / 3])
    assert numels @ moved == pytest.approx(40)
    # above 1: 0.9 on average of 1.2, 0.9, 0.75; cut off are 20, which 300 others share
    raised = fitted(np.array([1.2, 0.9, 0.75]), numels, np.full(3, 0.9))
    assert raised.tolist() == pytest.approx([1.0, 0.9 + 0.2 / 3, 0.75 + 0.2 / 3])


@settings(deadline=None)
@given(st.integers(1, 30), st.floats(0, 1), st.floats(0, 0.5), st.integers(0, 1000))
def test_any_densities_keep_what_was_asked(count, density, shift, seed) -> None:
    source = np.random.default_rng(seed)
    numels = source.integers(1, 1000, count).astype(np.float64)
    rhos = density + shift * source.uniform(-2, 2, count)
    found = fitted(rhos, numels, np.full(count, density))
    assert ((found >= 0) & (found <= 1)).all()
    assert numels @ found == pytest.approx(density * numels.sum(), abs=1e-6 * numels.sum())
    order = np.argsort(rhos)
    assert (np.diff(found[order]) >= -1e-12).all()


def test_densities_inside_the_bounds_stay_as_they_are() -> None:
    rhos = np.array([0.1, 0.2, 0.3])
    assert fitted(rhos, np.ones(3), np.full(3, 0.2)).tolist() == rhos.tolist()
    assert fitted(np.zeros(0), np.zeros(0), np.zeros(0)).size == 0


def test_an_expert_equal_to_the_base_gives_the_base(tmp_path) -> None:
    base = llama(0, layers=2)
    parent = write_family(tmp_path, base, [base])
    result = merged(document("dppa", 1), parent, tmp_path / "out")
    assert all(torch.equal(result[name], base[name]) for name in base)


def test_one_linear_and_one_layer_may_be_unchanged(tmp_path) -> None:
    base = llama(0)
    expert = tuned(base, 1)
    for name in base:
        if ".layers.1." in name or name.endswith("layers.0.self_attn.v_proj.weight"):
            expert[name] = base[name]
    parent = write_family(tmp_path, base, [expert])
    result = merged(document("dppa", 1, {"density": 0.1}), parent, tmp_path / "out")
    for name in base:
        if ".layers.1." in name or name.endswith("layers.0.self_attn.v_proj.weight"):
            assert torch.equal(result[name], base[name])
        assert torch.isfinite(result[name]).all()


@pytest.mark.parametrize("density", [0.0, 0.02, 0.05])
def test_densities_pushed_below_zero_keep_nothing(density: float, tmp_path) -> None:
    base = llama(0)
    expert = tuned(base, 1)
    parent = write_family(tmp_path, base, [expert])
    parameters = {
        "density": density,
        "density_shift": 0.2,
        "amplification": [1.0],
        "tie_rule": "drop",
    }
    result = merged(document("dppa", 1, parameters), parent, tmp_path / "out")
    rho = reference_densities(linears(base, expert), 1 - density, 0.2, 3.0, 5.0)
    assert min(rho.values()) < 0
    for name, value in rho.items():
        if value <= 0:
            assert torch.equal(result[name], base[name]), name


@pytest.mark.parametrize("density", [0.95, 1.0])
def test_densities_pushed_above_one_keep_everything(density: float, tmp_path) -> None:
    base = llama(0)
    expert = tuned(base, 1)
    parent = write_family(tmp_path, base, [expert])
    parameters = {
        "density": density,
        "density_shift": 0.2,
        "amplification": [1.0],
        "tie_rule": "drop",
    }
    result = merged(document("dppa", 1, parameters), parent, tmp_path / "out")
    rho = reference_densities(linears(base, expert), 1 - density, 0.2, 3.0, 5.0)
    assert max(rho.values()) > 1
    for name, value in rho.items():
        if value >= 1:
            assert torch.equal(result[name], base[name] + (expert[name] - base[name])), name


def test_density_one_without_shift_keeps_everything(tmp_path) -> None:
    base = llama(0, layers=2)
    expert = tuned(base, 1)
    parent = write_family(tmp_path, base, [expert])
    parameters = {"density": 1.0, "density_shift": 0.0, "amplification": [1.0]}
    result = merged(document("dppa", 1, parameters), parent, tmp_path / "out")
    assert all(torch.equal(result[k], base[k] + (expert[k] - base[k])) for k in base)


def test_a_linear_of_one_entry_and_an_empty_one_merge(tmp_path) -> None:
    base = {
        LINEAR.format(0, "up"): torch.randn(8, 8),
        LINEAR.format(0, "gate"): torch.zeros(1, 1),
        LINEAR.format(0, "down"): torch.zeros(0, 8),
    }
    expert = {name: tensor + 1.0 for name, tensor in base.items()}
    parent = write_family(tmp_path, base, [expert])
    result = merged(document("dppa", 1), parent, tmp_path / "out")
    assert result[LINEAR.format(0, "down")].shape == (0, 8)
    assert result[LINEAR.format(0, "gate")].shape == (1, 1)


def test_everything_asked_for_is_everything_not_all_but_one_entry() -> None:
    rng = np.random.default_rng(3)
    for _ in range(200):
        count = int(rng.integers(1, 30))
        numels = rng.integers(1, 20_000, count).astype(np.float64)
        moved = 1.0 + rng.normal(0, 0.2, count)
        assert fitted(moved, numels, np.ones(count)).tolist() == [1.0] * count
