"""The finding above the plots: what a plan keeps, in a sentence, and why.

Every sentence here is true of the plan and the sketch it is given, at the ends of every knob too:
a number says what it is of, a pair is named, and chance stands beside what chance would give.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations
from typing import Any

import numpy as np

from merging.declarations.retention import CAUSES
from merging.methods import PRUNERS, RULES
from merging.sketches.plan import Plan
from merging.sketches.sketch import FamilySketch

THIN = "\N{NARROW NO-BREAK SPACE}"
_ALIKE = 0.05  # a cosine below this is told as none
_ENOUGH = 100  # sampled entries from which on a share of them is told
_DENSE = {
    "one": "keep their whole change",
    "max": "keep their whole change, times the largest factor",
    "none": "stay as the base has them",
}
Parts = list[tuple[str, str]]


def percent(share: float) -> str:
    """A share 0..1 as text: one decimal below 10 %, two below 0.1 %."""
    value = 100 * share
    digits = 0 if value == 0 or abs(value) >= 9.95 else 1 if abs(value) >= 0.095 else 2
    if 0 < abs(value) < 0.005:
        return f"under 0.01{THIN}%"
    return f"{value:.{digits}f}{THIN}%"


def headline(plan: Plan, sketch: FamilySketch, names: Sequence[str]) -> dict[str, Any]:
    """The finding: one sentence with its numbers marked, and the reason under it.

    Args:
        names: what the experts are called, in the sketch's order.
    """
    parts: Parts = [*_retention(plan), *_clash(plan), (".", "")]
    return {
        "parts": parts,
        "sentence": "".join(text for text, _ in parts).replace(THIN, " "),
        "reason": reason(plan, sketch, names),
    }


def reason(plan: Plan, sketch: FamilySketch, names: Sequence[str]) -> str:
    """Why the numbers are what they are, in a few short sentences."""
    sentences = [
        _difference(plan),
        _idle(plan, sketch, names),
        _worst(plan),
        _others(plan, sketch),
        _random(plan),
        _combined(plan),
        directions(cosines(sketch), names),
    ]
    return " ".join(sentence for sentence in sentences if sentence)


def retained(plan: Plan, subject: str) -> str:
    """What a plan keeps, in a sentence about it: "B keeps 30 % of the entries and..."."""
    text = "".join(part for part, _ in _retention(plan)).replace(THIN, " ")
    text = text[:1].lower() + text[1:]
    return f"{subject} {text}." if text.startswith("keeps ") else f"In {subject}, {text}."


def moves(what: str, drift: float, error: float, alone: Sequence[float]) -> str:
    """How far a merge moves a part of the model, in a sentence.

    Args:
        what: "linear layers", say.
        drift: ||merged - base|| / ||base||.
        error: by how much that may be off either way; infinity where that is not known.
        alone: the same of each expert, whole.
    """
    if drift == 0:
        return f"Merging does not move {what}."
    by = f"{_within(drift, error)} of the base's norm"
    low, high = (percent(share) for share in (min(alone), max(alone)))
    span = high if low == high else f"{low.removesuffix(f'{THIN}%')}\N{EN DASH}{high}"
    who = "its expert" if len(alone) == 1 else "experts"
    return f"Merging moves {what} by {by} ({who} alone: {span})."


def _within(share: float, error: float) -> str:
    """A share and what it may be off by, with as many digits: "16.6 ± 0.1 %"."""
    if not np.isfinite(error):
        return f"about {percent(share)}"
    digits = int(np.clip(np.ceil(-np.log10(max(100 * error, 1e-9))), 0, 2))
    texts = (f"{100 * value:.{digits}f}" for value in (share, error))
    return " \N{PLUS-MINUS SIGN} ".join(texts) + f"{THIN}%"


def cosines(sketch: FamilySketch) -> np.ndarray:
    """(E, E) cosine between the experts' whole changes; NaN beside an expert that equals the base,
    1 on the diagonal."""
    dots = sketch.dots.sum(axis=2)
    norms = np.sqrt(np.diag(dots))
    scale = np.outer(norms, norms)
    matrix = np.divide(dots, scale, out=np.full(dots.shape, np.nan), where=scale > 0)
    np.fill_diagonal(matrix, 1.0)
    return matrix


def directions(values: np.ndarray, names: Sequence[str]) -> str:
    """Which experts pull the same way, which against each other. `values`: of `cosines`."""
    if len(names) == 1:
        return "One expert: nothing can clash."
    pairs = [
        (float(values[a, b]), f"{names[a]} and {names[b]}")
        for a, b in combinations(range(len(names)), 2)
        if np.isfinite(values[a, b])
    ]
    if not pairs:
        return ""
    low, high = min(pairs), max(pairs)
    if len(pairs) == 1:
        return f"The changes of {high[1]} {_pull(high[0])} (cosine {_signed(high[0])})."
    if max(abs(low[0]), abs(high[0])) < _ALIKE:
        return (
            f"All {len(pairs)} pairs of experts are nearly unrelated (cosine {_signed(low[0])} to "
            f"{_signed(high[0])})."
        )
    summary = f"Of {len(pairs)} pairs, {high[1]} are most alike (cosine {_signed(high[0])})"
    least = "pull apart most" if low[0] <= -_ALIKE else "least"
    return f"{summary}, {low[1]} {least} ({_signed(low[0])}); unrelated changes have 0."


def _pull(cosine: float) -> str:
    if cosine >= _ALIKE:
        return "pull partly the same way" if cosine < 0.5 else "pull much the same way"
    return "pull against each other" if cosine <= -_ALIKE else "are nearly unrelated"


def _signed(value: float) -> str:
    text = f"{value:.2f}"
    return "0.00" if text == "-0.00" else text.replace("-", "\N{MINUS SIGN}")


def _takes_part(plan: Plan) -> np.ndarray:
    """(E,) bool: experts with a weight that is not 0 anywhere."""
    return (plan.weight != 0).any(axis=1)


def _retention(plan: Plan) -> Parts:
    summary, law = plan.summary, PRUNERS[plan.recipe.prune].law
    if not _takes_part(plan).any():
        return [("Nothing is merged: every weight is 0", "")]
    competing = plan.recipe.parameters.get("pcb_density") if law.order == "all" else None
    if competing:
        return [
            ("Each expert competes with ", ""),
            (percent(competing), "competing"),
            (" of the entries", ""),
        ]
    if law.order == "all":
        return [("Keeps ", ""), ("every", "all"), (" change", "")]
    return [
        ("Keeps ", ""),
        (percent(summary["entries"]), "entries"),
        (" of the entries and ", ""),
        (percent(summary["l2"]), "l2"),
        (" of the energy", ""),
        (" of linear layers" if law.linears else "", ""),
    ]


def _clash(plan: Plan) -> Parts:
    """How much meets the other sign, beside what random signs would give."""
    summary, law = plan.summary, PRUNERS[plan.recipe.prune].law
    if _takes_part(plan).sum() < 2 or not summary["chance"] or summary["sampled"] < _ENOUGH:
        return []
    of, verb = ("all changes", "clash") if law.order == "all" else ("what is kept", "clashes")
    return [
        ("; about ", ""),
        (percent(summary["clash"]), "clash"),
        (f" of {of} {verb} in sign", ""),
        (" (by chance: ", ""),
        (percent(summary["chance"]), "chance"),
        (")", ""),
    ]


def _difference(plan: Plan) -> str:
    """Why another share is kept than was asked for."""
    summary = plan.summary
    asked, share = percent(summary["asked"]), percent(summary["entries"])
    if (
        PRUNERS[plan.recipe.prune].law.order == "all"
        or asked == share
        or not _takes_part(plan).any()
    ):
        return ""
    causes = [
        (100 * part, CAUSES[cause]) for cause, part in plan.causes.items() if abs(part) >= 5e-4
    ]
    causes.sort(key=lambda pair: -abs(pair[0]))
    why = "; ".join(
        text if len(causes) == 1 else f"{text} ({_points(points)})" for points, text in causes
    )
    return f"Asked for {asked}, kept {share}{f': {why}' if why else ''}."


def _points(points: float) -> str:
    sign = "\N{MINUS SIGN}" if points < 0 else "+"
    return f"{sign}{abs(points):.1f} points"


def _idle(plan: Plan, sketch: FamilySketch, names: Sequence[str]) -> str:
    """Experts that add nothing."""
    idle = ~_takes_part(plan)
    same = (sketch.zeros.sum(axis=1) == sketch.numel.sum()) & ~idle
    sentences = []
    for which, singular, plural in (
        (idle, "has weight 0 and takes no part", "have weight 0 and take no part"),
        (same, "equals the base", "equal the base"),
    ):
        listed = [name for name, applies in zip(names, which, strict=True) if applies]
        if listed and not idle.all():
            sentences.append(f"{_listed(listed)} {singular if len(listed) == 1 else plural}.")
    if plan.recipe.strength.constant == 0:
        sentences.append("The strength is 0: the result is the base.")
    return " ".join(sentences)


def _listed(names: Sequence[str]) -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"


def _worst(plan: Plan) -> str:
    if PRUNERS[plan.recipe.prune].law.order != "largest" or plan.worst_layer is None:
        return ""
    layer, share = plan.worst_layer
    if share >= 0.9995:
        return ""
    return f"{layer_name(layer)} keeps least of its energy: {percent(share)}."


def layer_name(title: int | str) -> str:
    """A layer by its title: 3, or "decoder 3" of a model of several stacks."""
    if isinstance(title, str):
        stack, _, layer = title.rpartition(" ")
        return f"Layer {layer} of {stack}"
    return f"Layer {title}"


def _others(plan: Plan, sketch: FamilySketch) -> str:
    """What becomes of tensors that are not pruned, where some are."""
    if plan.pruned.all() or not plan.pruned.any():
        return ""
    taking = plan.weight != 0
    energy = sketch.l2.sum(axis=2) * taking
    total = energy.sum()
    share = energy[:, ~plan.pruned].sum() / total if total else 0.0
    what = _DENSE[plan.recipe.parameters.get("scale_dense", "one")]
    return f"Other tensors, {percent(share)} of all energy, {what}."


def _random(plan: Plan) -> str:
    pruner = PRUNERS[plan.recipe.prune]
    if pruner.law.order != "random" or pruner.unpredicted:
        return ""
    scaled = set(plan.recipe.values_of("rescale"))
    rest = "nothing is rescaled" if scaled == {False} else "what is left is rescaled"
    if len(scaled) > 1:
        rest += " in parts of the model"
    return f"Drawn at random, the same share of every magnitude; {rest}."


def _combined(plan: Plan) -> str:
    methods = PRUNERS[plan.recipe.prune], RULES[plan.recipe.consensus]
    return " ".join(method.unpredicted for method in methods if method.unpredicted)
