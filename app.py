"""Starts the web app: `python app.py`; `--help` lists what can be chosen."""

from __future__ import annotations

import logging
import os
import signal
import socket
import sys
import threading
from collections.abc import Sequence
from dataclasses import replace

os.environ.setdefault("GRADIO_ANALYTICS_ENABLED", "False")
# idle arithmetic threads sleep instead of spinning: small models stream faster on a busy machine
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

from ui.settings import Settings, from_arguments


def main(arguments: Sequence[str] | None = None) -> int:
    """Serves the app until it is interrupted. Returns the exit status."""
    logging.basicConfig(level=logging.WARNING, format="%(levelname)s %(name)s: %(message)s")
    settings = from_arguments(arguments)
    over = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: over.set())
    from ui.app import build  # imports torch and gradio: seconds

    if settings.port == 0:
        settings = replace(settings, port=_free_port(settings))
    from merging.errors import MergeError

    try:
        app = build(settings)
    except MergeError as error:  # a device that is not there
        print(error, file=sys.stderr)
        return 2
    try:
        _, address, _ = app.demo.launch(**app.launch)
    except OSError:
        print(
            f"cannot listen on {settings.host}:{settings.port}: is another server there? Choose "
            "another --port (0: any free one)",
            file=sys.stderr,
        )
        return 2
    print(f"Amalgam is at {address}", flush=True)
    over.wait()
    app.jobs.close()
    app.demo.close(verbose=False)
    return 0


def _free_port(settings: Settings) -> int:
    with socket.socket() as probe:
        probe.bind((settings.host, 0))
        return probe.getsockname()[1]


if __name__ == "__main__":
    sys.exit(main())
