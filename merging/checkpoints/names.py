"""From what a person writes ("demo:add", "./my-model", "org/name") to a folder on disk."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from merging import demo
from merging.errors import ModelNotFound

DEMO_PREFIX = "demo:"


def resolve(reference: str, relative_to: Path | None = None) -> Path:
    """Returns the folder that `reference` names.

    Args:
        reference: "demo:NAME", a folder (absolute or relative), or a Hub id already downloaded.
            A folder wins over a Hub id of the same name.
        relative_to: folder against which relative paths are read; the working directory if None.

    Raises:
        ModelNotFound: nothing of that name is there; the message says what was looked for.
    """
    if reference.startswith(DEMO_PREFIX):
        try:
            return demo.folder(reference.removeprefix(DEMO_PREFIX))
        except ValueError as error:
            raise ModelNotFound(f"{reference}: {error}") from None
    folder = (relative_to or Path.cwd()) / reference
    try:
        folder = (relative_to or Path.cwd()) / Path(reference).expanduser()
        if folder.is_dir():
            return folder.resolve()
    except (OSError, RuntimeError):
        pass  # a name too long for a folder, or the home of nobody: there is no such folder
    if "@" in reference or "+" in reference:
        raise ModelNotFound(
            f"{reference}: revisions (@) and adapters (+) are not read; download that revision, or "
            "merge the adapter into its model (peft: merge_and_unload), and give the folder"
        )
    if _looks_like_hub_id(reference):
        return _download(reference)
    raise ModelNotFound(
        f"{reference}: no folder {folder}. Give a folder that holds config.json and "
        "*.safetensors, a Hub id such as org/name, or demo:NAME"
    )


def short_names(references: Sequence[str], relative_to: Path | None = None) -> list[str]:
    """What to call models wherever they lie: the last parts of their paths that tell them apart.

    "a/final" and "/models/b/final" are "a/final" and "b/final"; "expert" and "/models/expert"
    alone are both "expert".
    """
    parts = [_parts(reference, relative_to) for reference in references]
    names: list[str] = []
    for count in range(1, 1 + max(map(len, parts), default=0)):
        names = ["/".join(part[-count:]) for part in parts]
        if len(set(names)) == len(names):
            break
    return names


def _parts(reference: str, relative_to: Path | None) -> tuple[str, ...]:
    folder = (relative_to or Path.cwd()) / Path(reference).expanduser()
    return folder.resolve().parts if folder.is_dir() else tuple(reference.split("/"))


def _looks_like_hub_id(reference: str) -> bool:
    parts = reference.split("/")
    return len(parts) == 2 and all(parts) and not reference.startswith((".", "~"))


def _download(repo_id: str) -> Path:
    """Returns the local snapshot of a Hub repository, fetching what is missing (no pickle)."""
    from huggingface_hub import snapshot_download

    try:
        path = snapshot_download(
            repo_id,
            allow_patterns=["*.safetensors", "*.json", "*.jinja", "*.txt", "*.model", "*.tiktoken"],
        )
    except Exception as error:
        raise ModelNotFound(
            f"{repo_id}: neither a folder nor a Hub model that can be reached "
            f"({type(error).__name__}). Check the spelling, or download it and give the folder"
        ) from None
    return Path(path)
