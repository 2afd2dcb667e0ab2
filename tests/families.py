"""Small families of models, made on the spot from a seed."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file

from merging import recipe as recipes
from merging.run.merge import merge

Tensors = dict[str, torch.Tensor]
CONFIG = {"model_type": "llama", "architectures": ["LlamaForCausalLM"]}


def llama(
    seed: int = 0,
    *,
    layers: int = 3,
    hidden: int = 64,
    kv: int = 32,
    inner: int = 96,
    vocab: int = 64,
    dtype: torch.dtype = torch.float32,
) -> Tensors:
    """The tensors of a small Llama with grouped-query attention and its own output head."""
    generator = torch.Generator().manual_seed(seed)

    def matrix(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=generator) * 0.02

    tensors = {
        "model.embed_tokens.weight": matrix(vocab, hidden),
        "lm_head.weight": matrix(vocab, hidden),
        "model.norm.weight": 1 + matrix(hidden),
    }
    for layer in range(layers):
        block = f"model.layers.{layer}."
        tensors |= {
            block + "self_attn.q_proj.weight": matrix(hidden, hidden),
            block + "self_attn.k_proj.weight": matrix(kv, hidden),
            block + "self_attn.v_proj.weight": matrix(kv, hidden),
            block + "self_attn.o_proj.weight": matrix(hidden, hidden),
            block + "mlp.gate_proj.weight": matrix(inner, hidden),
            block + "mlp.up_proj.weight": matrix(inner, hidden),
            block + "mlp.down_proj.weight": matrix(hidden, inner),
            block + "input_layernorm.weight": 1 + matrix(hidden),
            block + "post_attention_layernorm.weight": 1 + matrix(hidden),
        }
    return {name: tensor.to(dtype) for name, tensor in tensors.items()}


def tuned(base: Mapping[str, torch.Tensor], seed: int, *, scale: float = 1e-3) -> Tensors:
    """`base` plus heavy-tailed changes, wider or narrower from tensor to tensor."""
    generator = torch.Generator().manual_seed(1000 + seed)
    changed = {}
    for name, tensor in base.items():
        normal = torch.randn(tensor.shape, generator=generator)
        spread = torch.randn(tensor.shape, generator=generator).abs() ** 1.5
        width = scale * (0.5 + torch.rand((), generator=generator))
        changed[name] = (tensor.float() + width * normal * spread).to(tensor.dtype)
    return changed


def write_model(
    folder: Path,
    tensors: Mapping[str, torch.Tensor],
    config: Mapping | None = None,
    shards: int = 1,
) -> Path:
    """Writes a model folder, in `shards` files with their index where that is more than one."""
    folder.mkdir(parents=True)
    (folder / "config.json").write_text(json.dumps({**CONFIG, **(config or {})}))
    parts: list[Tensors] = [{} for _ in range(shards)]
    for position, (name, tensor) in enumerate(tensors.items()):
        parts[position % shards][name] = tensor.contiguous()
    if shards == 1:
        save_file(parts[0], folder / "model.safetensors", {"format": "pt"})
        return folder
    weight_map = {}
    for number, part in enumerate(parts, 1):
        file = f"model-{number:05d}-of-{shards:05d}.safetensors"
        save_file(part, folder / file, {"format": "pt"})
        weight_map |= dict.fromkeys(part, file)
    index = {"metadata": {}, "weight_map": weight_map}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    return folder


def write_family(
    parent: Path,
    base: Mapping[str, torch.Tensor],
    experts: Sequence[Mapping[str, torch.Tensor]],
    config: Mapping | None = None,
) -> Path:
    """Writes base and expert0, expert1... under `parent` and returns it."""
    write_model(parent / "base", base, config)
    for index, expert in enumerate(experts):
        write_model(parent / f"expert{index}", expert, config)
    return parent


def small_family(parent: Path, *, experts: int = 2, seed: int = 0, **sizes) -> Path:
    """A family of small Llamas under `parent`; sizes as for `llama`."""
    base = llama(seed, **sizes)
    return write_family(parent, base, [tuned(base, seed * 100 + i) for i in range(experts)])


def document(
    method: str,
    experts: Sequence[Mapping] | int,
    parameters: Mapping | None = None,
    **keys: object,
) -> dict:
    """A recipe over base and expert0, expert1...; experts as their number or parameters."""
    values = [{}] * experts if isinstance(experts, int) else experts
    return {
        "merge_method": method,
        "base_model": "base",
        "models": [
            {"model": f"expert{i}", "parameters": dict(value)} for i, value in enumerate(values)
        ],
        "parameters": dict(parameters or {}),
        **keys,
    }


def merged(recipe: Mapping, parent: Path, out: Path, **options: object) -> Tensors:
    """Runs a recipe document over the models under `parent`; the merged tensors."""
    merge(recipes.from_mapping(recipe, parent), out, **{"device": "cpu", **options})
    return load_model(out)


def load_model(folder: Path) -> Tensors:
    """Every tensor of a model folder, whatever files hold them."""
    tensors: Tensors = {}
    for file in sorted(folder.glob("*.safetensors")):
        tensors |= load_file(file)
    return tensors


def merged_one(
    tmp_path: Path,
    method: str,
    base: Sequence[float] | torch.Tensor,
    deltas: Sequence[Sequence[float] | torch.Tensor],
    weights: Sequence[float] | None = None,
    parameters: Mapping | None = None,
    name: str = "model.layers.0.mlp.up_proj.weight",
) -> torch.Tensor:
    """Merges models of a single tensor; the merged tensor's change of the base, float64."""
    root = torch.as_tensor(base, dtype=torch.float32)
    experts = [{name: root + torch.as_tensor(delta, dtype=torch.float32)} for delta in deltas]
    parent = write_family(tmp_path / f"one{len(list(tmp_path.iterdir()))}", {name: root}, experts)
    values = [{"weight": weight} for weight in weights or [1.0] * len(deltas)]
    recipe = document(method, values, parameters)
    return merged(recipe, parent, parent / "out")[name].double() - root.double()
