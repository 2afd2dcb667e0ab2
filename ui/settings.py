"""What a person chooses when starting the app: arguments first, then the environment."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

_GIB = 2**30
DEVICES = ("auto", "cpu", "cuda", "mps")


@dataclass(frozen=True)
class Settings:
    """The app's settings; passed down, never read from anywhere else.

    Attributes:
        models: folders whose subfolders are models; results go to the first writable one.
        host: address to listen on.
        port: 0 for any free one, None for the first free one from 7860 on.
        device: "auto", "cpu", "cuda" or "mps".
        cache: where sketches are kept between runs.
        chat_bytes: memory that loaded chat models may hold together.
    """

    models: tuple[Path, ...] = (Path("models"),)
    host: str = "127.0.0.1"
    port: int | None = None
    device: str = "auto"
    cache: Path = Path(".cache/sketches")
    chat_bytes: int = 8 * _GIB


def from_arguments(
    arguments: Sequence[str] | None = None, environment: Mapping[str, str] | None = None
) -> Settings:
    """Reads the settings; a wrong argument ends the program with status 2 and one line."""
    env = os.environ if environment is None else environment
    parser = argparse.ArgumentParser(
        prog="python app.py", description="Amalgam: explore, merge and try fine-tuned models."
    )
    parser.add_argument(
        "--models", action="append", type=Path, metavar="DIR",
        help="a folder whose subfolders are models; may be repeated (default: models/)",
    )  # fmt: skip
    parser.add_argument(
        "--host", default=env.get("AMALGAM_HOST") or env.get("GRADIO_SERVER_NAME") or Settings.host
    )
    parser.add_argument(
        "--port", type=_port, default=env.get("AMALGAM_PORT"), help="0: any free port"
    )
    parser.add_argument(
        "--device",
        choices=DEVICES,
        default=env.get("AMALGAM_DEVICE", "auto"),
    )
    parser.add_argument(
        "--cache", type=Path, default=Path(env.get("AMALGAM_CACHE", Settings.cache))
    )
    parser.add_argument(
        "--chat-gib", type=float, default=env.get("AMALGAM_CHAT_GIB", "8"),
        help="memory for loaded chat models, in GiB (default: 8)",
    )  # fmt: skip
    given = parser.parse_args(arguments)
    if given.device not in DEVICES:  # what the environment says is not held against the choices
        parser.error(f"AMALGAM_DEVICE={given.device}: valid: {', '.join(DEVICES)}")
    models = tuple(given.models or [Path(env.get("AMALGAM_MODELS", "models"))])
    for folder in models:
        if os.path.exists(folder) and not os.path.isdir(folder):
            parser.error(f"--models {folder}: not a folder")
        if given.models and not os.path.exists(folder):
            print(f"--models {folder}: not there yet; the first merge makes it", file=sys.stderr)
    return Settings(
        models, given.host, given.port, given.device, given.cache, int(given.chat_gib * _GIB)
    )


def _port(text: str) -> int:
    port = int(text)
    if not 0 <= port < 2**16:
        raise argparse.ArgumentTypeError(f"{port} is not a port (0 to 65535)")
    return port
