"""What the engines are held to each other by: recipes of every kind, and tensors that are hard to
cut."""

from __future__ import annotations

import hashlib
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file

from merging import recipe as recipes
from merging.declarations.methods import Blend
from merging.engines.eager import Stream
from merging.methods import PRESETS, RULES
from merging.run.merge import merge
from merging.selection.tied import upper_places

RECIPES = {
    "linear": ("linear", {}),
    "linear_sum": ("linear", {"normalize": False, "weight": 0.3}),
    "task_arithmetic": ("task_arithmetic", {"weight": 0.7, "lambda": 0.9}),
    "task_arithmetic_normalized": ("task_arithmetic", {"weight": 0.7, "normalize": True}),
    "ties": ("ties", {"density": 0.2}),
    "ties_weights": ("ties", {"density": 0.37, "weight": -0.8, "normalize": False}),
    "ties_model": ("ties", {"density": 0.2, "scope": "model"}),
    "magnitude_rings": ("magnitude", {"density": 0.3, "amplification": [1.7, 1.0, 0.0]}),
    "magnitude_model": ("magnitude", {"density": 0.1, "scope": "model"}),
    "magnitude_all": ("magnitude", {"density": 1.0, "amplification": [1.5]}),
    "magnitude_none": ("magnitude", {"density": 0.0}),
    "dare_linear": ("dare_linear", {"density": 0.4, "seed": 3}),
    "dare_ties": ("dare_ties", {"density": 0.4}),
    "dare_l1": ("dare_ties", {"density": 0.4, "rescale_by": "l1"}),
    "dppa": ("dppa", {"density": 0.2, "amplification": [1.8, 1.2, 1.0, 0.7]}),
    "dppa_sixteen": ("dppa", {"density": 0.4, "amplification": [2.0, 1.5, 1.0, 0.5] * 4}),
    "dppa_max": ("dppa", {"density": 0.2, "amplification": [0.5, 2.0], "partition_mode": "max"}),
    "pcb": ("pcb", {"density": 0.1, "weight": 1.2}),
    "pcb_tensor": ("pcb", {"density": 0.2, "scope": "tensor"}),
    "pcb_reference": ("pcb", {"density": 0.1, "variant": "reference"}),
    "pcb_vision": ("pcb", {"density": 0.1, "variant": "vision"}),
    "pcb_of_magnitude": ("magnitude", {"density": 0.3, "consensus": "pcb", "pcb_density": 0.1}),
    "dppa_ties": ("dppa", {"density": 0.2, "consensus": "ties", "scale_dense": "max"}),
}

WRITTEN_OUT = tuple(RECIPES)
"""Recipes whose bytes are compared in two types."""

RECIPES |= {
    "slerp_schedule": ("slerp", {"t": [0, 0.7]}),
    "nuslerp_rows": ("nuslerp", {"nuslerp_flatten": False, "weight": [0.4, 0.9]}),
    "nuslerp_columns": ("nuslerp", {"nuslerp_flatten": False, "nuslerp_row_wise": True}),
    "model_stock_rows": ("model_stock", {"filter_wise": True}),
    "della_probability": ("della", {"density": 0.4, "rescale_by": "probability"}),
    "breadcrumbs_rescaled": ("breadcrumbs", {"density": 0.3, "gamma": 0.05, "rescale": True}),
    "sce_selected": ("sce", {"select_topk": 0.3}),
    "sce_weighed": ("sce", {"select_topk": 0.3, "small": "weigh"}),
    "switches_along_the_model": (
        "ties",
        {
            "density": 0.3,
            "normalize": [True, False],
            "rescale": [{"filter": "mlp", "value": True}, {"value": False}],
        },
    ),
}

RECIPES["wudi"] = ("wudi", {"steps": 3})  # its usual 300 take half a minute here
RECIPES |= {  # every other merge method, as a screen begins with it
    preset.id: (preset.id, dict(preset.shown))
    for preset in PRESETS.values()
    if preset.id not in RECIPES
}


_ALIKE = (
    "model.embed_tokens.weight",
    "model.layers.0.mlp.down_proj.weight",
    "model.layers.1.mlp.up_proj.weight",
    "model.layers.1.mlp.gate_proj.weight",
)


def mixed_family(folder: Path, least: bool = False) -> Path:
    """Writes base and expert0, 1, 2: mixed types, ties at every cut (values on a coarse grid),
    sizes around the block's.

    Args:
        least: one tensor of each kind, for what is slow.
    """
    generator = torch.Generator().manual_seed(7)
    shapes = {
        "model.embed_tokens.weight": (300, 97),
        "model.layers.0.mlp.up_proj.weight": (257, 129),
        "model.layers.0.mlp.down_proj.weight": (129, 257),
        "model.layers.1.mlp.up_proj.weight": (257, 129),
        "model.layers.1.mlp.down_proj.weight": (64, 16),
        "model.layers.1.mlp.gate_proj.weight": (450, 300),  # large enough to be sampled
        "model.layers.0.input_layernorm.weight": (129,),
        "model.norm.weight": (1,),
    }
    if least:
        shapes = {name: shape for name, shape in shapes.items() if name not in _ALIKE}
    types = (torch.bfloat16, torch.float32, torch.float16, torch.bfloat16)
    base = {n: torch.randn(s, generator=generator) * 0.1 for n, s in shapes.items()}
    for index, dtype in enumerate(types):
        tensors = {}
        for name, value in base.items():
            noise = torch.randn(value.shape, generator=generator)
            step = (noise * 20).round() / 2000 if index else 0.0
            tensors[name] = (value + step).to(dtype).contiguous()
        path = folder / ("base" if index == 0 else f"expert{index - 1}")
        path.mkdir()
        save_file(tensors, path / "model.safetensors")
        (path / "config.json").write_text('{"model_type": "llama"}')
    return folder


def digest(folder: Path) -> str:
    return hashlib.sha256((folder / "model.safetensors").read_bytes()).hexdigest()


def experts_of(method: str, count: int = 3) -> int:
    """How many experts a merge method takes beside the base, as near to `count` as it can."""
    rule = RULES[PRESETS[method].consensus]
    if not isinstance(rule, Blend):
        return count
    adds = rule.base == "point" and rule.adds_base({"base_model": "base"}, ["expert0"])
    most = count if rule.most is None else rule.most - adds
    return max(rule.least - adds, min(count, most))


def merged_bytes(
    family: Path, name: str, out: Path, engine: type[Stream], dtype: str | None
) -> str:
    """Runs one of RECIPES through one engine; the digest of what it writes."""
    method, parameters = RECIPES[name]
    models = [(f"expert{i}", {}) for i in range(experts_of(method))]
    recipe = recipes.build(
        method=method, base="base", models=models, parameters=parameters, dtype=dtype, folder=family
    )
    result = merge(recipe, out, device="cpu", engine=engine)
    assert result.engine == engine.engine
    return digest(out)


def one_tensor(folder: Path, delta: torch.Tensor) -> Path:
    """A base of zeros and one expert that is `delta`."""
    for name, value in {"base": torch.zeros_like(delta), "expert": delta}.items():
        (folder / name).mkdir(parents=True)
        save_file({"w": value.contiguous()}, folder / name / "model.safetensors")
        (folder / name / "config.json").write_text('{"model_type": "llama"}')
    return folder


def awkward() -> dict[str, torch.Tensor]:
    """Changes whose sample tells little: sorted, nearly all zero, all equal, one column alive."""
    count = 400
    generator = torch.Generator().manual_seed(3)
    noise = torch.randn(count, count, generator=generator)
    column = torch.zeros(count, count)
    column[:, 7] = noise[:, 7]
    return {
        "sorted": noise.flatten().sort().values.reshape(count, count),
        "zeros": torch.where(noise > 2.5, noise, 0.0),
        "equal": torch.full((count, count), 0.25),
        "column": column,
    }


def cut_exactly(
    delta: torch.Tensor, density: float, folder: Path, engine: type[Stream], device: str = "cpu"
) -> bool:
    """True where magnitude pruning through an engine keeps what sorting would."""
    one_tensor(folder, delta)
    recipe = recipes.build(
        method="magnitude", base="base", models=[("expert", {"density": density})], folder=folder
    )
    merge(recipe, folder / "out", device=device, engine=engine)
    merged = load_file(folder / "out" / "model.safetensors")["w"].flatten()
    flat = delta.flatten()
    count = int(density * flat.numel())
    spread = upper_places(0, flat.numel(), "cpu").argsort()
    order = spread[torch.sort(flat[spread].abs(), descending=True, stable=True).indices[:count]]
    expected = torch.zeros_like(flat)
    expected[order] = flat[order]
    return torch.equal(merged, expected)
