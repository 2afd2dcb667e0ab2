"""TIES: elect a sign for every parameter, average the experts that agree with it.

Source: Yadav et al., TIES-Merging, arXiv 2306.01708, steps 2 and 3 (step 1, trimming, is the
magnitude pruner). As mergekit, weights take part in the vote, and the mean is weighted.
Exact cancellations: with `scope: tensor` a zero sum elects +, as mergekit; with `scope: model` it
elects the sign that won most parameters of the model (- where that is undecided), as the
authors' code.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from merging.declarations.knobs import LAMBDA, NORMALIZE, SCOPE, WEIGHT
from merging.declarations.measures import Passes, Reader
from merging.declarations.methods import Consensus, Evidence, Preset, Pruning
from merging.declarations.values import Recipe
from merging.instructions import Decision, Election


def _over_model(recipe: Recipe) -> bool:
    return recipe.parameters["scope"] == "model"


def measure(recipe: Recipe, passes: Passes, pruning: Pruning) -> Evidence:
    """The sign that exact cancellations elect: True for +."""
    if not _over_model(recipe):
        return Evidence(True)
    balances = passes.map(
        lambda reader: reader.vote_balance(pruning(reader), recipe.weights_at(reader.entry))
    )
    return Evidence(sum(balances) > 0)


def decide(
    recipe: Recipe, reader: Reader, decisions: Sequence[Decision], zero_is_positive: bool
) -> Election:
    """An election with the tensor's weights."""
    weights = recipe.weights_at(reader.entry)
    return Election(weights, recipe.at("normalize", reader.entry), zero_is_positive)


METHODS = (
    Consensus(
        id="ties",
        place=2,
        title="TIES",
        summary="Elect a sign per parameter, then average the experts that agree.",
        formula="sign = sgn(sum_i w_i delta_i); mean of w_i delta_i with that sign",
        paper="Yadav et al. 2023, TIES-Merging, steps 2-3",
        url="https://arxiv.org/abs/2306.01708",
        words="Elect a sign for every parameter and {join} those that agree.",
        passes=lambda recipe: int(_over_model(recipe)),
        measure=measure,
        measures=_over_model,
        decide=decide,
        uniform=lambda recipe: True,
        knobs=(WEIGHT, LAMBDA, replace(NORMALIZE, default=True), SCOPE),
    ),
)

PRESETS = (
    Preset(
        id="ties",
        place=2,
        title="TIES",
        group="elect",
        prune="magnitude",
        consensus="ties",
        summary="Keeps the largest changes, elects a sign, averages those that agree.",
        use_when="Several experts change the same parameters in opposite directions.",
        shown={"density": 0.2},
    ),
)
