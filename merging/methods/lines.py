"""LiNeS: shallow layers change less, deep ones more, in a line over the depth.

Source: Wang et al., LiNeS: Post-training Layer Scaling Prevents Forgetting and Enhances Model
Merging, arXiv 2410.17146, section 4. In block l of L, l = 0 ... L - 1, a change is multiplied by

    alpha + beta * l / (L - 1);  by alpha outside the blocks (embeddings, last norm, head).

One model: beta = 1 - alpha, so that the last block keeps its change; alpha from 0 to 1. A merge of
T changes into m: alpha = |sum_t tau_t|_1 / |m|_1 / T, norms over the whole model, which gives the
first block the strength of an average; beta is the strength to tune, 0 to 1. Both work on any
merged change, whatever made it.

Where we differ: the released code finds blocks by `.l.` anywhere in a name, we by the layer the
architecture gives a tensor. A model of one block divides 0 by 0 there; here that block counts as
the last. m = 0 gives alpha 0.
"""

from __future__ import annotations


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


def average_strength(total: float, merged: float, experts: int) -> float:
    """alpha of a merge: |sum_t tau_t|_1 / |m|_1 / T.

    Args:
        total: sum over the model of |sum_t tau_t|.
        merged: sum over the model of |m|, before lambda.
        experts: T, at least 1.
    """
    return total / merged / experts if merged != 0 else 0.0
