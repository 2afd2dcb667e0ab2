"""What a library raised, in the few words that fit into a line of ours."""

from __future__ import annotations

_MOST = 200  # characters


def reason(error: BaseException) -> str:
    """An error's message on one line without control characters, at most 200 characters long."""
    text = f"it does not know {error}" if isinstance(error, KeyError) else str(error)
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    if len(lines) > 1 and not lines[0].endswith(":"):
        del lines[1:]  # what follows explains; after a colon it says what is wrong
    text = " ".join(lines[:2]) or type(error).__name__
    text = "".join(letter if letter.isprintable() else " " for letter in text)
    return text if len(text) <= _MOST else f"{text[: _MOST - 1]}…"
