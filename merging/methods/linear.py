"""Sum, mean and average: task arithmetic, and the weighted mean of models.

Source: Ilharco et al., Editing Models with Task Arithmetic, arXiv 2212.04089, section 2:
theta = base + lambda * sum_i w_i * delta_i. The mean divides by sum_i w_i. The average is of whole
models, theta = sum_i w_i * theta_i / sum_i w_i (Model Soups, arXiv 2203.05482): it needs no base,
and a base counts as any other model.

The average is computed as base + sum_i w_i * delta_i / sum_i w_i, which is the same and loses less
in float32. Where the weights sum to 0 mergekit gives NaN; here that is an error.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from merging.checkpoints import Entry
from merging.declarations.knobs import LAMBDA, NORMALIZE, WEIGHT
from merging.declarations.measures import Reader
from merging.declarations.methods import Blend, Consensus, Preset
from merging.declarations.schedules import constant
from merging.declarations.values import Recipe, value_at
from merging.errors import RecipeError
from merging.instructions import Decision, Outcome, Sum

_ZERO = 1e-8  # a sum of weights below this is none


def add(recipe: Recipe, reader: Reader, decisions: Sequence[Decision], evidence: None) -> Sum:
    """A sum with the tensor's weights."""
    return Sum(recipe.weights_at(reader.entry), recipe.at("normalize", reader.entry))


def mean(recipe: Recipe, reader: Reader, decisions: Sequence[Decision], evidence: None) -> Sum:
    """A mean with the tensor's weights."""
    return Sum(recipe.weights_at(reader.entry), normalize=True)


def average(recipe: Recipe, reader: Reader, evidence: None) -> Outcome:
    """The models' weighted mean, or with `normalize: false` their plain weighted sum."""
    weights = recipe.weights_at(reader.entry)
    if recipe.at("normalize", reader.entry):
        return Outcome(Sum(weights, normalize=True))
    return Outcome(Sum(weights), base_weight=sum(weights))


def check_weights(recipe: Recipe, entries: Sequence[Entry]) -> Sequence[str]:
    """A mean needs weights that do not sum to 0."""
    divides = recipe.parameters.get("normalize", constant(True))
    weights = [source.weight.constant for source in recipe.sources]
    zero = None not in weights and abs(sum(weight or 0.0 for weight in weights)) < _ZERO
    if zero and divides.constant:
        raise RecipeError(
            f"the weights of {recipe.method} sum to 0; change one, or use task_arithmetic",
            line=recipe.lines.get("weight"),
        )
    for entry in entries:
        at = recipe.weights_at(entry)
        if value_at(divides, entry) and abs(sum(at)) < _ZERO:
            raise RecipeError(
                f"tensor {entry.name}: the weights {', '.join(f'{w:g}' for w in at)} sum to 0, "
                "so there is no average; change one, or use task_arithmetic",
                line=recipe.lines.get("weight"),
            )
    return ()


def _adds_base(document: Mapping[str, Any], models: Sequence[str]) -> bool:
    """mergekit averages the base too, where it is named and every model has a weight."""
    return "weight" in (document.get("parameters") or {})


METHODS = (
    Consensus(
        id="sum",
        place=0,
        title="Sum",
        summary="Add the experts' changes.",
        formula="base + lambda * sum_i weight_i * delta_i",
        paper="Ilharco et al. 2022, Editing Models with Task Arithmetic",
        url="https://arxiv.org/abs/2212.04089",
        words="{combine}.",
        decide=add,
        uniform=lambda recipe: True,
        linear=True,
        knobs=(WEIGHT, LAMBDA, NORMALIZE),
    ),
    Consensus(
        id="mean",
        place=1,
        title="Mean",
        summary="Average the experts' changes.",
        formula="base + lambda * sum_i weight_i * delta_i / sum_i weight_i",
        paper="Wortsman et al. 2022, Model Soups",
        url="https://arxiv.org/abs/2203.05482",
        words="{combine}.",
        decide=mean,
        uniform=lambda recipe: True,
        check=check_weights,
        implied={"normalize": True},
        group="sums",
        knobs=(WEIGHT, LAMBDA),
    ),
    Blend(
        id="average",
        title="Average",
        summary="Average whole models.",
        formula="sum_i weight_i * model_i / sum_i weight_i",
        paper="Wortsman et al. 2022, Model Soups",
        url="https://arxiv.org/abs/2203.05482",
        words="{combine}.",
        decide=average,
        uniform=lambda recipe: True,
        check=check_weights,
        adds_base=_adds_base,
        knobs=(WEIGHT, replace(NORMALIZE, default=True)),
    ),
)

PRESETS = (
    Preset(
        id="linear",
        place=1,
        title="Average",
        group="sums",
        consensus="average",
        summary="The weighted mean of the models themselves; no base needed.",
        use_when="The experts are close to each other: checkpoints of one run, or one task.",
    ),
    Preset(
        id="task_arithmetic",
        place=0,
        title="Task arithmetic",
        group="sums",
        consensus="sum",
        summary="Adds every expert's change to the base, scaled.",
        use_when="First thing to try; lower the strength if answers break.",
    ),
)
