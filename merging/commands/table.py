"""The README's table of methods, written from their declarations.

`python -m merging.commands.table README` (`make table`) writes it between its two marks; with
`--check` (`make check`) it only says whether it is up to date, and ends with status 1 where not.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from pathlib import Path

from merging.declarations.methods import GROUPS, Preset
from merging.methods import PRESETS, PRUNERS, RULES

BEGIN, END = "<!-- methods: written by make table -->", "<!-- end of methods -->"


def table() -> str:
    """The table in Markdown, a row per preset, grouped."""
    return "\n".join(_lines()) + "\n"


def _lines() -> Iterator[str]:
    yield "| `merge_method` | name | what it does | when to use it |"
    yield "|---|---|---|---|"
    for group, title in GROUPS.items():
        yield f"| **{_cell(title)}** | | | |"
        for preset in PRESETS.values():
            if preset.group == group:
                words = map(_cell, (preset.summary, preset.use_when))
                yield f"| `{preset.id}` | {_named(preset)} | {' | '.join(words)} |"


def _named(preset: Preset) -> str:
    """The preset's title, a link to where its pruner, or else its rule, comes from."""
    pruner, rule = PRUNERS[preset.prune], RULES[preset.consensus]
    url = rule.url if pruner.law.order == "all" and not pruner.knobs else pruner.url
    return f"[{_cell(preset.title)}]({url})" if url else _cell(preset.title)


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("*", "\\*")


def replaced(text: str) -> str:
    """A README with its table as it should be. Raises ValueError where the marks are not there."""
    before, begin, rest = text.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise ValueError(f"the README lacks the marks {BEGIN} and {END}")
    return f"{before}{begin}\n\n{table()}\n{end}{after}"


def main(arguments: list[str] | None = None) -> int:
    """Writes or checks the table; the exit status."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("readme", type=Path)
    parser.add_argument("--check", action="store_true", help="write nothing")
    args = parser.parse_args(arguments)
    text = args.readme.read_text(encoding="utf-8")
    renewed = replaced(text)
    if args.check and text != renewed:
        sys.stderr.write(f"{args.readme}: the table of methods is not up to date: make table\n")
        return 1
    if not args.check:
        args.readme.write_text(renewed, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
