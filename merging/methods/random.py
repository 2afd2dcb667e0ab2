"""Random pruning (DARE): drop changes at random, rescale what is left.

Source: Yu et al., arXiv 2311.03099, eq. 2-4: m ~ Bernoulli(p), delta' = (1 - m) * delta / (1 - p).
`rescale_by: l1` divides by the kept share of the L1 norm instead, as mergekit does.
The draw for an entry depends on (seed, model, tensor name, flat index) alone, so order, sharding,
chunking and device change nothing. The model counts by its folder's name, wherever that lies.
"""

from __future__ import annotations

import hashlib
from dataclasses import replace

from merging.checkpoints import short_names
from merging.declarations.knobs import DENSITY, SEED, Knob
from merging.declarations.laws import Law
from merging.declarations.measures import Reader
from merging.declarations.methods import Preset, Pruned, Pruner
from merging.declarations.values import Recipe
from merging.evidence.norms import l1_ratio
from merging.instructions import Decision, Draw, Keep


def draw_keys(seed: int, model: str, tensor: str) -> tuple[int, int]:
    """Two 32-bit keys (signed) that start the draws of one tensor of one model."""
    digest = hashlib.blake2b(f"{seed}\0{model}\0{tensor}".encode(), digest_size=8).digest()
    return (
        int.from_bytes(digest[:4], "little", signed=True),
        int.from_bytes(digest[4:], "little", signed=True),
    )


def expert_keys(recipe: Recipe, reader: Reader) -> list[tuple[int, int]]:
    """The keys of every expert's draws for one tensor."""
    names = short_names([source.model for source in recipe.sources], recipe.folder)
    seed, tensor = recipe.parameters["seed"], reader.entry.name
    return [draw_keys(seed, name, tensor) for name in names]


def decide(recipe: Recipe, reader: Reader, evidence: None) -> Pruned:
    """One draw per expert, keyed by seed, model and tensor."""
    keys = enumerate(expert_keys(recipe, reader))
    return Pruned([_draw(recipe, reader, index, own) for index, own in keys])


def _draw(recipe: Recipe, reader: Reader, index: int, keys: tuple[int, int]) -> Decision:
    entry = reader.entry
    density = recipe.sources[index].at("density", entry)
    if density >= 1.0:
        return Keep()
    draw = Draw(keys, density, 1.0)
    if not recipe.at("rescale", entry) or density <= 0.0:
        return draw
    if recipe.at("rescale_by", entry) == "density":
        return replace(draw, scale=1.0 / density)
    return replace(draw, scale=l1_ratio(reader, index, draw))


METHODS = (
    Pruner(
        id="random",
        place=3,
        title="Random",
        summary="Drop changes at random and rescale the rest.",
        formula="keep each entry with probability density; delta / density",
        paper="Yu et al. 2023, Language Models are Super Mario (DARE), eq. 2-4",
        url="https://arxiv.org/abs/2311.03099",
        words="Keep {kept} at random.",
        law=Law("random"),
        decide=decide,
        knobs=(
            DENSITY,
            Knob(
                "rescale",
                "Rescale",
                True,
                "Divide what is kept so that its sum is preserved.",
                scheduled=True,
            ),
            Knob(
                "rescale_by",
                "Rescale by",
                "density",
                "density: divide by the density (paper). l1: match the tensor's L1 norm "
                "(mergekit).",
                choices=("density", "l1"),
                scheduled=True,
            ),
            SEED,
        ),
    ),
)

PRESETS = (
    Preset(
        id="dare_linear",
        place=3,
        title="DARE",
        group="elect",
        prune="random",
        consensus="sum",
        summary="Drops changes at random, rescales the rest, adds them.",
        use_when="Changes are tiny (mean below 0.002) and many.",
        shown={"density": 0.5},
    ),
    Preset(
        id="dare_ties",
        place=4,
        title="DARE + TIES",
        group="elect",
        prune="random",
        consensus="ties",
        summary="Drops changes at random, then elects signs.",
        use_when="As DARE, with several experts that disagree.",
        defaults={"normalize": False},
        shown={"density": 0.5},
    ),
)
