"""Shared fixtures: the reference vectors as model folders, and tiny families made on the spot."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

# two workers with as many threads each as there are processors: idle ones are to sleep, not to spin
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # read when torch is imported

import torch
from hypothesis.configuration import set_hypothesis_home_dir
from safetensors.torch import save_file

if not torch.cuda.is_available():
    os.environ["TRITON_INTERPRET"] = "1"  # read when kernels are declared: they run on the CPU
os.environ["HF_HUB_DISABLE_TELEMETRY"] = "1"  # tests ask the loopback alone
# its notes hold paths of the machine: they stay out of the checkout
set_hypothesis_home_dir(Path(tempfile.gettempdir()) / "hypothesis")
DATA = Path(__file__).parent / "data"
CONFIG = {"model_type": "llama", "architectures": ["LlamaForCausalLM"]}

MakeModel = Callable[..., Path]


@pytest.fixture
def make_model(tmp_path: Path) -> MakeModel:
    """Writes tensors as a model folder: make_model("base", {"w": tensor}, config={...})."""

    def make(name: str, tensors: Mapping[str, torch.Tensor], config: Mapping | None = None) -> Path:
        folder = tmp_path / name
        folder.mkdir()
        save_file({k: v.contiguous() for k, v in tensors.items()}, folder / "model.safetensors")
        (folder / "config.json").write_text(json.dumps({**CONFIG, **(config or {})}))
        return folder

    return make


@pytest.fixture
def reference_family(tmp_path: Path) -> Callable[[str], Path]:
    """Copies the models of tests/data/<kind> into folders under one parent and returns it."""

    def build(kind: str) -> Path:
        parent = tmp_path / kind
        for file in sorted((DATA / kind).glob("*.safetensors")):
            if file.stem == "base" or file.stem in ("expert0", "expert1", "expert2"):
                (parent / file.stem).mkdir(parents=True)
                shutil.copyfile(file, parent / file.stem / "model.safetensors")
                (parent / file.stem / "config.json").write_text(json.dumps(CONFIG))
        return parent

    return build
