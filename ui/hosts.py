"""By which names this server is called, and which pages are its own. Pure functions of headers.

A page of another site can make a browser send requests to a server on this machine: straight, which
the `Origin` header tells, or under a name of its own that resolves to this machine (DNS rebinding),
which `Host` tells. A name in `Host` must therefore be known; an address in figures cannot be
rebound.
"""

from __future__ import annotations

import re
import socket
from collections.abc import Iterable
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address, ip_address

_ADDRESS = re.compile(r"(\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9_.-]+)(?::([0-9]{1,5}))?")
_ORIGIN = re.compile(r"(https?)://([^/?#]+)", re.IGNORECASE)
_DEFAULT_PORTS = {"http": 80, "https": 443}


@dataclass(frozen=True)
class Address:
    """A host as headers name it.

    Attributes:
        name: lower case, without a dot at the end; an IP address in its usual form.
        port: None where none is named.
        is_figures: the name is an IP address.
    """

    name: str
    port: int | None = None
    is_figures: bool = False

    @property
    def is_loopback(self) -> bool:
        """True where only this machine can be meant."""
        if not self.is_figures:
            return self.name == "localhost"
        return _loops(ip_address(self.name))


def address(text: str) -> Address | None:
    """Reads `NAME`, `NAME:PORT`, `1.2.3.4:PORT` or `[::1]:PORT`; None for anything else."""
    match = _ADDRESS.fullmatch(text.strip())
    if match is None:
        return None
    name, port = match[1].lower().removesuffix("."), int(match[2]) if match[2] else None
    if port is not None and not 0 < port < 2**16:
        return None
    try:
        return Address(str(ip_address(name.strip("[]"))), port, True)
    except ValueError:
        return None if not name or name.startswith("[") else Address(name, port)


@dataclass(frozen=True)
class Hosts:
    """The names of a server.

    Attributes:
        own: what it listens on.
        named: further names, with a port where the proxy's is not its scheme's usual one.
        is_open: it listens to other machines, which call it by whatever address it has.
    """

    own: str
    named: tuple[Address, ...] = ()
    is_open: bool = False

    def knows(self, host: Address) -> bool:
        """Whether a request for this host is meant for this server."""
        if host.is_loopback or host.name in (self.own, *(named.name for named in self.named)):
            return True
        return host.is_figures and self.is_open

    def is_own_page(self, origin: str, host: Address) -> bool:
        """Whether a page of this origin was served by this server, asked under this host.

        Args:
            origin: the `Origin` header; "null" (a sandboxed frame, a file) is nobody's.
        """
        match = _ORIGIN.fullmatch(origin.strip())
        page = address(match[2]) if match else None
        if match is None or page is None:
            return False
        usual = _DEFAULT_PORTS[match[1].lower()]
        return any(
            page.name == named.name and (page.port or usual) == (named.port or usual)
            for named in (host, *self.named)
        )


def hosts(listening: str, named: Iterable[str] = ()) -> Hosts:
    """The names of a server that listens on a host.

    Raises:
        ValueError: with the name that is none.
    """
    parsed = []
    for name in named:
        one = address(name)
        if one is None:
            raise ValueError(name)
        parsed.append(one)
    own = listening.strip("[]").lower().removesuffix(".")
    return Hosts(own, tuple(parsed), not is_local(listening))


def is_local(host: str) -> bool:
    """Whether only this machine reaches a server that listens on the host."""
    try:
        addresses = socket.getaddrinfo(host.strip("[]") or None, 0, flags=socket.AI_PASSIVE)
    except OSError:
        return False
    return all(_loops(ip_address(str(entry[4][0]).partition("%")[0])) for entry in addresses)


def _loops(ip: IPv4Address | IPv6Address) -> bool:
    mapped = ip.ipv4_mapped if isinstance(ip, IPv6Address) else None
    return (mapped or ip).is_loopback
