"""What is new in a text against an earlier one: words, or characters where it is one word."""

from __future__ import annotations

import re
from difflib import SequenceMatcher
from html import escape

_MOST = 400  # parts that are compared: a longer text is new as a whole where it differs


def marked(text: str, before: str | None, words: str = "changed; before") -> str:
    """HTML of a text, with what is not in another one in <mark>; that says what is there instead.

    Args:
        words: what the other text is to this one.
    """
    if before is None or text == before:
        return escape(text)
    pieces = "".join(
        f"<mark>{escape(part)}</mark>" if is_new else escape(part)
        for part, is_new in changes(text, before)
    )
    return f'{pieces}<span class="sr-only"> ({words}: {escape(before) or "nothing"})</span>'


def changes(text: str, before: str) -> list[tuple[str, bool]]:
    """The text in pieces, each with whether it is new. Where only something is gone, all is."""
    split = _words if len(text.split()) > 1 or len(before.split()) > 1 else list
    own, other = split(text), split(before)
    if max(len(own), len(other)) > _MOST:
        return [(text, True)]
    pieces: list[tuple[str, bool]] = []
    for kind, _, _, start, stop in SequenceMatcher(None, other, own, False).get_opcodes():
        if start < stop:
            pieces.append(("".join(own[start:stop]), kind != "equal"))
    return _joined(pieces) if any(is_new for _, is_new in pieces) else [(text, True)]


def _joined(pieces: list[tuple[str, bool]]) -> list[tuple[str, bool]]:
    """The pieces with the spaces between two new ones as part of them."""
    joined: list[tuple[str, bool]] = []
    for place, (part, is_new) in enumerate(pieces):
        between = 0 < place < len(pieces) - 1 and not part.strip()
        is_new = is_new or (between and pieces[place - 1][1] and pieces[place + 1][1])
        if joined and joined[-1][1] == is_new:
            joined[-1] = joined[-1][0] + part, is_new
        else:
            joined.append((part, is_new))
    return joined


def _words(text: str) -> list[str]:
    return re.findall(r"\s+|\S+", text)
