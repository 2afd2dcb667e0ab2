"""The live model: the bytes of a written merge, rewritten only where a recipe changes them."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from merging.errors import BadCheckpoint, Cancelled, NonFinite, RecipeError
from merging.live.model import LiveModel
from merging.live.places import places_of
from merging.recipe import Recipe, from_mapping
from merging.run.merge import merge
from merging.run.preflight import open_recipe
from merging.trial.chat import ChatModel, Sampling
from tests.families import document
from tests.merging.live.families import LAYERS, make_family, recipe_of

QUESTION = [{"role": "user", "content": "What is 37 + 45?"}]


@pytest.fixture(scope="module")
def parent(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_family(tmp_path_factory.mktemp("live"))


def values_of(live: LiveModel) -> dict[str, torch.Tensor]:
    return {n: v.clone() for n, v in live.chat.model.network.state_dict().items()}


def answer(model: ChatModel | LiveModel, **options) -> str:
    return list(model.stream(QUESTION, Sampling(max_new_tokens=12), **options))[-1].text


def assert_as_written(live: LiveModel, recipe: Recipe, out: Path) -> None:
    merge(recipe, out, device="cpu")
    written, own = load_file(out / "model.safetensors"), values_of(live)
    assert all(torch.equal(own[name], values) for name, values in written.items())


@pytest.mark.parametrize(
    ("tied", "dtype"), [(False, torch.bfloat16), (True, torch.bfloat16), (False, torch.float32)]
)
def test_after_many_changes_it_holds_the_bytes_of_a_written_merge(tied, dtype, tmp_path) -> None:
    family = make_family(tmp_path / "family", tied=tied, dtype=dtype)
    live = LiveModel.load(recipe_of(family), "cpu")
    settings = [("ties", 0.4, {}), ("dare_ties", 0.6, {}), ("ties", 0.4, {"lambda": 0.8})]
    settings += [("dppa", 0.3, {}), ("slerp", 0, {"t": 0.3}), ("ties", [0.2, 0.9], {})]
    for number, (method, density, values) in enumerate(settings):
        recipe = recipe_of(family, method, density, **values)
        live.settle(recipe)
        assert_as_written(live, recipe, tmp_path / str(number))


def test_it_answers_as_the_written_model(parent, tmp_path) -> None:
    recipe = recipe_of(parent)
    live = LiveModel.load(recipe, "cpu")
    before = answer(live)
    assert before == answer(ChatModel.load(parent / "base", "cpu"))
    live.settle(recipe)
    merge(recipe, tmp_path / "out", device="cpu")
    assert answer(live) == answer(ChatModel.load(tmp_path / "out", "cpu")) != before


def test_values_stay_where_they_lie(parent) -> None:
    live = LiveModel.load(recipe_of(parent), "cpu")
    network = live.chat.model.network
    before = {name: values.data_ptr() for name, values in network.state_dict().items()}
    live.settle(recipe_of(parent))
    assert {name: values.data_ptr() for name, values in network.state_dict().items()} == before


def test_the_files_stay_as_they_are(parent) -> None:
    files = [parent / name / "model.safetensors" for name in ("base", "expert0", "expert1")]
    before = [file.read_bytes() for file in files]
    live = LiveModel.load(recipe_of(parent), "cpu")
    live.settle(recipe_of(parent))
    del live  # whatever maps a file writes it back at the latest now
    assert [file.read_bytes() for file in files] == before


def test_the_same_recipe_again_rewrites_nothing(parent) -> None:
    live = LiveModel.load(recipe_of(parent), "cpu")
    assert len(live.settle(recipe_of(parent)).rewritten) == 9 * LAYERS + 3
    assert live.settle(recipe_of(parent)).rewritten == ()


def test_what_one_layer_is_told_rewrites_that_layer(parent, tmp_path) -> None:
    live = LiveModel.load(recipe_of(parent), "cpu")
    live.settle(recipe_of(parent, density=0.4))
    own = [{"filter": "layers.1.", "value": 0.9}, {"value": 0.4}]
    rewritten = live.settle(recipe_of(parent, density=own)).rewritten
    assert len(rewritten) == 9
    assert all(name.startswith("model.layers.1.") for name in rewritten)
    assert_as_written(live, recipe_of(parent, density=own), tmp_path / "out")


def test_an_expert_less_leaves_nothing_of_it(parent, tmp_path) -> None:
    live = LiveModel.load(recipe_of(parent), "cpu")
    live.settle(recipe_of(parent))
    values = {"weight": 1.0, "density": 0.5}
    one = from_mapping(document("ties", [values], {}) | {"keep_base": ["layers.0."]}, parent)
    live.settle(one)
    assert_as_written(live, one, tmp_path / "out")


def test_a_stopped_merge_gives_no_answer_and_the_next_one_mends_it(parent, tmp_path) -> None:
    live = LiveModel.load(recipe_of(parent), "cpu")
    cancel = threading.Event()
    with pytest.raises(Cancelled):
        live.settle(recipe_of(parent), progress=lambda _: cancel.set(), cancel=cancel)
    with pytest.raises(Cancelled, match="settle a recipe first"):
        answer(live)
    live.settle(recipe_of(parent))
    assert_as_written(live, recipe_of(parent), tmp_path / "out")


def test_a_new_recipe_ends_the_merge_before_it(parent, tmp_path) -> None:
    live = LiveModel.load(recipe_of(parent), "cpu")
    begun, errors = threading.Event(), []
    last = recipe_of(parent, density=0.9)
    second = threading.Thread(target=lambda: live.settle(last))

    def progress(_) -> None:
        if not begun.is_set():
            begun.set()
            second.start()
            while len(live._turns) < 2:
                pass

    try:
        live.settle(recipe_of(parent), progress=progress)
    except Cancelled as error:
        errors.append(error)
    second.join()
    assert errors
    assert_as_written(live, last, tmp_path / "out")


def test_a_new_recipe_ends_an_answer(parent) -> None:
    live = LiveModel.load(recipe_of(parent), "cpu")
    chunks = live.stream(QUESTION, Sampling(max_new_tokens=100), every_s=0.0)
    next(chunks)
    change = threading.Thread(target=lambda: live.settle(recipe_of(parent)))
    change.start()
    assert list(chunks)[-1].finish == "stopped"
    change.join()


def test_a_value_too_large_is_named_and_gives_no_answer(parent) -> None:
    half = document("ties", [{"weight": 1.0}], {"lambda": 1e8}) | {"dtype": "float16"}
    live = LiveModel.load(from_mapping(half, parent), "cpu")
    with pytest.raises(NonFinite, match=r"tensor .* does not fit the output type"):
        live.settle(from_mapping(half, parent))
    with pytest.raises(Cancelled):
        answer(live)


def test_another_base_is_refused(parent, tmp_path) -> None:
    live = LiveModel.load(recipe_of(parent), "cpu")
    other = make_family(tmp_path)
    with pytest.raises(RecipeError, match="another base"):
        live.settle(recipe_of(other))
    assert answer(live)


def test_stacked_layers_have_no_live_model(parent) -> None:
    whole = {"model": "base", "layer_range": [0, LAYERS]}
    stacked = {
        "merge_method": "passthrough",
        "slices": [{"sources": [whole]}, {"sources": [whole]}],
        "dtype": "bfloat16",
    }
    with pytest.raises(RecipeError, match="stacks layers"):
        LiveModel.load(from_mapping(stacked, parent), "cpu")


def test_a_tensor_that_the_network_holds_otherwise_is_named(parent) -> None:
    live = LiveModel.load(recipe_of(parent), "cpu")
    network = live.chat.model.network
    with torch.no_grad():
        network.model.norm.weight[3] += 1.0
    with pytest.raises(BadCheckpoint, match=r"does not keep tensor model\.norm\.weight"):
        places_of(network, open_recipe(recipe_of(parent)))


def test_a_weight_leaves_cuts_as_they_were_found(parent) -> None:
    live = LiveModel.load(recipe_of(parent), "cpu")
    live.settle(recipe_of(parent))
    cuts = {name: decisions for name, (_, decisions) in live._memory.pruned.items()}
    live.settle(recipe_of(parent, **{"lambda": 0.5}))
    after = {name: decisions for name, (_, decisions) in live._memory.pruned.items()}
    assert all(after[name] is decisions for name, decisions in cuts.items())
    live.settle(recipe_of(parent, density=0.3))
    assert all(live._memory.pruned[name][1] is not cuts[name] for name in cuts)


def test_what_the_family_alone_says_is_measured_once(parent) -> None:
    live = LiveModel.load(recipe_of(parent, "dppa"), "cpu")
    live.settle(recipe_of(parent, "dppa", 0.3))
    (measured,) = live._memory.findings.values()
    live.settle(recipe_of(parent, "dppa", 0.6))
    assert list(live._memory.findings.values()) == [measured]


def test_another_type_is_refused(parent) -> None:
    live = LiveModel.load(recipe_of(parent), "cpu")
    half = document("ties", [{"weight": 1.0}], {}) | {"dtype": "float16"}
    with pytest.raises(RecipeError, match="dtype is float16"):
        live.settle(from_mapping(half, parent))
