"""Where models lie: what does not fit is read from disk, and the answers are equal."""

from __future__ import annotations

import pytest
import torch

from merging import demo
from merging.errors import DeviceUnavailable, NotEnoughSpace
from merging.trial.chat import ChatModel
from merging.trial.decode import greedy
from merging.trial.likelihood import log_likelihoods
from merging.trial.loading import load
from merging.trial.placement import Placement, at_most, main_device
from merging.trial.turns import Sampling

QUESTIONS = ["What is 37 + 45?", "Add 12 and 31"]


@pytest.mark.parametrize("share", [0.7, 0.3])
def test_a_model_that_does_not_fit_answers_from_disk(share: float) -> None:
    whole = load(demo.folder("add"))
    assert whole.placement is not None and whole.placement.is_whole
    size = whole.placement.memory_bytes
    parted = load(demo.folder("add"), memory={"cpu": int(share * size)})
    place = parted.placement
    assert place is not None and not place.is_whole
    assert place.memory_bytes <= share * size
    assert sum(place.held.values()) == size
    assert greedy(parted, QUESTIONS, max_new_tokens=6) == ["82", "43"]
    row = (whole.read([[{"role": "user", "content": QUESTIONS[0]}]])[0], whole.answers(["82"])[0])
    assert log_likelihoods(parted, [row]) == log_likelihoods(whole, [row])
    chat = ChatModel(parted, place.memory_bytes)
    *_, last = chat.stream([{"role": "user", "content": QUESTIONS[0]}], Sampling(6))
    assert (last.text, last.finish) == ("82", "end")


def test_not_even_one_tensor_fits() -> None:
    with pytest.raises(NotEnoughSpace, match="add: its largest tensor needs"):
        load(demo.folder("add"), memory={"cpu": 1000})


def test_a_bound_for_all_devices_is_used_up_in_their_order() -> None:
    memory = {0: 60, 1: 50, "cpu": 100}
    assert at_most(memory, 1000) == memory
    assert at_most(memory, 80) == {0: 60, 1: 20, "cpu": 0}


def test_a_placement_says_what_it_costs() -> None:
    cuda, cpu = torch.device("cuda:0"), torch.device("cpu")
    gigabyte = 10**9
    assert str(Placement(cpu, {"cpu": gigabyte})) == "1.0 GB in memory"
    assert str(Placement(cpu, {"cpu": gigabyte, "disk": 2 * gigabyte})) == (
        "1.0 GB in memory, 2.0 GB on disk (read for every token)"
    )
    assert str(Placement(cuda, {"cuda:0": gigabyte, "cpu": gigabyte})) == (
        "1.0 GB on cuda:0, 1.0 GB in memory (brought to cuda:0 for every token)"
    )


def test_a_device_that_is_not_there_is_said() -> None:
    if not torch.backends.mps.is_available():
        with pytest.raises(DeviceUnavailable, match="no Apple GPU"):
            main_device("mps")
