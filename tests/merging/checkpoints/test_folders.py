"""Folders that are no whole model are called what they are."""

from __future__ import annotations

import json

import pytest

from merging.checkpoints import open_checkpoint
from merging.errors import BadCheckpoint
from tests.families import llama, write_model

FOLDERS = {
    "adapter": (
        {
            "adapter_config.json": '{"peft_type": "LORA", "base_model_name_or_path": "m"}',
            "adapter_model.safetensors": "",
        },
        "a LoRA adapter of m (adapter_config.json)",
    ),
    "other adapter": ({"adapter_config.json": '{"peft_type": "IA3"}'}, "an IA3 adapter"),
    "adapter weights": ({"adapter_model.safetensors": ""}, "a LoRA adapter (adapter_model"),
    "gguf": ({"model.Q4_K.gguf": "", "config.json": "{}"}, "GGUF weights (model.Q4_K.gguf)"),
    "onnx": ({"model.onnx": ""}, "ONNX weights"),
    "diffusers": ({"model_index.json": "{}"}, "a diffusers pipeline"),
    "makers'": ({"params.json": "{}", "consolidated.safetensors": ""}, "their makers' own layout"),
    "checkpoints": ({"checkpoint-5/config.json": "{}"}, "it holds checkpoint-5; give one of them"),
    "cache": ({"snapshots/x": ""}, "a folder of the Hub's cache"),
}


@pytest.mark.parametrize("kind", sorted(FOLDERS))
def test_what_is_no_model_is_called_what_it_is(kind: str, tmp_path) -> None:
    files, words = FOLDERS[kind]
    for name, text in files.items():
        (tmp_path / "x" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "x" / name).write_text(text)
    with pytest.raises(BadCheckpoint) as error:
        open_checkpoint(tmp_path / "x", "mine")
    assert str(error.value).startswith("mine: ")
    assert words in str(error.value)


def test_a_model_that_an_adapter_lies_beside_is_a_model(tmp_path) -> None:
    folder = write_model(tmp_path / "x", llama(0, layers=1))
    (folder / "adapter_config.json").write_text(json.dumps({"peft_type": "LORA"}))
    assert open_checkpoint(folder).tensors
