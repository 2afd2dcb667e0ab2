"""Whole merges: the same bytes for any chunks, complete output or none, every input checked."""

from __future__ import annotations

import errno
import json
import os
import shutil
import threading
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch

from merging import recipe as recipes
from merging.checkpoints import ModelWriter, open_checkpoint
from merging.declarations.methods import TORCH_BYTES
from merging.engines import fused
from merging.engines.eager import Progress, Stream
from merging.errors import (
    BadCheckpoint,
    Cancelled,
    MergeError,
    NonFinite,
    NotEnoughSpace,
    OutputExists,
    RecipeError,
    VerificationFailed,
)
from merging.methods import CONSENSUS, PRESETS, PRUNERS, RULES
from merging.run import record, space
from merging.run.merge import merge
from merging.run.preflight import check, open_recipe
from tests.engines import experts_of
from tests.families import (
    document,
    llama,
    load_model,
    merged,
    small_family,
    tuned,
    write_family,
    write_model,
)

SMALL = {"layers": 2, "hidden": 32, "kv": 16, "inner": 48, "vocab": 70}
UP = "model.layers.1.mlp.up_proj.weight"


def files_of(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def names_in(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


@pytest.fixture
def parent(tmp_path) -> Path:
    return small_family(tmp_path / "family", experts=3, **SMALL)


def run(recipe: dict, parent: Path, out: Path, **options):
    return merge(recipes.from_mapping(recipe, parent), out, **{"device": "cpu", **options})


VARIANTS = [
    *((preset, {}) for preset in PRESETS),
    ("magnitude", {"scope": "model", "density": 0.3}),
    ("magnitude", {"amplification": [1.7, 1.1, 0.4]}),
    ("ties", {"scope": "model"}),
    ("dare_linear", {"rescale_by": "l1"}),
    ("dppa", {"amplification": [1.8, 1.0], "partition_mode": "max", "consensus": "ties"}),
    ("pcb", {"scope": "tensor"}),
    ("pcb", {"variant": "reference", "prune": "random"}),
    ("pcb", {"variant": "vision", "prune": "magnitude"}),
]


@pytest.mark.parametrize(("method", "parameters"), VARIANTS, ids=str)
def test_the_chunks_do_not_change_a_byte(method, parameters, parent, tmp_path) -> None:
    values = [{"weight": 0.6 + 0.3 * i} for i in range(experts_of(method))]
    recipe = document(method, values, parameters)
    run(recipe, parent, tmp_path / "whole", engine=Stream)
    whole = files_of(tmp_path / "whole")
    in_pieces = partial(Stream, resident=0)
    run(recipe, parent, tmp_path / "parts", chunk=4096 + 13, engine=in_pieces)
    assert files_of(tmp_path / "parts") == whole


def test_small_chunks_across_ties_do_not_change_a_byte(tmp_path) -> None:
    base = {"model.layers.0.mlp.up_proj.weight": torch.zeros(40, 10), "b": torch.zeros(33)}
    generator = torch.Generator().manual_seed(0)
    experts = [
        {n: torch.randint(-3, 4, t.shape, generator=generator).float() for n, t in base.items()}
        for _ in range(2)
    ]
    parent = write_family(tmp_path / "family", base, experts)
    for method in ("ties", "magnitude", "dppa", "pcb"):
        for scope in ("tensor", "model") if method != "dppa" else (None,):
            parameters = {"scope": scope} if scope else {"density": 0.5}
            name = f"{method}-{scope}"
            recipe = document(method, 2, parameters)
            whole = merged(recipe, parent, tmp_path / name, engine=Stream)
            for chunk in (61, 200):
                out = tmp_path / f"{name}-{chunk}"
                in_pieces = partial(Stream, resident=0)
                parts = merged(recipe, parent, out, chunk=chunk, engine=in_pieces)
                assert all(torch.equal(parts[n], whole[n]) for n in whole), (name, chunk)


def test_the_same_recipe_twice_writes_the_same_bytes(parent, tmp_path) -> None:
    for method in PRESETS:
        recipe = document(method, experts_of(method))
        first = run(recipe, parent, tmp_path / method / "a")
        second = run(recipe, parent, tmp_path / method / "b")
        assert files_of(tmp_path / method / "a") == files_of(tmp_path / method / "b")
        assert first.fingerprint == second.fingerprint


def test_the_size_of_the_shards_changes_no_tensor(parent, tmp_path) -> None:
    one = run(document("ties", 3), parent, tmp_path / "one")
    many = run(document("ties", 3), parent, tmp_path / "many", shard_bytes=10_000)
    assert len(list((tmp_path / "many").glob("*.safetensors"))) > 3
    assert one.fingerprint == many.fingerprint
    first, second = load_model(tmp_path / "one"), load_model(tmp_path / "many")
    assert all(torch.equal(first[name], second[name]) for name in first)


@pytest.mark.parametrize("prune", sorted(PRUNERS))
@pytest.mark.parametrize("consensus", sorted(CONSENSUS))
def test_every_pruner_goes_with_every_consensus(prune, consensus, parent, tmp_path) -> None:
    parameters = {"prune": prune, "consensus": consensus}
    result = merged(document("task_arithmetic", 3, parameters), parent, tmp_path / "out")
    assert all(torch.isfinite(tensor).all() for tensor in result.values())
    base = load_model(parent / "base")
    assert any(not torch.equal(result[name], base[name]) for name in base)


@pytest.mark.parametrize("method", sorted(PRESETS))
@pytest.mark.parametrize("experts", [1, 8])
def test_one_and_eight_experts(method: str, experts: int, tmp_path) -> None:
    count = experts_of(method, experts)
    parent = small_family(tmp_path / "family", experts=count, **{**SMALL, "layers": 1})
    result = merged(document(method, count), parent, tmp_path / "out")
    assert all(torch.isfinite(tensor).all() for tensor in result.values())


@pytest.mark.parametrize("method", sorted(PRESETS))
def test_experts_equal_to_the_base_give_the_base(method: str, tmp_path) -> None:
    base = llama(0, **SMALL)
    parent = write_family(tmp_path / "family", base, [base, base])
    result = merged(document(method, experts_of(method, 2)), parent, tmp_path / "out")
    assert all(torch.equal(result[name], base[name]) for name in base)


@pytest.mark.parametrize("method", sorted(PRESETS))
def test_a_linear_of_zeros_stays_finite(method: str, tmp_path) -> None:
    base = llama(0, **SMALL)
    base[UP] = torch.zeros_like(base[UP])
    expert = tuned(base, 1)
    expert[UP] = base[UP].clone()
    parent = write_family(tmp_path / "family", base, [expert, base])
    result = merged(document(method, experts_of(method, 2)), parent, tmp_path / "out")
    assert torch.equal(result[UP], base[UP])
    assert all(torch.isfinite(tensor).all() for tensor in result.values())


@pytest.mark.parametrize("method", ["magnitude", "ties", "dare_linear", "dare_ties", "dppa"])
@pytest.mark.parametrize("density", [0.0, 1e-9, 1.0])
def test_the_ends_of_the_density(method: str, density: float, parent, tmp_path) -> None:
    parameters = (
        {"density": density, "density_shift": 0.0} if method == "dppa" else {"density": density}
    )
    result = merged(document(method, 1, parameters), parent, tmp_path / "out")
    base, expert = load_model(parent / "base"), load_model(parent / "expert0")
    for name, tensor in result.items():
        pruned = method != "dppa" or "_proj" in name
        expected = base[name] if pruned and density < 1 else expert[name]
        off = (tensor - expected).abs() > 3e-7
        # any density above 0 keeps one entry of a tensor that is cut by magnitude
        cut = pruned and method in ("magnitude", "ties", "dppa")
        assert off.sum() == (density == 1e-9 and cut), name


def test_values_follow_gradients_and_filters(parent, tmp_path) -> None:
    weight = [{"filter": "mlp", "value": [0.0, 1.0]}, {"value": 0.5}]
    result = merged(document("task_arithmetic", [{"weight": weight}]), parent, tmp_path / "out")
    base, expert = load_model(parent / "base"), load_model(parent / "expert0")
    for name, tensor in result.items():
        factor = float("layers.1" in name) if "mlp" in name else 0.5
        expected = base[name] + factor * (expert[name] - base[name])
        assert (tensor - expected).abs().max() <= 1e-8, name


def test_half_precision_is_rounded_once(tmp_path) -> None:
    base = llama(0, **SMALL, dtype=torch.bfloat16)
    experts = [tuned(base, seed, scale=1e-2) for seed in range(3)]
    parent = write_family(tmp_path / "family", base, experts)
    weights = [{"weight": 0.3127}, {"weight": 0.7219}, {"weight": 1.1361}]
    result = merged(document("task_arithmetic", weights), parent, tmp_path / "out")
    for name, tensor in result.items():
        start = base[name].double()
        exact = start + sum(
            value["weight"] * (expert[name].double() - start)
            for value, expert in zip(weights, experts, strict=True)
        )
        wrong = tensor != exact.to(torch.bfloat16)
        assert wrong.double().mean() <= 1e-3, name  # where float32 itself rounds across a tie


def test_the_result_says_what_became_of_every_tensor(parent, tmp_path) -> None:
    base = llama(0, **SMALL)
    base["extra"] = torch.arange(4)
    family = write_family(tmp_path / "other", base, [tuned(llama(0, **SMALL), 1)])
    result = run(document("ties", 1), family, tmp_path / "out")
    status = {entry.name: entry.status for entry in result.account}
    assert status.pop("extra") == "copied"
    assert set(status.values()) == {"merged"}
    assert result.out == tmp_path / "out"
    assert result.seconds > 0
    assert result.peak_bytes > 1 << 20
    assert result.device == "cpu"


def test_drift_is_the_relative_change_per_layer(parent, tmp_path) -> None:
    result = run(document("task_arithmetic", 1), parent, tmp_path / "out")
    base, after = load_model(parent / "base"), load_model(tmp_path / "out")
    assert list(result.drift) == [0, 1, None]
    for layer, drift in result.drift.items():
        names = [
            n for n in base if (f"layers.{layer}." in n if layer is not None else "layers" not in n)
        ]
        changed = sum(((after[n] - base[n]).double() ** 2).sum() for n in names)
        squared = sum((base[n].double() ** 2).sum() for n in names)
        assert drift == pytest.approx((changed / squared).sqrt().item(), rel=1e-5)


def test_progress_only_grows_and_ends_whole(parent, tmp_path) -> None:
    for method in ("linear", "ties", "dppa", "pcb"):
        reports: list[Progress] = []
        run(document(method, 3), parent, tmp_path / method, progress=reports.append)
        done = [report.done for report in reports]
        assert done == sorted(done)
        assert done[-1] == reports[-1].total
        assert {report.phase for report in reports} <= {"measure", "merge", "verify"}
        assert {report.total for report in reports} == {reports[0].total}
        names = {report.tensor for report in reports if report.phase == "merge"}
        assert names == set(load_model(tmp_path / method))


# complete or not at all


@pytest.mark.parametrize("phase", ["measure", "merge", "verify"])
def test_a_cancelled_merge_leaves_nothing(phase: str, parent, tmp_path) -> None:
    cancel = threading.Event()

    def stop(progress: Progress) -> None:
        if progress.phase == phase:
            cancel.set()

    (tmp_path / "outs").mkdir()
    with pytest.raises(Cancelled):
        run(document("pcb", 3), parent, tmp_path / "outs" / "out", progress=stop, cancel=cancel)
    assert names_in(tmp_path / "outs") == []


def rewrite(folder: Path, tensors) -> None:
    shutil.rmtree(folder)
    write_model(folder, tensors)


def flipped(write):
    """Changes one bit of the last byte of every piece."""

    def faulty(self, name, start, data):
        bad = bytearray(data)
        bad[-1] ^= 1
        write(self, name, start, memoryview(bad))

    return faulty


@pytest.mark.parametrize(
    "fault", [flipped, lambda write: lambda *_: None], ids=["a bit", "nothing written"]
)
@pytest.mark.parametrize("engine", [Stream, fused.FusedStream])
def test_bytes_that_read_back_otherwise_are_noticed(
    fault, engine: type[Stream], parent, tmp_path, monkeypatch
) -> None:
    monkeypatch.setattr(ModelWriter, "write", fault(ModelWriter.write))
    (tmp_path / "outs").mkdir()
    with pytest.raises(VerificationFailed, match=r"outs/out: tensor \S+ reads back otherwise"):
        run(document("ties", 3), parent, tmp_path / "outs" / "out", engine=engine)
    assert names_in(tmp_path / "outs") == []


@pytest.mark.parametrize("method", ["ties", "dare_ties", "dare_linear", "task_arithmetic", "pcb"])
def test_a_value_that_is_not_finite_is_never_voted_away(method, parent, tmp_path) -> None:
    name = "model.layers.0.mlp.up_proj.weight"
    tensors = load_model(parent / "expert1")
    tensors[name].view(-1)[7] = torch.nan
    rewrite(parent / "expert1", tensors)
    parameters = {"density": 0.01} if method.startswith("dare") else {}
    with pytest.raises(NonFinite, match=r"expert1: tensor .*up_proj.* holds nan at flat index 7"):
        run(document(method, 3, parameters), parent, tmp_path / "out")


def test_copied_values_that_are_nan_are_remarked_on(parent, tmp_path) -> None:
    tensors = load_model(parent / "base")
    rewrite(parent / "base", {**tensors, "extra.scale": torch.tensor([torch.nan])})
    notes = run(document("ties", 2), parent, tmp_path / "out").notes
    assert [note for note in notes if "extra.scale" in note and "NaN" in note]


def test_what_a_method_meets_in_a_family_is_told(parent, tmp_path) -> None:
    rewrite(parent / "expert1", load_model(parent / "base"))
    notes = run(document("pcb", 2), parent, tmp_path / "a").notes
    assert "expert1: no change against the base; left out of the competition" in notes
    assert run(document("pcb", [{}], {"density": 1}), parent, tmp_path / "c").notes


def test_a_stop_does_not_wait_for_the_disk(parent, tmp_path, monkeypatch) -> None:
    cancel, slow = threading.Event(), threading.Event()

    def hang(descriptor: int) -> None:
        cancel.set()
        slow.wait(60)

    monkeypatch.setattr("os.fsync", hang)
    (tmp_path / "outs").mkdir()
    try:
        with pytest.raises(Cancelled):
            run(document("ties", 3), parent, tmp_path / "outs" / "out", cancel=cancel)
        assert names_in(tmp_path / "outs") == []
        assert not slow.is_set()
    finally:
        slow.set()


def test_a_cancel_before_the_start_leaves_nothing(parent, tmp_path) -> None:
    cancel = threading.Event()
    cancel.set()
    with pytest.raises(Cancelled):
        run(document("linear", 3), parent, tmp_path / "outs" / "out", cancel=cancel)
    assert not (tmp_path / "outs" / "out").exists()


@pytest.mark.parametrize("call", [1, 5, 20])
def test_an_exception_in_the_middle_leaves_nothing(call, parent, tmp_path, monkeypatch) -> None:
    write, calls = ModelWriter.write, []

    def failing(self: ModelWriter, *arguments: object) -> None:
        calls.append(1)
        if len(calls) == call:
            raise RuntimeError("a defect")
        write(self, *arguments)

    monkeypatch.setattr(ModelWriter, "write", failing)
    (tmp_path / "outs").mkdir()
    with pytest.raises(RuntimeError, match="a defect"):
        run(document("ties", 3), parent, tmp_path / "outs" / "out")
    assert names_in(tmp_path / "outs") == []


def test_a_failed_overwrite_leaves_the_model_that_was_there(parent, tmp_path, monkeypatch) -> None:
    run(document("linear", 3), parent, tmp_path / "outs" / "out")
    before = files_of(tmp_path / "outs")

    def full(*_: object) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "pwrite", full)
    with pytest.raises(NotEnoughSpace):
        run(document("ties", 3), parent, tmp_path / "outs" / "out", overwrite=True)
    assert files_of(tmp_path / "outs") == before


def test_overwriting_replaces_every_file(parent, tmp_path) -> None:
    run(document("linear", 3), parent, tmp_path / "out", shard_bytes=10_000)
    with pytest.raises(OutputExists, match="overwrite"):
        run(document("ties", 3), parent, tmp_path / "out")
    run(document("ties", 3), parent, tmp_path / "out", overwrite=True)
    run(document("ties", 3), parent, tmp_path / "fresh")
    assert files_of(tmp_path / "out") == files_of(tmp_path / "fresh")


@pytest.mark.parametrize("name", ["base", "expert1"])
def test_an_input_is_never_overwritten(name: str, parent) -> None:
    before = files_of(parent)
    with pytest.raises(OutputExists, match=name):
        run(document("ties", 3), parent, parent / name, overwrite=True)
    assert files_of(parent) == before


def test_too_little_space_is_told_before_any_work(parent, tmp_path, monkeypatch) -> None:
    class Usage:
        free = 1000

    monkeypatch.setattr(shutil, "disk_usage", lambda _: Usage)
    with pytest.raises(NotEnoughSpace, match=r"needs 0\.1 MB and 0\.0 MB are free"):
        run(document("ties", 3), parent, tmp_path / "outs" / "out")
    report = check(recipes.from_mapping(document("ties", 3), parent), tmp_path / "outs" / "out")
    assert not report.ok
    assert not (tmp_path / "outs").exists()


# what cannot be merged


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
@pytest.mark.parametrize("culprit", ["base", "expert1"])
@pytest.mark.parametrize("method", ["linear", "ties", "dare_linear", "dppa", "pcb"])
def test_a_value_that_is_not_finite_names_model_and_tensor(
    value, culprit, method, tmp_path
) -> None:
    base = llama(0, **{**SMALL, "layers": 2})
    models = {"base": base, "expert0": tuned(base, 1), "expert1": tuned(base, 2)}
    models[culprit][UP] = models[culprit][UP].clone()
    models[culprit][UP][3, 7] = value
    parent = tmp_path / "family"
    for name, tensors in models.items():
        write_model(parent / name, tensors)
    with pytest.raises(NonFinite) as error:
        run(document(method, 2), parent, tmp_path / "outs" / "out")
    assert str(error.value).startswith(culprit)
    assert UP in str(error.value)
    assert str(3 * 32 + 7) in str(error.value)
    assert not (tmp_path / "outs" / "out").exists()


def test_values_too_large_for_the_output_are_refused(tmp_path) -> None:
    base = llama(0, **SMALL)
    base[UP] = base[UP] + 50_000
    expert = {**base, UP: base[UP] + 30_000}
    parent = write_family(tmp_path / "family", base, [expert])
    with pytest.raises(NonFinite, match=f"{UP}.*float32"):
        run(document("task_arithmetic", 1, dtype="float16"), parent, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_copied_values_too_large_for_the_output_are_refused(tmp_path) -> None:
    base = llama(0, **SMALL)
    base["model.scale"] = torch.tensor([1e6])
    parent = write_family(tmp_path / "family", base, [tuned(llama(0, **SMALL), 1)])
    with pytest.raises(NonFinite, match=r"model\.scale.*float32"):
        run(document("ties", 1, dtype="float16"), parent, tmp_path / "out")
    assert not (tmp_path / "out").exists()
    run(document("ties", 1, dtype="bfloat16"), parent, tmp_path / "out")


def test_an_infinity_that_is_copied_stays(tmp_path) -> None:
    base = llama(0, **SMALL)
    base["model.mask"] = torch.tensor([0.0, float("-inf")])
    parent = write_family(tmp_path / "family", base, [tuned(llama(0, **SMALL), 1)])
    result = merged(document("ties", 1, dtype="float16"), parent, tmp_path / "out")
    assert result["model.mask"].tolist() == [0.0, float("-inf")]


def test_a_device_that_is_absent_is_named(parent, tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    for device in ("cuda", "tpu"):
        with pytest.raises(MergeError, match=device):
            run(document("ties", 3), parent, tmp_path / "out", device=device)
    assert not (tmp_path / "out").exists()


# preflight


def test_a_sound_recipe_is_ready_and_says_what_it_needs(parent, tmp_path) -> None:
    recipe = recipes.from_mapping(document("ties", 3), parent)
    report = check(recipe, tmp_path / "out")
    assert report.ok
    assert report.problems == ()
    size = sum(tensor.nbytes for tensor in load_model(parent / "base").values())
    assert report.disk_bytes == size
    assert report.memory_bytes > size
    half = recipes.from_mapping(document("ties", 3, dtype="bfloat16"), parent)
    assert check(half).disk_bytes == size // 2
    assert not (tmp_path / "out").exists()


def test_every_remark_is_reported(parent, tmp_path) -> None:
    other = tuned(llama(0, **SMALL), 9)
    del other[UP]
    write_model(parent / "expert3", other)
    (tmp_path / "taken").mkdir()
    (tmp_path / "taken" / "file").write_text("")
    recipe = recipes.from_mapping(document("task_arithmetic", [{"density": 0.5}] * 4), parent)
    report = check(recipe, tmp_path / "taken")
    assert not report.ok
    errors = [problem for problem in report.problems if problem.severity == "error"]
    warnings = [problem for problem in report.problems if problem.severity == "warning"]
    assert len(errors) == 1
    assert "not empty" in errors[0].message
    assert any(problem.where == UP and "missing" in problem.message for problem in warnings)
    assert any("density has no effect" in problem.message for problem in warnings)


def test_models_that_cannot_be_opened_are_an_error_each(parent, tmp_path) -> None:
    (parent / "expert1" / "model.safetensors").write_bytes(b"short")
    (parent / "expert2" / "config.json").unlink()
    report = check(recipes.from_mapping(document("ties", 3), parent))
    assert not report.ok
    text = " ".join(problem.message for problem in report.problems)
    assert "expert1" in text
    assert "expert2" in text


def test_a_check_reads_no_tensor(parent, tmp_path, monkeypatch) -> None:
    def reading(*_: object) -> None:
        raise AssertionError("a tensor was read")

    monkeypatch.setattr("merging.checkpoints.Checkpoint.read_into", reading)
    monkeypatch.setattr("merging.engines.fused.stream.Mapping", reading)
    assert check(recipes.from_mapping(document("pcb", 3), parent), tmp_path / "out").ok


def test_weights_in_any_order_give_nearly_the_same(parent, tmp_path) -> None:
    for method in ("linear", "task_arithmetic", "ties", "dare_ties", "dppa", "pcb"):
        recipe = document(method, [{"weight": w} for w in (0.5, 1.0, 1.5)])
        first = merged(recipe, parent, tmp_path / method / "a")
        recipe["models"].reverse()
        second = merged(recipe, parent, tmp_path / method / "b")
        for name in first:
            difference = (first[name] - second[name]).abs()
            # a vote may be so close that the order of the sum decides it
            assert np.quantile(difference.numpy(), 0.999) <= 2e-7, (method, name)


def test_a_result_never_replaces_a_folder_that_holds_an_input(parent, tmp_path) -> None:
    home = tmp_path / "family"
    (home / "config.json").write_text("{}")
    before = files_of(home)
    recipe = recipes.from_mapping(document("ties", 2), parent)
    with pytest.raises(OutputExists, match="holds the folder base"):
        merge(recipe, home, overwrite=True)
    with pytest.raises(OutputExists, match="holds base, which the recipe reads"):
        space.check_no_input(home, open_recipe(recipe).models)
    assert files_of(home) == before


@pytest.mark.parametrize("dtype", [torch.uint16, torch.uint32, torch.uint64], ids=str)
def test_unsigned_numbers_are_copied(dtype, tmp_path) -> None:
    base = llama(0, layers=1)
    expert = tuned(base, 1)
    base["table"] = expert["table"] = torch.arange(5).to(dtype)
    parent = write_family(tmp_path, base, [expert])
    result = merged(document("ties", 1), parent, tmp_path / "out")
    assert result["table"].dtype == dtype
    assert result["table"].tolist() == [0, 1, 2, 3, 4]


def test_every_tensor_of_a_result_is_aligned_in_its_file(tmp_path) -> None:
    base = llama(0, layers=1)
    expert = tuned(base, 1)
    base["a"] = expert["a"] = torch.ones(3, dtype=torch.uint8)  # comes first by name
    parent = write_family(tmp_path, base, [expert])
    merged(document("ties", 1), parent, tmp_path / "out")
    model = open_checkpoint(tmp_path / "out")
    assert all(info.offset % info.width == 0 for info in model.tensors.values())


def test_weights_that_sum_to_zero_in_one_layer_are_refused_with_its_name(tmp_path) -> None:
    parent = small_family(tmp_path / "family", experts=2, **SMALL)
    recipe = {
        "merge_method": "linear",
        "models": [{"model": f"expert{i}", "parameters": {"weight": [0.0, 1.0]}} for i in range(2)],
    }
    recipe = recipes.from_mapping(recipe, parent)
    report = check(recipe)
    assert not report.ok
    assert "the weights 0, 0 sum to 0" in report.problems[0].message
    with pytest.raises(RecipeError, match=r"tensor .*: the weights 0, 0 sum to 0"):
        merge(recipe, tmp_path / "out")


def test_settings_that_shapes_do_not_show_are_compared(parent) -> None:
    config = json.loads((parent / "expert1" / "config.json").read_text())
    (parent / "base" / "config.json").write_text(json.dumps({**config, "rope_theta": 1e4}))
    (parent / "expert1" / "config.json").write_text(json.dumps({**config, "rope_theta": 1e6}))
    report = check(recipes.from_mapping(document("ties", 3), parent))
    assert report.ok
    (warning,) = report.problems
    assert "rope_theta: 1000000.0, the base 10000.0" in warning.message


def test_a_slice_is_compared_with_the_bases_layers(tmp_path) -> None:
    base = llama(0, layers=2)
    parent = write_family(tmp_path, base, [tuned(base, 1)])
    layers = {"layer_range": [0, 2]}
    recipe = {
        "merge_method": "task_arithmetic",
        "base_model": "base",
        "slices": [{"sources": [{"model": "base", **layers}, {"model": "expert0", **layers}]}],
    }
    assert check(recipes.from_mapping(recipe, parent)).ok


@pytest.mark.parametrize("scope", ["tensor", "model"])
def test_pcb_names_the_model_that_holds_nan(scope, tmp_path) -> None:
    base = llama(0, layers=1)
    expert = tuned(base, 1)
    expert["model.norm.weight"][3] = torch.nan
    parent = write_family(tmp_path, base, [tuned(base, 2), expert])
    recipe = document("pcb", 2, parameters={"scope": scope})
    with pytest.raises(NonFinite, match=r"expert1: tensor model\.norm\.weight holds nan at flat"):
        merged(recipe, parent, tmp_path / "out")


def test_a_tokenizer_that_cannot_be_read_is_one_line(parent, tmp_path, monkeypatch) -> None:
    (parent / "base" / "tokenizer.json").write_text("{}")
    plain = Path.open

    def fail(path: Path, mode: str = "r", *others, **named):
        if path.name == "tokenizer.json" and mode == "rb":
            raise OSError(errno.EIO, "Input/output error")
        return plain(path, mode, *others, **named)

    monkeypatch.setattr(Path, "open", fail)
    with pytest.raises(BadCheckpoint, match=r"base: .*tokenizer\.json cannot be read \(input"):
        merge(recipes.from_mapping(document("ties", 3), parent), tmp_path / "out")
    assert names_in(tmp_path) == ["family"]


def test_a_disk_that_fails_beside_the_tensors_is_one_line(parent, tmp_path, monkeypatch) -> None:
    def fail(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(record, "write_companions", fail)
    with pytest.raises(NotEnoughSpace, match="the disk is full"):
        merge(recipes.from_mapping(document("ties", 3), parent), tmp_path / "out")
    assert names_in(tmp_path) == ["family"]


def test_linear_with_an_election_leaves_the_base_as_it_is(tmp_path) -> None:
    base = {UP: torch.full((2, 2), 8.0)}
    experts = [{UP: base[UP] + 1}, {UP: base[UP] + 2}]
    parent = write_family(tmp_path, base, experts)
    recipe = document("linear", 2, {"consensus": "ties", "normalize": False})
    result = merged(recipe, parent, tmp_path / "out")
    assert result[UP].tolist() == [[11.0, 11.0], [11.0, 11.0]]  # 8 + 1 + 2, not 2 * 8 + 3


@pytest.mark.parametrize("phase", ["merge", "verify"])
@pytest.mark.parametrize("method", ["ties", "linear"])
def test_an_input_that_changes_meanwhile_ends_the_merge(method, phase, parent, tmp_path) -> None:
    weights = parent / "expert1" / "model.safetensors"

    def change(progress: Progress) -> None:
        if progress.phase == phase:  # one bit, and the time set back
            times = (weights.stat().st_atime_ns, weights.stat().st_mtime_ns)
            with weights.open("r+b") as file:
                file.seek(-1, os.SEEK_END)
                file.write(b"\x01")
            os.utime(weights, ns=times)

    with pytest.raises(BadCheckpoint, match=r"^expert1: .*model\.safetensors has changed since"):
        merged(document(method, 3), parent, tmp_path / "out", progress=change)
    assert names_in(tmp_path) == ["family"]


def test_an_input_that_is_replaced_meanwhile_ends_the_merge(parent, tmp_path) -> None:
    def replace(progress: Progress) -> None:
        shutil.copyfile(parent / "base" / "config.json", parent / "new")
        (parent / "new").replace(parent / "base" / "config.json")

    with pytest.raises(BadCheckpoint, match=r"^base: .*config\.json has changed since"):
        merged(document("ties", 3), parent, tmp_path / "out", progress=replace)
    assert names_in(tmp_path) == ["family"]


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
@pytest.mark.parametrize("method", PRESETS)
def test_no_method_hides_a_value_that_is_not_finite(method: str, bad: float, tmp_path) -> None:
    """A maximum, a median or a mask may drop it: whoever chooses among values must look."""
    base = {name: torch.randn(6, 4) for name in ("model.layers.0.mlp.up_proj.weight", "lm_head")}
    experts = [tuned(base, seed) for seed in range(experts_of(method))]
    experts[-1]["model.layers.0.mlp.up_proj.weight"][2, 1] = bad
    parent = write_family(tmp_path / "family", base, experts)
    for engine in (Stream, fused.FusedStream):
        with pytest.raises(NonFinite, match=f"expert{len(experts) - 1}.*up_proj"):
            merged(document(method, len(experts)), parent, tmp_path / "out", engine=engine)


# memory


def test_torch_is_counted_once_where_both_methods_run_through_it(parent, monkeypatch) -> None:
    recipe = recipes.from_mapping(document("ties", 3), parent)
    family = open_recipe(recipe)
    needs = {}
    for pruner, rule in ((0, 0), (TORCH_BYTES, 0), (0, TORCH_BYTES + 5), (TORCH_BYTES + 3,) * 2):
        heavy = replace(PRUNERS["magnitude"], memory=lambda *_, own=pruner: own)
        monkeypatch.setitem(PRUNERS, "magnitude", heavy)
        combining = replace(CONSENSUS["ties"], memory=lambda *_, own=rule: own)
        monkeypatch.setitem(RULES, "ties", combining)
        needs[pruner, rule] = space.memory_bytes(family, recipe)
    least = needs.pop((0, 0))
    assert [need - least - TORCH_BYTES for need in needs.values()] == [0, 5, 6]


def test_a_recipe_that_its_methods_refuse_has_a_family(parent) -> None:
    weights = [{"weight": [1.0, -1.0]}, {"weight": [-1.0, -1.0]}]
    report = check(recipes.from_mapping(document("linear", weights, base_model=None), parent))
    assert not report.ok
    assert report.account
    (problem,) = report.problems
    assert problem.where == "recipe"
    assert "sum to 0" in problem.message
