"""PCB-Merging against its steps in plain numpy, and the cases the released code fails on."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from merging.instructions.competitions import Bounds, balance, clipped, normalized, survivors
from merging.methods.pcb import clip_ranks, threshold_rank
from tests.families import document, llama, merged, merged_one, tuned, write_family

VARIANTS = ("pairwise", "reference", "nlp", "vision")
CLIP = {"reference": 1e-4, "nlp": 1e-2, "vision": 1e-2, "pairwise": 1e-2}


def minmax(x: np.ndarray) -> np.ndarray:
    return (x - x.min()) / (x.max() - x.min())


def reference(taus: list[np.ndarray], share: float, variant: str, weights) -> np.ndarray:
    """The algorithm over flat task vectors, float64, for inputs that do not degenerate."""
    d, n, c = taus[0].size, len(taus), CLIP[variant]
    sizes = []
    for tau in taus:
        order = np.sort(abs(tau))
        sizes.append(np.clip(abs(tau), order[int(d * c)], order[int(d * (1 - c) - 1)]))
    clip = [np.sign(t) * a for t, a in zip(taus, sizes, strict=True)]
    v = [np.sign(t) * minmax(a) for t, a in zip(taus, sizes, strict=True)]
    scores = []
    for i in range(n):
        if variant == "pairwise":
            inter = sum(np.tanh(v[i] * v[j]) for j in range(n))
        else:
            inter = np.tanh(taus[i] * sum(v if variant == "vision" else taus))
        b = np.exp(n * v[i] ** 2) * inter
        scores.append(minmax(np.maximum(b, np.sort(b)[int(d * (1 - share))])))
    total = sum(w * c * s for w, c, s in zip(weights, clip, scores, strict=True))
    return total / np.maximum(sum(scores), 1e-12)


def flat(tensors, base=None) -> np.ndarray:
    parts = [
        (tensors[k] - base[k] if base else tensors[k]).double().flatten() for k in sorted(tensors)
    ]
    return torch.cat(parts).numpy()


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("experts", [1, 2, 3, 5])
def test_over_the_model_a_merge_follows_the_steps(variant, experts, tmp_path) -> None:
    base = llama(0, layers=2, hidden=32, kv=16, inner=48)
    tunes = [tuned(base, seed, scale=0.05) for seed in range(experts)]
    parent = write_family(tmp_path, base, tunes)
    weights = [0.5 + 0.2 * i for i in range(experts)]
    parameters = {"density": 0.2, "variant": variant}
    recipe = document("pcb", [{"weight": w} for w in weights], parameters)
    result = merged(recipe, parent, tmp_path / "out")
    expected = reference([flat(t, base) for t in tunes], 0.2, variant, weights)
    assert abs(flat(result, base) - expected).max() <= 2e-6


@pytest.mark.parametrize("variant", VARIANTS)
def test_per_tensor_each_tensor_competes_alone(variant, tmp_path) -> None:
    base = llama(0, layers=1, hidden=32, kv=16, inner=48)
    tunes = [tuned(base, seed, scale=0.05) for seed in range(2)]
    parent = write_family(tmp_path, base, tunes)
    recipe = document("pcb", 2, {"density": 0.2, "variant": variant, "scope": "tensor"})
    for name, tensor in merged(recipe, parent, tmp_path / "out").items():
        taus = [(t[name] - base[name]).double().flatten().numpy() for t in tunes]
        if taus[0].size <= 100:
            continue  # too small for the plain steps to clip
        expected = reference(taus, 0.2, variant, [1.0, 1.0])
        change = (tensor.double() - base[name].double()).flatten().numpy()
        assert abs(change - expected).max() <= 2e-6, name


def test_normalising_by_hand() -> None:
    tau = torch.tensor([0.0, -1.0, 2.0, -9.0])
    bounds = Bounds(1.0, 5.0)
    assert clipped(tau, bounds).tolist() == [0.0, -1.0, 2.0, -5.0]
    assert normalized(tau, bounds).tolist() == [0.0, 0.0, 0.25, -1.0]


def test_survivors_fall_from_one_to_zero_at_the_threshold() -> None:
    score = torch.tensor([-1.0, 2.0, 3.0, 4.0])
    assert survivors(score, Bounds(0, 0, 2.0, 4.0)).tolist() == [0.0, 0.0, 0.5, 1.0]


def test_balancing_by_hand() -> None:
    # v = 1, -1 and v = 1, 1: pairwise agreement 2 tanh 1 at index 0, 0 at index 1, so only
    # index 0 survives, with share 1 for both: (2 * 3 * 1 + 1 * 5 * 1) / 2
    taus = [torch.tensor([3.0, -3.0]), torch.tensor([5.0, 5.0])]
    top = float(np.exp(2) * 2 * np.tanh(1))
    bounds = [Bounds(0.0, 3.0, 0.0, top), Bounds(0.0, 5.0, 0.0, top)]
    merged_change = balance(taus, [2.0, 1.0], bounds, "pairwise")
    assert merged_change.tolist() == pytest.approx([5.5, 0.0], abs=1e-5)


@pytest.mark.parametrize("share", [0.05, 0.1, 0.2])
def test_one_expert_keeps_all_but_one_of_its_share(share: float, tmp_path) -> None:
    delta = torch.randn(5000, generator=torch.Generator().manual_seed(0))
    change = merged_one(tmp_path, "pcb", torch.zeros(5000), [delta], None, {"density": share})
    assert int((change != 0).sum()) == 5000 - int(5000 * (1 - share)) - 1
    order = delta.double().abs().sort().values
    expected = delta.double().sign() * delta.double().abs().clamp(order[50], order[4949])
    kept = change != 0
    assert (change - expected)[kept].abs().max() <= 1e-6


def test_pairwise_does_not_depend_on_the_scale_of_one_expert(tmp_path) -> None:
    generator = torch.Generator().manual_seed(0)
    a, b = torch.randn(2, 3000, generator=generator)
    zero = torch.zeros(3000)
    plain = merged_one(tmp_path, "pcb", zero, [a, b], None, {"density": 0.1})
    scaled = merged_one(tmp_path, "pcb", zero, [a * 8, b], [1 / 8, 1.0], {"density": 0.1})
    assert (plain - scaled).abs().max() <= 1e-6


def test_the_order_of_experts_does_not_matter(tmp_path) -> None:
    taus = list(torch.randn(3, 3000, generator=torch.Generator().manual_seed(0)))
    zero = torch.zeros(3000)
    for variant in VARIANTS:
        parameters = {"density": 0.1, "variant": variant}
        forward = merged_one(tmp_path, "pcb", zero, taus, None, parameters)
        backward = merged_one(tmp_path, "pcb", zero, taus[::-1], None, parameters)
        assert (forward - backward).abs().max() <= 1e-6


def test_the_result_is_linear_in_the_strength(tmp_path) -> None:
    taus = list(torch.randn(2, 3000, generator=torch.Generator().manual_seed(0)))
    zero = torch.zeros(3000)
    one = merged_one(tmp_path, "pcb", zero, taus, None, {"lambda": 1.0})
    half = merged_one(tmp_path, "pcb", zero, taus, None, {"lambda": 0.5})
    assert (one * 0.5 - half).abs().max() <= 1e-7


# where the released code gives NaN or an index error


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("scope", ["model", "tensor"])
def test_an_expert_equal_to_the_base_takes_no_part(variant, scope, tmp_path) -> None:
    base = llama(0, layers=1, hidden=32, kv=16, inner=48)
    expert = tuned(base, 1, scale=0.05)
    parent = write_family(tmp_path, base, [expert, base])
    parameters = {"variant": variant, "scope": scope}
    with_base = merged(document("pcb", 2, parameters), parent, tmp_path / "two")
    alone = merged(document("pcb", 1, parameters), parent, tmp_path / "one")
    assert all(torch.equal(with_base[name], alone[name]) for name in alone)


@pytest.mark.parametrize("scope", ["model", "tensor"])
def test_experts_all_equal_to_the_base_give_the_base(scope, tmp_path) -> None:
    base = llama(0, layers=1)
    parent = write_family(tmp_path, base, [base, base])
    result = merged(document("pcb", 2, {"scope": scope}), parent, tmp_path / "out")
    assert all(torch.equal(result[name], base[name]) for name in base)


@pytest.mark.parametrize("variant", VARIANTS)
def test_exactly_opposite_experts_cancel(variant, tmp_path) -> None:
    tau = torch.randn(2000, generator=torch.Generator().manual_seed(0))
    parameters = {"variant": variant}
    for weights in (None, [1.2, 0.8]):
        change = merged_one(tmp_path, "pcb", torch.zeros(2000), [tau, -tau], weights, parameters)
        assert change.abs().max() == 0


@pytest.mark.parametrize("variant", VARIANTS)
def test_identical_experts_are_one_expert(variant, tmp_path) -> None:
    tau = torch.randn(2000, generator=torch.Generator().manual_seed(0))
    zero = torch.zeros(2000)
    parameters = {"variant": variant, "density": 0.1}
    one = merged_one(tmp_path, "pcb", zero, [tau], None, parameters)
    three = merged_one(tmp_path, "pcb", zero, [tau] * 3, None, parameters)
    both = (one != 0) & (three != 0)
    assert int(both.sum()) >= 198
    assert (one - three)[both].abs().max() <= 1e-6


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("size", [1, 2, 3, 10])
def test_tiny_models_merge(variant, size, tmp_path) -> None:
    generator = torch.Generator().manual_seed(size)
    taus = [torch.randn(size, generator=generator) for _ in range(2)]
    change = merged_one(tmp_path, "pcb", torch.zeros(size), taus, None, {"variant": variant})
    assert torch.isfinite(change).all()
    largest = max(tau.abs().max().item() for tau in taus)
    assert change.abs().max() <= largest


@pytest.mark.parametrize("variant", VARIANTS)
def test_a_constant_change_merges_to_itself(variant, tmp_path) -> None:
    delta = torch.full((500,), 0.25)
    change = merged_one(tmp_path, "pcb", torch.zeros(500), [delta] * 2, None, {"variant": variant})
    assert (change - 0.25).abs().max() <= 1e-6


@pytest.mark.parametrize("variant", VARIANTS)
def test_parameters_that_did_not_change_stay_as_they_are(variant, tmp_path) -> None:
    generator = torch.Generator().manual_seed(0)
    frozen = torch.rand(5000, generator=generator) < 0.9
    taus = [torch.where(frozen, 0.0, torch.randn(5000, generator=generator)) for _ in range(2)]
    parameters = {"variant": variant, "density": 0.2}
    change = merged_one(tmp_path, "pcb", torch.zeros(5000), taus, None, parameters)
    assert change[frozen].abs().max() == 0
    assert (change[~frozen] != 0).any()


def test_a_share_of_one_is_allowed(tmp_path) -> None:
    taus = list(torch.randn(2, 2000, generator=torch.Generator().manual_seed(0)))
    change = merged_one(tmp_path, "pcb", torch.zeros(2000), taus, None, {"density": 1.0})
    assert torch.isfinite(change).all()


@pytest.mark.parametrize(
    ("count", "clip", "ranks"),
    [(1000, 0.01, (10, 989)), (10_000, 1e-4, (1, 9998)), (2, 0.01, (0, 1)), (1, 0.01, (0, 0))],
)
def test_clip_ranks_and_rows_too_short_to_clip(count, clip, ranks) -> None:
    assert clip_ranks(count, clip) == ranks


@pytest.mark.parametrize(("count", "share", "rank"), [(100, 0.1, 90), (10, 0.1, 9), (3, 0.01, 2)])
def test_the_threshold_leaves_at_least_the_top_entry(count, share, rank) -> None:
    assert threshold_rank(count, share) == rank
