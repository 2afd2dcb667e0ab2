"""How a model of the Hub is named: "org/name", "org/name@revision", or the address of its page."""

from __future__ import annotations

import re
from dataclasses import dataclass

from huggingface_hub.errors import HFValidationError
from huggingface_hub.utils import validate_repo_id

from merging.errors import ModelNotFound, shown

_PAGE = re.compile(r"https?://(?:www\.)?(?:huggingface\.co|hf\.co)/", re.IGNORECASE)
_ON_PAGE = re.compile(r"([^/?#]+/[^/?#]+)(?:/tree/([^?#]+?))?/?(?:[?#].*)?")
_REVISION = re.compile(r"[A-Za-z0-9][A-Za-z0-9._/+-]{0,199}")
_COMMIT = re.compile(r"[0-9a-f]{40}")
SHORT = 7  # digits of a commit that a person is shown


@dataclass(frozen=True)
class Reference:
    """One repository of models at one revision.

    Attributes:
        repo: "org/name", or "name" alone of a few old ones.
        revision: a branch, a tag or a commit; "" for the main branch.
    """

    repo: str
    revision: str = ""

    def __str__(self) -> str:
        return f"{self.repo}@{self.revision}" if self.revision else self.repo

    @property
    def short(self) -> str:
        """As a person is shown it: a commit by its first digits."""
        is_commit = _COMMIT.fullmatch(self.revision)
        return str(Reference(self.repo, self.revision[:SHORT])) if is_commit else str(self)


def parse(text: str) -> Reference:
    """Reads a reference. Raises ModelNotFound: no repository can have such a name."""
    text = text.strip()
    if _PAGE.match(text):
        match = _ON_PAGE.fullmatch(_PAGE.sub("", text, count=1))
        repo, revision = match.groups() if match else (text, None)
    else:
        repo, at, revision = text.partition("@")
        if at and not revision:
            raise ModelNotFound(f"{shown(text)}: no revision follows the @")
    try:
        validate_repo_id(repo)
    except HFValidationError:
        raise ModelNotFound(
            f"{shown(text)}: neither an absolute path nor a Hub id; give /a/folder, org/name or "
            "org/name@revision"
        ) from None
    if revision and (not _REVISION.fullmatch(revision) or ".." in revision):
        raise ModelNotFound(
            f"{shown(text)}: {shown(revision)} is no revision; give a branch, a tag or a commit"
        )
    return Reference(repo, revision or "")
