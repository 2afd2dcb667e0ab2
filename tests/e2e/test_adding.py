"""Add a model: a folder, and one of a Hub on the loopback, where the server allows that."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from urllib.request import urlopen

import pytest
from playwright.sync_api import expect

from merging import demo
from tests.e2e.conftest import DESKTOP, PHONE, PROFILE, Visit, sideways, started
from tests.hub_server import HubRepository, HubServer, files_of, hub_server


@pytest.fixture
def hub() -> Iterator[HubServer]:
    with hub_server() as hub:
        card = {"license": "apache-2.0", "base_model": "org/base"}
        hub.repositories["org/adder"] = HubRepository(files_of(demo.folder("add")), card)
        yield hub


def test_a_folder_and_a_model_of_the_hub_are_added(tmp_path: Path, hub, browser) -> None:
    own = tmp_path / "elsewhere" / "sorter"
    shutil.copytree(demo.folder("sort"), own)
    env = {"HF_ENDPOINT": hub.url, "HF_HOME": str(tmp_path / "hf"), "HF_TOKEN": "hf_secret"}
    folders = ("--models", str(tmp_path / "models"), "--cache", str(tmp_path / "cache"))
    with started("--port", "0", "--device", "cpu", "--allow-hub", *folders, env=env) as url:
        with urlopen(f"{url}gradio_api/info") as answer:
            assert json.load(answer)["named_endpoints"] == {}
        visit = Visit(browser.new_context(**PROFILE).new_page(), url, DESKTOP)
        visit.enter()
        page = visit.page
        said, experts = page.locator("#adding-said"), page.locator(".expert-choice")

        opener = page.get_by_role("button", name="Add a model")
        opener.focus()
        page.keyboard.press("Enter")
        page.keyboard.press("Tab")
        page.keyboard.type(str(own))
        page.keyboard.press("Enter")
        expect(said).to_contain_text("1.4 M parameters. Nothing is loaded yet.", timeout=30_000)
        expect(page.locator("#adding-facts")).to_contain_text("yes, by its shapes")
        page.get_by_role("button", name="Add", exact=True).press("Enter")
        expect(said).to_contain_text("sorter is on offer now")
        expect(experts.get_by_label("sorter")).to_be_enabled()

        hub.stops["model.safetensors"] = 2_000_000
        page.set_viewport_size(PHONE)
        page.get_by_role("button", name="Models", exact=True).click()
        page.get_by_label("Folder or Hub id").fill("org/adder")
        page.get_by_role("button", name="Look", exact=True).click()
        expect(page.locator("#adding-facts")).to_contain_text("apache-2.0", timeout=30_000)
        page.get_by_role("button", name="Download and add").click()
        bar = page.get_by_role("progressbar", name="Download of org/adder@0123456")
        expect(bar).to_have_attribute("aria-valuenow", "36", timeout=30_000)
        assert sideways(page) <= 0
        page.set_viewport_size(DESKTOP)
        hub.go.set()
        expect(said).to_contain_text("org/adder@0123456 is here, and on offer now", timeout=30_000)
        experts.get_by_label("adder").check()
        expect(page.locator("#map")).to_contain_text("adder", timeout=20_000)

        page.get_by_role("tab", name="Chat").click()
        page.get_by_role("checkbox", name="adder", exact=True).wait_for()
        assert "hf_secret" not in page.content()
        visit.close()
        assert not visit.wrong, "\n".join(visit.wrong)
    assert hub.tokens and set(hub.tokens) == {"Bearer hf_secret"}
    lists = [path.read_text() for path in (tmp_path / "models").glob(".added.json")]
    assert len(lists) == 1 and "hf_secret" not in lists[0] and str(own) in lists[0]
