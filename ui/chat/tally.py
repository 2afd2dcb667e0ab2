"""How strong models are by votes between them: Bradley-Terry, with what chance alone may do.

Model i is preferred to j with probability s_i / (s_i + s_j). A tie counts half a win for each, and
so does a question where all were bad. Of several models the best beats each of the others. Every
two models begin with one draw that nobody voted: else one who never lost would be infinitely
strong. Votes have no order. Pure functions.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

ENOUGH = 20  # votes; below, nothing is said
_ROUNDS = 200  # of the iteration; strengths move by less than 1e-6 then
_RESAMPLES = 400
_TAILS = (2.5, 97.5)  # percent


@dataclass(frozen=True)
class Vote:
    """A person's choice between answers to one question.

    Attributes:
        models: who answered, at least two, each once.
        winner: one of them; "" for a tie, and where all were bad.
    """

    models: tuple[str, ...]
    winner: str = ""


class Standing(NamedTuple):
    """A model's place.

    Attributes:
        votes: on answers of this model.
        wins: votes for it.
        ties: votes for nobody.
        strength: ln s, 0 on average; `low` and `high` hold 95 % of what resampled votes give.
    """

    model: str
    votes: int
    wins: int
    ties: int
    strength: float
    low: float
    high: float


class Duel(NamedTuple):
    """How probable it is that `first` is preferred to `second`, with the interval of 95 %."""

    first: str
    second: str
    share: float
    low: float
    high: float

    @property
    def is_clear(self) -> bool:
        """False where the interval holds one half."""
        return not self.low <= 0.5 <= self.high


@dataclass(frozen=True)
class Tally:
    """What votes say: models from the strongest to the weakest, and every two of them."""

    votes: int
    standings: tuple[Standing, ...]
    duels: tuple[Duel, ...]

    @property
    def is_early(self) -> bool:
        """True where there are too few votes to tell."""
        return self.votes < ENOUGH


def tally(votes: Sequence[Vote], seed: int = 0) -> Tally:
    """Counts votes.

    Args:
        seed: of the resampling, which draws whole questions: a best of three is one question.
    """
    names = sorted({name for vote in votes for name in vote.models})
    if not names:
        return Tally(0, (), ())
    single = np.stack([points([vote], names) for vote in votes])
    center = strengths(single.sum(0))
    drawn = np.random.default_rng(seed).integers(len(votes), size=(_RESAMPLES, len(votes)))
    spread = strengths(single[drawn].sum(1))
    low, high = np.percentile(spread, _TAILS, axis=0)
    order = sorted(range(len(names)), key=lambda i: (-center[i], names[i]))
    standings = [
        Standing(
            names[i],
            sum(names[i] in vote.models for vote in votes),
            sum(vote.winner == names[i] for vote in votes),
            sum(names[i] in vote.models and not vote.winner for vote in votes),
            *(float(values[i]) for values in (center, low, high)),
        )
        for i in order
    ]
    duels = [
        _duel(names, center, spread, i, j) for place, i in enumerate(order) for j in order[:place]
    ]
    return Tally(len(votes), tuple(standings), tuple(duels))


def points(votes: Sequence[Vote], names: Sequence[str]) -> Floats:
    """(n, n): how often row was preferred to column, a tie as one half to each."""
    place = {name: index for index, name in enumerate(names)}
    matrix = np.zeros((len(names), len(names)))
    for vote in votes:
        for one in vote.models:
            for other in vote.models:
                if one == other or (vote.winner and vote.winner not in (one, other)):
                    continue
                matrix[place[one], place[other]] += (
                    0.5 if not vote.winner else float(vote.winner == one)
                )
    return matrix


def strengths(matrix: Floats) -> Floats:
    """The likeliest ln s of every model, (..., n), whose mean is 0.

    Args:
        matrix: (..., n, n) as `points`; a draw of every two is added. The iteration is Hunter's
            (2004): s_i becomes w_i / sum over j of n_ij / (s_i + s_j).
    """
    count = matrix.shape[-1]
    others = 1.0 - np.eye(count)
    matrix = matrix + others / 2
    wins, met = matrix.sum(-1), matrix + np.swapaxes(matrix, -1, -2)
    own = np.ones(wins.shape)
    if count == 1:
        return np.zeros(wins.shape)
    for _ in range(_ROUNDS):
        own = wins / (met * others / (own[..., :, None] + own[..., None, :])).sum(-1)
        own /= np.exp(np.log(own).mean(-1, keepdims=True))
    return np.asarray(np.log(own))


def _duel(names: Sequence[str], center: Floats, spread: Floats, i: int, j: int) -> Duel:
    """Of the stronger j over the weaker i."""
    share = 1 / (1 + np.exp(center[i] - center[j]))
    low, high = np.percentile(1 / (1 + np.exp(spread[:, i] - spread[:, j])), _TAILS)
    return Duel(names[j], names[i], float(share), float(low), float(high))
