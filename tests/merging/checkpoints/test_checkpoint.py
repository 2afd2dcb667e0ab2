"""One model folder: what is read, and what is refused with what to do."""

from __future__ import annotations

import json
import os
import resource
import struct
from pathlib import Path

import pytest
import torch

from merging.checkpoints import open_checkpoint
from merging.errors import BadCheckpoint, MergeError, ModelNotFound, UnsafeFile
from tests.families import CONFIG, llama, write_model


def refused(folder: Path, kind: type[MergeError] = BadCheckpoint) -> str:
    with pytest.raises(kind) as error:
        model = open_checkpoint(folder, "org/model")
        for name in model.tensors:
            model.read(name)
    assert str(error.value).startswith("org/model") or "model.safetensors" in str(error.value)
    assert "\n" not in str(error.value)
    return str(error.value)


def raw(folder: Path, header: object, data: bytes = b"", length: int | None = None) -> Path:
    """A model folder whose safetensors file is written by hand."""
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(CONFIG))
    size = len(text) if length is None else length
    (folder / "model.safetensors").write_bytes(struct.pack("<Q", size) + text + data)
    return folder


TYPES = [
    torch.float64,
    torch.float32,
    torch.float16,
    torch.bfloat16,
    torch.int64,
    torch.int32,
    torch.int16,
    torch.int8,
    torch.uint8,
    torch.bool,
]


@pytest.mark.parametrize("dtype", TYPES, ids=str)
@pytest.mark.parametrize("shape", [(), (1,), (7,), (3, 5), (0,), (4, 0, 2), (2, 3, 4)], ids=str)
def test_tensors_read_back_in_their_type_and_shape(dtype, shape, tmp_path) -> None:
    count = int(torch.tensor(shape).prod()) if shape else 1
    tensor = (torch.arange(count) % 3).to(dtype).reshape(shape)
    model = open_checkpoint(write_model(tmp_path / "m", {"a": tensor, "b": torch.ones(2)}))
    assert model.read("a").dtype == dtype
    assert torch.equal(model.read("a"), tensor)
    assert model.tensors["a"].numel == count


def test_parts_of_a_tensor_are_read_alone(tmp_path) -> None:
    tensor = torch.arange(100.0).reshape(10, 10)
    model = open_checkpoint(write_model(tmp_path / "m", {"x": torch.ones(3), "y": tensor}))
    assert model.read_flat("y", 13, 17).tolist() == [13.0, 14.0, 15.0, 16.0]
    assert model.read_flat("y", 5, 5).numel() == 0
    assert model.read_flat("y", 99, 100).tolist() == [99.0]


def test_shards_hold_the_same_model_as_one_file(tmp_path) -> None:
    tensors = llama(0, layers=2)
    one = open_checkpoint(write_model(tmp_path / "one", tensors))
    many = open_checkpoint(write_model(tmp_path / "many", tensors, shards=5))
    assert list(one.tensors) == list(many.tensors) == sorted(tensors)
    assert all(torch.equal(one.read(name), many.read(name)) for name in tensors)
    assert one.size_bytes == many.size_bytes == sum(t.nbytes for t in tensors.values())
    assert one.parameters == sum(t.numel() for t in tensors.values())


def test_any_single_safetensors_file_will_do(tmp_path) -> None:
    folder = write_model(tmp_path / "m", {"a": torch.ones(1)})
    (folder / "model.safetensors").rename(folder / "weights.safetensors")
    assert list(open_checkpoint(folder).tensors) == ["a"]


def test_the_config_says_whether_embeddings_are_tied(tmp_path) -> None:
    tensors = {"a": torch.ones(1)}
    inner = {"text_config": {"tie_word_embeddings": True}}
    cases = [
        ({}, False),
        ({"tie_word_embeddings": True}, True),
        (inner, True),
        ({"tie_word_embeddings": False, **inner}, False),
    ]
    for number, (config, expected) in enumerate(cases):
        model = open_checkpoint(write_model(tmp_path / str(number), tensors, config))
        assert model.ties_embeddings is expected


def test_an_absent_folder_is_named(tmp_path) -> None:
    assert str(tmp_path / "absent") in refused(tmp_path / "absent", ModelNotFound)


def test_a_folder_without_config_or_weights_is_refused(tmp_path) -> None:
    assert "config.json" in refused(tmp_path)
    (tmp_path / "config.json").write_text("{}")
    assert "no *.safetensors" in refused(tmp_path)


@pytest.mark.parametrize("text", ["", "{", "[]", "3", "null", "\x00"])
def test_a_broken_config_is_refused(text: str, tmp_path) -> None:
    folder = write_model(tmp_path / "m", {"a": torch.ones(1)})
    (folder / "config.json").write_text(text)
    assert "config.json" in refused(folder)


def test_remote_code_is_refused(tmp_path) -> None:
    config = {"auto_map": {"AutoModelForCausalLM": "modeling.Model"}}
    folder = write_model(tmp_path / "m", {"a": torch.ones(1)}, config)
    assert "auto_map" in refused(folder, UnsafeFile)


def test_a_tokenizer_with_code_of_its_own_is_refused(tmp_path) -> None:
    folder = write_model(tmp_path / "m", {"a": torch.ones(1)})
    config = {"auto_map": {"AutoTokenizer": ["tok.Mine", None]}}
    (folder / "tokenizer_config.json").write_text(json.dumps(config))
    message = refused(folder, UnsafeFile)
    assert "tokenizer_config.json" in message
    assert "auto_map" in message


def test_quantized_checkpoints_are_refused(tmp_path) -> None:
    config = {"quantization_config": {"quant_method": "gptq"}}
    folder = write_model(tmp_path / "m", {"a": torch.ones(1)}, config)
    assert "quantized" in refused(folder)


@pytest.mark.parametrize("file", ["pytorch_model.bin", "model.pt", "weights.pth", "last.ckpt"])
def test_pickles_are_never_read(file: str, tmp_path) -> None:
    (tmp_path / "config.json").write_text("{}")
    (tmp_path / file).write_bytes(b"cos\nsystem\n(S'touch pwned'\ntR.")
    assert file in refused(tmp_path, UnsafeFile)


def test_several_files_need_an_index(tmp_path) -> None:
    folder = write_model(tmp_path / "m", llama(0, layers=1), shards=2)
    (folder / "model.safetensors.index.json").unlink()
    assert "index" in refused(folder)


def test_a_missing_shard_is_named(tmp_path) -> None:
    folder = write_model(tmp_path / "m", llama(0, layers=1), shards=3)
    (folder / "model-00002-of-00003.safetensors").unlink()
    assert "model-00002-of-00003.safetensors" in refused(folder)


def test_an_index_that_points_outside_its_folder_is_refused(tmp_path) -> None:
    folder = write_model(tmp_path / "m", {"a": torch.ones(1)}, shards=2)
    index = {"weight_map": {"a": "../secret.safetensors"}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    assert "outside" in refused(folder)


@pytest.mark.parametrize("index", ["{", "[]", "{}", '{"weight_map": []}'])
def test_a_broken_index_is_refused(index: str, tmp_path) -> None:
    folder = write_model(tmp_path / "m", {"a": torch.ones(1)})
    (folder / "model.safetensors.index.json").write_text(index)
    assert "index" in refused(folder)


def test_a_tensor_the_index_promises_must_be_there(tmp_path) -> None:
    folder = write_model(tmp_path / "m", {"a": torch.ones(1), "b": torch.ones(1)}, shards=2)
    path = folder / "model.safetensors.index.json"
    index = json.loads(path.read_text())
    index["weight_map"]["c"] = index["weight_map"]["a"]
    path.write_text(json.dumps(index))
    assert "tensor c" in refused(folder)


def test_a_stale_shard_with_the_same_tensor_is_refused(tmp_path) -> None:
    folder = write_model(tmp_path / "m", {"a": torch.ones(1), "b": torch.ones(1)}, shards=2)
    first, second = sorted(folder.glob("*.safetensors"))
    second.write_bytes(first.read_bytes())
    assert "stands in both" in refused(folder)


@pytest.mark.parametrize("keep", [0, 5, 8, 60, 0.5, -1])
def test_a_truncated_file_is_named(keep: float, tmp_path) -> None:
    folder = write_model(tmp_path / "m", llama(0, layers=1))
    file = folder / "model.safetensors"
    data = file.read_bytes()
    file.write_bytes(data[: int(len(data) * keep) if keep == 0.5 else keep])
    message = refused(folder)
    assert "model.safetensors" in message
    assert "again" in message


def test_a_file_truncated_after_opening_is_named(tmp_path) -> None:
    folder = write_model(tmp_path / "m", {"a": torch.ones(1000)})
    model = open_checkpoint(folder, "org/model")
    with (folder / "model.safetensors").open("r+b") as handle:
        handle.truncate(500)
    with pytest.raises(BadCheckpoint, match="truncated"):
        model.read("a")


ENTRY = {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}


@pytest.mark.parametrize(
    "header",
    [
        b"not json at all",
        b"\xff\xfe",
        [],
        {"a": 3},
        {"a": {}},
        {"a": {**ENTRY, "shape": None}},
        {"a": {**ENTRY, "shape": [3]}},  # more elements than bytes
        {"a": {**ENTRY, "shape": [-2]}},
        {"a": {**ENTRY, "shape": ["2"]}},
        {"a": {**ENTRY, "data_offsets": [8, 0]}},
        {"a": {**ENTRY, "data_offsets": [-8, 0]}},
        {"a": {**ENTRY, "data_offsets": [0]}},
        {"a": {**ENTRY, "data_offsets": ["0", "8"]}},
        {"a": {**ENTRY, "dtype": 3}},
        {"a": {**ENTRY, "dtype": "F4"}},
    ],
    ids=str,
)
def test_a_malformed_header_is_refused(header, tmp_path) -> None:
    refused(raw(tmp_path / "m", header, b"\0" * 64))


def test_a_header_longer_than_memory_is_not_read(tmp_path) -> None:
    refused(raw(tmp_path / "m", {"a": ENTRY}, b"\0" * 8, length=1 << 62))


def test_a_folder_in_place_of_the_file_is_refused(tmp_path) -> None:
    (tmp_path / "config.json").write_text("{}")
    (tmp_path / "model.safetensors").mkdir()
    refused(tmp_path)


def two(begin: int, end: int, **more: object) -> dict:
    return {"dtype": "F32", "shape": [(end - begin) // 4], "data_offsets": [begin, end], **more}


TWICE = b'{"a": %b, "a": %b}' % tuple(json.dumps(two(*at)).encode() for at in ((0, 8), (8, 16)))


@pytest.mark.parametrize(
    ("header", "size"),
    [
        ({"a": two(0, 8), "b": two(4, 12)}, 12),
        ({"a": two(0, 8), "b": two(12, 16)}, 16),
        ({"a": two(0, 8)}, 16),
        (TWICE, 16),
        (json.dumps({"a": two(0, 8)}).encode("utf-16"), 8),
        ({"a": two(0, 8, data_offsets=[0.0, 8.0])}, 8),
        (b'{"\\ud800": %b}' % json.dumps(two(0, 8)).encode(), 8),
        (b'{"a": ' + b"[" * 100_000, 0),
        ({"__metadata__": {"a": 1}, "b": two(0, 8)}, 8),
    ],
    ids=[
        "overlap",
        "gap",
        "rest",
        "name twice",
        "utf-16",
        "float",
        "surrogate",
        "deep",
        "metadata",
    ],
)
def test_what_the_safetensors_package_refuses_is_refused(header, size: int, tmp_path) -> None:
    message = refused(raw(tmp_path / "m", header, bytes(size)))
    assert "is not a safetensors file or is truncated" in message


@pytest.mark.parametrize("name", [b"a", b"\\u0061"])
def test_a_tensor_that_is_listed_twice_is_refused(name: bytes, tmp_path) -> None:
    entry = json.dumps(two(0, 8)).encode()
    header = b'{"a": %b, "%b": %b}' % (entry, name, entry)
    assert "lists 'a' twice" in refused(raw(tmp_path / "m", header, bytes(8)))


@pytest.mark.parametrize("inner", ["additional_chat_templates", "1_Pooling"])
def test_files_in_a_model_s_folders_are_held_to_the_same_bounds(inner: str, tmp_path) -> None:
    folder = write_model(tmp_path / "m", {"a": torch.ones(1)})
    (folder / "modules.json").write_text('[{"path": "1_Pooling/"}, {"path": "../m"}, 5]')
    (folder / inner).mkdir()
    os.mkfifo(folder / inner / "x.jinja")
    assert f"{inner}/x.jinja is a FIFO, not a file" in refused(folder)
    (folder / inner / "x.jinja").unlink()
    with (folder / inner / "y.json").open("wb") as file:
        file.truncate(10**10)
    assert f"{inner}/y.json has 10000 MB, over 200 MB" in refused(folder)


def test_a_tensor_may_be_called_like_a_part_of_the_header(tmp_path) -> None:
    header = {"data_offsets": two(0, 8), 'x"data_offsets': two(8, 16), "é": two(16, 20)}
    model = open_checkpoint(raw(tmp_path / "m", header, bytes(20)))
    assert sorted(model.tensors) == sorted(header)


def test_a_header_over_the_packages_limit_is_refused(tmp_path) -> None:
    folder = raw(tmp_path / "m", b"{}", length=100_000_001)
    with (folder / "model.safetensors").open("r+b") as file:
        file.truncate(200_000_000)
    assert "header too large" in refused(folder)


def test_a_header_of_millions_of_names_is_counted_before_it_is_read(tmp_path) -> None:
    header = b'{"__metadata__": {' + b'"":"",' * 1_400_000 + b'"":""}}'
    assert "more than 300,000 tensors" in refused(raw(tmp_path / "m", header))


def test_tensors_lie_where_their_order_says_whatever_the_order_of_the_names(tmp_path) -> None:
    header = {"b": two(8, 16), "none": two(8, 8), "a": two(0, 8), "c": two(16, 20)}
    data = struct.pack("<5f", 1, 2, 3, 4, 5)
    model = open_checkpoint(raw(tmp_path / "m", header, data))
    read = {name: model.read(name).tolist() for name in model.tensors}
    assert read == {"a": [1, 2], "b": [3, 4], "c": [5], "none": []}


@pytest.mark.parametrize(
    "file",
    [
        "config.json",
        "model.safetensors",
        "tokenizer.json",
        "tokenizer_config.json",
        "chat_template.jinja",
        "model.safetensors.index.json",
    ],
)
def test_a_fifo_in_place_of_a_file_is_told_at_once(file: str, tmp_path) -> None:
    folder = write_model(tmp_path / "m", {"a": torch.ones(1)})
    (folder / file).unlink(missing_ok=True)
    os.mkfifo(folder / file)
    assert f"{file}: is a FIFO" in refused(folder).replace(f"{file} is", f"{file}: is")


def test_links_to_nothing_and_files_of_gigabytes_are_named(tmp_path) -> None:
    folder = write_model(tmp_path / "m", {"a": torch.ones(1)})
    (folder / "tokenizer.json").symlink_to("absent.json")
    assert "tokenizer.json (a link) cannot be read" in refused(folder)
    (folder / "tokenizer.json").unlink()
    (folder / "tokenizer.json").touch()
    os.truncate(folder / "tokenizer.json", 10**12)
    assert "tokenizer.json has 1000000 MB, over 200 MB" in refused(folder)
    (folder / "tokenizer.json").unlink()
    (folder / "LICENSES").mkdir()
    open_checkpoint(folder)
    (folder / "LICENSE").symlink_to("/proc/self/environ")
    assert "LICENSE claims to be empty and is not" in refused(folder)
    (folder / "LICENSE").unlink()
    os.mkfifo(folder / "LICENSE")
    assert "LICENSE is a FIFO" in refused(folder)


@pytest.mark.parametrize(
    "shard",
    [
        "..",
        "",
        "a/../b.safetensors",
        "/dev/zero",
        "x" * 5000 + ".safetensors",
        "a\0.safetensors",
        "a\n.safetensors",
        "model.bin",
        3,
        None,
        ["a"],
    ],
    ids=lambda shard: str(shard)[:20],
)
def test_a_shard_is_a_plain_file_of_the_folder(shard: object, tmp_path) -> None:
    folder = write_model(tmp_path / "m", {"a": torch.ones(1)}, shards=2)
    index = {"weight_map": {"a": "model-00001-of-00002.safetensors", "b": shard}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    message = refused(folder)
    assert "as a shard" in message
    assert len(message) < 500


@pytest.mark.parametrize("text", ["[" * 100_000, '{"a": "\\ud800"}'], ids=["deep", "surrogate"])
@pytest.mark.parametrize(
    "file", ["config.json", "tokenizer_config.json", "model.safetensors.index.json"]
)
def test_objects_that_no_writer_makes_are_refused(file: str, text: str, tmp_path) -> None:
    folder = write_model(tmp_path / "m", {"a": torch.ones(1)})
    (folder / file).write_text(text)
    assert file in refused(folder)


def test_a_file_that_changed_since_it_was_opened_is_named(tmp_path) -> None:
    folder = write_model(tmp_path / "m", {"a": torch.ones(1), "b": torch.ones(1)}, shards=2)
    model = open_checkpoint(folder, "org/model")
    model.check_unchanged()
    assert sorted(file.name for file in model.stamps) == [
        "config.json",
        "model-00001-of-00002.safetensors",
        "model-00002-of-00002.safetensors",
        "model.safetensors.index.json",
    ]
    file = folder / "model-00002-of-00002.safetensors"
    times = (file.stat().st_atime_ns, file.stat().st_mtime_ns)
    data = bytearray(file.read_bytes())
    data[-1] ^= 1
    file.write_bytes(data)
    os.utime(file, ns=times)
    with pytest.raises(BadCheckpoint, match=r"^org/model: .*00002\.safetensors has changed since"):
        model.check_unchanged()
    file.unlink()
    with pytest.raises(BadCheckpoint, match="is gone since"):
        model.check_unchanged()


def test_a_limit_on_addresses_is_told_as_one(tmp_path) -> None:
    folder = write_model(tmp_path / "m", {"a": torch.ones(1)})
    os.truncate(folder / "model.safetensors", 1 << 43)
    limits = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (1 << 40, limits[1]))
    try:
        assert "a limit on this program's memory (ulimit -v)" in refused(folder)
    finally:
        resource.setrlimit(resource.RLIMIT_AS, limits)
