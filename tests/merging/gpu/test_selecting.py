"""Order statistics on a GPU are those of sorting, whatever a sample said. Where there is no GPU the
kernels are interpreted on the CPU."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from merging import recipe as recipes
from merging.engines.eager import Stream
from merging.engines.sources import KeptFamily, KeptTensor
from merging.errors import NonFinite
from merging.gpu import selecting, selection_kernels
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
    monkeypatch.setattr(selection_kernels, "BLOCK", 1 << 10)
    monkeypatch.setattr(selection_kernels, "BLOCKS", 2)


def tensors() -> list[KeptTensor]:
    """Three tensors, one stored otherwise; on a grid, so that many changes are equal."""
    generator = torch.Generator().manual_seed(5)
    made = []
    for size, types in ((5000, "F32 BF16 F16"), (2048, "F32 BF16 F16"), (700, "BF16 BF16 F32")):
        grid = [(torch.randn(size, generator=generator) * 8).round() / 16 for _ in range(3)]
        base, *others = grid
        models = [base, *(base + other for other in others)]
        names = tuple(types.split())
        stored = [m.to(TYPES[t]).to(DEVICE) for m, t in zip(models, names, strict=True)]
        made.append(KeptTensor(stored, tuple(m.data_ptr() for m in stored), names))
    return made


def deltas(kept: list[KeptTensor]) -> list[torch.Tensor]:
    rows = [[m.float() - t.models[0].float() for m in t.models[1:]] for t in kept]
    return [torch.cat(row).cpu() for row in zip(*rows, strict=True)]


RANKS = [0, 77, 3874, 7670, 7747]


def test_magnitudes_are_those_of_sorting() -> None:
    kept = tensors()
    expected = [row.abs().sort().values[RANKS].tolist() for row in deltas(kept)]
    assert Population(kept).magnitudes_at(RANKS) == expected


@pytest.mark.parametrize("variant", ["pairwise", "reference", "vision"])
def test_scores_are_those_of_sorting(variant: str) -> None:
    kept = tensors()
    game = Competition((), variant, (0, 1), (Bounds(0.0625, 1.0), Bounds(0.0, 1.25)))
    scores = competitions.scores(deltas(kept), game.bounds, variant)
    expected = [row.sort().values[RANKS[1:]].tolist() for row in scores]
    assert Population(kept).scores_at(RANKS[1:], game) == expected


@pytest.mark.parametrize("seen", [0.0, 0.5, 1e9])
def test_a_sample_that_misleads_changes_nothing(seen: float, monkeypatch) -> None:
    kept = tensors()
    population = Population(kept)
    monkeypatch.setattr(Population, "_sample", torch.full((2, 500), seen, device=DEVICE))
    monkeypatch.setattr(selecting, "_PART", 1)  # lists are too short at first
    expected = [row.abs().sort().values[RANKS].tolist() for row in deltas(kept)]
    assert population.magnitudes_at(RANKS) == expected


def test_magnitudes_are_looked_for_once(monkeypatch) -> None:
    population = Population(tensors())
    found = population.magnitudes_at([5, 9])
    monkeypatch.setattr(population, "_look", None)
    assert population.magnitudes_at([5, 9]) == found


def test_a_bracket_ends_at_sampled_keys() -> None:
    ordered = torch.arange(0, 1000, dtype=torch.int32).repeat(2, 1)
    bounds, room = bracketed(ordered, 10_000, [4_999, 0], 1.0)
    # the middle of 1000 by one standard error, sqrt(250), and two more; nothing is below the first
    assert bounds.tolist() == [[[482, 518], [-(1 << 31) + 1, 3]]] * 2
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
