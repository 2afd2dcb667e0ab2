"""What does not fit a base, in a few words with both values."""

from __future__ import annotations

from collections.abc import Callable
from itertools import count

import pytest
import torch

from merging.checkpoints import open_checkpoint
from merging.kinship import misfit

CONFIG = {"model_type": "llama", "hidden_size": 4, "num_hidden_layers": 2}
X = "\N{MULTIPLICATION SIGN}"
W = {"w": torch.ones(4, 4), "v": torch.ones(4)}


@pytest.fixture
def told(make_model: Callable) -> Callable[..., str]:
    """What is told of a model with these tensors and settings."""
    base = open_checkpoint(make_model("base", W, config=CONFIG))
    names = map(str, count())

    def tell(tensors: dict[str, torch.Tensor], **settings: object) -> str:
        other = make_model(next(names), tensors, config=CONFIG | settings)
        return misfit(base, open_checkpoint(other))

    return tell


def test_a_model_of_one_family_fits(told) -> None:
    assert told(W) == ""
    assert told(W, rope_theta=5.0) == ""  # may spoil the result, which the preflight tells


def test_the_architecture_comes_first_then_layers_then_width(told) -> None:
    everything = {"model_type": "qwen2", "num_hidden_layers": 3, "hidden_size": 8}
    assert told(W, **everything) == "another architecture: qwen2, the base llama"
    del everything["model_type"]
    assert told(W, **everything) == "3 layers, the base 2"
    del everything["num_hidden_layers"]
    assert told(W, **everything) == "8 hidden units, the base 4"


def test_of_one_config_shapes_and_names_tell(told) -> None:
    assert told({"w": torch.ones(5, 4), "v": torch.ones(4)}) == f"w is 5 {X} 4, in the base 4 {X} 4"
    assert told({"x": torch.ones(4, 4)}) == "none of its tensors has a name of the base's"
    assert told({"v": torch.ones(4)}) == "shares only 1 of the base's 2 tensors"


def test_an_adapter_is_none(told) -> None:
    lora = {**W, "w.lora_A.weight": torch.ones(1, 4)}
    assert told(lora) == "holds an adapter that was not merged into it"
