"""`python -m merging COMMAND`: the command line; interrupts are answered from its first line on."""

from __future__ import annotations

import sys

from merging.system import interrupts


def main(arguments: list[str] | None = None) -> int:
    """Runs one command; returns the exit status."""
    from merging.command_line import main as run  # takes a while: an interrupt may come meanwhile

    return run(arguments)


if __name__ == "__main__":
    interrupts.end_at_once()
    sys.exit(main())
