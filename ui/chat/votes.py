"""The votes of a blind round: read from what the page sends, and what it shows of their tally."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ui.chat.tally import ENOUGH, Tally, Vote, tally

_MOST = 300  # votes; the browser keeps as many
_MOST_MODELS = 4  # of a vote
_MOST_NAME = 700  # characters: an id and a fingerprint


def counted(content: Any) -> dict[str, Any]:
    """What the page shows of {"votes": [{"models": [...], "winner": ...}]}; nonsense is no vote."""
    votes = content.get("votes") if isinstance(content, Mapping) else None
    some = votes[-_MOST:] if isinstance(votes, list) else []
    return drawn(tally([vote for vote in map(_vote, some) if vote is not None]))


def drawn(result: Tally) -> dict[str, Any]:
    """A tally as plain values."""
    return {
        "verdict": _verdict(result),
        "early": result.is_early,
        "votes": result.votes,
        "standings": [one._asdict() for one in result.standings],
        "duels": [{**one._asdict(), "clear": one.is_clear} for one in result.duels],
    }


def _verdict(result: Tally) -> str:
    if not result.votes:
        return ""
    if result.is_early:
        return f"Too early to tell: {result.votes} of {ENOUGH} votes."
    clear = sum(duel.is_clear for duel in result.duels)
    if not clear:
        return f"No clear difference after {result.votes} votes: every interval holds 50 %."
    return f"{result.votes} votes; {clear} of {len(result.duels)} comparisons are clear."


def _vote(content: Any) -> Vote | None:
    if not isinstance(content, Mapping):
        return None
    models, winner = content.get("models"), content.get("winner")
    if not isinstance(models, list) or not 2 <= len(models) <= _MOST_MODELS:
        return None
    names = [name for name in models if isinstance(name, str) and len(name) <= _MOST_NAME]
    if len(set(names)) < len(models) or winner not in ("", *names):
        return None
    return Vote(tuple(names), winner)
