"""TIES: elect a sign for every parameter, average the experts that agree with it.

Source: Yadav et al., TIES-Merging, arXiv 2306.01708, steps 2 and 3 (step 1, trimming, is the
magnitude pruner). As mergekit, weights take part in the vote, and the mean is weighted.
Exact cancellations: with `scope: tensor` a zero sum elects +, as mergekit; with `scope: model` it
elects the sign that won most parameters of the model (- where that is undecided), as the
authors' code.
"""

from __future__ import annotations

from dataclasses import replace

from merging.declarations.knobs import LAMBDA, NORMALIZE, SCOPE, WEIGHT, Axis

AXIS = Axis(
    id="ties",
    kind="consensus",
    title="TIES",
    summary="Elect a sign per parameter, then average the experts that agree.",
    formula="sign = sgn(sum_i w_i delta_i); mean of w_i delta_i with that sign",
    paper="Yadav et al. 2023, TIES-Merging, steps 2-3",
    url="https://arxiv.org/abs/2306.01708",
    words="Elect a sign for every parameter and {join} those that agree.",
    knobs=(WEIGHT, LAMBDA, replace(NORMALIZE, default=True), SCOPE),
)
