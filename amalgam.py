"""The command `amalgam`: `amalgam app` starts the workbench, all else is the command line."""

from __future__ import annotations

import sys

from merging.system import interrupts

NAME = "amalgam"


def main(arguments: list[str] | None = None) -> int:
    """Runs what the arguments ask for; returns the exit status."""
    argv = sys.argv[1:] if arguments is None else arguments
    if argv[:1] == ["app"]:
        import app

        return app.main(argv[1:])
    from merging.command_line import main as run

    return run(argv, name=NAME, also={"app": "start the workbench in the browser"})


def installed() -> int:
    """The command itself, in a process of its own."""
    interrupts.end_at_once()
    return main()


if __name__ == "__main__":
    sys.exit(installed())
