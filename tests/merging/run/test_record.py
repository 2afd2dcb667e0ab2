"""What stands beside the tensors: enough to load the model and to make it again."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
import yaml

from merging import __version__
from merging import recipe as recipes
from merging.checkpoints import fingerprint, open_checkpoint
from merging.methods import PRESETS
from merging.run.merge import merge
from merging.run.record import RECIPE_FILE
from tests.engines import experts_of
from tests.families import document, load_model, small_family

SMALL = {"layers": 1, "hidden": 16, "kv": 8, "inner": 24, "vocab": 20}
BESIDE = {
    "tokenizer.json": "{}",
    "tokenizer_config.json": '{"chat": 1}',
    "generation_config.json": "{}",
    "special_tokens_map.json": "{}",
    "chat_template.jinja": "{{ messages }}",
    "merges.txt": "a b",
    "vocab.txt": "a",
    "tokenizer.model": "binary",
    "LICENSE": "free",
}
NOT_COPIED = {
    "pytorch_model.bin.index.json": "{}",
    "pytorch_model.bin": "",
    "adapter_config.json": "{}",
    "modeling.py": "import os",
    "README.md": "# the base",
    "scores.json": "{}",
    "notes.txt": "",
}


@pytest.fixture
def parent(tmp_path) -> Path:
    folder = small_family(tmp_path / "family", **SMALL)
    for name, text in {**BESIDE, **NOT_COPIED}.items():
        (folder / "base" / name).write_text(text)
    return folder


def run(recipe: dict, parent: Path, out: Path):
    return merge(recipes.from_mapping(recipe, parent), out, device="cpu")


def test_what_loading_needs_is_copied_from_the_base(parent, tmp_path) -> None:
    run(document("ties", 2), parent, tmp_path / "out")
    for name, text in BESIDE.items():
        assert (tmp_path / "out" / name).read_text() == text
    present = {path.name for path in (tmp_path / "out").iterdir()}
    assert present == {*BESIDE, "config.json", "model.safetensors", RECIPE_FILE, "README.md"}


def test_the_config_names_the_type_of_the_output(parent, tmp_path) -> None:
    config = json.loads((parent / "base" / "config.json").read_text())
    for key in ("torch_dtype", "dtype", None):
        before = {**config, **({key: "float32"} if key else {}), "vocab_size": 20}
        (parent / "base" / "config.json").write_text(json.dumps(before))
        run(document("ties", 2, dtype="bfloat16"), parent, tmp_path / f"{key}")
        after = json.loads((tmp_path / f"{key}" / "config.json").read_text())
        assert after == {**before, key or "dtype": "bfloat16"}
        run(document("ties", 2), parent, tmp_path / f"{key}-kept")
        assert json.loads((tmp_path / f"{key}-kept" / "config.json").read_text()) == before


@pytest.mark.parametrize("method", sorted(PRESETS))
def test_the_recipe_written_beside_it_makes_the_same_model(method, parent, tmp_path) -> None:
    values = [{"weight": 0.3}, {"weight": 0.9}][: experts_of(method, 2)]
    first = run(document(method, values), parent, tmp_path / "out")
    again = recipes.load(tmp_path / "out" / RECIPE_FILE)
    second = merge(again, tmp_path / "again", device="cpu")
    assert first.fingerprint == second.fingerprint
    once, twice = load_model(tmp_path / "out"), load_model(tmp_path / "again")
    assert all(torch.equal(once[name], twice[name]) for name in once)


def test_the_record_holds_versions_and_fingerprints(parent, tmp_path) -> None:
    result = run(document("dare_ties", 2, {"seed": 11}), parent, tmp_path / "out")
    document_ = yaml.safe_load((tmp_path / "out" / RECIPE_FILE).read_text())
    assert document_["parameters"]["seed"] == 11
    assert document_["parameters"]["rescale_by"] == "density"
    assert document_["base_model"] == str(parent / "base")
    record = document_["record"]
    assert record["amalgam"] == __version__
    assert record["torch"] == torch.__version__.split("+")[0]
    assert record["inputs"] == {
        name: fingerprint(open_checkpoint(parent / name)) for name in ("base", "expert0", "expert1")
    }
    assert record["result"] == result.fingerprint
    assert record["result"] == fingerprint(open_checkpoint(tmp_path / "out"), full=True)
    assert record["tensors"]["merged"] == len(load_model(tmp_path / "out"))


def test_built_in_models_keep_their_names(tmp_path) -> None:
    recipe = {"merge_method": "linear", "models": ["demo:add", "demo:sort"]}
    merge(recipes.from_mapping(recipe), tmp_path / "out", device="cpu")
    written = yaml.safe_load((tmp_path / "out" / RECIPE_FILE).read_text())
    assert [model["model"] for model in written["models"]] == ["demo:add", "demo:sort"]


def test_the_card_says_what_was_merged_and_holds_no_local_path(parent, tmp_path) -> None:
    recipe = document("ties", 2)
    recipe["models"][0]["model"] = str(parent / "expert0")
    result = run(recipe, parent, tmp_path / "out")
    card = (tmp_path / "out" / "README.md").read_text()
    front = yaml.safe_load(card.split("---")[1])
    assert front["tags"] == ["merge", "amalgam", "ties"]
    assert not any(name.startswith("/") for name in front.get("base_model", []))
    assert "elect a sign" in card.lower()
    assert result.fingerprint in card
    assert str(tmp_path) not in card


def test_account_lines_are_kept(parent, tmp_path) -> None:
    from safetensors.torch import save_file

    tensors = load_model(parent / "base")
    save_file({**tensors, "ids": torch.arange(3)}, parent / "base" / "model.safetensors")
    run(document("ties", 2), parent, tmp_path / "out")
    record = yaml.safe_load((tmp_path / "out" / RECIPE_FILE).read_text())["record"]
    assert record["tensors"]["copied"] == {
        "ids": "type I64 in the base is not a floating-point type"
    }
