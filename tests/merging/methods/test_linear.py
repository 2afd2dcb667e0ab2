"""Sum and mean: task arithmetic and weight averaging."""

from __future__ import annotations

import pytest
import torch

from merging.instructions.sums import weighted_sum
from tests.families import document, llama, merged, merged_one, tuned, write_family

A = torch.tensor([1.0, -2.0, 0.5, 0.0])
B = torch.tensor([3.0, 2.0, -0.5, 4.0])


def test_sum_adds_weighted_changes() -> None:
    # 0.5*1 + 2*3, 0.5*-2 + 2*2, 0.5*0.5 + 2*-0.5, 0.5*0 + 2*4
    assert weighted_sum([A, B], [0.5, 2.0], False).tolist() == [6.5, 3.0, -0.75, 8.0]


def test_mean_divides_by_the_sum_of_weights() -> None:
    # weights 1 and 3: (1 + 9) / 4, (-2 + 6) / 4, (0.5 - 1.5) / 4, 12 / 4
    assert weighted_sum([A, B], [1.0, 3.0], True).tolist() == [2.5, 1.0, -0.25, 3.0]


def test_weights_that_cancel_divide_by_one() -> None:
    assert weighted_sum([A, B], [1.0, -1.0], True).tolist() == (A - B).tolist()


def test_inputs_are_left_as_they_were() -> None:
    first, second = A.clone(), B.clone()
    weighted_sum([first, second], [1.0, 1.0], True)
    assert torch.equal(first, A)
    assert torch.equal(second, B)


def test_one_entry_and_no_entry() -> None:
    assert weighted_sum([torch.tensor([2.0])], [3.0], False).tolist() == [6.0]
    assert weighted_sum([torch.empty(0)], [3.0], True).shape == (0,)


def test_an_average_needs_no_base(tmp_path) -> None:
    experts = [llama(seed, layers=1) for seed in (1, 2, 3)]
    parent = write_family(tmp_path, experts[0], experts)
    recipe = document("linear", [{"weight": w} for w in (1.0, 2.0, 5.0)])
    del recipe["base_model"]
    result = merged(recipe, parent, tmp_path / "out")
    for name, tensor in result.items():
        a, b, c = (expert[name].double() for expert in experts)
        assert (tensor.double() - (a + 2 * b + 5 * c) / 8).abs().max() <= 2e-7, name


def test_an_unnormalised_average_sums_whole_models(tmp_path) -> None:
    base = llama(0, layers=1)
    experts = [tuned(base, 1), tuned(base, 2)]
    parent = write_family(tmp_path, base, experts)
    recipe = document("linear", [{"weight": 0.5}, {"weight": 0.75}], {"normalize": False})
    for name, tensor in merged(recipe, parent, tmp_path / "out").items():
        expected = 0.5 * experts[0][name].double() + 0.75 * experts[1][name].double()
        assert (tensor.double() - expected).abs().max() <= 5e-7, name


def test_the_base_may_take_part_in_an_average(tmp_path) -> None:
    base = llama(0, layers=1)
    expert = tuned(base, 1)
    parent = write_family(tmp_path, base, [expert])
    recipe = document("linear", [{"weight": 1.0}])
    recipe["models"].append({"model": "base", "parameters": {"weight": 3.0}})
    for name, tensor in merged(recipe, parent, tmp_path / "out").items():
        expected = (expert[name].double() + 3 * base[name].double()) / 4
        assert (tensor.double() - expected).abs().max() <= 2e-7, name


@pytest.mark.parametrize("method", ["linear", "task_arithmetic", "dare_linear", "magnitude"])
def test_one_expert_at_weight_one_is_the_expert(method: str, tmp_path) -> None:
    base = llama(0, layers=1)
    expert = tuned(base, 1)
    parent = write_family(tmp_path, base, [expert])
    parameters = {} if method in ("linear", "task_arithmetic") else {"density": 1.0}
    for name, tensor in merged(document(method, 1, parameters), parent, tmp_path / "out").items():
        assert (tensor - expert[name]).abs().max() <= 2e-7, name


def test_strength_scales_the_change_and_zero_gives_the_base(tmp_path) -> None:
    delta = [0.5, -1.0, 0.25]
    recipe = {"lambda": 2.0}
    change = merged_one(tmp_path, "task_arithmetic", [0.0] * 3, [delta], None, recipe)
    assert change.tolist() == [1.0, -2.0, 0.5]
    recipe = {"lambda": 0.0}
    change = merged_one(tmp_path, "task_arithmetic", [1.0, 2.0, 3.0], [delta], None, recipe)
    assert change.abs().max() == 0


@pytest.mark.parametrize(("weights", "factor"), [([0.0, 0.0], 0.0), ([-1.0, 0.5], -0.5)])
def test_weights_may_be_zero_or_negative(weights, factor, tmp_path) -> None:
    change = merged_one(tmp_path, "task_arithmetic", [0.0] * 2, [[1.0, 2.0]] * 2, weights)
    assert change.tolist() == [factor, 2 * factor]
