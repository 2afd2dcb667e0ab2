"""A blueprint: where a result's layers come from, slice by slice.

A recipe's slices stack layers of several models. The models at one place of the slices (the first
source of each, say) make up one model of the merge, stacked as the slices say; so does the base.
Each of these stands for a model in the merge, and has layers as many as the result.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

from merging.checkpoints.names import short_names


class Piece(NamedTuple):
    """Layers [start, stop) of one model, counted from 0."""

    model: str
    start: int
    stop: int


Column = tuple[Piece | None, ...]
"""One model of the merge: a piece per slice. None where a slice lists none: it changes nothing
there."""


@dataclass(frozen=True)
class Blueprint:
    """A stack of layers.

    Attributes:
        base: a piece per slice.
        sources: a column for every source of the recipe.
        tokenizer: the model whose tokenizer the result gets; None for the base's first.
    """

    base: tuple[Piece, ...]
    sources: tuple[Column, ...]
    tokenizer: str | None = None

    @property
    def spans(self) -> tuple[tuple[int, int], ...]:
        """[start, stop) of every slice, counted in the result's layers."""
        return spans_of([piece.stop - piece.start for piece in self.base])

    @property
    def layers(self) -> int:
        """How many layers the result has."""
        return self.spans[-1][1]

    @property
    def models(self) -> tuple[str, ...]:
        """Every model by its reference, the base's first."""
        pieces = [piece for column in (self.base, *self.sources) for piece in column if piece]
        return tuple(dict.fromkeys(piece.model for piece in pieces))

    def with_models(self, names: Mapping[str, str]) -> Blueprint:
        """The same with other references for its models."""

        def named(column: Column) -> Column:
            return tuple(one and one._replace(model=names[one.model]) for one in column)

        base = tuple(piece._replace(model=names[piece.model]) for piece in self.base)
        tokenizer = self.tokenizer and names[self.tokenizer]
        return replace(
            self, base=base, sources=tuple(map(named, self.sources)), tokenizer=tokenizer
        )

    def titles(self, folder: Path | None = None) -> tuple[str, ...]:
        """What the base and every source are called: "x" for layers of one model, "x, y" for those
        of several. All differ but those of one stack, wherever the models lie.

        Args:
            folder: that relative references are read against.
        """
        short = dict(zip(self.models, short_names(self.models, folder), strict=True))
        taken: dict[str, Column] = {}
        titles = []
        for column in (self.base, *self.sources):
            models = list(dict.fromkeys(piece.model for piece in column if piece))
            plain = models[0] if len(models) == 1 else ", ".join(short[model] for model in models)
            first = next(piece for piece in column if piece)
            ranged = f"{plain} [{first.start}, {first.stop}]"
            numbered = (f"{ranged} {number}" for number in range(2, 2 + len(self.sources)))
            choices = (plain, ranged, *numbered)
            titles.append(next(one for one in choices if taken.setdefault(one, column) == column))
        return tuple(titles)

    @property
    def words(self) -> str:
        """The stack in a sentence."""
        return f"Stack {self.layers} layers, in slices of {_listed(self)}."


def spans_of(lengths: Sequence[int]) -> tuple[tuple[int, int], ...]:
    """[start, stop) of stretches that follow each other from 0 on."""
    spans, start = [], 0
    for length in lengths:
        spans.append((start, start + length))
        start += length
    return tuple(spans)


_MOST_LISTED = 12


def _listed(blueprint: Blueprint) -> str:
    columns = blueprint.sources or (blueprint.base,)
    rows = [
        " and ".join(f"{one.model} {one.start} to {one.stop - 1}" for one in row if one)
        for row in zip(*columns, strict=True)
    ]
    more = len(rows) - _MOST_LISTED
    return "; ".join(rows[:_MOST_LISTED]) + (f"; and {more} more" if more > 0 else "")
