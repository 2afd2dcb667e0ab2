"""Which names in headers mean this server, and which pages are its own."""

from __future__ import annotations

import pytest

from ui.hosts import Address, address, hosts, is_local


@pytest.mark.parametrize(
    ("text", "read"),
    [
        ("localhost", Address("localhost")),
        ("LocalHost.:7860", Address("localhost", 7860)),
        ("127.0.0.1:80", Address("127.0.0.1", 80, True)),
        ("[0:0:0:0:0:0:0:1]:7860", Address("::1", 7860, True)),
        ("me-amalgam.hf.space", Address("me-amalgam.hf.space")),
        ("127.1", Address("127.1")),  # browsers spell addresses out; this is a name nobody has
    ],
)
def test_addresses_are_read_in_their_usual_form(text: str, read: Address) -> None:
    assert address(text) == read


@pytest.mark.parametrize(
    "text",
    [
        "",
        ".",
        "a b",
        "user@localhost",
        "localhost/",
        "localhost:",
        "localhost:x",
        "localhost:0",
        "localhost:65536",
        "::1",
        "[::1",
        "[lab]",
        "[fe80::1%eth0]",
        "http://localhost",
        "a,b",
        "localhost\\@evil.example",
        "localhost#",
        "\uff4cocalhost",
    ],
)
def test_what_is_no_address_is_none(text: str) -> None:
    assert address(text) is None


OWN = [
    "localhost",
    "localhost.",
    "LOCALHOST:1",
    "127.0.0.1",
    "127.8.0.1:9",
    "[::1]:7860",
    "[::ffff:127.0.0.1]",
]
STRANGE = [
    "evil.example",
    "localhost.evil.example",
    "127.0.0.1.evil.example",
    "evil-localhost",
    "192.168.0.7",
    "0.0.0.0",
    "[fd00::1]",
    "127.1",
    "2130706433",
]


@pytest.mark.parametrize("text", OWN)
def test_a_server_on_this_machine_knows_its_names(text: str) -> None:
    host = address(text)
    assert host is not None
    assert hosts("127.0.0.1").knows(host)


@pytest.mark.parametrize("text", STRANGE)
def test_a_server_on_this_machine_knows_no_other(text: str) -> None:
    host = address(text)
    assert host is not None
    assert not hosts("127.0.0.1").knows(host)


def test_a_server_for_other_machines_knows_addresses_in_figures_and_its_own_name() -> None:
    everywhere = hosts("0.0.0.0", ["Lab.example."])
    for text in ("192.168.0.7:7860", "[fd00::1]", "lab.example:443", "localhost"):
        assert everywhere.knows(address(text) or Address("")), text
    for text in ("evil.example", "sub.lab.example", "xlab.example"):
        assert not everywhere.knows(address(text) or Address("")), text
    assert hosts("Desk.local").knows(Address("desk.local", 7860))


@pytest.mark.parametrize(
    ("origin", "host", "is_own"),
    [
        ("http://localhost:7860", "localhost:7860", True),
        ("HTTP://LOCALHOST.:7860", "localhost:7860", True),
        ("http://[::1]:7860", "[::1]:7860", True),
        ("http://localhost", "localhost:80", True),
        ("https://localhost", "localhost", True),
        ("https://lab.example", "127.0.0.1:7860", True),  # a proxy that says its own Host
        ("https://lab.example:443", "lab.example", True),
        ("https://box.example:8443", "box.example", True),
        ("http://localhost:3000", "localhost:7860", False),
        ("http://127.0.0.1:7860", "localhost:7860", False),
        ("https://lab.example:444", "lab.example", False),
        ("https://box.example", "localhost:7860", False),
        ("http://evil.example:7860", "localhost:7860", False),
        ("null", "localhost:7860", False),
        ("", "localhost:7860", False),
        ("file://", "localhost:7860", False),
        ("localhost:7860", "localhost:7860", False),
        ("http://localhost:7860/x", "localhost:7860", False),
        ("http://localhost:7860@evil.example", "localhost:7860", False),
        ("chrome-extension://localhost:7860", "localhost:7860", False),
    ],
)
def test_only_pages_from_here_are_own(origin: str, host: str, is_own: bool) -> None:
    own_hosts = hosts("127.0.0.1", ["lab.example", "box.example:8443"])
    assert own_hosts.is_own_page(origin, address(host) or Address("")) is is_own


def test_which_hosts_only_this_machine_reaches() -> None:
    assert all(map(is_local, ["127.0.0.1", "127.9.9.9", "localhost", "::1", "[::1]"]))
    assert not any(map(is_local, ["0.0.0.0", "::", "", "192.0.2.1", "no such host"]))


def test_a_name_that_is_none_is_refused() -> None:
    with pytest.raises(ValueError, match="http://lab"):
        hosts("127.0.0.1", ["http://lab"])
