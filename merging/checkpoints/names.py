"""From what a person writes ("demo:add", "./my-model", "org/name") to a folder on disk."""

from __future__ import annotations

import contextlib
import errno
from collections import Counter
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
    looked = "" if str(folder) == reference else f" (looked for {folder})"
    raise ModelNotFound(
        f"{reference}: there is no such folder{looked}. Give a folder that holds config.json and "
        "*.safetensors, a Hub id such as org/name, or demo:NAME"
    )


def called(base: str) -> str:
    """A base in a sentence: "the base org/name", "the base" where that is its name."""
    return "the base" if base == "base" else f"the base {base}"


def short_names(references: Sequence[str], relative_to: Path | None = None) -> list[str]:
    """What to call models wherever they lie: the fewest last parts of its path that tell each from
    the others.

    "a/final", "/models/b/final" and "c/sql" are "a/final", "b/final" and "sql"; "expert" and
    "/models/expert" alone are both "expert". Two references to one folder stay as they are written.
    """
    names = distinct_names([_parts(reference, relative_to) for reference in references])
    counts = Counter(names)
    return [
        name if counts[name] == 1 else reference
        for name, reference in zip(names, references, strict=True)
    ]


def distinct_names(paths: Sequence[Sequence[str]]) -> list[str]:
    """For each path the fewest last parts that no other ends in; all of it where one does."""
    names = ["/".join(path) for path in paths]
    ambiguous = set(range(len(paths)))
    for count in range(1, 1 + max(map(len, paths), default=0)):
        ends = Counter(tuple(path[-count:]) for path in paths)
        for index in list(ambiguous):
            if ends[tuple(paths[index][-count:])] == 1:
                names[index] = "/".join(paths[index][-count:])
                ambiguous.remove(index)
        if not ambiguous:
            break
    return [name.replace("//", "/") for name in names]  # a path begins with the part "/"


def _parts(reference: str, relative_to: Path | None) -> tuple[str, ...]:
    with contextlib.suppress(OSError, RuntimeError, ValueError):  # no path at all, or nobody's home
        folder = (relative_to or Path.cwd()) / Path(reference).expanduser()
        if folder.is_dir():
            return folder.resolve().parts
    return tuple(reference.split("/"))


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
        if isinstance(error, OSError) and error.errno == errno.ENOSPC:
            raise
        raise ModelNotFound(f"{repo_id}: {_why_not(repo_id, error)}") from None
    return Path(path)


def _why_not(repo_id: str, error: Exception) -> str:
    """What kept a repository of the Hub from being fetched, and what to do."""
    from huggingface_hub import errors

    elsewhere = "download the model elsewhere and give its folder"
    match error:
        case errors.GatedRepoError():
            return (
                "the Hub gives this model only to those who accepted its terms; do that on "
                f"https://huggingface.co/{repo_id}, and log in here: hf auth login"
            )
        case errors.RepositoryNotFoundError():
            return (
                "neither a folder nor a model of the Hub (or a private one: hf auth login); check "
                "the spelling"
            )
        case errors.HFValidationError():
            return (
                "there is no such folder, and no model of the Hub can have this name; check the "
                "spelling"
            )
        case OSError():  # no network, or one that does not reach the Hub
            return (
                "there is no such folder, and the Hub cannot be reached; check the spelling and "
                f"the network, or {elsewhere}"
            )
    return (
        f"there is no such folder, and the download from the Hub failed ({error}); try again, or "
        f"{elsewhere}"
    )
