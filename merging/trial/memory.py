"""How much memory is free, and how many prompts fit into it at a time."""

from __future__ import annotations

import contextlib
import os
import resource
from pathlib import Path

import psutil
import torch
from transformers import PreTrainedModel

_CGROUP = Path("/sys/fs/cgroup")
_MOST_BYTES = 1 << 29  # for the prompts of one batch on the CPU: more makes nothing faster


def free_bytes(device: torch.device | str = "cpu") -> int:
    """Bytes of a device's memory that can be asked for now, as the system's limits allow."""
    device = torch.device(device)
    if device.type == "cuda":
        free, _ = torch.cuda.mem_get_info(device)
        return free + torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
    free = psutil.virtual_memory().available
    with contextlib.suppress(OSError, ValueError, StopIteration):  # no such group, or no limit
        most = int((_CGROUP / "memory.max").read_text())
        lines = (_CGROUP / "memory.stat").read_text().splitlines()
        cached = next(int(line.split()[1]) for line in lines if line.startswith("inactive_file "))
        taken = int((_CGROUP / "memory.current").read_text()) - cached
        free = min(free, most - taken)
    limit, _ = resource.getrlimit(resource.RLIMIT_AS)
    if limit != resource.RLIM_INFINITY:
        free = min(free, limit - psutil.Process(os.getpid()).memory_info().vms)
    return max(free, 0)


def batch_bytes(device: torch.device | str = "cpu") -> int:
    """Bytes that one batch of prompts may take on a device."""
    half = free_bytes(device) // 2
    return min(half, _MOST_BYTES) if torch.device(device).type == "cpu" else half


def token_bytes(network: PreTrainedModel) -> int:
    """About the bytes that reading or writing a token takes: its keys and values in every layer,
    and what one layer holds of it."""
    config = network.config.get_text_config()

    def size(*names: str) -> int:
        return next((int(value) for n in names if (value := getattr(config, n, None))), 0)

    hidden = size("hidden_size", "n_embd", "d_model") or 1024
    inner = size("intermediate_size", "n_inner", "d_ff") or 4 * hidden
    layers = size("num_hidden_layers", "n_layer", "num_layers") or 1
    heads = size("num_attention_heads", "n_head") or 1
    entries = (size("num_key_value_heads") or heads) * (size("head_dim") or hidden // heads)
    width = torch.finfo(network.dtype).bits // 8
    return width * (2 * layers * entries + 3 * inner + 8 * hidden)


def gigabytes(count: float) -> str:
    """Bytes in words: "1.2 GB"."""
    return f"{count / 1e9:.1f} GB"
