"""Small families of chat models whose recipes are merged in memory."""

from __future__ import annotations

import shutil
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file

from merging.recipe import Recipe, from_mapping
from tests.chat_models import make_chat_model
from tests.families import document

LAYERS = 3


def make_family(parent: Path, *, tied: bool = False, dtype: torch.dtype = torch.bfloat16) -> Path:
    """A base and two experts."""
    shape = {"num_hidden_layers": LAYERS, "tie_word_embeddings": tied}
    base = make_chat_model(parent / "base", dtype=dtype, **shape)
    for number in range(2):
        shutil.copytree(base, parent / f"expert{number}")
        generator = torch.Generator().manual_seed(number)
        tensors = {
            name: (v.float() + 0.05 * torch.randn(v.shape, generator=generator)).to(v.dtype)
            for name, v in load_file(base / "model.safetensors").items()
        }
        save_file(tensors, parent / f"expert{number}" / "model.safetensors", {"format": "pt"})
    return parent


def recipe_of(parent: Path, method: str = "ties", density: object = 0.4, **values) -> Recipe:
    """A recipe over that family."""
    own = {} if method == "slerp" else {"weight": 0.7, "density": density}
    experts = [dict(own) for _ in range(1 if method == "slerp" else 2)]
    return from_mapping(document(method, experts, values), parent)
