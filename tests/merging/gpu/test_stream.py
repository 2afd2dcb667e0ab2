"""A GPU's kernels write the bytes that torch writes on the CPU. Where there is no GPU they are
interpreted on the CPU."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from merging import recipe as recipes
from merging.checkpoints import Family
from merging.engines import sources
from merging.engines.eager import Stream
from merging.engines.sources import KeptFamily
from merging.errors import NonFinite
from merging.evidence.outliers import measure_outliers
from merging.gpu import (
    drawing_kernels,
    launching,
    order,
    ranking,
    table,
    triton_kernels,
    weighing_kernels,
)
from merging.gpu import stream as gpu
from merging.run.devices import engine_for
from merging.run.lowering import lower
from merging.run.merge import merge
from merging.run.preflight import open_recipe
from merging.selection.tied import STRIPES
from tests.engines import RECIPES, awkward, cut_exactly, digest, mixed_family, one_tensor

CUDA = torch.cuda.is_available()
DEVICE = "cuda" if CUDA else "cpu"
# interpreted kernels cut numbers off where a GPU rounds them to 16 bits, and take their time
OUTPUT = None if CUDA else "float32"
ENGINES = [gpu.KernelStream, Stream] if CUDA else [gpu.KernelStream]
FEW = (
    "linear_sum", "task_arithmetic_normalized", "ties", "magnitude_model", "dare_ties", "dppa",
    "pcb", "pcb_reference", "pcb_vision", "nearswap", "della", "della_probability",
    "sce", "sce_selected", "sce_weighed",
)  # fmt: skip


@pytest.fixture(autouse=not CUDA)
def few_programs(monkeypatch) -> None:
    """Interpreting takes time by the program, not by the element."""
    monkeypatch.setattr(triton_kernels, "BLOCK", 1 << 13)
    for kernels in (drawing_kernels, weighing_kernels):
        monkeypatch.setattr(kernels, "BLOCK", 1 << 13)
    monkeypatch.setattr(triton_kernels, "SETTLED", order.NEAR)
    monkeypatch.setattr(triton_kernels, "MENDED", order.NEAR)


@pytest.fixture(scope="module")
def family(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return mixed_family(tmp_path_factory.mktemp("kernels"))


@pytest.fixture(scope="module")
def few_tensors(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return mixed_family(tmp_path_factory.mktemp("few"), least=not CUDA)


def recipe_of(name: str, family: Path) -> recipes.Recipe:
    method, parameters = RECIPES[name]
    models = [(f"expert{i}", {}) for i in range(3)]
    return recipes.build(
        method=method, base="base", models=models, parameters=parameters, dtype=OUTPUT,
        folder=family,
    )  # fmt: skip


@pytest.mark.parametrize("kind", ENGINES, ids=lambda kind: kind.engine)
@pytest.mark.parametrize("name", RECIPES if CUDA else FEW)
def test_the_bytes_are_those_of_the_cpu(
    name: str, kind: type[Stream], few_tensors: Path, tmp_path: Path
) -> None:
    recipe = recipe_of(name, few_tensors)
    here = merge(recipe, tmp_path / "cpu", device="cpu", engine=Stream)
    result = merge(recipe, tmp_path / "there", device=DEVICE, engine=kind)
    assert (result.device, result.engine) == (DEVICE, kind.engine)
    assert result.retention == here.retention
    assert digest(tmp_path / "there") == digest(tmp_path / "cpu")


def test_draws_by_rank_of_more_experts_than_registers_hold(tmp_path: Path) -> None:
    generator = torch.Generator().manual_seed(9)
    count = drawing_kernels.HELD + 1
    for index in range(count + 1):
        step = (torch.randn(70, 90, generator=generator) * 9).round() / 512 * bool(index)
        folder = tmp_path / ("base" if index == 0 else f"expert{index}")
        folder.mkdir()
        save_file({"w": torch.ones(70, 90) + step}, folder / "model.safetensors")
        (folder / "config.json").write_text('{"model_type": "llama"}')
    recipe = recipes.build(
        method="della", base="base", models=[(f"expert{1 + i}", {}) for i in range(count)],
        parameters={"density": 0.4}, dtype=OUTPUT, folder=tmp_path,
    )  # fmt: skip
    merge(recipe, tmp_path / "cpu", device="cpu", engine=Stream)
    merge(recipe, tmp_path / "there", device=DEVICE, engine=gpu.KernelStream)
    assert digest(tmp_path / "there") == digest(tmp_path / "cpu")


def test_large_tensors_come_in_pieces(family: Path, tmp_path: Path, monkeypatch) -> None:
    recipe = recipe_of("ties", family)
    merge(recipe, tmp_path / "cpu", device="cpu")
    monkeypatch.setattr(sources, "fits", lambda *_: False)
    in_pieces = partial(gpu.KernelStream, resident=80_000)
    result = merge(recipe, tmp_path / "there", device=DEVICE, chunk=20_000, engine=in_pieces)
    assert result.device == DEVICE
    assert digest(tmp_path / "there") == digest(tmp_path / "cpu")


def test_a_kept_family_is_sorted_once_and_merged_again(few_tensors: Path, monkeypatch) -> None:
    opened = open_recipe(recipe_of("ties", few_tensors))
    kept = KeptFamily(opened, DEVICE)
    small = [entry for entry in opened.merged if entry.numel < 40_000]
    monkeypatch.setattr(order, "marks", _counted(order.marks))
    for name in ("ties", "ties_weights"):
        _merge_on_device(recipe_of(name, few_tensors), opened, kept, small)
    assert order.marks.calls == 3 * len(small)


def test_a_kept_family_is_ranked_once_and_drawn_by_kernels(few_tensors: Path, monkeypatch) -> None:
    opened = open_recipe(recipe_of("della", few_tensors))
    kept = KeptFamily(opened, DEVICE)
    small = [entry for entry in opened.merged if entry.numel < 40_000]
    types = {entry.name: "F32" for entry in small}
    monkeypatch.setattr(ranking, "planes", _counted(ranking.planes))
    for name in ("della", "della_linear"):
        stream = gpu.KernelStream(opened, device=DEVICE, source=kept)
        decide = lower(recipe_of(name, few_tensors), stream).decide
        jobs, others = stream.decided(small, decide, types)
        stream.launched(jobs)
        assert len(jobs) == len(small) and not others
    assert ranking.planes.calls == 3 * len(small)
    kept.has_room_for_ranks = False
    stream = gpu.KernelStream(opened, device=DEVICE, source=kept)
    jobs, others = stream.decided(small, decide, types)
    assert not jobs and not any(one.rescaled for _, row, _ in others for one in row)


def test_small_changes_are_selected_in_the_merging_pass(tmp_path: Path) -> None:
    """Of those all experts count alike, whatever is selected."""
    generator = torch.Generator().manual_seed(3)
    for index in range(3):
        step = 2.0**-13 * torch.randn(90, 110, generator=generator).round() * bool(index)
        folder = tmp_path / ("base" if index == 0 else f"expert{index}")
        folder.mkdir()
        save_file({"w": torch.ones(90, 110) + step}, folder / "model.safetensors")
        (folder / "config.json").write_text('{"model_type": "llama"}')
    for share in (0.001, 0.5, 1.0):
        recipe = recipes.build(
            method="sce", base="base", models=[("expert1", {}), ("expert2", {})],
            parameters={"select_topk": share}, dtype=OUTPUT, folder=tmp_path,
        )  # fmt: skip
        opened = open_recipe(recipe)
        stream = gpu.KernelStream(opened, device=DEVICE, source=KeptFamily(opened, DEVICE))
        (job,), _ = stream.decided(opened.merged, lower(recipe, stream).decide, {"w": "F32"})
        assert not job.setting.shape.combination & table.WEIGHED
        assert job.setting.shape.selects == (share < 1)
        merge(recipe, tmp_path / "cpu", device="cpu", engine=Stream, overwrite=True)
        merge(recipe, tmp_path / "there", device=DEVICE, engine=gpu.KernelStream, overwrite=True)
        assert digest(tmp_path / "there") == digest(tmp_path / "cpu")


def test_outliers_of_a_kept_family_are_counted_once(family: Path) -> None:
    opened = open_recipe(recipe_of("dppa", family))
    asked = {"layer_outlier": 2.0, "linear_outlier": 3.0}
    expected = measure_outliers(Stream(opened), **asked)
    kept = KeptFamily(opened, DEVICE)
    reports = []
    for _ in range(2):
        stream = gpu.KernelStream(opened, device=DEVICE, source=kept, passes=2)
        found = measure_outliers(stream, **asked)
        assert np.array_equal(found.layer_counts, expected.layer_counts)
        assert np.array_equal(found.linear_counts, expected.linear_counts)
        reports.append((found, stream.total, stream._done))
    (first, *ends), (again, *others) = reports
    assert again is first and ends == others  # what is remembered counts as done
    more = measure_outliers(stream, layer_outlier=2.0, linear_outlier=4.0)
    assert (more.linear_counts < first.linear_counts).any()


def test_inner_products_of_a_kept_tensor_are_measured_once(family: Path) -> None:
    opened = open_recipe(recipe_of("ties", family))
    stream = gpu.KernelStream(opened, device=DEVICE, source=KeptFamily(opened, DEVICE))
    entry = opened.merged[0]
    expected = Stream(opened).open(entry).gram()
    first = stream.open(entry).gram()
    first[:] = 0.0  # whoever gets one may change it
    assert np.array_equal(stream.open(entry).gram(), expected)


def test_tensors_of_one_size_share_a_decision(family: Path) -> None:
    recipe = recipe_of("ties", family)
    opened = open_recipe(recipe)
    stream = gpu.KernelStream(opened, device=DEVICE, source=KeptFamily(opened, DEVICE))
    decide = lower(recipe, stream).decide
    alike = [entry for entry in opened.merged if entry.numel == 129 * 257]
    first, *others = [decide(stream.open(entry)) for entry in alike]
    assert len(others) == 2
    assert all(one[0] is first[0] and one[1] is first[1] for one in others)


def test_only_the_latest_findings_are_kept() -> None:
    findings = sources.Latest(2)
    for key in "abc":
        findings[key] = key.upper()
    assert findings == {"b": "B", "c": "C"}


def _merge_on_device(recipe: recipes.Recipe, family: Family, kept: KeptFamily, entries) -> None:
    """Merges without writing; what lies on the device is what torch makes of it."""
    here, there = Stream(family), gpu.KernelStream(family, device=DEVICE, source=kept)
    types = {entry.name: "F32" for entry in entries}

    decided = lower(recipe, here).decide
    for batch in there.batches(entries, types, most=300_000):
        jobs, _ = there.decided(batch, decided, types)
        merged = there.launched(jobs)
        reports = merged.reports(len(jobs))
        for job, start, (doubt, changed) in zip(jobs, merged.starts, reports, strict=True):
            entry = job.reader.entry
            reader = here.open(entry)
            ((_, base, expected),) = reader.merged(*decided(reader))
            found = merged.values[start : start + 4 * entry.numel].view(torch.float32).cpu()
            assert torch.equal(found, expected)
            assert not doubt
            assert changed == pytest.approx(float((expected - base).square().sum()), rel=1e-5)


def _counted(function):
    def counted(*arguments):
        counted.calls += 1
        return function(*arguments)

    counted.calls = 0
    return counted


@pytest.mark.parametrize("doubles", [True, False])
def test_blocks_as_large_as_the_stripes(doubles: bool, family: Path, monkeypatch) -> None:
    """As a GPU runs them, with either kind of keys."""
    monkeypatch.setattr(triton_kernels, "BLOCK", STRIPES)
    monkeypatch.setattr(launching, "_compares_doubles", lambda device: doubles)
    launching._kind.cache_clear()
    opened = open_recipe(recipe_of("magnitude_rings", family))
    kept = KeptFamily(opened, DEVICE)
    entries = [entry for entry in opened.merged if 10_000 < entry.numel < 40_000][:1]
    _merge_on_device(recipe_of("magnitude_rings", family), opened, kept, entries)
    launching._kind.cache_clear()


@pytest.mark.parametrize("kind", awkward())
@pytest.mark.parametrize("density", [0.001, 0.2, 0.97])
def test_awkward_tensors_are_cut_exactly(kind: str, density: float, tmp_path: Path) -> None:
    assert cut_exactly(awkward()[kind], density, tmp_path, gpu.KernelStream, DEVICE)


def test_a_value_that_is_not_finite_is_named(tmp_path: Path) -> None:
    delta = torch.randn(400, 400)
    delta[399, 398] = torch.nan
    folder = one_tensor(tmp_path, delta)
    for method in ("magnitude", "linear", "della", "sce"):
        recipe = recipes.build(method=method, base="base", models=[("expert", {})], folder=folder)
        with pytest.raises(NonFinite, match=r"expert: tensor w holds nan at flat index 159998"):
            merge(recipe, tmp_path / "out", device=DEVICE, engine=gpu.KernelStream)


@pytest.mark.filterwarnings("ignore:overflow encountered")
def test_a_result_that_does_not_fit_its_type_is_an_error(tmp_path: Path) -> None:
    folder = one_tensor(tmp_path, torch.full((4, 4), 1e5))
    for dtype, fits in (("float16", False), ("float32", True)):
        recipe = recipes.build(
            method="linear", base="base", models=[("expert", {})], dtype=dtype, folder=folder
        )
        if fits:
            merge(recipe, tmp_path / dtype, device=DEVICE, engine=gpu.KernelStream)
            continue
        with pytest.raises(NonFinite, match="does not fit the output type"):
            merge(recipe, tmp_path / dtype, device=DEVICE, engine=gpu.KernelStream)


def test_where_kernels_cannot_be_made_they_are_not_used(family: Path, monkeypatch) -> None:
    recipe = recipes.build(method="ties", base="base", models=[("expert0", {})], folder=family)
    opened = open_recipe(recipe)
    monkeypatch.setattr(gpu, "WORTH_COMPILING", 0)
    monkeypatch.setattr(gpu, "can_compile", lambda device: True)
    assert engine_for(opened, recipe, "cuda") is gpu.KernelStream
    monkeypatch.undo()
    assert not gpu.can_compile("cuda:99")  # no such device: nothing runs there
    monkeypatch.setattr(gpu, "WORTH_COMPILING", 0)
    monkeypatch.setattr(gpu, "can_compile", lambda device: False)
    assert engine_for(opened, recipe, "cuda") is Stream
