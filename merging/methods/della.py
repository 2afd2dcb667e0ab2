"""DELLA: drop changes at random, small ones of a row more often than large ones.

Source: Deep et al., DELLA-Merging, arXiv 2406.11617 (MAGPRUNE). In a row of n entries, rank r = 0
being the smallest magnitude, an entry is kept with probability

    p = density - epsilon + 2 epsilon r / (n - 1)

`della` elects signs and averages those that agree, `della_linear` adds the changes up. A row is the
last axis; a vector is one row. As mergekit 0.1.5: a density of 1 or more keeps everything, of 0 or
less nothing; with `rescale` (its default) all survivors of a tensor are multiplied by sum|d| /
sum|kept d|, unless one of the sums is below 1e-7. `rescale_by: probability` is the paper's rule:
each survivor is divided by its own p, which keeps every entry's expectation.

Where we differ from mergekit: the draw depends on (seed, model, tensor name, flat index) alone
(`merging.instructions.draws`), and p is rounded to 24 bits. Equal magnitudes, which bfloat16 models
have in crowds, share the mean of their ranks, where mergekit's sort orders them by chance. A row of
one entry is kept with p = density, where mergekit ends with an error; so it does where density -
epsilon or density + epsilon leave (0, 1): here epsilon is narrowed to what fits (`narrowed`). Of
tensors with three axes and more mergekit ranks along the second.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from merging.checkpoints import Entry
from merging.declarations.knobs import DENSITY, SEED, Knob
from merging.declarations.laws import Law
from merging.declarations.measures import Reader
from merging.declarations.methods import Preset, Pruned, Pruner
from merging.declarations.values import Recipe
from merging.evidence.norms import l1_ratio
from merging.instructions import Decision, Keep, Ranked, draws
from merging.methods.random import expert_keys


def narrowed(density: float, epsilon: float) -> float:
    """The largest epsilon up to the one asked for that keeps all probabilities in [0, 1].

    Args:
        density: in [0, 1].
        epsilon: 0 or more.
    """
    return max(min(epsilon, density, 1.0 - density), 0.0)


def draws_by_rank(density: float, epsilon: float, keys: tuple[int, int]) -> Ranked:
    """The draws of one tensor at a density inside (0, 1), before any factor.

    Args:
        keys: from `merging.methods.random.draw_keys`.
    """
    epsilon = narrowed(density, epsilon)
    low, high = draws.limit(density - epsilon), draws.limit(density + epsilon)
    return Ranked(keys, low, high, draws.limit(density))


def decide(recipe: Recipe, reader: Reader, evidence: None) -> Pruned:
    """A draw per expert, keyed by seed, model and tensor, over whole rows."""
    keys = enumerate(expert_keys(recipe, reader))
    return Pruned([_draw(recipe, reader, index, own) for index, own in keys])


def _draw(recipe: Recipe, reader: Reader, index: int, keys: tuple[int, int]) -> Decision:
    source, entry = recipe.sources[index], reader.entry
    density = source.at("density", entry)
    if density >= 1.0:
        return Keep()
    if density <= 0.0:
        return Keep(0.0)
    ranked = draws_by_rank(density, source.at("epsilon", entry), keys)
    if not recipe.at("rescale", entry):
        return ranked
    if recipe.at("rescale_by", entry) == "probability":
        return replace(ranked, by_chance=True)
    if reader.finds_cuts:
        return replace(ranked, rescaled=True)
    return replace(ranked, scale=l1_ratio(reader, index, ranked))


def check(recipe: Recipe, entries: Sequence[Entry]) -> Sequence[str]:
    """A remark where nothing is dropped, and for every model whose epsilon does not fit its
    density."""
    if all(one >= 1.0 for source in recipe.sources for one in source.density.values):
        return () if entries else ("density: 1 keeps every change; 0.5 or so drops some",)
    remarks = []
    for source in recipe.sources:
        density, epsilon = source.density.constant, source.values["epsilon"].constant
        if density is not None and epsilon is not None:
            pairs = [] if entries else [(density, epsilon)]
        else:
            pairs = [(source.at("density", one), source.at("epsilon", one)) for one in entries]
        fits = ((d, e, narrowed(d, e)) for d, e in pairs if 0.0 < d < 1.0)
        for density, epsilon, fitting in fits:
            if fitting < epsilon:
                remarks.append(
                    f"{source.model}: epsilon {epsilon:g} leaves probabilities outside 0 to 1 at "
                    f"density {density:g}; {fitting:g} is taken there"
                )
                break
    return remarks


METHODS = (
    Pruner(
        id="della",
        title="DELLA",
        summary="Drop changes at random, small ones of a row more often than large ones.",
        formula="keep with p = density - epsilon + 2 epsilon rank / (n - 1) within a row",
        paper="Deep et al. 2024, DELLA-Merging (MagPrune)",
        url="https://arxiv.org/abs/2406.11617",
        words="Keep {kept} at random, large ones of a row more often.",
        law=Law("random"),
        place=5,
        decide=decide,
        check=check,
        unpredicted="Large changes stay more often than the map shows.",
        knobs=(
            DENSITY,
            Knob(
                "epsilon",
                "Spread",
                0.15,
                "How much more often the largest change of a row stays, and the smallest goes.",
                low=0.0,
                high=0.5,
                step=0.01,
                unit="share of entries",
                per_model=True,
                scheduled=True,
            ),
            Knob(
                "rescale",
                "Rescale",
                True,
                "Multiply what is kept so that its sum is preserved.",
                scheduled=True,
            ),
            Knob(
                "rescale_by",
                "Rescale by",
                "l1",
                "l1: match the tensor's L1 norm (mergekit). probability: divide every change by "
                "its own probability (paper).",
                choices=("l1", "probability"),
                scheduled=True,
            ),
            SEED,
        ),
    ),
)

PRESETS = (
    Preset(
        id="della",
        title="DELLA",
        group="elect",
        place=8,
        prune="della",
        consensus="ties",
        summary="Drops changes at random, small ones first, then elects signs.",
        use_when="As DARE, where the largest changes matter most.",
        shown={"density": 0.5},
    ),
    Preset(
        id="della_linear",
        title="DELLA + sum",
        group="elect",
        place=9,
        prune="della",
        consensus="sum",
        summary="Drops changes at random, small ones first, and adds the rest.",
        use_when="As DELLA, with experts that do not disagree.",
        shown={"density": 0.5},
    ),
)
