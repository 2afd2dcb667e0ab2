"""LiNeS: shallow layers change less, deep ones more, in a line over the depth.

Source: Wang et al., LiNeS: Post-training Layer Scaling Prevents Forgetting and Enhances Model
Merging, arXiv 2410.17146, section 4. In block l of L, l = 0 ... L - 1, a change is multiplied by

    alpha + beta * l / (L - 1);  by alpha outside the blocks (embeddings, last norm, head).

One model: beta = 1 - alpha, so that the last block keeps its change; alpha from 0 to 1. A merge of
T changes into m: alpha = |sum_t tau_t|_1 / |m|_1 / T, norms over the whole model, which gives the
first block the strength of an average; beta is the strength to tune, 0 to 1. Both work on any
merged change, whatever made it.

Where we differ: m is the sum here, whose alpha is 1 / T (`average`); it stays 1 / T where changes
were pruned before, so that no further pass over the model is needed. The released code finds blocks
by `.l.` anywhere in a name, we by the layer the architecture gives a tensor. A model of one block
divides 0 by 0 there; here that block counts as the last.
"""

from __future__ import annotations

from collections.abc import Sequence

from merging.declarations.knobs import LAMBDA, WEIGHT, Knob
from merging.declarations.measures import Reader
from merging.declarations.methods import Consensus, Preset
from merging.declarations.values import Recipe
from merging.instructions import Decision, Sum


def factor(layer: int | None, layers: int, alpha: float, beta: float) -> float:
    """What the change of a tensor is multiplied by.

    Args:
        layer: its block, 0 to layers - 1; None outside the blocks.
        layers: blocks of the model.
        alpha: the factor of the first block, and outside of blocks.
        beta: how much larger the last block's is.
    """
    if layer is None:
        return alpha
    return alpha + beta * (layer / (layers - 1) if layers > 1 else 1.0)


def decide(recipe: Recipe, reader: Reader, decisions: Sequence[Decision], evidence: None) -> Sum:
    """The weighted sum times the tensor's factor."""
    values, entry = recipe.parameters, reader.entry
    alpha = 1.0 / reader.experts if values["average"] else values["alpha"]
    share = factor(entry.place.layer, entry.place.depth, alpha, values["beta"])
    return Sum(tuple(weight * share for weight in recipe.weights_at(entry)))


METHODS = (
    Consensus(
        id="lines",
        title="LiNeS",
        summary="Add changes, less of them in shallow layers and more in deep ones.",
        formula="(alpha + beta * l / (L - 1)) * sum_i w_i delta_i in block l of L",
        paper="Wang et al. 2024, LiNeS",
        url="https://arxiv.org/abs/2410.17146",
        words="Add them up, times a factor that grows by {beta:g} from first to last block.",
        decide=decide,
        knobs=(
            WEIGHT,
            LAMBDA,
            Knob(
                "beta",
                "Growth",
                0.5,
                "How much larger the last block's factor is than the first's.",
                low=-2.0,
                high=2.0,
                step=0.05,
                unit="factor",
            ),
            Knob(
                "average",
                "Start at an average",
                True,
                "The first block's factor is 1 / number of experts (paper, for merges).",
            ),
            Knob(
                "alpha",
                "First block",
                0.3,
                "Its factor where it does not start at an average; also outside the blocks.",
                low=0.0,
                high=2.0,
                step=0.05,
                unit="factor",
            ),
        ),
    ),
)

PRESETS = (
    Preset(
        id="lines",
        title="LiNeS",
        group="sums",
        place=3,
        consensus="lines",
        summary="Adds changes, shallow layers less than deep ones.",
        use_when="A sum forgets what the base can do.",
    ),
)
