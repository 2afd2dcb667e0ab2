"""Predictions from sketches against what pruning really keeps."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from merging import demo
from merging import recipe as recipes
from merging.checkpoints import Family, open_checkpoint, open_family, resolve
from merging.engines.eager import Stream
from merging.errors import RecipeError
from merging.evidence.outliers import measure_outliers
from merging.recipe import Recipe
from merging.run.lowering import lower
from merging.sketches.plan import drops_ties, offsets, plan
from merging.sketches.scan import scan
from merging.sketches.sketch import FamilySketch
from tests.families import document, llama, small_family, tuned, write_family

LARGE = 4096  # entries from which on one more or less is no matter


def family_of(parent: Path, experts: int = 2) -> Family:
    root = open_checkpoint(parent / "base", "base")
    names = [f"expert{i}" for i in range(experts)]
    return open_family(root, [open_checkpoint(parent / name, name) for name in names])


@pytest.fixture(scope="module")
def families(tmp_path_factory) -> dict[str, tuple[Family, FamilySketch]]:
    parent = tmp_path_factory.mktemp("plan")
    sizes = {"layers": 2, "hidden": 96, "kv": 48, "inner": 160, "vocab": 200}
    made = {
        "float32": family_of(small_family(parent / "float32", **sizes)),
        "bfloat16": family_of(small_family(parent / "bf16", **sizes, dtype=torch.bfloat16)),
        "built-in": open_family(
            open_checkpoint(resolve("demo:base"), "demo:base"),
            [open_checkpoint(resolve(f"demo:{n}"), f"demo:{n}") for n in demo.DOMAINS[:2]],
        ),
    }
    return {name: (family, scan(family)) for name, family in made.items()}


def pruning(prune: str, density: object, partitions: int, **parameters: object) -> Recipe:
    """A recipe whose k-th ring is scaled by k, so that its entries can be told."""
    factors = [float(k + 1) for k in range(partitions)]
    values = {"prune": prune, "density": density, "amplification": factors, **parameters}
    return recipes.from_mapping(document("task_arithmetic", 2, values))


def exact_shares(recipe: Recipe, family: Family) -> np.ndarray:
    """(3, E, T, K): shares of entries, L1 and L2 that each ring keeps, from pruned deltas."""
    stream = Stream(family)
    lowered = lower(recipe, stream)
    shares = np.zeros((3, len(family.experts), len(family.merged), recipe.partitions))
    for column, reader in enumerate(stream.readers()):
        decisions = lowered.prune(reader).decisions
        deltas = reader.deltas(0, reader.numel)
        for row, after in enumerate(reader.pruned(decisions, 0, reader.numel)):
            before, after = deltas[row].double().numpy(), after.double().numpy()
            ring = np.zeros(before.size)
            np.divide(after, before, out=ring, where=before != 0)
            for k in range(recipe.partitions):
                chosen = abs(before[np.rint(ring) == k + 1])
                for power in range(3):
                    total = (abs(before) ** power).sum()
                    shares[power, row, column, k] = (chosen**power).sum() / max(total, 1e-300)
    return shares


def error(recipe: Recipe, family: Family, sketch: FamilySketch) -> tuple[float, float]:
    """Largest difference, in percentage points: of a ring, and of all rings together."""
    planned = plan(recipe, sketch)
    predicted = np.stack([planned.entries, planned.l1, planned.l2])
    real = exact_shares(recipe, family)
    chosen = (sketch.numel >= LARGE) & planned.pruned
    rings = abs(predicted - real)[:, :, chosen].max()
    together = abs(predicted.sum(axis=3) - real.sum(axis=3))[:, :, chosen].max()
    return 100 * rings, 100 * together


@pytest.mark.parametrize("kind", ["float32", "bfloat16"])
@pytest.mark.parametrize("partitions", range(1, 9))
def test_magnitude_pruning_is_predicted_within_a_fifth_of_a_point(
    kind: str, partitions: int, families
) -> None:
    family, sketch = families[kind]
    for density in (0.05, 0.2, 0.6):
        rings, together = error(pruning("magnitude", density, partitions), family, sketch)
        assert rings <= 0.2
        assert together <= 0.2


@pytest.mark.parametrize("partitions", [1, 8])
def test_magnitude_pruning_of_the_built_in_family_is_predicted_as_well(
    partitions: int, families
) -> None:
    family, sketch = families["built-in"]
    rings, together = error(pruning("magnitude", 0.2, partitions), family, sketch)
    assert rings <= 0.2
    assert together <= 0.2


@pytest.mark.parametrize("kind", ["float32", "bfloat16"])
@pytest.mark.parametrize("partitions", range(1, 9))
def test_dynamic_pruning_is_predicted_within_a_fifth_of_a_point(
    kind: str, partitions: int, families
) -> None:
    family, sketch = families[kind]
    for density in (0.05, 0.2, 0.6):
        rings, together = error(pruning("dynamic", density, partitions), family, sketch)
        assert rings <= 0.2
        assert together <= 0.2


@pytest.mark.parametrize(
    ("partitions", "density"), [(1, 0.05), (1, 0.5), (4, 0.2), (8, 0.05), (8, 0.5)]
)
def test_dynamic_pruning_of_the_built_in_family_is_predicted_as_well(
    partitions: int, density: float, families
) -> None:
    family, sketch = families["built-in"]
    rings, together = error(pruning("dynamic", density, partitions), family, sketch)
    assert rings <= 0.2
    assert together <= 0.2


@pytest.mark.parametrize(
    ("kind", "density"), [("float32", 0.05), ("float32", 0.2), ("float32", 0.6), ("built-in", 0.2)]
)
def test_one_cut_over_the_model_is_predicted_within_a_quarter_of_a_point(
    kind, density, families
) -> None:
    family, sketch = families[kind]
    for partitions in (1, 3):
        recipe = pruning("magnitude", density, partitions, scope="model")
        rings, together = error(recipe, family, sketch)
        assert rings <= 0.5  # the tensors are small: half a point is 40 entries
        assert together <= 0.25


def test_random_pruning_keeps_its_density(families) -> None:
    _, sketch = families["bfloat16"]
    recipe = recipes.from_mapping(document("dare_linear", 2, {"density": 0.3}))
    planned = plan(recipe, sketch)
    for shares in (planned.entries, planned.l1, planned.l2):
        assert np.allclose(shares, 0.3)
    assert planned.summary["l2"] == pytest.approx(0.3)
    assert set(planned.causes.values()) == {0.0}


def test_without_pruning_everything_is_kept(families) -> None:
    _, sketch = families["float32"]
    planned = plan(recipes.from_mapping(document("task_arithmetic", 2)), sketch)
    assert not planned.pruned.any()
    assert np.allclose(planned.entries, 1.0)
    assert planned.summary["entries"] == 1.0


@pytest.mark.parametrize("prune", ["magnitude", "dynamic"])
@pytest.mark.parametrize(("density", "share"), [(0.0, 0.0), (1.0, 1.0)])
def test_the_ends_of_the_density_are_exact(prune, density, share, families) -> None:
    _, sketch = families["bfloat16"]
    extra = {"density_shift": 0.0} if prune == "dynamic" else {}
    planned = plan(pruning(prune, density, 1, **extra), sketch)
    for shares in (planned.entries, planned.l1, planned.l2):
        assert np.allclose(shares[:, planned.pruned], share)


def test_linears_alone_are_pruned_dynamically(families) -> None:
    _, sketch = families["float32"]
    planned = plan(pruning("dynamic", 0.2, 2), sketch)
    assert planned.pruned.tolist() == [tensor.is_linear for tensor in sketch.tensors]
    assert np.allclose(planned.entries.sum(axis=2)[:, ~planned.pruned], 1.0)


def test_dynamic_densities_are_those_of_the_merge(families) -> None:
    for kind in ("float32", "bfloat16"):
        family, sketch = families[kind]
        outliers = measure_outliers(Stream(family), layer_outlier=3.0, linear_outlier=5.0)
        places = {entry.name: index for index, entry in enumerate(outliers.linears)}
        for row, measured in enumerate(outliers.offsets):
            layer, linear = offsets(sketch, row)
            for column, tensor in enumerate(sketch.tensors):
                if tensor.is_linear:
                    place = places[tensor.name]
                    expected = measured[0][place], measured[1][place]
                    assert (layer[column], linear[column]) == pytest.approx(expected, abs=1e-9)


def test_densities_outside_the_range_are_warned_of(families) -> None:
    _, sketch = families["float32"]
    low = {"density_shift": 0.2, "tie_rule": "drop"}
    planned = plan(pruning("dynamic", 0.02, 1, **low), sketch)
    assert any("below 0 or above 1" in warning for warning in planned.warnings)
    assert planned.density.min() == 0.0
    assert plan(pruning("magnitude", 0.02, 1), sketch).warnings == ()


def test_densities_follow_gradients(families) -> None:
    _, sketch = families["float32"]
    planned = plan(pruning("magnitude", [0.1, 0.5], 1), sketch)
    for column, tensor in enumerate(sketch.tensors):
        assert planned.density[0, column, 0] == (0.5 if tensor.layer == 1 else 0.1)


def test_experts_with_fewer_partitions_keep_their_share(families) -> None:
    _, sketch = families["float32"]
    models = [{"amplification": [2.0, 1.0, 0.5]}, {"amplification": [1.0]}]
    planned = plan(recipes.from_mapping(document("magnitude", models, {"density": 0.3})), sketch)
    assert planned.entries.shape[2] == 3
    totals = planned.entries.sum(axis=2)[:, sketch.numel >= LARGE]
    assert np.allclose(totals, 0.3, atol=0.001)


def test_unchanged_tensors_and_tiny_ones_are_planned(tmp_path) -> None:
    base = llama(0, layers=1, hidden=16, kv=8, inner=24, vocab=16)
    base |= {"scale": torch.tensor(1.0), "none": torch.empty(0, 2)}
    expert = tuned(base, 1)
    expert["lm_head.weight"] = base["lm_head.weight"]
    sketch = scan(family_of(write_family(tmp_path, base, [expert, base])))
    for prune in ("none", "random", "magnitude", "dynamic"):
        parameters = {"prune": prune} if prune == "none" else {"prune": prune, "density": 0.3}
        planned = plan(recipes.from_mapping(document("task_arithmetic", 2, parameters)), sketch)
        for shares in (planned.entries, planned.l1, planned.l2):
            assert np.isfinite(shares).all()
            assert shares.min() >= 0.0
            assert shares.sum(axis=2).max() <= 1.0 + 1e-9


def test_the_clash_is_the_share_of_kept_changes_that_are_opposed(families) -> None:
    family, sketch = families["float32"]
    recipe = pruning("magnitude", 0.3, 1)
    stream = Stream(family)
    lowered = lower(recipe, stream)
    opposed = count = 0
    for reader in stream.readers():
        first, second = reader.pruned(lowered.prune(reader).decisions, 0, reader.numel)
        opposed += 2 * int((first * second < 0).sum())
        count += int((first != 0).sum() + (second != 0).sum())
    assert plan(recipe, sketch).summary["clash"] == pytest.approx(opposed / count, abs=0.01)


def test_the_worst_layer_keeps_the_least(tmp_path) -> None:
    base = llama(0)
    expert = tuned(base, 1)
    for name in base:
        if "layers.1." in name and "_proj" in name:  # even changes: the largest hold little
            generator = torch.Generator().manual_seed(1)
            sign = torch.randn(base[name].shape, generator=generator).sign()
            expert[name] = base[name] + 1e-3 * sign
    sketch = scan(family_of(write_family(tmp_path, base, [expert, expert])))
    layer, share = plan(pruning("magnitude", 0.2, 1), sketch).worst_layer
    assert layer == 1
    assert share == pytest.approx(0.2, abs=0.01)  # of changes that are all equal


def test_another_number_of_experts_is_refused(families) -> None:
    _, sketch = families["float32"]
    with pytest.raises(RecipeError, match="3 experts"):
        plan(recipes.from_mapping(document("ties", 3)), sketch)


@pytest.mark.parametrize("multiples", [(2.0, 3.0), (4.0, 6.0)])
def test_other_outlier_multiples_are_exact_once_scanned_and_estimates_before(
    multiples, families
) -> None:
    family, sketch = families["built-in"]
    layer_outlier, linear_outlier = multiples
    values = {"layer_outlier": layer_outlier, "linear_outlier": linear_outlier}
    recipe = pruning("dynamic", 0.2, 2, **values)
    assert any("estimates" in warning for warning in plan(recipe, sketch).warnings)
    scanned = scan(family, layer_outlier=layer_outlier, linear_outlier=linear_outlier)
    assert not any("estimates" in warning for warning in plan(recipe, scanned).warnings)
    rings, together = error(recipe, family, scanned)
    assert rings <= 0.2
    assert together <= 0.2
    moved = offsets(sketch, 0, *multiples)[1] - offsets(sketch, 0)[1]
    assert np.abs(moved).max() > 0.05  # the knob does something even before


def tied_family(parent: Path, seed: int, scale: float, dtype: torch.dtype) -> Family:
    """Two experts whose changes are few units of the base's last place where `dtype` is short, with
    a scalar and an empty tensor beside the matrices."""
    base = llama(seed, layers=2, hidden=32, kv=16, inner=48, vocab=24)
    base |= {"model.layers.0.none.weight": torch.empty(0, 8)}
    models = [base, *(tuned(base, 10 * seed + i, scale=scale) for i in range(2))]
    models = [model | {"scale": torch.tensor(1.0 + i)} for i, model in enumerate(models)]
    cast = [{name: tensor.to(dtype) for name, tensor in model.items()} for model in models]
    return family_of(write_family(parent, cast[0], cast[1:]))


def random_recipes(random: np.random.Generator, count: int) -> list[Recipe]:
    """Recipes that prune by magnitude, with tiny densities, rings of factor 0 and weights of 0."""
    made = []
    for _ in range(count):
        prune = str(random.choice(["magnitude", "magnitude", "dynamic"]))
        models = [
            {
                "density": float(random.choice([1e-6, 1e-3, 0.05, 0.3, 0.7, 0.95])),
                "weight": float(random.choice([0.0, 1.0, -1.0])),
                "amplification": random.choice([0.0, 1.0, 2.0], random.integers(1, 6)).tolist(),
            }
            for _ in range(2)
        ]
        knob, choices = (
            ("scope", ["tensor", "model"])
            if prune == "magnitude"
            else ("tie_rule", ["spread", "drop"])
        )
        values = {"prune": prune, knob: str(random.choice(choices))}
        made.append(recipes.from_mapping(document("task_arithmetic", models, values)))
    return made


def remains_of(recipe: Recipe, family: Family) -> tuple[np.ndarray, np.ndarray]:
    """(E, T) each: entries that the torch engine leaves a change, and the energy they had."""
    stream = Stream(family)
    lowered = lower(recipe, stream)
    counts = np.zeros((len(family.experts), len(family.merged)), dtype=np.int64)
    energy = np.zeros(counts.shape)
    for column, reader in enumerate(stream.readers()):
        if reader.numel == 0:
            continue
        before = reader.deltas(0, reader.numel)
        for row, after in enumerate(
            reader.pruned(lowered.prune(reader).decisions, 0, reader.numel)
        ):
            counts[row, column] = int((after != 0).sum())
            energy[row, column] = float((before[row].double()[after != 0] ** 2).sum())
    return counts, energy


@pytest.mark.parametrize(
    ("seed", "scale", "dtype"),
    [(1, 1e-3, torch.float32), (2, 1e-3, torch.bfloat16), (3, 1e-4, torch.bfloat16)],
)
def test_a_merge_keeps_the_entries_and_the_energy_that_were_planned(
    seed: int, scale: float, dtype: torch.dtype, tmp_path: Path
) -> None:
    family = tied_family(tmp_path, seed, scale, dtype)
    sketch = scan(family)
    energy = sketch.l2.sum(axis=2)
    for recipe in random_recipes(np.random.default_rng(seed), 8):
        planned = plan(recipe, sketch)
        counts, energies = remains_of(recipe, family)
        entries = planned.retention("entries") * sketch.numel
        pruned = planned.pruned
        if recipe.parameters.get("scope") == "model":  # one cut: exact over all tensors
            assert entries.sum(axis=1) == pytest.approx(counts.sum(axis=1), abs=1e-6)
        elif not drops_ties(recipe):
            assert entries[:, pruned] == pytest.approx(counts[:, pruned], abs=1e-6)
        chosen = pruned & (planned.weight != 0)
        size = np.broadcast_to(sketch.numel, chosen.shape)[chosen].sum()
        if not size:
            continue
        assert planned.summary["entries"] == pytest.approx(counts[chosen].sum() / size, abs=0.002)
        share = energies[chosen].sum() / energy[chosen].sum()
        assert planned.summary["l2"] == pytest.approx(share, abs=0.004)
        difference = planned.summary["entries"] - planned.summary["asked"]
        assert sum(planned.causes.values()) == pytest.approx(difference, abs=1e-9)


def test_a_tiny_density_over_the_model_keeps_one_entry_as_the_merge_does(families) -> None:
    family, sketch = families["float32"]
    recipe = pruning("magnitude", 1e-9, 1, scope="model")
    assert remains_of(recipe, family)[0].sum(axis=1).tolist() == [1, 1]
    entries = plan(recipe, sketch).retention("entries") * sketch.numel
    assert entries.sum(axis=1) == pytest.approx([1, 1])


def test_one_cut_over_the_model_needs_one_density_in_the_plan_too(families) -> None:
    _, sketch = families["float32"]
    with pytest.raises(RecipeError, match="one density"):
        plan(pruning("magnitude", [0.1, 0.5], 1, scope="model"), sketch)


def test_what_a_ring_of_factor_0_holds_is_not_kept(tmp_path) -> None:
    base = {"model.layers.0.mlp.up_proj.weight": torch.zeros(2, 5)}
    name = next(iter(base))
    expert = {name: torch.arange(1.0, 11.0).reshape(2, 5)}
    sketch = scan(family_of(write_family(tmp_path, base, [expert, expert])))
    values = {"density": 0.4, "amplification": [0.0, 1.5]}
    planned = plan(recipes.from_mapping(document("magnitude", 2, values)), sketch)
    # of 1..10 the rings hold 10, 9 and 8, 7; the first is dropped: 64 + 49 of 385 is left
    assert planned.summary["asked"] == 0.4
    assert planned.summary["entries"] == pytest.approx(0.2)
    assert planned.summary["l1"] == pytest.approx(15 / 55, rel=0.01)
    assert planned.summary["l2"] == pytest.approx(113 / 385, rel=0.01)
    assert planned.summary["amplified"] == pytest.approx(1.5**2 * 113 / 385, rel=0.01)
    assert planned.causes["amplification"] == pytest.approx(-0.2)
    assert planned.worst_layer == (0, pytest.approx(113 / 385, rel=0.01))


def test_clashes_of_a_random_draw_are_weighed_by_how_likely_both_are_kept(tmp_path) -> None:
    name = "model.layers.0.mlp.up_proj.weight"
    base = {name: torch.zeros(8, 8)}
    parent = write_family(tmp_path, base, [{name: torch.ones(8, 8)}] * 3)
    signs = np.array([[1, 1, 1, -1], [1, -1, 1, 0], [-1, 0, 1, 0]], dtype=np.float32)
    sketch = replace(
        scan(family_of(parent, experts=3)), sample=signs, sample_tensor=np.zeros(4, dtype=np.int64)
    )
    densities = [{"density": share} for share in (0.5, 0.25, 1.0)]
    summary = plan(recipes.from_mapping(document("dare_ties", densities)), sketch).summary
    # kept: 0.5 + 0.25 + 1, 0.5 + 0.25, 0.5 + 0.25 + 1, 0.5
    assert summary["sampled"] == pytest.approx(4.75)
    # place 0: 0.5 + 0.25 (the third is always kept), and 1 - 0.5 * 0.75; place 1: 0.5 * 0.25 twice
    assert summary["clash"] == pytest.approx((0.5 + 0.25 + 0.625 + 2 * 0.125) / 4.75)
    # another that is kept has the other sign half the time: places 0 and 2 alike, and place 1
    alike = 0.5 * (1 - 0.875 * 0.5) + 0.25 * (1 - 0.75 * 0.5) + (1 - 0.75 * 0.875)
    assert summary["chance"] == pytest.approx((2 * alike + 0.5 * 0.125 + 0.25 * 0.25) / 4.75)
