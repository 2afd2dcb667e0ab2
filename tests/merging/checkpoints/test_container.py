"""A container's parts: bits, names of files, and a container.json that is not what it should be."""

from __future__ import annotations

import json

import pytest
import torch

from merging.checkpoints import container
from merging.checkpoints.container import Container, Task
from merging.errors import BadCheckpoint, ModelNotFound, RecipeError


def bits(text: str) -> torch.Tensor:
    return torch.tensor([one == "1" for one in text])


@pytest.mark.parametrize("shape", [(0,), (1,), (8,), (9,), (3, 5), (2, 4, 2)])
def test_bits_are_packed_lowest_first_and_come_back(shape) -> None:
    mask = torch.randn(shape, generator=torch.Generator().manual_seed(2)) > 0
    data = container.packed(mask)
    assert data.dtype == torch.uint8 and data.numel() == (mask.numel() + 7) // 8
    assert torch.equal(container.unpacked(data, mask.numel()), mask.flatten())


def test_the_order_of_the_bits() -> None:
    assert container.packed(bits("100000010")).tolist() == [129, 0]
    assert container.packed(bits("010000001")).tolist() == [2, 1]


def test_every_task_has_a_file_of_its_own() -> None:
    def files(*names: str) -> list[str]:
        return [task.file for task in container.tasks_of(names, [1.0] * len(names))]

    assert files("sort", "me/add it") == ["masks_sort.safetensors", "masks_me-add-it.safetensors"]
    # names that would be one file, on some systems at least
    assert files("a/b", "a:b") == ["masks_1_a-b.safetensors", "masks_2_a-b.safetensors"]
    assert files("Add", "add") == ["masks_1_Add.safetensors", "masks_2_add.safetensors"]
    assert all("/" not in file and len(file) < 120 for file in files("../" * 200, "x"))


def written(folder, **changes) -> None:
    tasks = (Task("sort", "masks_sort.safetensors", 0.5), Task("2", "masks_2.safetensors", 1.0))
    one = Container(folder, "base", "sha256:0", {"base": "sha256:0"}, {}, tasks, {}, {})
    document = container.document(one, "emr") | changes
    (folder / "container.json").write_text(json.dumps(document))


def test_what_is_written_is_read(tmp_path) -> None:
    written(tmp_path)
    opened = container.open_container(tmp_path)
    assert opened.base_fingerprint == "sha256:0"
    assert opened.task("sort") == (1, Task("sort", "masks_sort.safetensors", 0.5))
    assert opened.task("1")[1].name == "sort"
    with pytest.raises(RecipeError, match="no task add; it holds sort, 2"):
        opened.task("add")
    with pytest.raises(BadCheckpoint, match=r"masks_sort\.safetensors is missing"):
        container.open_file(tmp_path, "masks_sort.safetensors")


TASK = {"name": "sort", "file": "masks_sort.safetensors", "factor": 1.0}


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"version": 2}, "version 2 is not 1"),
        ({"base": {}}, "'model' is missing"),
        ({"tasks": [{**TASK, "file": "../masks.safetensors"}]}, "task sort"),
        ({"tasks": [{**TASK, "file": 3}]}, "task sort"),
        ({"tasks": [{**TASK, "factor": float("nan")}]}, "task sort"),
        ({"tasks": [{**TASK, "factor": None}]}, "wrong"),
        ({"files": [1]}, "wrong"),
    ],
)
def test_a_document_that_is_wrong_is_one_line(tmp_path, changes, words) -> None:
    written(tmp_path, **changes)
    with pytest.raises(BadCheckpoint, match=words) as error:
        container.open_container(tmp_path)
    assert str(tmp_path) in str(error.value) and "\n" not in str(error.value)


def test_a_folder_that_is_no_container(tmp_path) -> None:
    with pytest.raises(ModelNotFound, match=r"holds no container\.json; give a folder that"):
        container.open_container(tmp_path)
    (tmp_path / "container.json").write_text("{")
    with pytest.raises(BadCheckpoint, match="merge it again"):
        container.open_container(tmp_path)
