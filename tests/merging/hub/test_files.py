"""Which files of a repository are fetched, and which repositories are no model."""

from __future__ import annotations

import pytest

from merging.errors import BadCheckpoint, MergeError, UnsafeFile
from merging.hub.files import RemoteFile, check_whole, small_of, weights_of

SHARDS = {"a": "model-1-of-2.safetensors", "b": "model-2-of-2.safetensors"}


def named(*names: str, size: int = 10) -> dict[str, RemoteFile]:
    return {name: RemoteFile(name, size) for name in names}


def test_small_files_are_json_tokenizers_and_templates_and_never_code() -> None:
    wanted = ["config.json", "tokenizer.json", "tokenizer.model", "merges.txt", "vocab.txt"]
    wanted += ["chat_template.jinja", "additional_chat_templates/tool_use.jinja", "x.tiktoken"]
    unwanted = ["README.md", "modeling.py", "pytorch_model.bin", "pytorch_model.bin.index.json"]
    unwanted += ["consolidated.safetensors", "onnx/config.json", "requirements.txt", "a/b.py"]
    files = small_of("m", named(*wanted, *unwanted))
    assert sorted(file.name for file in files) == sorted(wanted)


def test_weights_are_the_shards_of_the_index_and_nothing_beside_them() -> None:
    files = named(*SHARDS.values(), "consolidated.safetensors", "model.safetensors")
    assert [file.name for file in weights_of("m", files, SHARDS)] == list(SHARDS.values())


def test_without_an_index_it_is_the_one_file() -> None:
    files = named("model.safetensors", "consolidated.safetensors")
    assert [file.name for file in weights_of("m", files, {})] == ["model.safetensors"]
    files = named("other.safetensors", "consolidated.safetensors")
    assert [file.name for file in weights_of("m", files, {})] == ["other.safetensors"]
    with pytest.raises(BadCheckpoint, match="cannot be told"):
        weights_of("m", named("one.safetensors", "two.safetensors"), {})


@pytest.mark.parametrize("shard", ["absent.safetensors", "../up.safetensors", "model.bin", 3])
def test_an_index_that_names_what_is_not_there_is_refused(shard) -> None:
    files = named("model-1-of-2.safetensors", "model.bin", "../up.safetensors")
    with pytest.raises(BadCheckpoint, match="its index names"):
        weights_of("m", files, {"a": "model-1-of-2.safetensors", "b": shard})


@pytest.mark.parametrize(
    ("names", "words"),
    [
        (["config.json", "pytorch_model.bin"], "only pickle weights"),
        (["config.json", "model.Q4.gguf"], "another format"),
        (["README.md"], "has no safetensors"),
        (["adapter_config.json", "adapter_model.safetensors"], "an adapter"),
        (["consolidated.safetensors", "params.json"], "has no config.json"),
    ],
)
def test_what_is_no_whole_model_is_called_what_it_is(names: list[str], words: str) -> None:
    with pytest.raises(MergeError, match=f"^m: .*{words}"):
        check_whole("m", named(*names))


def test_pickle_beside_safetensors_is_left_where_it_is() -> None:
    check_whole("m", named("config.json", "model.safetensors", "pytorch_model.bin"))
    with pytest.raises(UnsafeFile):
        check_whole("m", named("config.json", "pytorch_model.bin"))


def test_a_small_file_that_is_huge_is_refused() -> None:
    with pytest.raises(BadCheckpoint, match=r"tokenizer\.json has 300 MB"):
        small_of("m", named("tokenizer.json", size=300_000_000))
