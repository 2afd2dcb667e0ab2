"""Bundles: several files under one address, packed for who takes that."""

from __future__ import annotations

from pathlib import Path

import pytest
from starlette.responses import PlainTextResponse
from starlette.testclient import TestClient

from ui.bundle import Bundles, bundle, joined


@pytest.fixture
def scripts(tmp_path: Path) -> list[Path]:
    for name, text in {"one.js": "first();", "two.js": "second();"}.items():
        (tmp_path / name).write_text(text)
    return [tmp_path / "one.js", tmp_path / "two.js"]


def test_files_stand_in_order_under_an_address_of_their_content(scripts) -> None:
    made = bundle(scripts)
    client = TestClient(Bundles(PlainTextResponse("else"), [made]))
    answer = client.get(made.name)
    assert answer.text == "first();\nsecond();"
    assert answer.headers["content-encoding"] == "gzip"
    assert answer.headers["content-type"].startswith("text/javascript")
    assert "immutable" in answer.headers["cache-control"]
    plain = client.get(made.name, headers={"accept-encoding": "identity"})
    assert (plain.text, plain.headers.get("content-encoding")) == (answer.text, None)
    assert client.head(made.name).content == b""
    scripts[1].write_text("third();")
    assert bundle(scripts).name != made.name


@pytest.mark.parametrize(("method", "path"), [("GET", "/other.js"), ("POST", None)])
def test_everything_else_passes(scripts, method: str, path: str | None) -> None:
    made = bundle(scripts)
    client = TestClient(Bundles(PlainTextResponse("else"), [made]))
    assert client.request(method, path or made.name).text == "else"


def test_a_file_that_would_end_its_tag_is_refused(tmp_path: Path) -> None:
    (tmp_path / "bad.js").write_text("'</script>'")
    with pytest.raises(ValueError, match=r"bad\.js holds </script"):
        joined([tmp_path / "bad.js"])
