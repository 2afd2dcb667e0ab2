"""The scan against plain numpy, and its cache."""

from __future__ import annotations

import importlib
import os
import threading
from pathlib import Path

import numpy as np
import pytest
import torch

from merging import kernels
from merging.checkpoints import Family, open_checkpoint, open_family
from merging.engines import fused
from merging.engines.eager import Stream
from merging.engines.fused import profiling, sizes
from merging.engines.sources import KeptFamily
from merging.errors import BadCheckpoint, Cancelled, NonFinite
from merging.evidence import outliers
from merging.sketches import scan as scanning
from merging.sketches.scan import _ARRAYS as ARRAYS
from merging.sketches.scan import scan, select_experts, sketch_key
from merging.sketches.sketch import FamilySketch, bin_edges
from tests.families import llama, load_model, small_family, tuned, write_family, write_model

SIZES = {"layers": 2, "hidden": 32, "kv": 16, "inner": 48, "vocab": 70}


def family_of(parent: Path, experts: int = 2) -> Family:
    root = open_checkpoint(parent / "base", "base")
    names = [f"expert{i}" for i in range(experts)]
    return open_family(root, [open_checkpoint(parent / name, name) for name in names])


@pytest.fixture(params=[fused.FusedStream, Stream], ids=["fused", "eager"])
def engine(request) -> type[Stream]:
    return request.param


def deltas(parent: Path, index: int) -> dict[str, np.ndarray]:
    base, expert = load_model(parent / "base"), load_model(parent / f"expert{index}")
    return {n: (expert[n].float() - base[n].float()).numpy().ravel() for n in sorted(base)}


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_statistics_are_those_of_the_deltas(dtype, tmp_path, engine) -> None:
    parent = small_family(tmp_path, **SIZES, dtype=dtype)
    sketch = scan(family_of(parent), engine=engine)
    edges = bin_edges()
    base = load_model(parent / "base")
    assert [tensor.name for tensor in sketch.tensors] == sorted(base)
    both = [deltas(parent, 0), deltas(parent, 1)]
    for column, tensor in enumerate(sketch.tensors):
        rows = [one[tensor.name].astype(np.float64) for one in both]
        for row, delta in enumerate(rows):
            size = abs(delta)
            at = np.clip(np.searchsorted(edges, size, side="right") - 1, 0, len(edges) - 2)
            changed = size > 0
            where = (row, column)
            expected = np.bincount(at[changed], minlength=len(edges) - 1)
            assert np.array_equal(sketch.counts[where], expected)
            l1 = np.bincount(at, weights=size, minlength=len(edges) - 1)
            l2 = np.bincount(at, weights=size**2, minlength=len(edges) - 1)
            np.testing.assert_allclose(sketch.l1[where], l1, rtol=0.01)
            np.testing.assert_allclose(sketch.l2[where], l2, rtol=0.02)
            assert sketch.l1[where].sum() == pytest.approx(l1.sum(), rel=1e-6)
            assert sketch.l2[where].sum() == pytest.approx(l2.sum(), rel=1e-6)
            assert sketch.zeros[where] == (~changed).sum()
            assert sketch.max_abs[where] == size.max()
            above = (size > np.float32(5.0 * size.mean())).sum() * tensor.is_linear
            assert sketch.linear_outliers[where] == above
        for i in range(2):
            for j in range(2):
                dot = (rows[i] * rows[j]).sum()
                scale = np.linalg.norm(rows[i]) * np.linalg.norm(rows[j])
                assert abs(sketch.dots[i, j, column] - dot) <= 1e-5 * scale
        squares = (base[tensor.name].double() ** 2).sum().item()
        assert sketch.base_l2[column] == pytest.approx(squares, rel=1e-6)


def test_a_change_falls_into_the_bin_of_its_exponent_and_three_bits(tmp_path, engine) -> None:
    bins = {  # 8 * (exponent + 40) + the eighth of the octave
        2.0**-40: 0,
        1e-13: 0,
        1e-45: 0,
        1e-9: 80,  # 1.07 * 2**-30
        3.3e-4: 226,  # 1.35 * 2**-12: the third eighth
        0.001: 240,  # 1.02 * 2**-10
        0.4999: 311,
        0.5: 312,
        -0.53125: 312,
        0.5625: 313,
        1.0: 320,
        1.1249999: 320,
        -1.125: 321,
        7.7: 343,  # 1.925 * 2**2: the last eighth
        65535.0: 447,
        65536.0: 447,
        1e15: 447,
    }
    name = "model.layers.0.mlp.up_proj.weight"
    changes = torch.tensor([[*bins, 0.0]])
    parent = write_family(tmp_path, {name: torch.zeros_like(changes)}, [{name: changes}])
    sketch = scan(family_of(parent, experts=1), engine=engine)
    counts = sketch.counts[0, 0]
    assert {int(index): int(counts[index]) for index in counts.nonzero()[0]} == {
        0: 3,
        80: 1,
        226: 1,
        240: 1,
        311: 1,
        312: 2,
        313: 1,
        320: 2,
        321: 1,
        343: 1,
        447: 3,
    }
    assert sketch.zeros[0, 0] == 1
    fine = sketch.fine[0, 0, 312].nonzero()[0].tolist()
    assert fine == [0, 8]  # 0.5, and 0.53125 = 0.5 + 8/16 of the bin's width
    ties = sketch.ties[0, 0]
    assert (ties[312, 0], ties[312, 8], ties[311].sum()) == (1, 1, 0)


def test_layer_outliers_pool_the_linears_of_a_layer(tmp_path) -> None:
    parent = small_family(tmp_path, **SIZES)
    sketch = scan(family_of(parent), layer_outlier=2.0, linear_outlier=4.0)
    for row in range(2):
        changes = deltas(parent, row)
        for column, tensor in enumerate(sketch.tensors):
            if not tensor.is_linear:
                assert sketch.layer_outliers[row, column] == 0
                continue
            same = [t.name for t in sketch.tensors if t.is_linear and t.layer == tensor.layer]
            pooled = np.concatenate([abs(changes[name]).astype(np.float64) for name in same])
            bound = np.float32(2.0 * pooled.mean())
            expected = (abs(changes[tensor.name]) > bound).sum()
            assert sketch.layer_outliers[row, column] == expected
    assert (sketch.layer_outlier, sketch.linear_outlier) == (2.0, 4.0)


def test_the_sample_holds_deltas_of_every_expert_at_the_same_places(tmp_path, engine) -> None:
    parent = small_family(tmp_path, layers=3, hidden=64, kv=32, inner=96, vocab=300)
    sketch = scan(family_of(parent), engine=engine)
    both = [deltas(parent, 0), deltas(parent, 1)]
    assert sketch.sample.shape == (2, sketch.sample_tensor.size)
    assert 10_000 <= sketch.sample.shape[1] <= 1 << 17
    base = load_model(parent / "base")
    assert (np.diff(sketch.sample_tensor) >= 0).all()
    for column, tensor in enumerate(sketch.tensors):
        chosen = sketch.sample[:, sketch.sample_tensor == column]
        pairs = set(zip(both[0][tensor.name], both[1][tensor.name], strict=True))
        assert set(map(tuple, chosen.T)) <= pairs
        values = sketch.sample_base[sketch.sample_tensor == column]
        assert np.isin(values, base[tensor.name].float().numpy()).all()
        share = chosen.shape[1] / max(sketch.sample.shape[1], 1)
        assert abs(share - tensor.numel / sketch.numel.sum()) <= 0.01


def test_both_engines_make_the_same_sketch(tmp_path) -> None:
    parent = small_family(tmp_path, **SIZES)
    first = scan(family_of(parent), engine=fused.FusedStream)
    second = scan(family_of(parent), engine=Stream)
    for name in ("counts", "zeros", "max_abs", "layer_outliers", "linear_outliers", "sample"):
        assert np.array_equal(getattr(first, name), getattr(second, name)), name
    for name in ("l1", "l2", "dots", "base_l2"):
        np.testing.assert_allclose(
            getattr(first, name), getattr(second, name), rtol=1e-4, atol=1e-12
        )


def test_a_family_in_memory_is_scanned_there(tmp_path) -> None:
    parent = small_family(tmp_path, layers=2, hidden=32, kv=16, inner=48, dtype=torch.bfloat16)
    family = open_family(parent / "base", {n: parent / n for n in ("expert0", "expert1")})
    kept = KeptFamily(family, "cpu")
    expected = scan(family, engine=Stream)
    found = scan(family, engine=Stream, source=kept)
    assert all(np.array_equal(getattr(found, n), getattr(expected, n)) for n in ARRAYS)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_a_sketch_made_in_many_pieces_is_the_same(dtype, tmp_path, monkeypatch) -> None:
    assert kernels.library() is not None
    monkeypatch.setattr(outliers, "_WORTH_SAMPLING", 1)
    parent = small_family(tmp_path, layers=2, hidden=64, kv=32, inner=96, vocab=300, dtype=dtype)
    whole = scan(family_of(parent))
    monkeypatch.setattr(sizes, "PASSING_BYTES", 1)
    monkeypatch.setattr(profiling, "_FULL", 2000)  # counters are emptied every few pieces
    pieces = scan(family_of(parent))
    sums = {"l1", "l2"}  # of floats: their order may move the last bit
    for name in {*scanning.BY_TENSOR, "sample"} - sums:
        assert np.array_equal(getattr(whole, name), getattr(pieces, name)), name
    for name in ("l1", "l2", "dots", "base_l2"):
        np.testing.assert_allclose(
            getattr(whole, name), getattr(pieces, name), rtol=1e-6, atol=1e-9
        )


def test_scalars_empty_tensors_and_unchanged_experts_are_sketched(tmp_path, engine) -> None:
    base = {"a": torch.tensor(1.0), "b": torch.empty(0, 3), "c": torch.ones(5)}
    parent = write_family(tmp_path, base, [{**base, "a": torch.tensor(3.0)}, base])
    sketch = scan(family_of(parent), engine=engine)
    assert sketch.numel.tolist() == [1, 0, 5]
    assert sketch.counts.sum(axis=2).tolist() == [[1, 0, 0], [0, 0, 0]]
    assert sketch.zeros.tolist() == [[0, 0, 5], [1, 0, 5]]
    assert sketch.max_abs.tolist() == [[2.0, 0, 0], [0, 0, 0]]


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_value_that_is_not_finite_names_model_and_tensor(value, tmp_path, engine) -> None:
    base = llama(0, **SIZES)
    expert = tuned(base, 1)
    expert["lm_head.weight"][2, 3] = value
    parent = write_family(tmp_path, base, [tuned(base, 2), expert])
    with pytest.raises(NonFinite, match=r"^expert1.*lm_head\.weight"):
        scan(family_of(parent), engine=engine)


def test_progress_ends_whole_and_a_cancel_stops(tmp_path, engine) -> None:
    parent = small_family(tmp_path, **SIZES)
    reports: list = []
    scan(family_of(parent), engine=engine, progress=reports.append)
    assert reports[-1].done == reports[-1].total
    cancel = threading.Event()
    cancel.set()
    with pytest.raises(Cancelled):
        scan(family_of(parent), engine=engine, cancel=cancel, cache=tmp_path / "cache")
    assert not (tmp_path / "cache").exists()


def equal(first: FamilySketch, second: FamilySketch) -> bool:
    return all(np.array_equal(getattr(first, name), getattr(second, name)) for name in ARRAYS)


def test_the_second_scan_comes_from_the_cache(tmp_path, monkeypatch) -> None:
    parent = small_family(tmp_path, **SIZES)
    first = scan(family_of(parent), cache=tmp_path / "cache")

    def measuring(*_: object) -> None:
        raise AssertionError("the family was read")

    monkeypatch.setattr("merging.sketches.scan._measure", measuring)
    second = scan(family_of(parent), cache=tmp_path / "cache")
    assert equal(first, second)
    assert first.tensors == second.tensors
    assert first.fingerprint == second.fingerprint
    with pytest.raises(AssertionError):
        scan(family_of(parent), cache=tmp_path / "cache", layer_outlier=2.5)


def alter(file: Path, seek: int) -> None:
    """Changes one byte and sets the file's time back."""
    times = (file.stat().st_atime_ns, file.stat().st_mtime_ns)
    with file.open("r+b") as handle:
        handle.seek(seek, os.SEEK_END)
        (byte,) = handle.read(1)
        handle.seek(seek, os.SEEK_END)
        handle.write(bytes([byte ^ 1]))
    os.utime(file, ns=times)


@pytest.mark.parametrize("whole", [True, False])
def test_other_bytes_of_the_same_size_and_time_get_their_own_sketch(
    whole: bool, tmp_path, monkeypatch
) -> None:
    base = {"model.layers.0.mlp.up_proj.weight": torch.zeros(400, 600)}
    expert = {name: tensor + 1 for name, tensor in base.items()}
    parent = write_family(tmp_path, base, [expert])
    if not whole:  # 960,000 bytes, of which 3 x 65,536 are sampled
        module = importlib.import_module("merging.checkpoints.fingerprint")
        monkeypatch.setattr(module, "FULL_BYTES", 0)
    cache = tmp_path / "cache"
    assert scan(family_of(parent, 1), cache=cache).max_abs.tolist() == [[1.0]]
    alter(parent / "expert0" / "model.safetensors", -200_002)  # 1.0 becomes 1.0078125
    assert scan(family_of(parent, 1), cache=cache).max_abs.tolist() == [[1.0078125]]


def test_a_file_that_changes_while_it_is_scanned_gives_no_sketch(tmp_path) -> None:
    parent = small_family(tmp_path, **SIZES)

    def change(_: object) -> None:
        alter(parent / "expert1" / "model.safetensors", -1)

    with pytest.raises(BadCheckpoint, match=r"^expert1: .* has changed since"):
        scan(family_of(parent), progress=change, cache=tmp_path / "cache")
    assert not (tmp_path / "cache").exists()


@pytest.mark.parametrize("damage", ["empty", "truncated", "flipped", "other", "text", "FIFO"])
def test_a_damaged_cache_is_read_over(damage: str, tmp_path) -> None:
    parent = small_family(tmp_path, **SIZES)
    cache = tmp_path / "cache"
    first = scan(family_of(parent), cache=cache)
    (file,) = cache.iterdir()
    data = bytearray(file.read_bytes())
    if damage == "flipped":
        for position in range(200, len(data) - 200, 97):
            data[position] ^= 0xFF
    elif damage == "other":
        np.savez(file, key=np.array("sketch:other"))
        data = bytearray(file.read_bytes())
    else:
        texts = {"empty": b"", "truncated": data[: len(data) // 2], "text": b"hello"}
        data = texts.get(damage, b"")
    if damage == "FIFO":
        file.unlink()
        os.mkfifo(file)
    else:
        file.write_bytes(data)
    assert equal(scan(family_of(parent), cache=cache), first)
    assert equal(scan(family_of(parent), cache=cache), first)


def test_a_cache_that_cannot_be_written_costs_only_time(tmp_path) -> None:
    parent = small_family(tmp_path, **SIZES)
    (tmp_path / "file").write_text("")
    assert scan(family_of(parent), cache=tmp_path / "file" / "cache").exact


def test_content_decides_not_names(tmp_path) -> None:
    base = llama(0, **SIZES)
    parent = write_family(tmp_path / "one", base, [tuned(base, 1), tuned(base, 2)])
    moved = write_family(tmp_path / "two", base, [tuned(base, 1), tuned(base, 2)])
    changed = write_family(tmp_path / "three", base, [tuned(base, 1), tuned(base, 3)])
    keys = [sketch_key(family_of(p), 3.0, 5.0) for p in (parent, moved, changed)]
    assert keys[0] == keys[1] != keys[2]


def test_what_is_merged_is_part_of_the_key(tmp_path) -> None:
    base = llama(0, **SIZES)
    keys = []
    for number, config in enumerate(({}, {"tie_word_embeddings": True})):
        parent = tmp_path / str(number)
        write_model(parent / "base", base, config)
        write_model(parent / "expert0", tuned(base, 1), config)
        keys.append(sketch_key(family_of(parent, 1), 3.0, 5.0))
    assert keys[0] != keys[1]


def test_some_experts_of_a_sketch_are_a_sketch_of_those(tmp_path) -> None:
    base = llama(0, **SIZES)
    parent = write_family(tmp_path, base, [tuned(base, i) for i in range(3)])
    whole = scan(family_of(parent, 3))
    root = open_checkpoint(parent / "base", "base")
    two = open_family(root, [open_checkpoint(parent / n, n) for n in ("expert2", "expert0")])
    chosen, direct = select_experts(whole, ["expert2", "expert0"]), scan(two)
    assert chosen.experts == ("expert2", "expert0")
    for name in ARRAYS:
        np.testing.assert_allclose(
            getattr(chosen, name), getattr(direct, name), rtol=1e-4, atol=1e-9
        )


def _counts(sketch: FamilySketch) -> list[np.ndarray]:
    return [sketch.layer_outliers, sketch.linear_outliers]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_outliers_near_what_a_sample_says_are_counted_without_a_second_pass(
    dtype, tmp_path, monkeypatch
) -> None:
    assert kernels.library() is not None
    family = family_of(small_family(tmp_path, **SIZES, dtype=dtype))
    expected = _counts(scan(family))
    monkeypatch.setattr(outliers, "_WORTH_SAMPLING", 1)
    calls = []
    plain = fused.FusedReader.count_above

    def counted(reader, bounds):
        calls.append(reader.entry.name)
        return plain(reader, bounds)

    monkeypatch.setattr(fused.FusedReader, "count_above", counted)
    assert all(map(np.array_equal, _counts(scan(family)), expected))
    assert not calls, "a sample of everything is right about the mean"
    likely = outliers.likely_bounds

    def wrong(*args: object) -> dict:
        return {name: (3 * np.array(rows)).tolist() for name, rows in likely(*args).items()}

    monkeypatch.setattr(scanning, "likely_bounds", wrong)
    assert all(map(np.array_equal, _counts(scan(family)), expected))
    assert len(set(calls)) == sum(tensor.is_linear for tensor in scan(family).tensors)
    monkeypatch.setattr(scanning, "likely_bounds", likely)
    monkeypatch.setattr(profiling, "_NEARLY", np.float32(1e6))  # too much is near: not all is kept
    monkeypatch.setattr(profiling, "_NEAR_ROOM", 64)
    calls.clear()
    assert all(map(np.array_equal, _counts(scan(family)), expected))
    assert bool(calls) == (dtype is torch.float32)  # half precision's are counted, not kept
