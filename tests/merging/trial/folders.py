"""Copies of a built-in model with one file changed."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

from merging import demo


def changed(
    folder: Path, edit: Callable[[dict[str, Any]], Any] | str, file: str = "config.json"
) -> Path:
    """Copies the built-in model that adds; `edit` changes a JSON file's document in place, or is a
    file's new text."""
    shutil.copytree(demo.folder("add"), folder)
    if isinstance(edit, str):
        (folder / file).write_text(edit)
        return folder
    document = json.loads((folder / file).read_text())
    edit(document)
    (folder / file).write_text(json.dumps(document))
    return folder
