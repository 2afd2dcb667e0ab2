"""A Hub on the loopback that serves a built-in model, and a cache of its own."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from merging import demo
from merging.hub.cache import Hub
from tests.hub_server import HubRepository, HubServer, files_of, hub_server


@pytest.fixture
def server() -> Iterator[HubServer]:
    """Serves org/add: a copy of demo:add."""
    with hub_server() as server:
        card = {"license": "apache-2.0", "base_model": "org/base"}
        server.repositories["org/add"] = HubRepository(files_of(demo.folder("add")), card)
        yield server


@pytest.fixture
def hub(server: HubServer, tmp_path: Path) -> Hub:
    """That Hub, and an empty cache."""
    return Hub(server.url, tmp_path / "hub")
