"""Random pruning (DARE): drop changes at random, rescale what is left.

Source: Yu et al., arXiv 2311.03099, eq. 2-4: m ~ Bernoulli(p), delta' = (1 - m) * delta / (1 - p).
`rescale_by: l1` divides by the kept share of the L1 norm instead, as mergekit does.
The draw for an entry depends on (seed, model, tensor name, flat index) alone, so order, sharding,
chunking and device change nothing. The model counts by its folder's name, wherever that lies.
"""

from __future__ import annotations

import hashlib

from merging.declarations.knobs import DENSITY, Axis, Knob, Law

AXIS = Axis(
    id="random",
    kind="prune",
    title="Random",
    summary="Drop changes at random and rescale the rest.",
    formula="keep each entry with probability density; delta / density",
    paper="Yu et al. 2023, Language Models are Super Mario (DARE), eq. 2-4",
    url="https://arxiv.org/abs/2311.03099",
    words="Keep {kept} at random.",
    law=Law("random"),
    knobs=(
        DENSITY,
        Knob("rescale", "Rescale", True, "Divide what is kept so that its sum is preserved."),
        Knob(
            "rescale_by", "Rescale by", "density",
            "density: divide by the density (paper). l1: match the tensor's L1 norm (mergekit).",
            choices=("density", "l1"),
        ),
        Knob("seed", "Seed", 0, "Same seed, same draw.", low=0, high=2**31 - 1, step=1),
    ),
)  # fmt: skip


def draw_keys(seed: int, model: str, tensor: str) -> tuple[int, int]:
    """Two 32-bit keys (signed) that start the draws of one tensor of one model."""
    digest = hashlib.blake2b(f"{seed}\0{model}\0{tensor}".encode(), digest_size=8).digest()
    return (
        int.from_bytes(digest[:4], "little", signed=True),
        int.from_bytes(digest[4:], "little", signed=True),
    )
