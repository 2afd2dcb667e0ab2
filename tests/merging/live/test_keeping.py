"""Keeping a live model: the folder that a merge of its recipe writes, without merging again."""

from __future__ import annotations

import json
import threading
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from merging.checkpoints import fingerprint, open_checkpoint
from merging.errors import Cancelled, OutputExists
from merging.live.model import LiveModel
from merging.recipe import load
from merging.run.merge import merge
from tests.merging.live.families import make_family, recipe_of


@pytest.fixture(scope="module")
def parent(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_family(tmp_path_factory.mktemp("kept"))


def files(folder: Path) -> dict[str, bytes]:
    """All that lies in a folder, hidden files included."""
    return {
        str(file.relative_to(folder)): file.read_bytes()
        for file in sorted(folder.rglob("*"))
        if file.is_file()
    }


@pytest.mark.parametrize("tied", [False, True])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
def test_what_is_kept_is_what_a_merge_writes(tied, dtype, tmp_path) -> None:
    family = make_family(tmp_path / "family", tied=tied, dtype=dtype)
    live = LiveModel.load(recipe_of(family), "cpu")
    live.settle(recipe_of(family, density=0.8))
    recipe = recipe_of(family, density=[0.2, 0.9])
    live.settle(recipe)
    kept = live.keep(tmp_path / "kept")
    result = merge(recipe, tmp_path / "merged", device="cpu")
    assert files(tmp_path / "kept") == files(tmp_path / "merged")
    assert kept.fingerprint == result.fingerprint == live.fingerprint()
    assert kept.fingerprint == fingerprint(open_checkpoint(kept.out), full=True)
    assert not kept.is_merged_again
    assert load(kept.out / "amalgam.yaml").sources


def test_another_output_type_is_kept_as_it_is_merged(parent, tmp_path) -> None:
    base = recipe_of(parent)
    recipe = type(base)(**{**vars(base), "dtype": "float32"})
    live = LiveModel.load(recipe, "cpu")
    live.settle(recipe)
    live.keep(tmp_path / "kept")
    merge(recipe, tmp_path / "merged", device="cpu")
    assert files(tmp_path / "kept") == files(tmp_path / "merged")


def test_tensors_that_no_recipe_touches_come_from_the_base(parent, tmp_path) -> None:
    base = recipe_of(parent)
    recipe = type(base)(**{**vars(base), "keep_base": ("layers.0.",)})
    live = LiveModel.load(recipe, "cpu")
    live.settle(recipe)
    live.keep(tmp_path / "kept")
    merge(recipe, tmp_path / "merged", device="cpu")
    assert files(tmp_path / "kept") == files(tmp_path / "merged")
    own, kept = (load_file(f / "model.safetensors") for f in (parent / "base", tmp_path / "kept"))
    assert all(torch.equal(own[name], kept[name]) for name in own if "layers.0." in name)


def test_types_that_a_network_does_not_hold_are_merged_again(tmp_path) -> None:
    family = make_family(tmp_path / "family")
    for name in ("base", "expert0", "expert1"):
        file = family / name / "model.safetensors"
        tensors = load_file(file)
        tensors["model.norm.weight"] = tensors["model.norm.weight"].float() + 1e-4
        save_file(tensors, file, {"format": "pt"})
        config = json.loads((family / name / "config.json").read_text())
        (family / name / "config.json").write_text(json.dumps({**config, "dtype": "bfloat16"}))
    live = LiveModel.load(recipe_of(family), "cpu")
    live.settle(recipe_of(family))
    kept = live.keep(tmp_path / "kept")
    result = merge(recipe_of(family), tmp_path / "merged", device="cpu")
    assert kept.is_merged_again
    assert kept.fingerprint == result.fingerprint
    assert live.fingerprint() is None


def test_what_exists_is_not_written_over_unasked(parent, tmp_path) -> None:
    live = LiveModel.load(recipe_of(parent), "cpu")
    live.settle(recipe_of(parent))
    kept = live.keep(tmp_path / "kept")
    with pytest.raises(OutputExists):
        live.keep(tmp_path / "kept")
    live.settle(recipe_of(parent, density=0.9))
    assert live.keep(tmp_path / "kept", overwrite=True).fingerprint != kept.fingerprint


def test_without_a_merge_there_is_nothing_to_keep(parent, tmp_path) -> None:
    live = LiveModel.load(recipe_of(parent), "cpu")
    with pytest.raises(Cancelled, match="settle a recipe first"):
        live.keep(tmp_path / "kept")
    cancel = threading.Event()
    with pytest.raises(Cancelled):
        live.settle(recipe_of(parent), progress=lambda _: cancel.set(), cancel=cancel)
    assert live.settled is None
    with pytest.raises(Cancelled, match="settle a recipe first"):
        live.keep(tmp_path / "kept")
    assert not list(tmp_path.iterdir())


def test_a_stopped_keep_leaves_nothing(parent, tmp_path) -> None:
    live = LiveModel.load(recipe_of(parent), "cpu")
    live.settle(recipe_of(parent))
    cancel = threading.Event()
    with pytest.raises(Cancelled):
        live.keep(tmp_path / "kept", progress=lambda _: cancel.set(), cancel=cancel)
    assert not list(tmp_path.iterdir())


def test_a_new_recipe_waits_for_what_is_kept(parent, tmp_path) -> None:
    live = LiveModel.load(recipe_of(parent), "cpu")
    live.settle(recipe_of(parent))
    before, begun = live.fingerprint(), threading.Event()
    newer = threading.Thread(target=lambda: live.settle(recipe_of(parent, density=0.9)))

    def progress(_) -> None:
        if not begun.is_set():
            begun.set()
            newer.start()
            while not live._turns:
                pass

    kept = live.keep(tmp_path / "kept", progress=progress)
    newer.join()
    assert kept.fingerprint == before
    assert live.fingerprint() != before
