"""What ships beside the code: the built-in models, example recipes, scripts and styles.

In a checkout they are the folder `assets`; a wheel brings them as `amalgam_assets`, a name that no
other package has.
"""

from __future__ import annotations

from pathlib import Path

_BESIDE = Path(__file__).resolve().parents[2]
_INSTALLED = _BESIDE / "amalgam_assets"
ASSETS = _INSTALLED if _INSTALLED.is_dir() else _BESIDE / "assets"


def recipes() -> dict[str, Path]:
    """Name -> file of every example recipe."""
    return {file.stem: file for file in sorted((ASSETS / "recipes").glob("*.yaml"))}
