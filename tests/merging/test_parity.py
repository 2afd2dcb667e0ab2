"""Merges held against the outputs of the authors' own code and of mergekit 0.1.5."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from merging import recipe as recipes
from merging.run.merge import merge

DATA = Path(__file__).parents[1] / "data"
MERGEKIT_FAMILIES = ("llama_untied_f32", "mistral_f16", "qwen2_tied_bf16")


def run(text: str | dict, folder: Path, out: Path) -> dict[str, torch.Tensor]:
    recipe = (
        recipes.parse(text, folder) if isinstance(text, str) else recipes.from_mapping(text, folder)
    )
    merge(recipe, out, device="cpu")
    return load_file(out / "model.safetensors")


def largest_difference(ours: dict, theirs: dict) -> float:
    assert set(ours) == set(theirs)
    return max((ours[k].double() - theirs[k].double()).abs().max().item() for k in theirs)


@pytest.mark.parametrize("name", ["linear", "task_arithmetic", "ties_norm_d20", "ties_sum_d50"])
def test_float32_merges_equal_mergekit(name: str, tmp_path: Path) -> None:
    family = DATA / "mergekit" / "llama_untied_f32"
    ours = run((family / f"{name}.yml").read_text(), family, tmp_path / "out")
    assert largest_difference(ours, load_file(family / f"{name}.safetensors")) <= 2e-6


def exact(text: str, folder: Path) -> dict[str, torch.Tensor]:
    """The formula of `linear` or `task_arithmetic` in float64, unrounded."""
    recipe = recipes.parse(text, folder)
    base = load_file(folder / recipe.base / "model.safetensors")
    tunes = [load_file(folder / source.model / "model.safetensors") for source in recipe.sources]
    weights = [source.weight.constant for source in recipe.sources]
    total = sum(weights) if recipe.consensus == "mean" else 1.0
    result = {}
    for key, tensor in base.items():
        start = tensor.double()
        changes = (w * (t[key].double() - start) for w, t in zip(weights, tunes, strict=True))
        result[key] = start + recipe.strength.constant * sum(changes) / total
    return result


def spacing(values: torch.Tensor) -> torch.Tensor:
    """Distance from each value to the next larger one of its type, float64."""
    above = torch.nextafter(values.abs(), torch.full_like(values, torch.inf))
    return above.double() - values.abs().double()


@pytest.mark.parametrize("family", MERGEKIT_FAMILIES[1:])
@pytest.mark.parametrize("name", ["linear", "task_arithmetic"])
def test_half_precision_merges_are_rounded_once_and_never_further_off_than_mergekit(
    family: str, name: str, tmp_path: Path
) -> None:
    folder = DATA / "mergekit" / family
    text = (folder / f"{name}.yml").read_text()
    ours = run(text, folder, tmp_path / "out")
    theirs = load_file(folder / f"{name}.safetensors")
    formula = exact(text, folder)
    assert set(ours) == set(theirs)
    for key, value in theirs.items():
        assert ours[key].dtype == value.dtype
        error = (ours[key].double() - formula[key]).abs()
        noise = 1e-6 * formula[key].abs() + 1e-9  # float32 arithmetic before the rounding
        assert (error <= 0.5 * spacing(ours[key]) + noise).all(), key
        assert (error <= (value.double() - formula[key]).abs() + noise).all(), key


@pytest.mark.parametrize("expert", [0, 1])
@pytest.mark.parametrize("sparsity", ["0.9", "0.8", "0.5"])
def test_dynamic_pruning_masks_equal_the_authors_bit_for_bit(
    expert: int, sparsity: str, reference_family, tmp_path: Path
) -> None:
    parent = reference_family("dppa")
    text = {
        "merge_method": "dppa",
        "base_model": "base",
        "models": [{"model": f"expert{expert}"}],
        "parameters": {
            "density": round(1 - float(sparsity), 3),
            "amplification": [1.0],
            "density_shift": 0.08,
            "linear_outlier": 5.0,
            "tie_rule": "drop",
        },
    }
    merged = run(text, parent, tmp_path / "out")
    base = load_file(parent / "base" / "model.safetensors")
    tuned = load_file(parent / f"expert{expert}" / "model.safetensors")
    packed = load_file(DATA / "dppa" / f"expert{expert}_dp_masks_packed.safetensors")
    checked = 0
    for key, bits in packed.items():
        rate, name = key.split("/", 1)
        if rate != sparsity:
            continue
        delta = tuned[name] - base[name]
        mask = np.unpackbits(bits.numpy(), bitorder="little")[: delta.numel()]
        expected = base[name] + delta * torch.from_numpy(mask).reshape(delta.shape)
        assert torch.equal(merged[name], expected), name
        checked += 1
    assert checked == 21


@pytest.mark.parametrize("factors", [(1.8, 1.0), (2.1, 0.4)])
def test_amplified_deltas_equal_the_authors(
    factors: tuple[float, float], reference_family, tmp_path: Path
) -> None:
    parent = reference_family("dppa")
    text = {
        "merge_method": "dppa",
        "base_model": "base",
        "models": [{"model": "expert0", "parameters": {"density": 0.2}}],
        "parameters": {
            "amplification": list(factors),
            "partition_mode": "max",
            "scale_dense": "max",
            "tie_rule": "drop",
        },
    }
    merged = run(text, parent, tmp_path / "out")
    base = load_file(parent / "base" / "model.safetensors")
    offsets = load_file(DATA / "dppa" / f"expert0_amp_n{factors[0]}_e{factors[1]}.safetensors")
    for name, offset in offsets.items():
        assert (merged[name] - base[name] - offset).abs().max() <= 2e-6, name


@pytest.mark.parametrize(
    ("variant", "letter"), [("reference", "A"), ("nlp", "B"), ("vision", "C"), ("pairwise", "D")]
)
@pytest.mark.parametrize("chunk", [1 << 20, 4096])
def test_pcb_equals_the_authors(
    variant: str, letter: str, chunk: int, reference_family, tmp_path: Path
) -> None:
    parent = reference_family("pcb")
    keys = json.loads((DATA / "pcb" / "manifest.json").read_text())["sorted_keys"]
    base = load_file(parent / "base" / "model.safetensors")
    for key, expected in load_file(DATA / "pcb" / f"merged_{letter}.safetensors").items():
        ratio, strengths = key.split("/")
        weights = [float(w) for w in strengths.removeprefix("l").split("_")]
        weights = weights * 3 if len(weights) == 1 else weights
        text = {
            "merge_method": "pcb",
            "base_model": "base",
            "models": [
                {"model": f"expert{i}", "parameters": {"weight": w}} for i, w in enumerate(weights)
            ],
            "parameters": {"density": float(ratio.removeprefix("r")), "variant": variant},
        }
        out = tmp_path / key.replace("/", "_")
        merge(recipes.from_mapping(text, parent), out, device="cpu", chunk=chunk)
        merged = load_file(out / "model.safetensors")
        flat = torch.cat([(merged[k] - base[k]).reshape(-1) for k in keys])
        assert (flat - expected).abs().max() <= 1e-6
