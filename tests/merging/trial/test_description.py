"""Configs held against tensors: one line with both values, before anything is allocated."""

from __future__ import annotations

import re
import threading
from pathlib import Path
from typing import Any

import pytest
from transformers import CodeGenConfig, CodeGenForCausalLM

from merging import demo
from merging.checkpoints import open_checkpoint
from merging.errors import BadCheckpoint, Cancelled
from merging.trial.description import compare_counts, described
from merging.trial.loading import load
from tests.merging.trial.folders import changed

COUNTS: list[tuple[dict[str, Any], str]] = [
    ({"num_hidden_layers": 100_000}, "num_hidden_layers 100000, but the tensors beside it have 4"),
    ({"num_hidden_layers": 5}, "num_hidden_layers 5, but the tensors beside it have 4 layers"),
    ({"num_hidden_layers": 1e9}, "num_hidden_layers 1000000000, but the tensors"),
    ({"text_config": {"num_hidden_layers": 10**8}}, "text_config.num_hidden_layers 100000000"),
    ({"num_local_experts": 10**9}, "num_local_experts 1000000000, but no tensor"),
    ({"vision_config": {"depth": 10**7}}, "vision_config.depth 10000000, but no tensor"),
]


@pytest.mark.parametrize(("values", "reason"), COUNTS)
def test_counts_beyond_the_tensors(values: dict[str, Any], reason: str, tmp_path: Path) -> None:
    checkpoint = open_checkpoint(changed(tmp_path / "m", lambda c: c.update(values)))
    with pytest.raises(BadCheckpoint, match=f"m: config.json says {re.escape(reason)}"):
        compare_counts(checkpoint)


SHAPES: list[tuple[dict[str, Any], str]] = [
    ({"vocab_size": 10**9}, "[346, 160], config.json describes [1000000000, 160] (vocab_size"),
    ({"hidden_size": 10**6}, "[346, 160], config.json describes [346, 1000000] (hidden_size"),
    ({"intermediate_size": 10**8}, "[448, 160], config.json describes [100000000, 160] (interm"),
    ({"head_dim": 10**9}, "[160, 160], config.json describes [4000000000, 160]"),
]


@pytest.mark.parametrize(("values", "reason"), SHAPES)
def test_sizes_unlike_the_tensors(values: dict[str, Any], reason: str, tmp_path: Path) -> None:
    checkpoint = open_checkpoint(changed(tmp_path / "m", lambda c: c.update(values)))
    with pytest.raises(BadCheckpoint, match=re.escape(reason)):
        described(checkpoint)


def test_another_architecture_is_counted_in_parameters(tmp_path: Path) -> None:
    folder = changed(tmp_path / "m", lambda c: c.update(model_type="mixtral"))
    with pytest.raises(BadCheckpoint, match=r"m: config.json describes [\d,]+ parameters"):
        described(open_checkpoint(folder))


def test_tables_that_are_computed_are_bounded(tmp_path: Path) -> None:
    """CodeGen makes a table of sines in each of its 2 layers: 2**28 x 4 numbers of 4 bytes."""
    small = CodeGenConfig(
        vocab_size=32, n_positions=8, n_embd=16, n_layer=2, n_head=4, rotary_dim=4
    )
    CodeGenForCausalLM(small).save_pretrained(tmp_path)
    config = tmp_path / "config.json"
    config.write_text(config.read_text().replace('"n_positions": 8', '"n_positions": 268435456'))
    with pytest.raises(BadCheckpoint, match=r"asks for 8\.6 GB of tables"):
        described(open_checkpoint(tmp_path))


def test_a_config_of_fewer_layers_is_no_model_with_a_layer_left_out(tmp_path: Path) -> None:
    folder = changed(tmp_path / "m", lambda c: c.update(num_hidden_layers=3))
    with pytest.raises(BadCheckpoint, match="num_hidden_layers 3, the tensors have 4 layers"):
        load(folder)


def test_stop_ends_the_building_of_a_model() -> None:
    stop = threading.Event()
    stop.set()
    with pytest.raises(Cancelled):
        described(open_checkpoint(demo.folder("add")), stop)


def test_a_config_that_transformers_refuses_is_one_line(tmp_path: Path) -> None:
    folder = changed(tmp_path / "m", lambda c: c.update(hidden_act="nope"))
    with pytest.raises(BadCheckpoint, match=r"m: config.json .*\(it does not know 'nope'\); copy"):
        load(folder)
    folder = changed(tmp_path / "n", lambda c: c.update(rms_norm_eps="x"))
    with pytest.raises(BadCheckpoint, match=r"n: config\.json .*field 'rms_norm.*; copy it again"):
        load(folder)


@pytest.mark.parametrize("kernels", ["somebody/kernels", "flash_attention_2", 5])
def test_a_config_chooses_no_kernels(kernels: Any, tmp_path: Path) -> None:
    """Of a name such as somebody/kernels, code would be downloaded and run."""
    folder = changed(tmp_path / "m", lambda c: c.update(attn_implementation=kernels))
    _, model = described(open_checkpoint(folder))
    assert model.config._attn_implementation in ("sdpa", "eager")
    assert load(folder).network.config._attn_implementation in ("sdpa", "eager")


@pytest.mark.parametrize(
    ("text", "reason"),
    [("[" * 200_000, "is nested deeper than 64 levels"), ("[]", "is not a JSON object")],
)
def test_a_damaged_generation_config_is_named(text: str, reason: str, tmp_path: Path) -> None:
    folder = changed(tmp_path / "m", text, "generation_config.json")
    with pytest.raises(BadCheckpoint, match=rf"generation_config.json: {reason}; .*delete it"):
        load(folder)
