"""`inspect BASE EXPERT...`: how far every expert moved, by layer and by tensor."""

from __future__ import annotations

import argparse
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import combinations
from typing import TYPE_CHECKING, Any

from merging.commands.console import Bar, command, print_json, say
from merging.errors import one_line

if TYPE_CHECKING:
    from merging.sketches.sketch import FamilySketch

_OUTSIDE = "outside the layers"
_ALL = "all"
_ASKED = (0.1, 0.2, 0.5)  # shares of the entries
_HEAD = f"{'entries':>14}{'changed':>10}{'mean|d|':>12}{'max|d|':>12}{'|d|/|base|':>12}"


def declare(commands: Any) -> None:
    """Adds the command to the parser's."""
    parser = command(commands, "inspect", run, "statistics of every expert's changes")
    parser.add_argument("base", help="a folder, a Hub id or demo:NAME")
    parser.add_argument("experts", nargs="+", metavar="expert")


def run(args: argparse.Namespace) -> int:
    """Scans the family; prints an overview by layer, then a table of tensors per expert."""
    from merging.checkpoints import open_checkpoint, open_family, resolve, short_names
    from merging.errors import RecipeError
    from merging.sketches.scan import scan

    models = [open_checkpoint(resolve(name), name) for name in (args.base, *args.experts)]
    for first, second in combinations(models[1:], 2):
        if first.folder == second.folder:
            names = " and ".join(dict.fromkeys((first.name, second.name)))
            raise RecipeError(f"{names}: an expert is listed twice; give each once")
    family = open_family(models[0], models[1:])
    sketch = scan(family, progress=Bar())
    if args.json:
        account = [{"name": e.name, "status": e.status, "reason": e.reason} for e in family.account]
        print_json({**document(sketch), "base": args.base, "account": account})
        return 0
    say(*lines(document(sketch), short_names([args.base, *args.experts])[1:]))
    return 0


def document(sketch: FamilySketch) -> dict[str, Any]:
    """The statistics of a family as plain values.

    Returns:
        experts: name -> {all: totals, layers: name -> totals, tensors: name -> totals}, where
        totals are numel, zeros, mean_abs, max_abs, l1, l2 and base_l2 (norms of the change and of
        the base; and cuts: what a cut in every tensor keeps, see `cuts`}; cosines: [first, second,
        cosine of their changes]; seconds.
    """
    layers: dict[str, list[int]] = {}
    for column, tensor in enumerate(sketch.tensors):
        title = _OUTSIDE if tensor.title is None else f"layer {tensor.title}"
        layers.setdefault(title, []).append(column)
    order = _by_number(layers)
    every = range(len(sketch.tensors))
    experts: dict[str, dict[str, Any]] = {
        name: {
            _ALL: _totals(sketch, row, every),
            "layers": {title: _totals(sketch, row, layers[title]) for title in order},
            "tensors": {
                tensor.name: _totals(sketch, row, [column])
                for column, tensor in enumerate(sketch.tensors)
            },
        }
        for row, name in enumerate(sketch.experts)
    }
    for row, cut in enumerate(cuts(sketch)):
        experts[sketch.experts[row]]["cuts"] = cut
    dots = sketch.dots.sum(axis=2)
    cosines = [
        [sketch.experts[i], sketch.experts[j], _cosine(dots[i, j], dots[i, i], dots[j, j])]
        for i, j in combinations(range(len(sketch.experts)), 2)
    ]
    return {"experts": experts, "cosines": cosines, "seconds": round(sketch.seconds, 3)}


def cuts(sketch: FamilySketch) -> list[list[dict[str, float]]]:
    """Per expert, what cuts by magnitude keep of its entries where some share of every tensor is
    asked for: of the entries that differ from the base, and without those that equal the cut (which
    `tie_rule: drop` drops). Shares 0..1."""
    import numpy as np

    from merging.sketches.tails import keep_largest

    numel = sketch.numel.astype(np.float64)
    keep = np.maximum(np.floor(numel[:, None] * np.array(_ASKED)), 1.0)[None]
    keep = np.minimum(np.broadcast_to(keep, (len(sketch.experts), *keep.shape[1:])), numel[:, None])
    shares = [
        (keep_largest(sketch, keep, strict=strict).entries * numel[:, None]).sum(axis=1)
        / max(numel.sum(), 1.0)
        for strict in (False, True)
    ]
    return [
        [
            {"asked": asked, "kept": float(whole[k]), "kept_without_ties": float(strict[k])}
            for k, asked in enumerate(_ASKED)
        ]
        for whole, strict in zip(*shares, strict=True)
    ]


def _by_number(titles: Iterable[str]) -> list[str]:
    """Layers in their order, stack by stack, what is outside them last."""

    def place(title: str) -> tuple[bool, str, int]:
        stack, _, number = title.rpartition(" ")
        return title == _OUTSIDE, stack, int(number) if number.isdecimal() else 0

    return sorted(titles, key=place)


def _totals(sketch: FamilySketch, row: int, columns: Sequence[int]) -> dict[str, Any]:
    """What some tensors of an expert add up to."""
    chosen = list(columns)
    numel = sum(sketch.tensors[column].numel for column in chosen)
    l1 = float(sketch.l1[row, chosen].sum())
    return {
        "numel": numel,
        "zeros": int(sketch.zeros[row, chosen].sum()),
        "mean_abs": l1 / max(numel, 1),
        "max_abs": float(sketch.max_abs[row, chosen].max(initial=0.0)),
        "l1": l1,
        "l2": math.sqrt(sketch.l2[row, chosen].sum()),
        "base_l2": math.sqrt(sketch.base_l2[chosen].sum()),
    }


def _cosine(dot: float, first: float, second: float) -> float | None:
    """None where one of the two did not change."""
    return float(dot / math.sqrt(first * second)) if first > 0 and second > 0 else None


def lines(report: Mapping[str, Any], names: Sequence[str]) -> Iterator[str]:
    """What `document` found, for people: the overview, then every tensor.

    Args:
        names: what to call the experts.
    """
    experts = list(report["experts"].values())
    titles = [title for values in experts for title in (*values["layers"], *values["tensors"])]
    wide = 2 + max(map(len, (*titles, *names, "tensor")))
    for name, values in zip(names, experts, strict=True):
        yield f"{one_line(name):<{wide}}{_HEAD}"
        for title, totals in {**values["layers"], _ALL: values[_ALL]}.items():
            yield _row(title, totals, wide)
        for cut in values["cuts"]:
            yield (
                f"a cut asked to keep {100 * cut['asked']:.0f} % keeps {100 * cut['kept']:.1f} %, "
                f"without the changes that equal it {100 * cut['kept_without_ties']:.1f} %"
            )
        yield ""
    labels = dict(zip(report["experts"], names, strict=True))
    for first, second, cosine in report["cosines"]:
        value = "none: one of them is the base" if cosine is None else f"{cosine:.3f}"
        yield one_line(f"cosine of {labels[first]} and {labels[second]}: {value}")
    for name, values in zip(names, experts, strict=True):
        yield ""
        yield one_line(f"{name}, tensor by tensor")
        yield f"{'tensor':<{wide}}{_HEAD}"
        for tensor, totals in values["tensors"].items():
            yield _row(tensor, totals, wide)


def _row(title: str, totals: Mapping[str, Any], wide: int) -> str:
    numel, base = totals["numel"], totals["base_l2"]
    changed = _share(numel - totals["zeros"], numel)
    moved = f"{totals['l2'] / base:.2e}" if base else "-"
    return (
        f"{title:<{wide}}{numel:>14,}{changed:>10}{totals['mean_abs']:>12.3e}"
        f"{totals['max_abs']:>12.3e}{moved:>12}"
    )


def _share(part: int, whole: int) -> str:
    """A share in percent that says 0 and 100 only of none and all."""
    if part in (0, whole) or not whole:
        return "100 %" if part else "0 %"
    text = f"{part / whole:.1%}"
    return {"0.0%": "< 0.1 %", "100.0%": "> 99.9 %"}.get(text, text.replace("%", " %"))
