"""What a folder is that is not a whole model: an adapter, another format, a folder of models.

People download and train many things that look like models. Each is called what it is, with what to
do to merge it.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from merging.errors import BadFile
from merging.system.documents import read_json

MORE_TEMPLATES = "additional_chat_templates"
CONTAINER = "container.json"  # see `checkpoints.container`
_CONFIG = "config.json"
_FORMATS = {
    "*.gguf": "GGUF weights ({}), which are converted and mostly quantized",
    "*.onnx": "ONNX weights ({})",
    "*.h5": "TensorFlow weights ({})",
    "*.msgpack": "Flax weights ({})",
    "*.nemo": "NeMo weights ({})",
    "*.ggml": "GGML weights ({})",
    "*.npz": "MLX weights ({})",
}


def not_a_model(folder: Path) -> str | None:
    """What a folder is and what to do about it, where it is plainly no whole model; else None."""
    if adapter := _adapter(folder):
        return adapter
    if (folder / CONTAINER).exists():
        return (
            f"a container of several tasks ({CONTAINER}), no model itself; make one of a task's: "
            "amalgam materialise CONTAINER TASK OUT"
        )
    weights = next(folder.glob("*.safetensors"), None)
    for pattern, words in _FORMATS.items():
        file = next(iter(sorted(folder.glob(pattern))), None)
        if file is not None and weights is None and not _has_pickles(folder):
            return (
                f"{words.format(file.name)}; give the model's folder of bfloat16 or float16 "
                "safetensors"
            )
    if (folder / _CONFIG).exists():
        return None
    if (folder / "model_index.json").exists():
        return "a diffusers pipeline (model_index.json), not a language model"
    if (folder / "consolidated.safetensors").exists() or (folder / "params.json").exists():
        return (
            "weights in their makers' own layout (params.json), without a config.json; convert "
            "them with transformers, give that folder"
        )
    if (folder / "snapshots").is_dir():
        return f"a folder of the Hub's cache; give one of {folder.name}/snapshots/*"
    inside = sorted(path.parent.name for path in folder.glob(f"*/{_CONFIG}"))
    if inside:
        return f"no model itself, but it holds {_few(inside)}; give one of them"
    return None


def inner_folders(folder: Path) -> list[str]:
    """The folders inside a model's that are part of it, by name: further chat templates, and what
    modules.json names (sentence-transformers). No links."""
    try:
        modules: Any = read_json(folder / "modules.json")
    except BadFile:
        modules = []
    modules = modules if isinstance(modules, list) else []
    named = [module.get("path") for module in modules if isinstance(module, dict)]
    names = [MORE_TEMPLATES, *(path.rstrip("/") for path in named if isinstance(path, str))]
    return [
        name
        for name in dict.fromkeys(names)
        if name not in ("", ".", "..")
        and "/" not in name
        and os.path.isdir(folder / name)
        and not os.path.islink(folder / name)
    ]


def _adapter(folder: Path) -> str | None:
    settings = folder / "adapter_config.json"
    weights = next((p for p in sorted(folder.glob("adapter_model.*"))), None)
    if not settings.exists() and weights is None:
        return None
    if (folder / _CONFIG).exists() and any(
        path.name != "adapter_model.safetensors" for path in folder.glob("*.safetensors")
    ):
        return None  # a whole model that an adapter lies beside
    kind, base = "LoRA", ""
    try:
        config: Any = read_json(settings)
    except BadFile:
        config = {}
    if isinstance(config, dict):
        named = str(config.get("peft_type") or "LORA")
        kind = {"LORA": "LoRA"}.get(named.upper(), named)[:30]
        base = str(config.get("base_model_name_or_path") or "")[:80]
    of = f" of {base}" if base else ""
    article = "an" if kind[:1] in "AEIO" else "a"
    sign = settings if settings.exists() or weights is None else weights
    return (
        f"{article} {kind} adapter{of} ({sign.name}), not a whole model; merge it into its model "
        "first (peft: merge_and_unload), give that folder"
    )


def _has_pickles(folder: Path) -> bool:
    return any(next(folder.glob(pattern), None) for pattern in ("*.bin", "*.pt", "*.pth"))


def _few(names: list[str]) -> str:
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")
