"""One finding of the preflight, as data, and how names and values are told in its line."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from merging.checkpoints.names import called
from merging.errors import one_line

Severity = Literal["error", "warning", "note"]
_SHOWN = 3  # names that are listed before the rest is counted


@dataclass(frozen=True)
class Problem:
    """One finding of the preflight.

    Attributes:
        severity: errors stop the merge, warnings and notes do not.
        where: the recipe key, model or tensor it concerns.
        message: one line, as short as an error's.
        kind: what it is about, in one word: recipe, models, output, config, layers, shape,
            tokenizer, template, generation, names, rows, tensors.
        line: of the recipe's text, from 1; None where no line fits.
    """

    severity: Severity
    where: str
    message: str
    kind: str = "recipe"
    line: int | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "message", one_line(self.message))

    @property
    def text(self) -> str:
        """What it is about and what it says."""
        named = self.message.startswith(self.where)
        return one_line(self.message if named else f"{self.where}: {self.message}")

    @property
    def sentence(self) -> str:
        """As `text`, its line before it."""
        return self.text if self.line is None else one_line(f"line {self.line}: {self.text}")


def listed(names: Iterable[str], shown: int = _SHOWN) -> str:
    """Names for people: "a and b", "a, b, c and 7 more"."""
    every = [name if len(name) <= 60 else name[:29] + "…" + name[-30:] for name in names]
    if len(every) > shown + 1:
        return f"{', '.join(every[:shown])} and {len(every) - shown} more"
    return every[0] if len(every) == 1 else f"{', '.join(every[:-1])} and {every[-1]}"


def value_text(value: Any) -> str:
    """A setting's value, short."""
    words = {True: "true", False: "false", None: "null"}  # as the file has them
    text = words[value] if isinstance(value, bool | None) else str(value)
    return text if len(text) <= 60 else text[:59] + "…"


def grouped(values: Mapping[str, Any]) -> list[tuple[list[str], Any]]:
    """Models that have one value, for every value, in the order of the models."""
    groups: list[tuple[list[str], Any]] = []
    for name, value in values.items():
        for names, same in groups:
            if same == value:
                names.append(name)
                break
        else:
            groups.append(([name], value))
    return groups


def have(names: Sequence[str]) -> str:
    """ "has" or "have", after some names."""
    return "has" if len(names) == 1 else "have"


__all__ = ["Problem", "Severity", "called", "grouped", "have", "listed", "value_text"]
