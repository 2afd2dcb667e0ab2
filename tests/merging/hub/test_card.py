"""Licence and base models, from a card's metadata."""

from __future__ import annotations

import pytest

from merging import demo
from merging.hub.card import Card, card_of, from_metadata


def test_a_folders_card() -> None:
    assert card_of(demo.folder("add")) == Card("", ("demo:base",))


@pytest.mark.parametrize(
    ("metadata", "card"),
    [
        ({"license": "mit"}, Card("mit")),
        ({"license": "other", "license_name": "llama3.1"}, Card("llama3.1")),
        ({"license": ["mit", "apache-2.0"], "base_model": ["a/b", "c/d"]},
         Card("mit, apache-2.0", ("a/b", "c/d"))),
        ({"license": {"odd": 1}, "base_model": 3}, Card()),
        (None, Card()),
    ],
)  # fmt: skip
def test_what_the_metadata_say(metadata, card: Card) -> None:
    assert from_metadata(metadata) == card


@pytest.mark.parametrize(
    "text", ["", "no metadata", "---\nlicense: mit\n", "---\n[\n---\n", "---\n- a\n---\n", "\xff"]
)
def test_a_card_without_metadata_says_nothing(text: str, tmp_path) -> None:
    (tmp_path / "README.md").write_bytes(text.encode("latin-1"))
    assert card_of(tmp_path) == Card()


def test_a_licence_of_a_folder(tmp_path) -> None:
    (tmp_path / "README.md").write_text("---\r\nlicense: mit\r\n---\r\nText\r\n---\r\n")
    assert card_of(tmp_path) == Card("mit")
