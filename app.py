"""Starts the web app: `python app.py`; `--help` lists what can be chosen."""

from __future__ import annotations

import logging
import os
import signal
import socket
import sys
import threading
from collections.abc import Callable, Sequence
from dataclasses import replace
from types import FrameType
from typing import TextIO, cast

os.environ.setdefault("GRADIO_ANALYTICS_ENABLED", "False")
os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")  # nor is the Hub told of this machine
# idle arithmetic threads sleep instead of spinning: small models stream faster on a busy machine
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")


def main(arguments: Sequence[str] | None = None) -> int:
    """Serves the app until it is interrupted. Returns the exit status."""
    _on_signal(_leave)  # nothing is half-made yet
    from merging.system.freed import keep_large_apart
    from ui.settings import from_arguments

    keep_large_apart()  # a server runs for weeks
    logging.basicConfig(level=logging.WARNING, format="%(levelname)s %(name)s: %(message)s")
    settings = from_arguments(arguments)
    try:
        if settings.port is not None:
            settings = replace(settings, port=_free_port(settings.host, settings.port))
        from merging.errors import MergeError
        from ui.app import build  # imports torch and gradio: seconds

        _reach_without_proxy(settings.host)
        app = build(settings)
        _, address, _ = app.demo.launch(**app.launch)
    except OSError as error:
        port = "any port from 7860 on" if settings.port is None else settings.port
        print(
            f"cannot listen on {settings.host}:{port} ({error.strerror or 'none is free'}): choose "
            "another --port (0: any free one) or --host",
            file=sys.stderr,
        )
        return 2
    except MergeError as error:  # a device that is not there
        print(error, file=sys.stderr)
        return 2
    over = threading.Event()
    _on_signal(lambda *_: _leave() if over.is_set() else over.set())
    print(f"Amalgam is at {address}", flush=True)
    over.wait()
    for jobs in app.jobs:
        jobs.close()
    app.demo.close(verbose=False)
    return 0


def _bound_log() -> None:
    from ui.log import Allowance, BoundedLog

    shared = Allowance()
    sys.stdout = cast(TextIO, BoundedLog(sys.stdout, shared))
    sys.stderr = cast(TextIO, BoundedLog(sys.stderr, shared))


def _on_signal(handle: Callable[..., None]) -> None:
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, handle)


def _leave(number: int = 0, frame: FrameType | None = None) -> None:
    """Ends at once, whatever is being imported or still runs."""
    os._exit(130)


def _reach_without_proxy(host: str) -> None:
    """Gradio asks its own server whether it is there: not by way of a proxy for the web."""
    for name in ("no_proxy", "NO_PROXY"):
        hosts = os.environ.get(name, "")
        os.environ[name] = ",".join(filter(None, [hosts, "localhost", "127.0.0.1", "::1", host]))


def _free_port(host: str, port: int) -> int:
    """The port where it is free, or any that is for 0. Raises OSError where there is none."""
    family, kind, _, _, place = socket.getaddrinfo(
        host.strip("[]") or None, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
    )[0]
    with socket.socket(family, kind) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # as the server will
        probe.bind(place)
        return probe.getsockname()[1]


if __name__ == "__main__":
    _bound_log()
    status = main()
    sys.stdout.flush()
    os._exit(status)  # work that nobody waits for any more is not waited for
