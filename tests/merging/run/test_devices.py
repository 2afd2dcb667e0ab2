"""Where a merge runs: on which device, and where it goes when memory is short."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch

from merging import recipe as recipes
from merging.engines import fused
from merging.run import devices
from merging.run.devices import with_memory
from merging.run.preflight import open_recipe
from tests.families import document, write_family


def short_of_memory(room: int, calls: list) -> Callable[[str, int | None, bool], str]:
    """An attempt that finishes on a GPU only in chunks of `room` elements or less."""

    def attempted(device: str, chunk: int | None, resident: bool) -> str:
        calls.append((device, chunk, resident))
        if device != "cpu" and (resident or chunk is None or chunk > room):
            raise torch.OutOfMemoryError("CUDA out of memory")
        return "finished"

    return attempted


def test_short_memory_means_smaller_chunks() -> None:
    calls: list = []
    released: list[str] = []
    attempted = short_of_memory(1 << 21, calls)
    result, device, notes = with_memory(attempted, "cuda", None, released.append)
    assert (result, device) == ("finished", "cuda")
    assert calls == [("cuda", 1 << 24, True), ("cuda", 1 << 24, False), ("cuda", 1 << 21, False)]
    assert len(notes) == 2 and "16777216 elements and the models kept there" in notes[0]
    assert released == ["cuda", "cuda"]


def test_then_the_cpu() -> None:
    calls: list = []
    _, device, notes = with_memory(short_of_memory(0, calls), "cuda", None, lambda device: None)
    assert device == "cpu"
    assert calls[-1] == ("cpu", None, False)
    assert "merged on the CPU" in notes[-1]


def test_kernels_that_do_not_compile_mean_the_cpu() -> None:
    from triton.runtime.errors import PTXASError

    released: list[str] = []

    def attempted(device: str, chunk: int | None, resident: bool) -> str:
        if device != "cpu":
            raise PTXASError("no such instruction\non this device")
        return "finished"

    result, device, notes = with_memory(attempted, "cuda", None, released.append)
    assert (result, device, released) == ("finished", "cpu", ["cuda"])
    (note,) = notes
    assert note.startswith("merged on the CPU: no kernels could be made for cuda: PTXAS error:")
    assert "\n" not in note


def test_a_device_may_say_it_in_words() -> None:
    def attempted(device: str, chunk: int | None, resident: bool) -> str:
        if device != "cpu":
            raise RuntimeError("MPS backend out of memory (MPS allocated: 9.00 GB)")
        return "finished"

    assert with_memory(attempted, "mps", None, lambda device: None)[1] == "cpu"


@pytest.mark.parametrize("kind", [ValueError, RuntimeError])
def test_no_other_error_starts_again(kind: type[Exception]) -> None:
    def attempted(device: str, chunk: int | None, resident: bool) -> str:
        raise kind("other")

    with pytest.raises(kind, match="other"):
        with_memory(attempted, "cuda", None, lambda device: None)


def test_auto_starts_no_gpu_for_what_the_cpu_does_sooner(tmp_path, monkeypatch) -> None:
    name = "model.layers.1.mlp.up_proj.weight"
    folder = write_family(tmp_path, {name: torch.zeros(2, 2)}, [{name: torch.ones(2, 2)}])
    recipe = recipes.from_mapping(document("linear", 1), folder)
    family = open_recipe(recipe)
    monkeypatch.setattr(devices, "pick_device", lambda choice: f"{choice} picked")
    for loaded, loops, choice, device in (
        (False, True, "auto", "cpu"),
        (False, False, "auto", "auto picked"),
        (True, True, "auto", "auto picked"),
        (False, True, "cuda", "cuda picked"),
    ):
        monkeypatch.setattr(devices, "is_loaded", lambda loaded=loaded: loaded)
        monkeypatch.setattr(fused, "would_run", lambda *_, loops=loops: loops)
        assert devices.device_for(choice, family, recipe) == device
