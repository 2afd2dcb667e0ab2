"""PCB-Merging: balance how the experts' changes compete, inside a model and between models.

Source: Du et al., Parameter Competition Balancing for Model Merging, arXiv 2410.02396, section 3,
as its released code computes it. For expert i of n, over all d entries in scope:

    a_i = clip(|tau_i|) to its [c, 1 - c] order statistics;  C_i = sgn(tau_i) a_i
    u_i = minmax(a_i);  v_i = sgn(tau_i) u_i
    b_i = exp(n u_i^2) * inter_i
    S_i = minmax(clamp(b_i, from the (1 - r) order statistic of b_i))
    tau = sum_i w_i C_i S_i / max(sum_i S_i, 1e-12)

Variants differ in c and in inter_i:
    reference (A)  c = 1e-4  tanh(tau_i * sum_j tau_j)
    nlp       (B)  c = 1e-2  tanh(tau_i * sum_j tau_j)
    vision    (C)  c = 1e-2  tanh(tau_i * sum_j v_j)
    pairwise  (D)  c = 1e-2  sum_j tanh(v_i * v_j)

Where the released code gives NaN we differ: an expert equal to the base is left out of n, a
constant row has u = 0, a constant S is 1 at and above the threshold (0 where exact opposites
out-vote each other everywhere), and rows too short to clip are not clipped.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

from merging.checkpoints import Entry
from merging.declarations.knobs import LAMBDA, SCOPE, WEIGHT, Knob
from merging.declarations.measures import Passes, Reader
from merging.declarations.methods import Consensus, Evidence, Preset, Pruning
from merging.declarations.values import Recipe
from merging.evidence.whole_model import model_offsets
from merging.instructions import Bounds, Competition, Decision

CLIP = {"reference": 1e-4, "nlp": 1e-2, "vision": 1e-2, "pairwise": 1e-2}


def clip_ranks(count: int, clip: float) -> tuple[int, int]:
    """Ascending ranks of the clip bounds among `count` magnitudes; the ends if too few."""
    low, high = int(count * clip), int(count * (1 - clip) - 1)
    return (low, high) if high > low else (0, count - 1)


def threshold_rank(count: int, density: float) -> int:
    """Ascending rank of the score that maps to 0, at share `density` in (0, 1]."""
    return min(int(count * (1 - density)), count - 1)


def _over_model(recipe: Recipe) -> bool:
    return recipe.parameters["scope"] == "model"


def measure(recipe: Recipe, passes: Passes, pruning: Pruning) -> Evidence:
    """With scope: model, the bounds over all merged tensors, as a Competition without weights."""
    if not _over_model(recipe):
        return Evidence()

    game = _competition(
        recipe,
        lambda ranks: passes.magnitudes_at(ranks, pruning),
        lambda ranks, game: passes.scores_at(ranks, pruning, game),
        model_offsets(passes.family)[1],
    )
    names = [model.name for i, model in enumerate(passes.family.experts) if i not in game.active]
    idle = f"{', '.join(names)}: no change against the base; left out of the competition"
    return Evidence(game, notes=(idle,) if names else ())


def decide(
    recipe: Recipe, reader: Reader, decisions: Sequence[Decision], whole: Competition | None
) -> Competition:
    """The competition of one tensor."""
    game = whole or _competition(
        recipe,
        lambda ranks: reader.magnitudes_at(ranks, decisions),
        lambda ranks, game: reader.scores_at(ranks, decisions, game),
        reader.numel,
    )
    return replace(game, weights=recipe.weights_at(reader.entry))


def _competition(
    recipe: Recipe,
    magnitudes: Callable[[Sequence[int]], list[list[float]]],
    scores: Callable[[Sequence[int], Competition], list[list[float]]],
    count: int,
) -> Competition:
    """Clip bounds from the magnitudes, then thresholds from the scores.

    Args:
        magnitudes: per expert, those at some ranks among `count`.
        scores: likewise, of the experts that compete.
    """
    variant = recipe.parameters["variant"]
    nobody = Competition((), variant, (), ())
    if count == 0:
        return nobody
    quantiles = magnitudes([*clip_ranks(count, CLIP[variant]), count - 1])
    active = tuple(index for index, (_, _, top) in enumerate(quantiles) if top > 0)
    if not active:
        return nobody
    bounds = tuple(Bounds(*quantiles[index][:2]) for index in active)
    game = Competition((), variant, active, bounds)
    ends = scores([threshold_rank(count, recipe.parameters["pcb_density"]), count - 1], game)
    complete = tuple(
        replace(bound, threshold=threshold, top=top)
        for bound, (threshold, top) in zip(bounds, ends, strict=True)
    )
    return replace(game, bounds=complete)


def remarks(recipe: Recipe, entries: Sequence[Entry]) -> Sequence[str]:
    """Where everything takes part nobody is out-voted."""
    if recipe.parameters["pcb_density"] < 1.0:
        return ()
    return ("density: 1 lets out-voted changes take part; 0.05 to 0.2 is usual for PCB",)


METHODS = (
    Consensus(
        id="pcb",
        place=3,
        title="PCB",
        summary="Weigh every parameter by how it competes within and between experts.",
        formula="sum_i w_i C_i S_i / sum_i S_i, S = rescaled top share of exp(n u^2) * agreement",
        paper="Du et al. 2024, PCB-Merging, section 3",
        url="https://arxiv.org/abs/2410.02396",
        words="Let them compete for every parameter: {pcb_density:.0%} of each take part.",
        passes=lambda recipe: 4 if _over_model(recipe) else 0,
        measure=measure,
        measures=lambda recipe: True,
        decide=decide,
        check=remarks,
        unpredicted="Which of them take part, only the merge can tell.",
        needs_all=True,
        implied={"normalize": True},
        knobs=(
            WEIGHT,
            LAMBDA,
            Knob(
                "pcb_density",
                "Competing share",
                0.1,
                "Share of each expert's parameters that survives the competition.",
                low=0.001,
                high=1.0,
                step=0.001,
                unit="share of entries kept",
                also="density",
            ),
            Knob(
                "variant",
                "Variant",
                "pairwise",
                "How agreement between experts is scored.",
                choices=("pairwise", "reference", "nlp", "vision"),
            ),
            replace(SCOPE, default="model"),  # as the paper
        ),
    ),
)

PRESETS = (
    Preset(
        id="pcb",
        place=5,
        title="PCB-Merging",
        group="elect",
        consensus="pcb",
        summary="Balances how parameters compete within and between experts.",
        use_when="Experts of different strength share one model.",
        defaults={"scope": "model"},
    ),
)
