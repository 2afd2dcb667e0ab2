"""How models of the Hub are named."""

from __future__ import annotations

import pytest

from merging.errors import ModelNotFound
from merging.hub.references import Reference, parse

COMMIT = "0123456789abcdef0123456789abcdef01234567"


@pytest.mark.parametrize(
    ("text", "reference"),
    [
        ("org/name", Reference("org/name")),
        (" org/name ", Reference("org/name")),
        ("gpt2", Reference("gpt2")),
        ("org/name@v1.0", Reference("org/name", "v1.0")),
        ("org/name@refs/pr/3", Reference("org/name", "refs/pr/3")),
        ("https://huggingface.co/org/name", Reference("org/name")),
        ("https://hf.co/org/name/tree/dev?x=1", Reference("org/name", "dev")),
    ],
)
def test_a_name_with_or_without_a_revision(text: str, reference: Reference) -> None:
    assert parse(text) == reference


@pytest.mark.parametrize(
    "text",
    [
        *("", "a/b/c", "../up", "./here", "~/models", "org/na me", "x" * 5000, "org/--name"),
        *("org/name@", "org/name@../x", "org/name@-x", "org/name@a b", "a\0b"),
        "https://huggingface.co/",
    ],
)
def test_what_no_repository_can_be_called_is_refused(text: str) -> None:
    with pytest.raises(ModelNotFound) as error:
        parse(text)
    assert len(str(error.value)) <= 500


def test_a_commit_is_shown_by_its_first_digits() -> None:
    assert parse(f"org/name@{COMMIT}").short == "org/name@0123456"
    assert parse("org/name@release-2026").short == "org/name@release-2026"
