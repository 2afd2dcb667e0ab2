"""Makes a base and experts of a chosen size: `python -m benchmarks.family 1.1b OUT`.

Llama-shaped, bfloat16, random. Deltas are heavy-tailed (Student t, 3 degrees of freedom) and grow
with depth, as fine-tuning's do; what a merge costs depends on sizes and on ties, not on meaning.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import dataclass
from pathlib import Path

import torch

from merging.checkpoints.writer import ModelWriter, TensorSpec

BLOCK = 1 << 22


@dataclass(frozen=True)
class Shape:
    """Sizes of a Llama-shaped model."""

    hidden: int
    layers: int
    intermediate: int
    heads: int
    kv_heads: int
    vocab: int = 32000

    def tensors(self) -> list[tuple[str, tuple[int, ...], float]]:
        """(name, shape, depth in 0..1) of every tensor, sorted by name."""
        h, kv = self.hidden, self.hidden // self.heads * self.kv_heads
        entries: list[tuple[str, tuple[int, ...], float]] = [
            ("lm_head.weight", (self.vocab, h), 1.0),
            ("model.embed_tokens.weight", (self.vocab, h), 0.0),
            ("model.norm.weight", (h,), 1.0),
        ]
        for layer in range(self.layers):
            depth = layer / max(self.layers - 1, 1)
            inside = {
                "self_attn.q_proj": (h, h),
                "self_attn.k_proj": (kv, h),
                "self_attn.v_proj": (kv, h),
                "self_attn.o_proj": (h, h),
                "mlp.gate_proj": (self.intermediate, h),
                "mlp.up_proj": (self.intermediate, h),
                "mlp.down_proj": (h, self.intermediate),
                "input_layernorm": (h,),
                "post_attention_layernorm": (h,),
            }
            entries += [(f"model.layers.{layer}.{n}.weight", s, depth) for n, s in inside.items()]
        return sorted(entries)

    def config(self) -> dict:
        """The config.json of such a model."""
        return {
            "architectures": ["LlamaForCausalLM"],
            "model_type": "llama",
            "hidden_size": self.hidden,
            "num_hidden_layers": self.layers,
            "intermediate_size": self.intermediate,
            "num_attention_heads": self.heads,
            "num_key_value_heads": self.kv_heads,
            "vocab_size": self.vocab,
            "tie_word_embeddings": False,
            "hidden_act": "silu",
            "max_position_embeddings": 2048,
            "rms_norm_eps": 1e-05,
            "dtype": "bfloat16",
        }


SHAPES = {
    "tiny": Shape(64, 2, 160, 4, 2, 256),
    "124.7m": Shape(768, 12, 2048, 12, 4),
    "1.1b": Shape(2048, 22, 5632, 32, 4),
    "3.2b": Shape(3072, 28, 8192, 24, 8, 128256),
    "8b": Shape(4096, 32, 14336, 32, 8, 128256),
}


def make_family(
    shape: Shape, out: Path, experts: int = 3, seed: int = 0, device: str = "cpu"
) -> list[Path]:
    """Writes OUT/base and OUT/expert0... in bfloat16; a folder already there is kept.

    Args:
        device: where the numbers are drawn; each device draws its own.

    Returns:
        The folders, base first.
    """
    names = ["base", *(f"expert{i}" for i in range(experts))]
    tensors = shape.tensors()
    specs = [TensorSpec(name, "BF16", size) for name, size, _ in tensors]
    for model, name in enumerate(names):
        if (out / name).exists():
            continue
        writer = ModelWriter(out / name, specs, shard_bytes=2_000_000_000)
        for index, (tensor, size, depth) in enumerate(tensors):
            numel = TensorSpec(tensor, "BF16", size).size_bytes // 2
            for start in range(0, numel, BLOCK):
                count = min(BLOCK, numel - start)
                values = _values(count, _generator((seed, 0, index, start), device), 0.02)
                if model:
                    scale = 3e-4 * (0.5 + depth)
                    drawn = _generator((seed, model, index, start), device)
                    values += _heavy_tailed(count, drawn, scale)
                stored = values.bfloat16().cpu().view(torch.uint8).numpy()
                writer.write(tensor, start, stored.data)
        (writer.folder / "config.json").write_text(json.dumps(shape.config(), indent=2))
        writer.publish()
    return [out / name for name in names]


def _generator(key: tuple[int, ...], device: str) -> torch.Generator:
    return torch.Generator(device).manual_seed(hash(key) & 0x7FFFFFFFFFFFFFFF)


def _values(count: int, drawn: torch.Generator, scale: float) -> torch.Tensor:
    return torch.randn(count, generator=drawn, device=drawn.device).mul_(scale)


def _heavy_tailed(count: int, drawn: torch.Generator, scale: float) -> torch.Tensor:
    """Student t with 3 degrees of freedom: normal over the root of a mean of 3 squares."""
    draws = torch.randn(4, count, generator=drawn, device=drawn.device)
    return draws[0].div_(draws[1:].square_().mean(0).sqrt_()).mul_(scale)


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("size", choices=SHAPES)
    parser.add_argument("out", type=Path)
    parser.add_argument("--experts", type=int, default=3)
    args = parser.parse_args()
    for folder in make_family(SHAPES[args.size], args.out, args.experts):
        print(folder)


if __name__ == "__main__":
    main()
