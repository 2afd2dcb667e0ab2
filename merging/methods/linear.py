"""Sum and mean: task arithmetic, weight averaging.

Source: Ilharco et al., Editing Models with Task Arithmetic, arXiv 2212.04089, section 2:
theta = base + lambda * sum_i w_i * delta_i. The mean divides by sum_i w_i.
"""

from __future__ import annotations

from merging.declarations.knobs import LAMBDA, NORMALIZE, WEIGHT, Axis

SUM = Axis(
    id="sum",
    kind="consensus",
    title="Sum",
    summary="Add the experts' changes.",
    formula="base + lambda * sum_i weight_i * delta_i",
    paper="Ilharco et al. 2022, Editing Models with Task Arithmetic",
    url="https://arxiv.org/abs/2212.04089",
    words="{combine}.",
    knobs=(WEIGHT, LAMBDA, NORMALIZE),
)
MEAN = Axis(
    id="mean",
    kind="consensus",
    title="Mean",
    summary="Average the experts' changes.",
    formula="base + lambda * sum_i weight_i * delta_i / sum_i weight_i",
    paper="Wortsman et al. 2022, Model Soups",
    url="https://arxiv.org/abs/2203.05482",
    words="{combine}.",
    knobs=(WEIGHT, LAMBDA),
)
