"""`evaluate MODEL...` and `search RECIPE`: scores, and weights learned, on prompts."""

from __future__ import annotations

from typing import Any

from merging.commands.console import command
from merging.trial import commands as trial


def declare(commands: Any) -> None:
    """Adds the commands to the parser's."""
    trial.evaluate_options(
        command(commands, "evaluate", trial.evaluate, "score models on held-out prompts")
    )
    trial.search_options(
        command(
            commands,
            "search",
            trial.search,
            "learn a task-arithmetic recipe's weights on validation prompts",
        )
    )
