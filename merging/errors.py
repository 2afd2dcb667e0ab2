"""Errors a user can cause. Each message is one line: what, which model, which tensor, what to do.

Anything else that escapes `merging` is a defect of ours and keeps its traceback.
"""

from __future__ import annotations

import re
import reprlib
import unicodedata
from typing import Any

LINE = 500  # characters of a line that a person is told
_WORD = 160  # of one word in it: a path, a name
_LOOKED_AT = 20_000  # at either end of a text, which may be huge
_UNSEEN = ("Cc", "Cf", "Cs", "Zl", "Zp")  # controls, turns of direction, halves, line ends
_JOINERS = "\u200c\u200d"  # parts of letters and emoji
_BREAKS = re.compile(r"[\t\n\v\f\r ]+")
_LONG = re.compile(rf"\S{{{_WORD + 1},}}")


def one_line(text: object) -> str:
    """What a person is told: one line of at most LINE characters, none of them unseen.

    Every error, warning and note passes here, on the command line, in JSON and on the screens.
    What is too long loses its middle: a line begins with what it is about, and ends with what to
    do.
    """
    whole = str(text)
    if len(whole) > 2 * _LOOKED_AT:
        whole = f"{whole[:_LOOKED_AT]}\u2026{whole[-_LOOKED_AT:]}"
    line = "".join(map(_glyph, _BREAKS.sub(" ", whole))).strip()
    line = _LONG.sub(lambda word: _without_middle(word.group(), _WORD), line)
    return _without_middle(line, LINE)


def shown(value: object) -> str:
    """A value as a message quotes it: short, on one line, whatever it is."""
    return one_line(_VALUES.repr(value))


def _glyph(character: str) -> str:
    """The character, or its escape where it would not be seen."""
    if character in _JOINERS or unicodedata.category(character) not in _UNSEEN:
        return character
    return character.encode("unicode_escape").decode("ascii")


def _without_middle(text: str, most: int) -> str:
    if len(text) <= most:
        return text
    end = most * 2 // 5
    return f"{text[: most - end - 1]}\u2026{text[-end:]}"


class _Values(reprlib.Repr):
    def __init__(self) -> None:
        super().__init__()
        self.maxlevel, self.maxlist, self.maxtuple, self.maxdict = 3, 6, 6, 4
        self.maxstring = self.maxother = self.maxlong = 80

    def repr1(self, x: Any, level: int) -> str:
        """As repr; what is a text or a list and more is shown as that."""
        plain = next((kind(x) for kind in (str, list) if isinstance(x, kind)), x)
        return super().repr1(plain, level)

    def repr_int(self, value: int, level: int) -> str:
        """As repr; a number so long that Python refuses to write it out by its size."""
        if value.bit_length() > 4 * self.maxlong:
            return f"a number of about {value.bit_length() * 3 // 10} digits"
        return super().repr_int(value, level)


_VALUES: Any = _Values()


class MergeError(Exception):
    """The user's input or machine does not allow the work; the message says what to do instead.

    Whatever went into the message, a name of a thousand characters or an escape sequence, it is
    one line as `one_line` makes it.

    Attributes:
        line: of the recipe or file that it is about, from 1; None where no line fits. The message
            begins with it.
        file: the path of that file, where a person gave one; named beside the line.
    """

    def __init__(self, message: object = "", *, line: int | None = None) -> None:
        super().__init__(one_line(message))
        self.line = line
        self.file = ""

    @property
    def reason(self) -> str:
        """The message without its line."""
        return super().__str__()

    def __str__(self) -> str:
        if self.line is None:
            return self.reason
        place = f"{self.file}, line" if self.file else "line"
        return one_line(f"{place} {self.line}: {self.reason}")


class ModelNotFound(MergeError):
    """A model reference names no folder, built-in model or downloaded Hub model."""


class UnsafeFile(MergeError):
    """The model asks for pickle files or remote code, which are never run."""


class BadFile(MergeError):
    """A small file (a recipe, a config, an index) cannot be read, or is not what it should be."""


class BadCheckpoint(MergeError):
    """A file of the checkpoint is missing, truncated or malformed."""


class FamilyMismatch(MergeError):
    """The models do not descend from one base: too few tensors match."""


class RecipeError(MergeError):
    """The recipe is not valid; the message names the key and the nearest valid one."""


class NonFinite(MergeError):
    """A tensor holds NaN or infinity, in an input or in the result."""


class NotEnoughSpace(MergeError):
    """The disk or the memory does not hold what the merge needs."""


class OutputExists(MergeError):
    """The output folder exists and overwriting was not asked for."""


class DeviceUnavailable(MergeError):
    """The device asked for is not present."""


class VerificationFailed(MergeError):
    """The written files do not read back as what was merged."""


class OutputLost(MergeError):
    """What a command printed cannot be written."""


class Cancelled(MergeError):
    """The work was stopped on request; nothing was left behind."""
