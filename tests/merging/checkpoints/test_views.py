"""Views: models made of layers of others, whose tensors keep saying what they are."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from merging.checkpoints import Checkpoint, open_checkpoint
from merging.checkpoints.checkpoint import Part
from merging.checkpoints.family import open_family
from merging.checkpoints.views import depth_of, members, originals, stacked, text_stack
from merging.engines.sources import family_key
from merging.errors import BadCheckpoint, RecipeError
from tests.families import llama, load_model, write_model

SMALL = {"layers": 3, "hidden": 8, "kv": 8, "inner": 12, "vocab": 16}
Q = "model.layers.{}.self_attn.q_proj.weight"


@pytest.fixture
def pair(tmp_path) -> tuple[Checkpoint, Checkpoint]:
    for seed, name in enumerate(("one", "two")):
        write_model(tmp_path / name, llama(seed, **SMALL), {"num_hidden_layers": 3})
    return open_checkpoint(tmp_path / "one"), open_checkpoint(tmp_path / "two")


def test_layers_are_numbered_anew_and_read_from_their_files(pair, tmp_path: Path) -> None:
    one, two = pair
    view = stacked("both", [Part(one, 1, 3), Part(two, 0, 1)])
    first, second = load_model(tmp_path / "one"), load_model(tmp_path / "two")
    assert torch.equal(view.read(Q.format(0)), first[Q.format(1)])
    assert torch.equal(view.read(Q.format(2)), second[Q.format(0)])
    assert Q.format(3) not in view.tensors
    assert torch.equal(view.read("model.embed_tokens.weight"), first["model.embed_tokens.weight"])
    for name in ("model.norm.weight", "lm_head.weight"):
        assert torch.equal(view.read(name), second[name])


def test_a_tensor_says_which_model_s_it_is(pair) -> None:
    one, two = pair
    view = stacked("both", [Part(one, 1, 3), Part(two, 0, 1)])
    assert view.origin(Q.format(0)) == ("one", Q.format(1))
    assert view.origin(Q.format(2)) == ("two", Q.format(0))
    assert one.origin(Q.format(1)) == ("one", Q.format(1))


def test_two_stacks_of_one_model_are_told_apart(pair) -> None:
    one, _ = pair
    views = [stacked("x", [Part(one, *span)]) for span in ((0, 2), (1, 3))]
    assert views[0].key != views[1].key
    assert views[0].key == stacked("y", [Part(one, 0, 2)]).key
    keys = {family_key(open_family(view, [view])) for view in views}
    assert len(keys) == 2


def test_what_a_view_is_made_of(pair) -> None:
    one, two = pair
    views = [stacked("x", [Part(one, 0, 1), Part(two, 0, 1)]), stacked("y", [Part(one, 0, 2)])]
    assert [model.name for model in originals((*views, two))] == ["one", "two"]
    assert [model.folder for model in members(views)] == [one.folder, two.folder]


def test_a_file_that_changes_is_told_of_its_own_model(pair, tmp_path) -> None:
    one, two = pair
    view = stacked("both", [Part(one, 0, 1), Part(two, 0, 1)])
    view.check_unchanged()
    file = tmp_path / "two" / "model.safetensors"
    file.write_bytes(file.read_bytes() + b" ")
    with pytest.raises(BadCheckpoint, match=r"^two"):
        view.check_unchanged()


def test_layers_that_a_model_lacks_are_refused(pair) -> None:
    one, _ = pair
    assert (text_stack(one), depth_of(one)) == ("model.layers", 3)
    with pytest.raises(RecipeError, match=r"\[2, 4\] of one, which has 3 layers"):
        stacked("x", [Part(one, 2, 4)])


def test_an_encoder_beside_a_decoder_is_not_stacked(tmp_path) -> None:
    names = [
        f"{part}.block.{i}.layer.0.q.weight" for part in ("encoder", "decoder") for i in (0, 1)
    ]
    write_model(tmp_path / "t5", {name: torch.ones(2, 2) for name in names})
    with pytest.raises(RecipeError, match=r"several stacks .*decoder\.block, encoder\.block"):
        stacked("x", [Part(open_checkpoint(tmp_path / "t5"), 0, 1)])
