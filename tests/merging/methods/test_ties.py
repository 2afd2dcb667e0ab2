"""TIES: sign election and the mean of those that agree."""

from __future__ import annotations

import pytest
import torch

from merging.instructions.elections import elect_and_merge, sign_balance, vote
from tests.families import document, llama, merged, merged_one, tuned, write_family

TAUS = [
    [0.9, -0.2, 0.5, 0, -0.6, 0.1, 0.3, -0.4, 0.05, 0.7],
    [-0.3, -0.8, 0.4, 0.2, 0.6, -0.1, -0.9, 0.4, 0, 0.6],
    [0.5, 0.1, -0.7, 0, 0.05, -0.3, 0.2, -0.1, -0.2, 0.8],
]
# the four largest of each: .9 .5 -.6 .7 | -.8 .6 -.9 .6 | .5 -.7 -.3 .8
# sums: 1.4 -.8 -.2 0 0 -.3 -.9 0 0 2.1; at index 4 -.6 and .6 cancel exactly
ZEROS = [0.0] * 10


def close(change: torch.Tensor, expected: list[float]) -> bool:
    return (change - torch.tensor(expected, dtype=torch.float64)).abs().max().item() <= 1e-7


def test_over_the_model_a_cancellation_takes_the_sign_that_won_most(tmp_path) -> None:
    parameters = {"density": 0.4, "scope": "model"}
    change = merged_one(tmp_path, "ties", ZEROS, TAUS, None, parameters)
    # signs won: 2 times +, 4 times -, so index 4 goes to -
    assert close(change, [0.7, -0.8, -0.7, 0, -0.6, -0.3, -0.9, 0, 0, 0.7])


def test_per_tensor_a_cancellation_counts_as_plus(tmp_path) -> None:
    change = merged_one(tmp_path, "ties", ZEROS, TAUS, None, {"density": 0.4})
    assert close(change, [0.7, -0.8, -0.7, 0, 0.6, -0.3, -0.9, 0, 0, 0.7])


def test_without_normalising_those_that_agree_are_summed(tmp_path) -> None:
    parameters = {"density": 0.4, "normalize": False}
    change = merged_one(tmp_path, "ties", ZEROS, TAUS, None, parameters)
    assert close(change, [1.4, -0.8, -0.7, 0, 0.6, -0.3, -0.9, 0, 0, 2.1])


def test_weights_take_part_in_the_vote_and_in_the_mean() -> None:
    deltas = [torch.tensor([1.0, 1.0]), torch.tensor([-2.0, 3.0])]
    # index 0: 3*1 - 1*2 = 1, so + and 3*1 / 3; index 1: (3*1 + 1*3) / (3 + 1)
    assert elect_and_merge(deltas, [3.0, 1.0]).tolist() == [1.0, 1.5]


def test_a_negative_weight_flips_its_expert() -> None:
    deltas = [torch.tensor([1.0, -1.0]), torch.tensor([4.0, 4.0])]
    # votes 1 - 4 = -3 and -1 - 4 = -5: minus wins; the mean divides by the weights
    assert elect_and_merge(deltas, [1.0, -1.0], normalize=False).tolist() == [-4.0, -5.0]
    # at index 1 both agree and their weights cancel: the sum is divided by 1
    assert elect_and_merge(deltas, [1.0, -1.0]).tolist() == [4.0, -5.0]


def test_weight_zero_takes_no_part() -> None:
    deltas = [torch.tensor([1.0]), torch.tensor([-5.0])]
    assert elect_and_merge(deltas, [1.0, 0.0]).tolist() == [1.0]
    assert elect_and_merge(deltas, [0.0, 0.0]).tolist() == [0.0]


def test_the_balance_counts_signs_and_adds_over_chunks() -> None:
    total = vote([torch.tensor([1.0, -2.0, 0.0, 5.0])], [1.0])
    assert sign_balance(total) == 1
    assert sign_balance(total[:2]) + sign_balance(total[2:]) == 1


def test_an_undecided_model_takes_minus(tmp_path) -> None:
    deltas = [[1.0, -1.0, 2.0], [1.0, -1.0, -2.0]]
    change = merged_one(
        tmp_path, "ties", [0.0] * 3, deltas, None, {"density": 1.0, "scope": "model"}
    )
    assert change.tolist() == [1.0, -1.0, -2.0]


def test_equal_experts_give_the_expert(tmp_path) -> None:
    base = llama(0, layers=1)
    expert = tuned(base, 1)
    parent = write_family(tmp_path, base, [expert] * 3)
    result = merged(document("ties", 3, {"density": 1.0}), parent, tmp_path / "out")
    for name, tensor in result.items():
        assert (tensor - expert[name]).abs().max() <= 3e-7, name


@pytest.mark.parametrize("experts", range(1, 9))
def test_any_number_of_experts_equals_the_formula(experts: int, tmp_path) -> None:
    base = llama(0, layers=1, hidden=16, kv=8, inner=24, vocab=16)
    tunes = [tuned(base, seed) for seed in range(experts)]
    parent = write_family(tmp_path, base, tunes)
    weights = [0.5 + 0.25 * i for i in range(experts)]
    recipe = document("ties", [{"weight": w} for w in weights], {"density": 0.3, "lambda": 0.8})
    for name, tensor in merged(recipe, parent, tmp_path / "out").items():
        votes, counted = [], []
        for tune, weight in zip(tunes, weights, strict=True):
            delta = (tune[name] - base[name]).flatten()
            order = torch.sort(delta.abs(), descending=True, stable=True).indices
            mask = torch.zeros_like(delta)
            mask[order[: int(0.3 * delta.numel())]] = 1
            votes.append((delta * mask).double() * weight)
            counted.append(weight)
        total = sum(votes)
        sign = torch.where(total >= 0, 1.0, -1.0)
        agree = [torch.sign(v) == sign for v in votes]
        value = sum(v * a for v, a in zip(votes, agree, strict=True))
        divisor = sum(a * w for a, w in zip(agree, counted, strict=True))
        expected = value / torch.where(divisor == 0, 1.0, divisor)
        change = (tensor.double() - base[name].double()).flatten()
        assert (change - 0.8 * expected).abs().max() <= 2e-7, name


def test_one_entry_and_no_entry() -> None:
    assert elect_and_merge([torch.tensor([-3.0])], [2.0]).tolist() == [-3.0]
    assert elect_and_merge([torch.empty(0)] * 2, [1.0, 1.0]).shape == (0,)
