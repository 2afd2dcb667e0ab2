"""Containers: any task of one is the model that a merge for it alone would have written."""

from __future__ import annotations

import json
import shutil
import threading
from functools import partial
from pathlib import Path

import pytest
import torch

from merging import recipe as recipes
from merging.__main__ import main
from merging.checkpoints import open_checkpoint
from merging.engines.eager import Stream
from merging.errors import (
    BadCheckpoint,
    Cancelled,
    FamilyMismatch,
    MergeError,
    ModelNotFound,
    NonFinite,
    OutputExists,
    RecipeError,
)
from merging.run.materialise import materialise
from merging.run.merge import merge
from merging.run.preflight import check
from tests.families import document, llama, load_model, tuned, write_family, write_model

SMALL = {"layers": 1, "hidden": 24, "kv": 8, "inner": 20, "vocab": 37, "dtype": torch.bfloat16}
UP = "model.layers.0.mlp.up_proj.weight"


@pytest.fixture
def parent(tmp_path) -> Path:
    base = llama(**SMALL) | {"counter": torch.tensor([1, 2])}
    experts = [tuned(llama(**SMALL), i) | {"counter": torch.tensor([1, 2])} for i in range(3)]
    experts[2]["model.embed_tokens.weight"] = experts[2]["model.embed_tokens.weight"][:-6].clone()
    return write_family(tmp_path / "family", base, experts, {"vocab_size": 37})


def run(
    parent: Path, out: Path, method: str = "emr", *, chunk: int | None = None, engine=None, **values
):
    weights = [{"weight": 0.5}, {}, {"weight": 1.5}]
    recipe = recipes.from_mapping(document(method, weights, values), parent)
    return merge(recipe, out, device="cpu", chunk=chunk, engine=engine)


def files_of(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.mark.parametrize(
    ("method", "values"),
    [
        ("emr", {}),
        ("emr", {"rescaler": "tensor_mean", "prune": "magnitude", "density": 0.4}),
        ("tall_masks", {"lambda": 0.7, "threshold": 0.3}),
    ],
)
def test_every_task_is_the_model_that_is_merged_for_it(method, values, parent, tmp_path) -> None:
    run(parent, tmp_path / "all", method, container=True, **values)
    for number, task in enumerate(("expert0", "expert1", "expert2"), 1):
        run(parent, tmp_path / task, method, task=number, **values)
        one = materialise(tmp_path / "all", task, tmp_path / f"of {task}")
        assert files_of(one.out) == files_of(tmp_path / task)
        assert one.task == task
        other = materialise(tmp_path / "all", str(number), one.out, overwrite=True)
        assert other.fingerprint == one.fingerprint
    assert torch.equal(load_model(one.out)["counter"], torch.tensor([1, 2]))
    assert not torch.equal(load_model(tmp_path / "expert0")[UP], load_model(one.out)[UP])


@pytest.mark.parametrize("chunk", [35, 100])
def test_chunks_change_no_byte_of_a_container(chunk, parent, tmp_path) -> None:
    in_pieces = partial(Stream, resident=0)
    run(parent, tmp_path / "whole", container=True, rescaler="none")
    run(parent, tmp_path / "parts", container=True, rescaler="none", chunk=chunk, engine=in_pieces)
    assert files_of(tmp_path / "parts") == files_of(tmp_path / "whole")


def test_a_container_is_no_model_and_says_what_to_do(parent, tmp_path) -> None:
    (note,) = run(parent, tmp_path / "all", container=True).notes
    assert note.startswith("a container of expert0, expert1, expert2: amalgam materialise")
    with pytest.raises(BadCheckpoint, match=r"container of several tasks.*amalgam materialise"):
        open_checkpoint(tmp_path / "all")
    with pytest.raises(OutputExists, match="exists and is not empty"):
        run(parent, tmp_path / "all", container=True)


def test_the_disk_that_a_container_takes_is_told_before(parent, tmp_path) -> None:
    values = document("emr", 3, {"container": True})
    forecast = check(recipes.from_mapping(values, parent)).disk_bytes
    run(parent, tmp_path / "all", container=True)
    taken = sum(path.stat().st_size for path in (tmp_path / "all").glob("*.safetensors"))
    assert forecast < taken < forecast + 4 * 4000  # headers


def test_the_base_may_lie_elsewhere_but_is_that_base(parent, tmp_path) -> None:
    run(parent, tmp_path / "all", container=True)
    for index in range(3):
        shutil.rmtree(parent / f"expert{index}")
    shutil.move(parent / "base", tmp_path / "moved")
    with pytest.raises(ModelNotFound, match="name the base: --base"):
        materialise(tmp_path / "all", "1", tmp_path / "out")
    one = materialise(tmp_path / "all", "1", tmp_path / "out", base=str(tmp_path / "moved"))
    assert set(load_model(one.out)) == set(load_model(tmp_path / "moved"))
    other = write_model(tmp_path / "other", llama(9, **SMALL) | {"counter": torch.tensor([1, 2])})
    with pytest.raises(FamilyMismatch, match=r"other is another model than the base of .*sha256"):
        materialise(tmp_path / "all", "1", tmp_path / "two", base=str(other))
    assert not (tmp_path / "two").exists()


@pytest.mark.parametrize("file", ["change.safetensors", "masks_expert1.safetensors"])
def test_a_damaged_file_is_named(file, parent, tmp_path) -> None:
    run(parent, tmp_path / "all", container=True)
    path = tmp_path / "all" / file
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    with pytest.raises(BadCheckpoint, match=f"{file} is damaged.*copy the container again"):
        materialise(tmp_path / "all", "expert1", tmp_path / "out")
    path.write_bytes(data[:-9])
    with pytest.raises(BadCheckpoint, match=f"{file}.*truncated"):
        materialise(tmp_path / "all", "expert1", tmp_path / "out")
    assert sorted(one.name for one in tmp_path.iterdir()) == ["all", "family"]


def test_a_mask_of_another_family_does_not_fit(parent, tmp_path) -> None:
    run(parent, tmp_path / "all", container=True)
    wide = write_family(tmp_path / "wide", (base := llama(hidden=32)), [tuned(base, 1)] * 3)
    run(wide, tmp_path / "others", container=True)
    name = "masks_expert0.safetensors"
    shutil.copy(tmp_path / "others" / name, tmp_path / "all" / name)
    with pytest.raises(BadCheckpoint, match="does not fit its mask or the base"):
        materialise(tmp_path / "all", "expert0", tmp_path / "out")


def test_stopped_or_not_finite_leaves_nothing(parent, tmp_path) -> None:
    run(parent, tmp_path / "all", container=True)
    before = sorted(tmp_path.iterdir())
    cancel = threading.Event()

    def stop_while_it_writes(progress) -> None:
        if progress.phase == "merge":
            cancel.set()

    with pytest.raises(Cancelled):
        materialise(
            tmp_path / "all", "1", tmp_path / "out", progress=stop_while_it_writes, cancel=cancel
        )
    with pytest.raises(RecipeError, match="no task 4"):
        materialise(tmp_path / "all", "4", tmp_path / "out")
    broken = load_model(parent / "expert1")
    broken[UP][0, 3] = torch.inf
    shutil.rmtree(parent / "expert1")
    write_model(parent / "expert1", broken, {"vocab_size": 37})
    with pytest.raises(NonFinite, match=f"expert1: tensor {UP} holds inf"):
        run(parent, tmp_path / "again", container=True)
    assert sorted(tmp_path.iterdir()) == before


def test_a_stack_of_slices_is_refused(parent, tmp_path) -> None:
    with pytest.raises(MergeError, match=r"made of slices.*task: 1, 2"):
        recipe = {
            "merge_method": "emr",
            "base_model": "base",
            "parameters": {"container": True},
            "slices": [
                {
                    "sources": [
                        {"model": name, "layer_range": [0, 1]} for name in ("expert0", "expert1")
                    ]
                }
            ]
            * 2,
        }
        merge(recipes.from_mapping(recipe, parent), tmp_path / "out", device="cpu")


def test_the_command_prints_folder_and_fingerprint(parent, tmp_path, capsys) -> None:
    run(parent, tmp_path / "all", container=True)
    capsys.readouterr()
    out = tmp_path / "out"
    assert main(["materialise", str(tmp_path / "all"), "expert1", str(out), "--json"]) == 0
    printed = json.loads(capsys.readouterr().out)
    assert printed["out"] == str(out) and printed["task"] == "expert1"
    run(parent, tmp_path / "direct", task=2)
    record = (tmp_path / "direct" / "amalgam.yaml").read_text()
    assert printed["fingerprint"] in record
    assert main(["materialise", str(tmp_path / "all"), "expert9", str(tmp_path / "no")]) == 2
    assert "no task expert9" in capsys.readouterr().err
