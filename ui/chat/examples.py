"""Questions to begin with: of the built-in family's skills, or of any model."""

from __future__ import annotations

from collections.abc import Sequence

from merging.checkpoints.names import DEMO_PREFIX
from merging.demo.tasks import suggested_prompts
from ui.library import Library, Model

_GENERAL = (
    "Explain photosynthesis in two sentences.",
    "What is 17 * 24? Think step by step.",
    "Write a Python function that tells whether a word is a palindrome.",
    "Translate into French: The train leaves at noon.",
)


def examples(library: Library, models: Sequence[Model]) -> list[str]:
    """One question per skill where every model is of the built-in family's shape, general ones
    where none is, both where some are."""
    built_in = {model.shape for model in library.models() if model.id.startswith(DEMO_PREFIX)}
    of_family = [model.shape in built_in for model in models]
    skills = [prompts[0] for prompts in suggested_prompts().values()]
    return [*(skills if any(of_family) else ()), *(() if all(of_family) else _GENERAL)]
