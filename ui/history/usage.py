"""Whether a model's folder is being read or written, so that it must stay where it is."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from merging.checkpoints import resolve
from merging.errors import MergeError
from merging.recipe import Recipe
from merging.recipe.references import models_of
from ui.jobs import Jobs
from ui.live.pages import LivePages


@dataclass(frozen=True)
class Usage:
    """Asks the merges in line and the pages' live models."""

    jobs: Jobs
    pages: LivePages

    def of(self, folder: Path) -> str:
        """Why a model's folder cannot be moved now; "" where it can."""
        folder = folder.resolve()
        for job in self.jobs.pending():
            recipe = getattr(job.details, "recipe", None)
            if job.key == str(folder) or (recipe and folder in _folders(recipe)):
                return (
                    f"is in use: {job.title} is being merged; wait until that is over, or stop it."
                )
        if any(folder in _folders(recipe) for recipe in self.pages.recipes()):
            return "is in use by a live merge in Explore; switch Live off, or choose other models."
        return ""


def _folders(recipe: Recipe) -> Iterator[Path]:
    for reference in models_of(recipe):
        try:
            yield Path(resolve(reference, recipe.folder)).resolve()
        except MergeError:  # gone already
            continue
