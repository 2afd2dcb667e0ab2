"""What kept a model of the Hub from being read or fetched, in one line that says what to do.

No text of the library's own goes into it but its status: that names addresses and classes, and
nothing of a token may ever be told.
"""

from __future__ import annotations

import errno
from collections.abc import Iterator
from contextlib import contextmanager

from huggingface_hub import errors

from merging.errors import MergeError, ModelNotFound, NotEnoughSpace
from merging.system import shortage

_FULL = (errno.ENOSPC, errno.EDQUOT)
_ELSEWHERE = "download the model elsewhere and give its folder"


@contextmanager
def told_of(name: str) -> Iterator[None]:
    """Whatever the Hub or the disk refuses inside becomes an error of one line.

    Args:
        name: the reference as it was written: the line begins with it.

    Raises:
        ModelNotFound: the Hub has no such model, not for us, or is not to be reached.
        NotEnoughSpace: the disk is full.
    """
    try:
        yield
    except MergeError:
        raise
    except Exception as error:
        if isinstance(error, OSError) and error.errno in _FULL:
            raise NotEnoughSpace(f"{name}: {shortage.in_words(error)}") from None
        reason = _reason(name, error)
        if reason is None:
            raise
        raise ModelNotFound(f"{name}: {reason}") from None


def _reason(name: str, error: Exception) -> str | None:
    """What went wrong; None for what is no matter of the Hub."""
    repo = name.partition("@")[0]
    match error:
        case errors.GatedRepoError():
            return (
                "the Hub gives this model only to those who accepted its terms; do that on "
                f"https://huggingface.co/{repo}, and log in on the server: hf auth login"
            )
        case errors.RepositoryNotFoundError():
            return (
                "the Hub has no such model, or a private one; check the spelling, or log in on the "
                "server: hf auth login"
            )
        case errors.RevisionNotFoundError():
            return "the model has no such revision; give a branch, a tag or a commit of it"
        case errors.DisabledRepoError():
            return "the Hub has closed this repository; choose another model"
        case errors.HFValidationError():
            return "no model of the Hub can have this name; check the spelling"
        case errors.OfflineModeIsEnabled():
            return (
                f"this server is kept offline (HF_HUB_OFFLINE); start it without, or {_ELSEWHERE}"
            )
        case errors.SafetensorsParsingError():
            return "one of its safetensors files has no header that can be read; choose another"
        case errors.EntryNotFoundError() if not isinstance(error, OSError):
            return "a file that it lists is not there; try again"
        case errors.RemoteEntryNotFoundError():
            return "a file that it lists is not there; try again"
        case errors.HfHubHTTPError():
            return _refused(error)
        case (
            errors.HTTPError()
            | ConnectionError()
            | TimeoutError()
            | errors.LocalEntryNotFoundError()
        ):
            return f"the Hub cannot be reached; check the network, or {_ELSEWHERE}"
        case OSError() if error.errno is not None:
            return f"the Hub's cache cannot be used ({(error.strerror or '').lower()})"
        case OSError() | ValueError():
            return "what the Hub sent is not what it announced; try again"
    return None


def _refused(error: errors.HfHubHTTPError) -> str:
    status = error.response.status_code
    if status in (401, 403):
        return (
            f"the Hub refuses the request ({status}); see that the token of this server may read "
            "the model: hf auth login"
        )
    if status == 429:
        return "the Hub takes no more requests from here for now (429); try again later"
    return f"the Hub answers with an error ({status}); try again later"
