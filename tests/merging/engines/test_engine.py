"""The engines: chunks of a family, progress, cancel, and the culprit of a bad value."""

from __future__ import annotations

import threading
from itertools import pairwise

import pytest
import torch

from merging.checkpoints import Family, open_family
from merging.engines import fused
from merging.engines.eager import Progress, Stream, pick_device
from merging.engines.fused import sizes
from merging.errors import Cancelled, DeviceUnavailable, NonFinite
from tests.families import llama, load_model, small_family, tuned, write_family

SIZES = {"layers": 2, "hidden": 32, "kv": 16, "inner": 48, "vocab": 70}
UP = "model.layers.0.mlp.up_proj.weight"
ENGINES = [Stream, fused.FusedStream]


@pytest.fixture
def family(tmp_path) -> Family:
    parent = small_family(tmp_path, **SIZES)
    return open_family(parent / "base", {n: parent / n for n in ("expert0", "expert1")})


def reader_of(stream: Stream, name: str = UP):
    (entry,) = [entry for entry in stream.family.merged if entry.name == name]
    return stream.open(entry)


@pytest.mark.parametrize("resident", [1 << 22, 0])
@pytest.mark.parametrize("chunk", [1 << 20, 100, 1])
def test_chunks_put_together_are_the_tensor(resident, chunk, family) -> None:
    reader = reader_of(Stream(family, chunk=chunk, resident=resident))
    spans = list(reader.spans())
    assert spans[0][0] == 0
    assert spans[-1][1] == reader.numel
    assert all(a[1] == b[0] for a, b in pairwise(spans))
    base = family.base.read(UP).flatten()
    assert torch.equal(torch.cat([reader.base(*span) for span in spans]), base)
    for index, expert in enumerate(family.experts):
        delta = expert.read(UP).flatten() - base
        assert torch.equal(torch.cat([reader.delta(index, *span) for span in spans]), delta)
        assert torch.equal(torch.cat([reader.deltas(*span)[index] for span in spans]), delta)


def test_tensors_come_sorted_by_name_each_once(family) -> None:
    names = [reader.entry.name for reader in Stream(family).readers()]
    assert names == sorted(load_model(family.base.folder))


@pytest.mark.parametrize("kind", ENGINES)
def test_a_map_returns_results_in_the_order_of_names(kind, family) -> None:
    results = kind(family).map(lambda reader: reader.entry.name)
    assert results == [entry.name for entry in family.merged]


@pytest.mark.parametrize("kind", ENGINES)
def test_an_error_in_one_tensor_ends_the_pass(kind, family) -> None:
    def fail(reader) -> None:
        if reader.entry.name == UP:
            raise RuntimeError("here")

    with pytest.raises(RuntimeError, match="here"):
        kind(family).map(fail)


@pytest.mark.parametrize("kind", ENGINES)
def test_progress_counts_every_element_once_per_pass(kind, family) -> None:
    reports: list[Progress] = []
    stream = kind(family, passes=2, progress=reports.append)
    stream.map(lambda reader: None)
    stream.map(lambda reader: None, "merge")
    total = sum(entry.numel for entry in family.merged)
    assert reports[-1].done == reports[-1].total == 2 * total
    assert [report.done for report in reports] == sorted(report.done for report in reports)
    assert [report.phase for report in reports[:2]] == ["measure", "measure"]
    assert {report.layer for report in reports} == {None, 0, 1}


@pytest.mark.parametrize("kind", ENGINES)
def test_a_cancel_stops_before_the_next_tensor(kind, family) -> None:
    cancel, seen = threading.Event(), []

    def work(reader) -> None:
        seen.append(reader.entry.name)
        cancel.set()

    with pytest.raises(Cancelled):
        kind(family, cancel=cancel).map(work)
    assert len(seen) < len(family.merged)


def test_a_cancel_stops_within_a_tensor(family) -> None:
    cancel = threading.Event()
    spans = reader_of(Stream(family, chunk=10, resident=0, cancel=cancel)).spans()
    next(spans)
    cancel.set()
    with pytest.raises(Cancelled):
        next(spans)


@pytest.mark.parametrize("kind", ENGINES)
@pytest.mark.parametrize("model", ["base", "expert0", "expert1"])
def test_the_culprit_is_the_model_that_holds_the_value(kind, model, tmp_path) -> None:
    base = llama(0, **SIZES)
    models = {"base": base, "expert0": tuned(base, 1), "expert1": tuned(base, 2)}
    models[model][UP] = models[model][UP].clone()
    models[model][UP].view(-1)[500] = torch.inf
    parent = write_family(tmp_path, models["base"], [models["expert0"], models["expert1"]])
    family = open_family(parent / "base", {n: parent / n for n in ("expert0", "expert1")})
    error = reader_of(kind(family, chunk=64)).culprit(NonFinite("unknown"))
    assert str(error).startswith(f"{model}: tensor {UP} holds inf")
    assert "500" in str(error)


def test_without_a_bad_input_the_error_stays(family) -> None:
    error = NonFinite("the result does not fit")
    assert reader_of(Stream(family)).culprit(error) is error


@pytest.mark.parametrize("kind", ENGINES)
def test_both_engines_measure_the_same(kind, family, monkeypatch) -> None:
    monkeypatch.setattr(sizes, "PIECE_BYTES", 1 << 14)
    reader = reader_of(kind(family))
    deltas = [(expert.read(UP) - family.base.read(UP)).abs().flatten() for expert in family.experts]
    ranks = [0, 7, reader.numel // 2, reader.numel - 1]
    for found, delta in zip(reader.order_statistics([ranks] * 2), deltas, strict=True):
        assert [one.value for one in found] == delta.sort().values[ranks].tolist()
    assert reader.l1_norms() == pytest.approx([d.double().sum().item() for d in deltas], rel=1e-9)
    assert reader.count_above([[1e-3], [2e-3]]) == [
        [int((deltas[0] > 1e-3).sum())], [int((deltas[1] > 2e-3).sum())],
    ]  # fmt: skip


def test_devices_by_name(monkeypatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert str(pick_device("auto")) == "cpu"
    assert str(pick_device("cpu")) == "cpu"
    with pytest.raises(DeviceUnavailable, match="no CUDA"):
        pick_device("cuda")
    with pytest.raises(DeviceUnavailable, match="valid: auto, cpu, cuda, mps"):
        pick_device("tpu")
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    with pytest.raises(DeviceUnavailable, match="no Apple GPU"):
        pick_device("mps")
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: True)
    assert pick_device("mps") == "mps"
    assert pick_device("auto") == "cpu", "only where asked for"
