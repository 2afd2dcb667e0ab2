"""Order statistics on a GPU are those of sorting, whatever a sample said. Where there is no GPU the
kernels are interpreted on the CPU."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from merging import recipe as recipes
from merging.engines.eager import Stream
from merging.engines.sources import KeptFamily
from merging.errors import NonFinite
from merging.gpu import selecting, selection_kernels, sifting_kernels
from merging.gpu.competition_kernels import SHORT_TANH
from merging.gpu.selecting import Population, bracketed
from merging.gpu.stream import KernelStream
from merging.instructions import Bounds, Competition, competitions
from merging.run.lowering import lower
from merging.run.preflight import open_recipe

CUDA = torch.cuda.is_available()
DEVICE = "cuda" if CUDA else "cpu"
TYPES = {"F32": torch.float32, "BF16": torch.bfloat16, "F16": torch.float16}


@pytest.fixture(autouse=not CUDA)
def few_programs(monkeypatch) -> None:
    """Interpreting takes time by the program, not by the element."""
    for kernels in (selection_kernels, sifting_kernels):
        monkeypatch.setattr(kernels, "BLOCK", 1 << 10)
        monkeypatch.setattr(kernels, "BLOCKS", 2)
    monkeypatch.setattr(sifting_kernels, "WEIGHED", 1 << 10)


class Held(NamedTuple):
    """As a `KeptTensor`."""

    models: list[torch.Tensor]
    types: tuple[str, ...]


def tensors() -> list[Held]:
    """Three tensors, one stored otherwise; on a grid, so that many changes are equal."""
    generator = torch.Generator().manual_seed(5)
    made = []
    for size, types in ((5000, "F32 BF16 F16"), (2048, "F32 BF16 F16"), (700, "BF16 BF16 F32")):
        grid = [(torch.randn(size, generator=generator) * 8).round() / 16 for _ in range(3)]
        base, *others = grid
        models = [base, *(base + other for other in others)]
        names = tuple(types.split())
        stored = [m.to(TYPES[t]).to(DEVICE) for m, t in zip(models, names, strict=True)]
        made.append(Held(stored, names))
    return made


def deltas(kept: list[Held]) -> list[torch.Tensor]:
    rows = [[m.float() - t.models[0].float() for m in t.models[1:]] for t in kept]
    return [torch.cat(row).cpu() for row in zip(*rows, strict=True)]


RANKS = [0, 77, 3874, 7670, 7747]
GAME = Competition((), "pairwise", (0, 1), (Bounds(0.0625, 1.0), Bounds(0.0, 1.25)))


def test_magnitudes_are_those_of_sorting() -> None:
    kept = tensors()
    expected = [row.abs().sort().values[RANKS].tolist() for row in deltas(kept)]
    assert Population(kept).magnitudes_at(RANKS) == expected


@pytest.mark.parametrize("variant", ["pairwise", "reference", "vision"])
def test_scores_are_those_of_sorting(variant: str) -> None:
    kept = tensors()
    game = replace(GAME, variant=variant)
    scores = competitions.scores(deltas(kept), game.bounds, variant)
    expected = [row.sort().values[RANKS].tolist() for row in scores]
    assert Population(kept).scores_at(RANKS, game) == expected


@pytest.mark.parametrize("variant", ["pairwise", "reference", "vision"])
@pytest.mark.parametrize("experts", [1, 3, 16])
def test_scores_lie_well_inside_what_is_granted_to_rough_ones(variant: str, experts: int) -> None:
    """Against their formula in float64; a GPU's quick steps are wrong by as little."""
    taus = torch.randn(experts, 2000, generator=torch.Generator().manual_seed(experts))
    bounds = [Bounds(0.01, 2.0)] * experts
    signed = [
        taus[i].sign() * (taus[i].double().abs().clamp(0.01, 2) - 0.01) / 1.99
        for i in range(experts)
    ]
    if variant == "pairwise":
        agreed = [sum((v * other).tanh() for other in signed) for v in signed]
        own, most = signed, sum(v.abs() for v in signed)
    else:
        added = signed if variant == "vision" else list(taus.double())
        agreed = [(tau * sum(added)).tanh() for tau in taus.double()]
        own, most = list(taus.double()), sum(v.abs() for v in added)
    found = competitions.scores(list(taus), bounds, variant)
    for score, v, inter, mine in zip(found, signed, agreed, own, strict=True):
        weight = (experts * v * v).exp()
        granted = weight * mine.abs() * most * 2.0**-14
        assert bool(((score - weight * inter).abs() <= granted).all())


def test_the_short_tanh_is_near() -> None:
    """By 2**-17.1 of its value, on all that a product of normalized changes can be."""
    x = np.linspace(1e-6, 1.0, 100_001)
    short = np.polynomial.polynomial.polyval(x * x, SHORT_TANH) * x
    assert abs(short / np.tanh(x) - 1).max() < 2.0**-17


def test_a_crowd_of_zeros_is_counted() -> None:
    values = torch.tensor([0.5, -1.0, -2.0, 0.25])
    found = [selecting._nth_largest(values, 3, place)[0].item() for place in range(7)]
    assert found == [0.5, 0.25, 0.0, 0.0, 0.0, -1.0, -2.0]
    assert [selecting._nth_largest(values, 0, place)[0].item() for place in (1, 2)] == [0.25, -1.0]


@pytest.mark.parametrize("seen", [0.5, 1e9])
def test_a_sample_that_misleads_changes_nothing(seen: float, monkeypatch) -> None:
    kept = tensors()
    population = Population(kept)
    monkeypatch.setattr(Population, "_sample", torch.full((2, 500), seen, device=DEVICE))
    monkeypatch.setattr(selecting, "_PART", 1)  # lists are too short at first
    expected = [row.abs().sort().values[RANKS].tolist() for row in deltas(kept)]
    assert population.magnitudes_at(RANKS) == expected
    scores = competitions.scores(deltas(kept), GAME.bounds, GAME.variant)
    expected = [row.sort().values[[3874]].tolist() for row in scores]
    assert population.scores_at([3874], GAME) == expected


def test_magnitudes_are_looked_for_once(monkeypatch) -> None:
    population = Population(tensors())
    found = population.magnitudes_at([5, 9])
    monkeypatch.setattr(population, "_count", None)
    assert population.magnitudes_at([5, 9]) == found


def test_a_bracket_ends_at_sampled_keys() -> None:
    ordered = torch.arange(0, 1000, dtype=torch.int32).repeat(2, 1)
    bounds, room = bracketed(ordered, 10_000, [4_999, 0], 1.0, (-5, 2000))
    # the middle of 1000 by one standard error, sqrt(250), and two more; nothing is below the first
    assert bounds.tolist() == [[[482, 518], [-5, 3]]] * 2
    assert room == 2 * 36 * 10 // selecting.BUCKETS + selecting._PART


@pytest.mark.parametrize("value", [torch.nan, torch.inf, -torch.inf])
def test_what_is_not_finite_is_refused(value: float) -> None:
    kept = tensors()
    kept[2].models[2][699] = value
    with pytest.raises(NonFinite):
        Population(kept).magnitudes_at([100])


@pytest.mark.parametrize("scope", ["model", "tensor"])
def test_a_kept_family_competes_as_torch_has_it(scope: str, tmp_path: Path) -> None:
    """One expert equals the base; one tensor has a single element, one none."""
    generator = torch.Generator().manual_seed(1)
    shapes = {"a": (40, 30), "b": (900,), "c": (1,), "d": (0,)}
    base = {name: torch.randn(shape, generator=generator) for name, shape in shapes.items()}
    for index in range(4):
        step = 0.1 * (index % 3)
        tensors = {n: t + step * torch.randn(t.shape, generator=generator) for n, t in base.items()}
        folder = tmp_path / ("base" if index == 0 else f"expert{index}")
        folder.mkdir()
        save_file(tensors, folder / "model.safetensors")
        (folder / "config.json").write_text('{"model_type": "llama"}')
    recipe = recipes.build(
        method="pcb", base="base", models=[(f"expert{i}", {}) for i in (1, 2, 3)],
        parameters={"scope": scope, "density": 0.2, "lambda": 0.9}, folder=tmp_path,
    )  # fmt: skip
    family = open_recipe(recipe)
    kept = KeptFamily(family, DEVICE)
    here, there = Stream(family), KernelStream(family, device=DEVICE, source=kept)
    expected, found = lower(recipe, here), lower(recipe, there)
    assert found == expected
    for entry in family.merged:
        assert found.decide(there.open(entry)) == expected.decide(here.open(entry))
