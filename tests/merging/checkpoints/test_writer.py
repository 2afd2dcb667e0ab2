"""The writer: a folder that appears complete or not at all."""

from __future__ import annotations

import errno
import json
import os
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file

from merging.checkpoints import ModelWriter, TensorSpec, open_checkpoint, staging
from merging.checkpoints.checkpoint import torch_dtype
from merging.checkpoints.writer import plan_shards
from merging.errors import NotEnoughSpace, OutputExists

SPECS = [
    TensorSpec("a", "F32", (3, 4)),
    TensorSpec("b", "BF16", (5,)),
    TensorSpec("c", "I64", ()),
    TensorSpec("d", "F16", (0, 7)),
]


def values(spec: TensorSpec) -> torch.Tensor:
    dtype = torch_dtype(spec.dtype)
    return torch.arange(spec.size_bytes // dtype.itemsize).to(dtype)


def raw(tensor: torch.Tensor) -> memoryview:
    return tensor.contiguous().view(-1).view(torch.uint8).numpy().data


def write_all(writer: ModelWriter, specs=SPECS) -> None:
    for spec in specs:
        writer.write(spec.name, 0, raw(values(spec)))
    (writer.folder / "config.json").write_text("{}")


@pytest.mark.parametrize("shard_bytes", [1, 50, 1 << 30])
def test_tensors_read_back_whatever_the_shards(shard_bytes: int, tmp_path) -> None:
    writer = ModelWriter(tmp_path / "out", SPECS, shard_bytes=shard_bytes)
    write_all(writer)
    writer.publish()
    model = open_checkpoint(tmp_path / "out")
    for spec in SPECS:
        tensor = model.read(spec.name)
        assert (tensor.dtype, tuple(tensor.shape)) == (torch_dtype(spec.dtype), spec.shape)
        assert torch.equal(tensor.flatten(), values(spec))


def test_files_are_what_safetensors_itself_reads(tmp_path) -> None:
    writer = ModelWriter(tmp_path / "out", SPECS, metadata={"made": "here"})
    write_all(writer)
    writer.publish()
    file = tmp_path / "out" / "model.safetensors"
    assert set(load_file(file)) == {"a", "b", "c", "d"}
    with safe_open(file, "pt") as handle:
        assert handle.metadata() == {"format": "pt", "made": "here"}


def test_shards_are_bounded_and_their_index_names_every_tensor(tmp_path) -> None:
    specs = [TensorSpec(f"t{i:03d}", "F32", (25,)) for i in range(10)]
    writer = ModelWriter(tmp_path / "out", specs, shard_bytes=300)
    write_all(writer, specs)
    writer.publish()
    files = sorted((tmp_path / "out").glob("*.safetensors"))
    assert files[0].name == "model-00001-of-00004.safetensors"
    index = json.loads((tmp_path / "out" / "model.safetensors.index.json").read_text())
    assert index["metadata"]["total_size"] == 1000
    assert set(index["weight_map"].values()) == {file.name for file in files}
    for spec in specs:
        assert spec.name in load_file(tmp_path / "out" / index["weight_map"][spec.name])


def test_a_tensor_larger_than_a_shard_is_alone() -> None:
    sizes = [4, 100, 4, 4]
    specs = [TensorSpec(str(i), "U8", (size,)) for i, size in enumerate(sizes)]
    assert [[s.name for s in shard] for shard in plan_shards(specs, 10)] == [
        ["0"],
        ["1"],
        ["2", "3"],
    ]


def test_more_shards_than_open_files_allowed(tmp_path) -> None:
    import resource

    specs = [TensorSpec(f"t{i:04d}", "F32", (1,)) for i in range(300)]
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (200, hard))
    try:
        writer = ModelWriter(tmp_path / "out", specs, shard_bytes=1)
        write_all(writer, specs)
        writer.publish()
        model = open_checkpoint(tmp_path / "out")
        assert all(model.read(spec.name).item() == 0 for spec in specs)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_chunks_may_come_in_any_order(tmp_path) -> None:
    spec = TensorSpec("a", "F32", (10,))
    writer = ModelWriter(tmp_path / "out", [spec])
    data = torch.arange(10.0)
    for start, stop in ((6, 10), (0, 3), (3, 6)):
        writer.write("a", start, raw(data[start:stop]))
    writer.publish()
    assert torch.equal(load_file(tmp_path / "out" / "model.safetensors")["a"], data)


def test_bytes_that_are_not_whole_elements_of_the_tensor_are_refused(tmp_path) -> None:
    writer = ModelWriter(tmp_path / "out", SPECS)
    for start, data in ((0, b"abc"), (4, b"abcd"), (0, bytes(12))):
        with pytest.raises(ValueError, match="do not fit"):
            writer.write("b", start, memoryview(data))
    writer.discard()


def test_nothing_shows_before_it_is_published(tmp_path) -> None:
    writer = ModelWriter(tmp_path / "out", SPECS)
    write_all(writer)
    assert writer.flush().done()
    assert not (tmp_path / "out").exists()
    assert all(path.name.startswith(".") for path in tmp_path.iterdir())
    writer.publish()
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_all_is_on_the_disk_before_the_model_appears(tmp_path, monkeypatch) -> None:
    synced: list[tuple[str, bool]] = []

    def fsync(handle: int) -> None:
        path = Path(os.readlink(f"/proc/self/fd/{handle}"))
        synced.append((path.name, (tmp_path / "out").exists()))

    monkeypatch.setattr(os, "fsync", fsync)
    writer = ModelWriter(tmp_path / "out", SPECS, shard_bytes=50)
    write_all(writer)
    (writer.folder / "inner").mkdir()
    (writer.folder / "inner" / "template.jinja").write_text("x")
    hidden = writer.folder.name
    writer.publish()
    before = {name for name, is_there in synced if not is_there}
    files = {path.name for path in (tmp_path / "out").rglob("*")}
    assert len(files) == 6
    assert before == files | {hidden, ".lock"}
    assert synced[-2:] == [(hidden, False), (tmp_path.name, True)]


def test_discarding_leaves_nothing(tmp_path) -> None:
    writer = ModelWriter(tmp_path / "out", SPECS)
    write_all(writer)
    writer.discard()
    writer.discard()
    assert list(tmp_path.iterdir()) == []


def test_parents_are_made(tmp_path) -> None:
    writer = ModelWriter(tmp_path / "a" / "b" / "out", SPECS)
    write_all(writer)
    writer.publish()
    assert (tmp_path / "a" / "b" / "out" / "model.safetensors").exists()


def model_folder(path, note: str = "old"):
    path.mkdir()
    (path / "config.json").write_text("{}")
    (path / note).write_text("")
    return path


def test_an_existing_folder_is_replaced_only_when_asked(tmp_path) -> None:
    out = model_folder(tmp_path / "out")
    with pytest.raises(OutputExists, match="--overwrite"):
        ModelWriter(out, SPECS)
    writer = ModelWriter(out, SPECS, overwrite=True)
    write_all(writer)
    assert (out / "old").exists()
    writer.publish()
    assert not (out / "old").exists()
    assert (out / "model.safetensors").exists()
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_discarding_leaves_the_folder_that_was_there(tmp_path) -> None:
    out = model_folder(tmp_path / "out")
    ModelWriter(out, SPECS, overwrite=True).discard()
    assert (out / "old").exists()
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_an_empty_folder_is_filled(tmp_path) -> None:
    (tmp_path / "out").mkdir()
    writer = ModelWriter(tmp_path / "out", SPECS)
    write_all(writer)
    writer.publish()
    assert (tmp_path / "out" / "model.safetensors").exists()


def test_a_folder_that_appears_meanwhile_is_not_replaced(tmp_path) -> None:
    writer = ModelWriter(tmp_path / "out", SPECS)
    write_all(writer)
    model_folder(tmp_path / "out", "someone else's")
    with pytest.raises(OutputExists):
        writer.publish()
    writer.discard()
    assert (tmp_path / "out" / "someone else's").exists()


def test_a_link_to_a_model_is_replaced_and_its_target_left(tmp_path) -> None:
    target = model_folder(tmp_path / "target")
    (tmp_path / "out").symlink_to(target)
    writer = ModelWriter(tmp_path / "out", SPECS, overwrite=True)
    write_all(writer)
    writer.publish()
    assert (target / "old").exists()
    assert (tmp_path / "out" / "model.safetensors").exists()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out", "target"]


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT, errno.EFBIG])
def test_a_full_disk_is_one_line_and_leaves_nothing(number: int, tmp_path, monkeypatch) -> None:
    def full(*_: object) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "posix_fallocate", full)
    with pytest.raises(NotEnoughSpace, match="out"):
        ModelWriter(tmp_path / "out", SPECS)
    assert list(tmp_path.iterdir()) == []


def test_a_disk_that_fills_up_while_writing_is_told(tmp_path, monkeypatch) -> None:
    writer = ModelWriter(tmp_path / "out", SPECS)

    def full(*_: object) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "pwrite", full)
    with pytest.raises(NotEnoughSpace, match="disk is full"):
        write_all(writer)
    writer.discard()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("out", ["file/out", "file/deep/out", "x" * 250, "x" * 300])
def test_a_place_that_cannot_be_written_is_one_line(out: str, tmp_path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises((NotEnoughSpace, OutputExists)) as error:
        ModelWriter(tmp_path / out, SPECS)
    assert "\n" not in str(error.value)
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_a_system_without_an_exchange_replaces_in_two_steps(tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(staging, "exchange", lambda *_: False)
    for _ in range(2):
        writer = ModelWriter(tmp_path / "out", SPECS, overwrite=True)
        write_all(writer)
        writer.publish()
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


@pytest.mark.parametrize("code", [errno.EOPNOTSUPP, errno.EINVAL, errno.EBADF])
def test_a_file_system_that_cannot_reserve_gets_files_of_the_right_size(
    tmp_path, monkeypatch, code
) -> None:
    def refuse(*_: int) -> None:
        raise OSError(code, "no")

    monkeypatch.setattr(os, "posix_fallocate", refuse)
    writer = ModelWriter(tmp_path / "out", SPECS)
    write_all(writer)
    writer.publish()
    assert torch.equal(load_file(tmp_path / "out" / "model.safetensors")["b"], values(SPECS[1]))


def test_a_folder_taken_up_for_an_output_that_is_refused_is_let_go(tmp_path) -> None:
    remnant = staging.new(tmp_path / "out")
    (tmp_path / "out").write_text("")
    with pytest.raises(OutputExists):
        ModelWriter(tmp_path / "out", SPECS, taken_up=remnant)
    (again,) = staging.abandoned(tmp_path / "out")
    assert again.folder == remnant.folder
    again.remove()


def test_what_is_left_for_later_is_there_and_free(tmp_path) -> None:
    writer = ModelWriter(tmp_path / "out", SPECS)
    write_all(writer)
    writer.leave()
    (remnant,) = staging.abandoned(tmp_path / "out")
    again = ModelWriter(tmp_path / "out", SPECS, taken_up=remnant)
    again.publish()
    assert torch.equal(load_file(tmp_path / "out" / "model.safetensors")["b"], values(SPECS[1]))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out"]
