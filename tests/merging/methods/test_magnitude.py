"""Magnitude pruning and partition amplification."""

from __future__ import annotations

import pytest
import torch

from merging.declarations.laws import kept_count, partition_densities, ring_factors
from merging.instructions.pruning import amplify
from tests.families import document, llama, merged, merged_one, tuned, write_family

TAU = [0.9, -0.2, 0.5, 0.0, -0.6, 0.1, 0.3, -0.4, 0.05, 0.7]
ZEROS = [0.0] * 10


def close(change: torch.Tensor, expected: list[float]) -> bool:
    return (change - torch.tensor(expected, dtype=torch.float64)).abs().max().item() <= 1e-7


def test_the_largest_changes_are_kept(tmp_path) -> None:
    # of ten entries int(0.4 * 10) = 4 are kept: 0.9, 0.7, -0.6, 0.5
    change = merged_one(tmp_path, "magnitude", ZEROS, [TAU], None, {"density": 0.4})
    assert close(change, [0.9, 0, 0.5, 0, -0.6, 0, 0, 0, 0, 0.7])


@pytest.mark.parametrize(
    ("density", "count"), [(0.0, 0), (0.05, 1), (0.1, 1), (0.35, 3), (0.999, 9), (1.0, 10)]
)
def test_int_of_density_times_entries_is_kept_but_one_at_least(
    density: float, count: int, tmp_path
) -> None:
    values = torch.linspace(0.1, 1.0, 10)
    change = merged_one(tmp_path, "magnitude", ZEROS, [values], None, {"density": density})
    assert int((change != 0).sum()) == count == kept_count(10, density)


def test_of_equal_magnitudes_those_of_the_lowest_places_are_kept(tmp_path) -> None:
    # stripes of 0 to 5: 0, 297, 82, 379, 164, 461
    values = [1.0, -1.0, 2.0, 1.0, -1.0, 1.0]
    change = merged_one(tmp_path, "magnitude", [0.0] * 6, [values], None, {"density": 0.5})
    assert change.tolist() == [1.0, 0.0, 2.0, 0.0, -1.0, 0.0]


def test_density_one_keeps_every_change_bit_for_bit(tmp_path) -> None:
    base = llama(0, layers=1)
    parent = write_family(tmp_path, base, [tuned(base, 1), tuned(base, 2)])
    pruned = merged(document("magnitude", 2, {"density": 1.0}), parent, tmp_path / "pruned")
    whole = merged(document("task_arithmetic", 2), parent, tmp_path / "whole")
    assert all(torch.equal(pruned[name], whole[name]) for name in whole)


def test_rescaling_keeps_the_sum_of_magnitudes(tmp_path) -> None:
    # 0.9, 0.7, -0.6 and 0.5 are kept of sum 2.7; all ten have the sum of TAU's magnitudes
    parameters = {"density": 0.4, "rescale": True}
    change = merged_one(tmp_path, "magnitude", ZEROS, [TAU], None, parameters)
    factor = sum(map(abs, TAU)) / 2.7
    assert close(change, [factor * v for v in [0.9, 0, 0.5, 0, -0.6, 0, 0, 0, 0, 0.7]])


def test_density_zero_gives_the_base(tmp_path) -> None:
    base = llama(0, layers=1)
    parent = write_family(tmp_path, base, [tuned(base, 1)])
    result = merged(document("magnitude", 1, {"density": 0.0}), parent, tmp_path / "out")
    assert all(torch.equal(result[name], base[name]) for name in base)


def test_partitions_scale_each_ring_by_its_factor(tmp_path) -> None:
    # density 0.6, two partitions: 0.9, 0.7, -0.6 by 2, then 0.5, -0.4, 0.3 by 0.5
    parameters = {"density": 0.6, "amplification": [2.0, 0.5]}
    change = merged_one(tmp_path, "magnitude", ZEROS, [TAU], None, parameters)
    assert close(change, [1.8, 0, 0.25, 0, -1.2, 0, 0.15, -0.2, 0, 1.4])


def test_max_mode_never_scales_a_ring_below_a_later_one(tmp_path) -> None:
    parameters = {"density": 0.6, "amplification": [0.5, 2.0], "partition_mode": "max"}
    change = merged_one(tmp_path, "magnitude", ZEROS, [TAU], None, parameters)
    assert close(change, [1.8, 0, 1.0, 0, -1.2, 0, 0.6, -0.8, 0, 1.4])


def test_ring_factors_of_both_modes() -> None:
    assert ring_factors([0.4, 2.0, 1.0], "ring") == [0.4, 2.0, 1.0]
    assert ring_factors([0.4, 2.0, 1.0], "max") == [2.0, 2.0, 1.0]
    assert ring_factors([3.0, 2.0, 1.0], "max") == [3.0, 2.0, 1.0]


@pytest.mark.parametrize("partitions", range(1, 9))
def test_partitions_are_nested_and_end_at_the_density(partitions: int) -> None:
    shares = partition_densities(0.3, partitions)
    assert len(shares) == partitions
    assert shares == sorted(shares)
    assert shares[-1] == 0.3
    assert shares[0] == pytest.approx(0.3 / partitions)


@pytest.mark.parametrize("partitions", range(1, 9))
def test_equal_factors_make_partitions_invisible(partitions: int, tmp_path) -> None:
    base = llama(0, layers=1, hidden=16, kv=8, inner=24, vocab=16)
    parent = write_family(tmp_path, base, [tuned(base, 1)])
    plain = {"density": 0.37, "amplification": [1.5]}
    split = {"density": 0.37, "amplification": [1.5] * partitions}
    first = merged(document("magnitude", 1, plain), parent, tmp_path / "plain")
    second = merged(document("magnitude", 1, split), parent, tmp_path / "split")
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_a_factor_of_zero_drops_its_ring(tmp_path) -> None:
    parameters = {"density": 0.6, "amplification": [1.0, 0.0]}
    change = merged_one(tmp_path, "magnitude", ZEROS, [TAU], None, parameters)
    assert close(change, [0.9, 0, 0, 0, -0.6, 0, 0, 0, 0, 0.7])


def test_experts_may_have_their_own_density_and_partitions(tmp_path) -> None:
    parent = write_family(
        tmp_path, {"w": torch.zeros(4)}, [{"w": torch.tensor([4.0, 3.0, 2.0, 1.0])}] * 2
    )
    recipe = document(
        "magnitude", [{"density": 0.25}, {"density": 1.0, "amplification": [10.0, 1.0]}]
    )
    assert merged(recipe, parent, tmp_path / "out")["w"].tolist() == [44.0, 30.0, 2.0, 1.0]


def test_over_the_whole_model_small_tensors_may_lose_everything(tmp_path) -> None:
    base = {"a": torch.zeros(3), "b": torch.zeros(2), "c": torch.zeros(())}
    expert = {
        "a": torch.tensor([0.1, 0.2, 0.3]),
        "b": torch.tensor([5.0, -6.0]),
        "c": torch.tensor(0.3),
    }
    parent = write_family(tmp_path, base, [expert])
    # six entries, int(0.5 * 6) = 3: -6, 5 and, of the two 0.3, that of "a": index 2
    # of the model is in the stripe 82, index 5 in 461
    recipe = document("magnitude", 1, {"density": 0.5, "scope": "model"})
    result = merged(recipe, parent, tmp_path / "out")
    assert result["a"].tolist() == pytest.approx([0, 0, 0.3])
    assert result["b"].tolist() == [5.0, -6.0]
    assert result["c"].item() == 0.0


def test_entries_at_a_bound_belong_to_the_ring_above_it() -> None:
    delta = torch.tensor([3.0, -2.0, 1.0, 0.5])
    nested = [delta.abs() >= 2.0, delta.abs() >= 1.0]
    assert amplify(delta, nested, [10.0, 100.0]).tolist() == [30.0, -20.0, 100.0, 0.0]


def test_amplifying_nothing_gives_nothing() -> None:
    nothing = torch.empty(0)
    assert amplify(nothing, [nothing > 0], [1.0]).shape == (0,)
