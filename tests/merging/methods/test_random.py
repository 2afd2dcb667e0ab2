"""Random pruning (DARE)."""

from __future__ import annotations

import math

import pytest
import torch

from merging.engines.eager import Stream
from merging.engines.fused import FusedStream
from merging.errors import NonFinite
from merging.instructions.draws import drop, keep_mask
from merging.methods.random import draw_keys
from tests.families import document, llama, merged, merged_one, tuned, write_family

CPU = torch.device("cpu")
KEYS = draw_keys(0, "org/expert", "model.layers.0.mlp.up_proj.weight")
N = 1 << 17


def test_survivors_are_divided_by_the_density(tmp_path) -> None:
    change = merged_one(
        tmp_path, "dare_linear", torch.zeros(4000), [torch.ones(4000)], None, {"density": 0.25}
    )
    assert set(change.tolist()) == {0.0, 4.0}


def test_without_rescaling_survivors_stay_as_they_are(tmp_path) -> None:
    parameters = {"density": 0.25, "rescale": False}
    change = merged_one(
        tmp_path, "dare_linear", torch.zeros(400), [torch.ones(400)], None, parameters
    )
    assert set(change.tolist()) == {0.0, 1.0}


def test_rescaling_by_l1_keeps_the_norm_of_every_tensor(tmp_path) -> None:
    delta = torch.randn(3000, generator=torch.Generator().manual_seed(0))
    parameters = {"density": 0.3, "rescale_by": "l1"}
    change = merged_one(tmp_path, "dare_linear", torch.zeros(3000), [delta], None, parameters)
    assert change.abs().sum().item() == pytest.approx(delta.double().abs().sum().item(), rel=1e-6)
    survivors = change != 0
    ratios = change[survivors] / delta.double()[survivors]
    assert (ratios - ratios[0]).abs().max() <= 1e-6


@pytest.mark.parametrize("density", [0.01, 0.1, 0.5, 0.9, 0.99])
def test_the_share_kept_is_the_density(density: float) -> None:
    share = keep_mask(0, N, density, KEYS, CPU).double().mean().item()
    assert abs(share - density) <= 5 * math.sqrt(density * (1 - density) / N)


def test_density_one_keeps_all_and_density_zero_nothing(tmp_path) -> None:
    assert keep_mask(0, 1000, 1.0, KEYS, CPU).all()
    assert not keep_mask(0, 1000, 0.0, KEYS, CPU).any()
    delta = torch.randn(50, generator=torch.Generator().manual_seed(0))
    zero = torch.zeros(50)
    whole = merged_one(tmp_path, "dare_linear", zero, [delta], None, {"density": 1.0})
    nothing = merged_one(tmp_path, "dare_linear", zero, [delta], None, {"density": 0.0})
    assert torch.equal(whole, delta.double())
    assert nothing.abs().max() == 0


def test_draws_are_uncorrelated_between_neighbours_models_tensors_and_seeds() -> None:
    mask = keep_mask(0, N, 0.5, KEYS, CPU)
    others = [
        keep_mask(0, N, 0.5, draw_keys(1, "org/expert", "model.layers.0.mlp.up_proj.weight"), CPU),
        keep_mask(0, N, 0.5, draw_keys(0, "org/other", "model.layers.0.mlp.up_proj.weight"), CPU),
        keep_mask(0, N, 0.5, draw_keys(0, "org/expert", "lm_head.weight"), CPU),
        *(mask.roll(shift) for shift in (1, 2, 64, 1024, 4096)),
    ]
    for other in others:
        agreement = (mask == other).double().mean().item()
        assert abs(agreement - 0.5) <= 5 * 0.5 / math.sqrt(N)


def test_a_lower_density_keeps_a_subset() -> None:
    wide, narrow = (keep_mask(0, N, density, KEYS, CPU) for density in (0.6, 0.2))
    assert (wide | ~narrow).all()


@pytest.mark.parametrize("step", [1000, 4097, 65_536])
def test_the_draw_does_not_depend_on_the_chunks(step: int) -> None:
    whole = keep_mask(0, N, 0.4, KEYS, CPU)
    parts = [keep_mask(start, min(start + step, N), 0.4, KEYS, CPU) for start in range(0, N, step)]
    assert torch.equal(torch.cat(parts), whole)


def test_indices_beyond_32_bits_have_their_own_draws() -> None:
    low = keep_mask(0, 4096, 0.5, KEYS, CPU)
    high = keep_mask(1 << 32, (1 << 32) + 4096, 0.5, KEYS, CPU)
    across = keep_mask((1 << 32) - 10, (1 << 32) + 10, 0.5, KEYS, CPU)
    assert abs((low == high).double().mean().item() - 0.5) < 0.05
    assert torch.equal(across[10:], high[:10])


def test_this_draw_stays_the_same_in_every_version() -> None:
    mask = keep_mask(0, 32, 0.5, draw_keys(7, "a", "b"), CPU)
    assert "".join("1" if bit else "0" for bit in mask) == "11011001010001011000011111011011"


def test_same_seed_same_merge_other_seed_other_merge(tmp_path) -> None:
    base = llama(0, layers=1, vocab=16)
    parent = write_family(tmp_path, base, [tuned(base, 1), tuned(base, 2)])

    def run(seed: int, name: str) -> torch.Tensor:
        recipe = document("dare_ties", 2, {"density": 0.5, "seed": seed})
        return merged(recipe, parent, tmp_path / name)["model.layers.0.mlp.up_proj.weight"]

    first = run(3, "first")
    assert torch.equal(first, run(3, "again"))
    assert not torch.equal(first, run(4, "other"))


def test_the_order_of_experts_changes_no_draw(tmp_path) -> None:
    base = llama(0, layers=1, vocab=16)
    parent = write_family(tmp_path, base, [tuned(base, 1), tuned(base, 2)])
    recipe = document("dare_linear", 2, {"density": 0.5})
    forward = merged(recipe, parent, tmp_path / "forward")
    recipe["models"].reverse()
    backward = merged(recipe, parent, tmp_path / "backward")
    assert all((forward[k] - backward[k]).abs().max() <= 1e-8 for k in forward)


def test_dropped_entries_are_zero_even_beside_large_ones() -> None:
    keep = torch.tensor([True, False, True])
    assert drop(torch.tensor([1.0, 3e38, -2.0]), keep, 2.0).tolist() == [2.0, 0.0, -4.0]


def test_an_empty_range_draws_nothing() -> None:
    assert keep_mask(5, 5, 0.5, KEYS, CPU).shape == (0,)


@pytest.mark.parametrize("bit", [True, False])
@pytest.mark.parametrize("engine", [Stream, FusedStream])
@pytest.mark.parametrize("method", ["dare_linear", "dare_ties"])
def test_a_nan_is_named_whether_it_is_kept_or_dropped(method, engine, bit, tmp_path) -> None:
    name = "model.layers.0.mlp.up_proj.weight"
    mask = keep_mask(0, 400, 0.5, draw_keys(0, "expert0", name), CPU)
    place = int((mask == bit).nonzero()[0])
    tensors = torch.ones(20, 20)
    tensors.view(-1)[place] = torch.nan
    parent = write_family(tmp_path, {name: torch.zeros(20, 20)}, [{name: tensors}])
    recipe = document(method, 1, {"density": 0.5})
    with pytest.raises(NonFinite, match=f"expert0: tensor {name} holds nan at flat index {place}"):
        merged(recipe, parent, tmp_path / "out", engine=engine)
