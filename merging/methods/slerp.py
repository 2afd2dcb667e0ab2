"""SLERP: from one model to another along the arc between them, each tensor taken as one vector.

Source: Shoemake, Animating Rotation with Quaternion Curves, SIGGRAPH 1985. For a tensor a of the
first model, b of the second, and theta the angle between them:

    merged = [sin((1 - t) theta) a + sin(t theta) b] / sin(theta)

As mergekit 0.1.5: lengths are not evened out, a length up to 1e-8 counts as 1 (so nothing and b are
at right angles), and where |cos theta| > 0.9995 the two are blended in a straight line. Models
tuned from one base are nearly always that close, so that SLERP is linear for them; the arc bends
where models differ widely, in biases and in models trained apart. A t below 0 or above 1 goes on
along the same line or arc.

Where we differ: a base that is neither of the two models, which mergekit refuses as it does recipes
without a base, leaves its place to the first model listed: t = 0. It lends config and tokenizer.

The points are the two models themselves. The coefficients do not sum to 1 on an arc, so that of a
base and the other's change d, merged = (c_a + c_b) base + c_b d.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from merging.checkpoints import Entry
from merging.declarations.knobs import Knob
from merging.declarations.measures import Reader
from merging.declarations.methods import Blend, Preset
from merging.declarations.values import Recipe
from merging.evidence.points import combined, gram_of
from merging.instructions import Outcome, grams

PARALLEL = 0.9995  # a |cosine| above this is blended in a straight line
NOTHING = 1e-8  # a length up to this counts as 1


def coefficients(gram: np.ndarray, t: float) -> tuple[float, float]:
    """What the two tensors are multiplied with.

    Args:
        gram: (2, 2) float64, of the first model's tensor and the second's.
        t: 0 gives the first model, 1 the second; others extrapolate.

    Raises:
        NonFinite: a tensor holds NaN or infinity.
    """
    length = grams.lengths(gram)
    length[length <= NOTHING] = 1.0
    cosine = float(np.clip(gram[0, 1] / (length[0] * length[1]), -1.0, 1.0))
    if abs(cosine) > PARALLEL:
        return 1.0 - t, t
    angle = math.acos(cosine)
    return math.sin((1.0 - t) * angle) / math.sin(angle), math.sin(t * angle) / math.sin(angle)


def decide(recipe: Recipe, reader: Reader, evidence: None) -> Outcome:
    """The two models' sum; a base among them is the first, wherever it is listed."""
    gram = gram_of(recipe, reader)
    first = next((i for i, one in enumerate(recipe.sources) if one.model == recipe.base), 0)
    order = [first, 1 - first]
    pair = coefficients(gram[np.ix_(order, order)], recipe.at("t", reader.entry))
    return combined(recipe, (pair[first], pair[1 - first]))


def check(recipe: Recipe, entries: Sequence[Entry]) -> Sequence[str]:
    """Remarks where the base is neither of the two, and where t leads beyond them."""
    if entries:
        return ()
    names = [source.model for source in recipe.sources]
    remarks = []
    if recipe.base not in names:
        remarks.append(
            f"slerp goes from {names[0]} (t = 0) to {names[1]} (t = 1); base_model {recipe.base} "
            "is neither, and only lends its config and tokenizer"
        )
    outside = [t for t in recipe.parameters["t"].values if not 0.0 <= t <= 1.0]
    if outside:
        remarks.append(
            f"t {outside[0]:g} leads beyond the two models; 0 is the one and 1 the other"
        )
    return remarks


METHODS = (
    Blend(
        id="slerp",
        title="SLERP",
        summary="Go from one model to another along the arc between them.",
        formula="[sin((1 - t) theta) a + sin(t theta) b] / sin(theta)",
        paper="Shoemake 1985, Animating Rotation with Quaternion Curves",
        url="https://doi.org/10.1145/325334.325242",
        words="Go {t} of the way from one to the other, along the arc between them.",
        decide=decide,
        check=check,
        least=2,
        most=2,
        adds_base=lambda document, models: len(models) < 2,
        knobs=(
            Knob(
                "t",
                "Way",
                0.5,
                "0 gives the base, 1 the other model.",
                low=0.0,
                high=1.0,
                step=0.05,
                unit="share of the way",
                scheduled=True,
                soft=True,
            ),
        ),
    ),
)

PRESETS = (
    Preset(
        id="slerp",
        title="SLERP",
        group="spheres",
        place=0,
        consensus="slerp",
        summary="Turns one model towards another and keeps its length.",
        use_when="Two models of one base, half and half or by layer.",
    ),
)
