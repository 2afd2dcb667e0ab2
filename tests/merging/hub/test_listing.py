"""What is known of a model before anything of it is loaded."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import save

from merging import demo
from merging.checkpoints import open_checkpoint
from merging.errors import MergeError
from merging.hub.cache import Hub
from merging.hub.card import Card
from merging.hub.listing import of_folder, of_repository
from merging.hub.references import parse
from merging.kinship import misfit
from tests.hub_server import COMMIT, HubRepository, HubServer

BASE = open_checkpoint(demo.folder("base"))


def test_a_folder_and_its_copy_on_the_hub_are_listed_alike(hub: Hub) -> None:
    folder, remote = of_folder(demo.folder("add")), of_repository(parse("org/add"), hub)
    assert (folder.name, remote.name) == ("add", "org/add")
    for listing in (folder, remote):
        assert listing.architecture == "LlamaForCausalLM (llama)"
        assert (listing.dtype, listing.context, listing.has_template) == ("F32", 128, True)
        assert listing.outline.parameters == 1_381_920
        assert misfit(BASE, listing.outline) == ""
    assert remote.card == Card("apache-2.0", ("org/base",))


def test_of_a_repository_no_weights_are_fetched(hub: Hub, server: HubServer) -> None:
    listing = of_repository(parse("org/add"), hub)
    repository = listing.repository
    assert repository is not None
    assert repository.snapshot.commit == COMMIT
    assert str(repository.pinned) == f"org/add@{COMMIT}"
    assert "model.safetensors" not in server.fetched()
    assert 5_531_808 < repository.missing_bytes < listing.size_bytes
    assert [file.name for file in repository.files][-1] == "config.json"


def test_whether_it_fits_is_told_from_its_headers(hub: Hub, server: HubServer) -> None:
    files = server.repositories["org/add"].files
    tensors = {"model.embed_tokens.weight": torch.zeros(346, 160)}
    config = json.loads(files["config.json"]) | {"num_hidden_layers": 2}
    other = {"config.json": json.dumps(config).encode(), "model.safetensors": save(tensors)}
    server.repositories["org/small"] = HubRepository(other)
    listing = of_repository(parse("org/small"), hub)
    assert misfit(BASE, listing.outline) == "2 layers, the base 4"
    assert (listing.card, listing.has_template) == (Card(), False)


def test_shards_are_listed_by_the_index(hub: Hub, server: HubServer) -> None:
    weights = {f"model-{n}-of-2.safetensors": save({f"t{n}": torch.ones(3)}) for n in (1, 2)}
    index = {"weight_map": {"t1": "model-1-of-2.safetensors", "t2": "model-2-of-2.safetensors"}}
    server.repositories["org/shards"] = HubRepository(
        {
            "config.json": b"{}",
            "model.safetensors.index.json": json.dumps(index).encode(),
            "consolidated.safetensors": save({"t1": torch.ones(3), "t2": torch.ones(3)}),
            "pytorch_model.bin": b"no",
            **weights,
        }
    )
    listing = of_repository(parse("org/shards"), hub)
    assert sorted(listing.outline.tensors) == ["t1", "t2"]
    assert listing.repository is not None
    names = {file.name for file in listing.repository.files}
    assert names == {*weights, "config.json", "model.safetensors.index.json"}
    assert listing.architecture == "not stated"


@pytest.mark.parametrize(
    ("asked", "words"),
    [
        ("org/absent", "org/absent: the Hub has no such model, or a private one"),
        ("org/add@nope", "org/add@nope: the model has no such revision"),
        ("org/gated", "accepted its terms; do that on https://huggingface.co/org/gated"),
        ("org/pickle", "only pickle weights"),
        ("org/code", "asks to run code"),
        ("org/quantized", "is quantized"),
        ("org/torn", r"config.json is not JSON \("),
        ("org/headless", "has no header that can be read"),
    ],
)
def test_what_cannot_be_had_is_one_line(asked, words, hub: Hub, server: HubServer) -> None:
    files = server.repositories["org/add"].files
    config = json.loads(files["config.json"])

    def put(name: str, **changed: bytes) -> None:
        own = {file.replace("_json", ".json"): data for file, data in changed.items()}
        server.repositories[f"org/{name}"] = HubRepository({**files, **own})

    put("code", config_json=json.dumps({**config, "auto_map": {"AutoModel": "x.Y"}}).encode())
    put("quantized", config_json=json.dumps({**config, "quantization_config": {"b": 4}}).encode())
    put("torn", config_json=b"{")
    put("gated")
    server.repositories["org/gated"].gated = True
    server.repositories["org/pickle"] = HubRepository({"config.json": b"{}", "m.bin": b"x"})
    short = {**files, "model.safetensors": b"\0" * 100}
    server.repositories["org/headless"] = HubRepository(short)
    with pytest.raises(MergeError, match=words) as error:
        of_repository(parse(asked), hub)
    assert "\n" not in str(error.value)
    assert server.url not in str(error.value)


def test_a_token_of_the_usual_places_opens_a_gated_model_and_is_told_to_nobody(
    hub: Hub, server: HubServer, monkeypatch, caplog
) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    server.repositories["org/add"].gated = True
    listing = of_repository(parse("org/add"), hub)
    assert set(server.tokens) == {"Bearer hf_secret"}
    server.repositories.clear()
    with pytest.raises(MergeError) as error:
        of_repository(parse("org/add"), hub)
    assert "hf_secret" not in f"{listing!r} {error.value} {caplog.text}"


def test_a_hub_that_is_not_there_is_one_line(tmp_path: Path) -> None:
    hub = Hub("http://127.0.0.1:9", tmp_path)
    with pytest.raises(MergeError, match="org/add: the Hub cannot be reached"):
        of_repository(parse("org/add"), hub)
