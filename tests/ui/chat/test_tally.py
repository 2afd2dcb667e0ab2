"""Bradley-Terry by hand-computed numbers: strengths, probabilities, intervals, and when to wait."""

from __future__ import annotations

import math

import numpy as np
import pytest

from ui.chat.tally import Vote, points, strengths, tally
from ui.chat.votes import counted

AB = ("a", "b")


def votes(wins: int, losses: int, ties: int = 0) -> list[Vote]:
    return [Vote(AB, "a")] * wins + [Vote(AB, "b")] * losses + [Vote(AB)] * ties


def test_a_tie_is_half_a_win_for_each() -> None:
    assert points(votes(2, 1, 1), AB).tolist() == [[0, 2.5], [1.5, 0]]


def test_the_best_of_three_beats_the_others_and_they_do_not_meet() -> None:
    three = ("a", "b", "c")
    assert points([Vote(three, "b")], three).tolist() == [[0, 0, 0], [1, 0, 1], [0, 0, 0]]
    assert points([Vote(three)], three).tolist() == [[0, 0.5, 0.5], [0.5, 0, 0.5], [0.5, 0.5, 0]]


def test_of_two_the_odds_are_the_wins_with_one_draw_more() -> None:
    # (7 + 1/2) / (3 + 1/2): ln s is half the log odds up and down from 0
    half = math.log(7.5 / 3.5) / 2
    assert strengths(points(votes(7, 3), AB)) == pytest.approx([half, -half])


def test_who_never_lost_is_not_infinitely_strong() -> None:
    half = math.log(4.5 / 0.5) / 2
    assert strengths(points(votes(4, 0), AB)) == pytest.approx([half, -half])


def test_three_models() -> None:
    # at the maximum expected wins are the wins: with s = exp(.489, -.257, -.232) and a draw a pair,
    # 0 over 1: 11 games at .6784, 0 over 2: 6 at .6729: 11.5 = 7 + 4.5 wins
    wins = np.array([[0, 6.5, 4], [3.5, 0, 2], [1, 3, 0]])
    found = strengths(wins)
    assert found == pytest.approx([0.489, -0.257, -0.232], abs=5e-4)
    win = 1 / (1 + np.exp(found[None, :] - found[:, None]))
    games = wins + wins.T + 1 - np.eye(3)
    assert (win * games * (1 - np.eye(3))).sum(1) == pytest.approx([11.5, 6.5, 5.0], abs=1e-4)


def test_models_that_never_met_are_ranked_through_a_third() -> None:
    chain = [Vote(("a", "b"), "a")] * 12 + [Vote(("b", "c"), "b")] * 12
    assert [one.model for one in tally(chain).standings] == ["a", "b", "c"]


def test_a_tally_counts_and_orders() -> None:
    result = tally(votes(6, 18, 4))
    assert [(one.model, one.votes, one.wins, one.ties) for one in result.standings] == [
        ("b", 28, 18, 4),
        ("a", 28, 6, 4),
    ]
    (duel,) = result.duels
    assert (duel.first, duel.second) == ("b", "a")
    assert duel.share == pytest.approx(20.5 / 29)  # 18 + 4/2 + 1/2 of 28 + 1
    assert duel.low < duel.share < duel.high
    assert duel.is_clear
    assert result.standings[0].low < result.standings[0].strength < result.standings[0].high


def test_an_interval_is_about_that_of_a_share() -> None:
    # 30 of 40: the share's standard error is sqrt(.75 * .25 / 40) = .068
    (duel,) = tally(votes(30, 10)).duels
    assert (duel.low, duel.high) == pytest.approx((0.61, 0.87), abs=0.03)


def test_votes_have_no_order_and_chance_has_a_seed() -> None:
    some = votes(9, 12, 3)
    assert tally(some) == tally(some)
    first, second = tally(some), tally(some[::-1])
    assert [one.strength for one in first.standings] == pytest.approx(
        [one.strength for one in second.standings]
    )


@pytest.mark.parametrize(
    ("some", "verdict"),
    [
        (votes(0, 0), ""),
        (votes(19, 0), "Too early to tell: 19 of 20 votes."),
        (votes(11, 9), "No clear difference after 20 votes"),
        (votes(19, 1), "20 votes; 1 of 1 comparisons are clear."),
    ],
)
def test_nothing_is_claimed_early(some, verdict) -> None:
    shown = counted({"votes": [{"models": [*vote.models], "winner": vote.winner} for vote in some]})
    assert shown["verdict"].startswith(verdict)
    assert shown["early"] == (len(some) < 20)


NONSENSE = [
    None,
    {"models": 3},
    {"models": ["a"], "winner": "a"},
    {"models": ["a", 1], "winner": ""},
]
NONSENSE += [{"models": ["a", "a"], "winner": "a"}, {"models": ["a", "b"], "winner": "c"}, []]


@pytest.mark.parametrize("content", [None, 3, {}, {"votes": "x"}, {"votes": NONSENSE}])
def test_what_is_no_vote_is_not_counted(content) -> None:
    assert counted(content)["votes"] == 0
