"""Steps that have no fused form run through torch, tensor by tensor, on every engine; and what
engines measure for methods."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from merging.checkpoints import Entry, Family, open_family
from merging.engines.eager import Stream, TensorReader
from merging.engines.fused import FusedStream, sizes
from merging.errors import NonFinite
from merging.instructions import Eager, Keep, Outcome, Sum, needs_of

ENGINES = (Stream, FusedStream)
SHAPES = {"bias": (7,), "layers.0.weight": (6, 5), "one": (), "empty": (0, 4)}


@pytest.fixture(scope="module")
def family(tmp_path_factory: pytest.TempPathFactory) -> Family:
    folder, generator = tmp_path_factory.mktemp("steps"), torch.Generator().manual_seed(3)
    for name in ("base", "a", "b"):
        tensors = {key: torch.randn(shape, generator=generator) for key, shape in SHAPES.items()}
        (folder / name).mkdir()
        save_file(tensors, folder / name / "model.safetensors")
        (folder / name / "config.json").write_text('{"model_type": "llama"}')
    return open_family(folder / "base", {name: folder / name for name in ("a", "b")})


def entry_of(family: Family, name: str) -> Entry:
    return next(entry for entry in family.merged if entry.name == name)


def values_of(reader: TensorReader, decisions: list, outcome: Outcome) -> torch.Tensor:
    pieces = [bytes(chunk.values) for chunk in reader.merge(decisions, outcome, "F32")]
    return torch.frombuffer(bytearray(b"".join(pieces) or b"\0"), dtype=torch.uint8)


def stored(family: Family, model: int, name: str) -> torch.Tensor:
    return family.models[model].read(name).float()


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("needs", ["chunk", "rows", "tensor"])
@pytest.mark.parametrize("name", ["bias", "layers.0.weight", "one"])
def test_each_step_sees_what_it_needs(engine, needs, name, family, monkeypatch) -> None:
    shapes, starts = [], []

    def halve(delta: torch.Tensor, start: int) -> torch.Tensor:
        shapes.append(tuple(delta.shape))
        starts.append(start)
        return delta / 2

    reader = engine(family, chunk=12, resident=1).open(entry_of(family, name))
    decisions = [Eager(halve, needs), Keep()]
    raw = values_of(reader, decisions, Outcome(Sum((1.0, 1.0))))
    base, a, b = (stored(family, model, name) for model in range(3))
    assert torch.equal(raw.view(torch.float32), (base + ((a - base) / 2 + (b - base))).flatten())
    if name == "layers.0.weight":
        pieces = {"chunk": [(12,), (12,), (6,)], "rows": [(2, 5)] * 3, "tensor": [(6, 5)]}
        assert shapes == pieces[needs]
        assert starts == {"chunk": [0, 12, 24], "rows": [0, 10, 20], "tensor": [0]}[needs]


@pytest.mark.parametrize("engine", ENGINES)
def test_a_combination_and_a_blend_of_whole_tensors(engine, family) -> None:
    reader = engine(family).open(entry_of(family, "layers.0.weight"))
    base, a, b = (stored(family, model, "layers.0.weight") for model in range(3))

    def larger(deltas: list[torch.Tensor], start: int) -> torch.Tensor:
        assert [delta.shape for delta in deltas] == [(6, 5), (6, 5)]
        return torch.maximum(*deltas)

    raw = values_of(reader, [Keep(), Keep(0.5)], Outcome(Eager(larger, "tensor"), strength=2.0))
    expected = base + torch.maximum(a - base, (b - base) * 0.5) * 2.0
    assert torch.equal(raw.view(torch.float32), expected.flatten())

    def middle(origin: torch.Tensor, models: list[torch.Tensor], start: int) -> torch.Tensor:
        assert torch.equal(origin, base)
        return (models[0] + models[1]) / 2

    raw = values_of(reader, [Keep(), Keep()], Outcome.of(middle, "tensor"))
    assert torch.equal(raw.view(torch.float32), ((a + b) / 2).flatten())


def test_the_widest_need_of_all_steps_counts() -> None:
    rows, tensor = Eager(lambda delta, start: delta, "rows"), Eager(max, "tensor")
    assert needs_of([Keep(), Keep()], Outcome(Sum((1.0, 1.0)))) == "chunk"
    assert needs_of([Keep(), rows], Outcome(Sum((1.0, 1.0)))) == "rows"
    assert needs_of([rows, Keep()], Outcome(tensor)) == "tensor"
    assert needs_of(None) == "chunk"


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("name", SHAPES)
def test_inner_products_of_the_base_and_the_changes(engine, name, family) -> None:
    base, a, b = (stored(family, model, name).flatten() for model in range(3))
    points = torch.stack([base, a - base, b - base]).double()
    gram = engine(family, chunk=4).open(entry_of(family, name)).gram()
    assert np.allclose(gram, (points @ points.T).numpy(), rtol=1e-12, atol=1e-12)
    assert np.array_equal(gram, gram.T)


def test_inner_products_are_the_same_bits_in_every_engine_and_chunking(
    tmp_path: Path, monkeypatch
) -> None:
    generator = torch.Generator().manual_seed(5)
    for name, dtype in {"base": torch.float32, "a": torch.bfloat16, "b": torch.float16}.items():
        values = torch.randn(61, 83, generator=generator)
        (tmp_path / name).mkdir()
        save_file({"w": values.to(dtype)}, tmp_path / name / "model.safetensors")
        (tmp_path / name / "config.json").write_text('{"model_type": "llama"}')
    family = open_family(tmp_path / "base", {"a": tmp_path / "a", "b": tmp_path / "b"})
    (entry,) = family.merged
    grams = set()
    for engine, chunk in ((Stream, None), (Stream, 100), (Stream, 1500), (FusedStream, None)):
        stream = engine(family, chunk=chunk)
        stream.resident = 0 if chunk else stream.resident
        grams.add(stream.open(entry).gram().tobytes())
    monkeypatch.setattr(sizes, "PIECE_BYTES", 1)
    grams.add(FusedStream(family).open(entry).gram().tobytes())
    assert len(grams) == 1


@pytest.mark.parametrize("engine", ENGINES)
def test_inner_products_name_the_model_that_holds_nan(engine, tmp_path: Path) -> None:
    for name, value in {"base": 1.0, "a": float("nan")}.items():
        (tmp_path / name).mkdir()
        save_file({"w": torch.full((3, 3), value)}, tmp_path / name / "model.safetensors")
        (tmp_path / name / "config.json").write_text('{"model_type": "llama"}')
    family = open_family(tmp_path / "base", {"a": tmp_path / "a"})
    with pytest.raises(NonFinite, match=r"a: tensor w holds nan"):
        engine(family).open(family.merged[0]).gram()
