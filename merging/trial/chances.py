"""How probable the tokens of an answer were, and which others were near: ids, then texts."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from itertools import takewhile

import torch

from merging.trial.tokenizer import Language
from merging.trial.turns import WrittenToken

_BEFORE = 4  # tokens that one is decoded behind: its text may depend on its neighbours
_UNFINISHED = "\N{REPLACEMENT CHARACTER}"  # what the first bytes of a character decode to


@dataclass(frozen=True)
class Chance:
    """What a model thought of one place of its answer.

    Attributes:
        token: the id that was taken.
        probability: of it, 0..1.
        others: (id, probability) of the likeliest ones, it among them where it is, best first.
    """

    token: int
    probability: float
    others: tuple[tuple[int, float], ...]


def chance(scores: torch.Tensor, token: int, count: int) -> Chance:
    """Reads a place's probabilities.

    Args:
        scores: (1, vocabulary) float32, the model's own: before temperature, top-p and penalties.
        count: of the likeliest that are listed, >= 1.
    """
    likely = scores[0].softmax(-1)
    best = likely.topk(min(count, likely.numel()))
    others = zip(best.indices.tolist(), best.values.tolist(), strict=True)
    return Chance(token, float(likely[token]), tuple(others))


def written(
    chances: Sequence[Chance], language: Language, ends: Collection[int]
) -> tuple[WrittenToken, ...]:
    """The same with texts; a token without one is called by its name.

    Args:
        ends: ids that end an answer, whose text is "".
    """
    ids = [one.token for one in chances]
    wanted: list[tuple[int, int]] = []  # a place, and a token at it
    for place, one in enumerate(chances):
        wanted += [(place, token) for token, _ in one.others]
        wanted.append((place, one.token))
    before = [ids[max(0, place - _BEFORE) : place] for place, _ in wanted]
    rows = [[*context, token] for context, (_, token) in zip(before, wanted, strict=True)]
    texts = language.texts([*before, *rows])
    firsts, boths = texts[: len(wanted)], texts[len(wanted) :]
    called: dict[tuple[int, int], str] = {}
    for key, first, both in zip(wanted, firsts, boths, strict=True):
        called[key] = "" if key[1] in ends else _added(first, both) or language.token(key[1])
    return tuple(
        WrittenToken(
            called[place, one.token],
            one.probability,
            tuple((called[place, token], share) for token, share in one.others),
        )
        for place, one in enumerate(chances)
    )


def _added(first: str, both: str) -> str:
    """What the second text has more than the first, whose end may have been half a character."""
    if first == both:
        return ""
    pairs = zip(first.rstrip(_UNFINISHED), both, strict=False)
    return both[sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], pairs)) :]
