"""What a person chooses when starting the app: arguments first, then the environment."""

from __future__ import annotations

import argparse
import math
import os
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NoReturn

from merging.errors import one_line
from merging.kernels import cache_folder
from ui.hosts import Hosts, hosts, is_local

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
        auth: name and password of everybody who may come in; empty: whoever reaches the server.
        names: what the server is called.
        is_space: it is shown in a frame of its hub's pages, behind a proxy that names it.
        allow_hub: pages may add models: folders of this machine, and models of the Hub.
    """

    models: tuple[Path, ...] = (Path("models"),)
    host: str = "127.0.0.1"
    port: int | None = None
    device: str = "auto"
    cache: Path = field(default_factory=lambda: cache_folder() / "sketches")
    chat_bytes: int = 8 * _GIB
    auth: tuple[tuple[str, str], ...] = ()
    names: Hosts = field(default_factory=lambda: hosts("127.0.0.1"))
    is_space: bool = False
    allow_hub: bool = False


def from_arguments(
    arguments: Sequence[str] | None = None, environment: Mapping[str, str] | None = None
) -> Settings:
    """Reads the settings; a wrong argument ends the program with status 2 and one line."""
    env = os.environ if environment is None else environment
    parser = _parser(env)
    options = parser.parse_args(arguments)
    if options.device not in DEVICES:  # what the environment says is not held against the choices
        parser.error(f"AMALGAM_DEVICE={options.device}: valid: {', '.join(DEVICES)}")
    models = tuple(options.models or [Path(env.get("AMALGAM_MODELS", "models"))])
    for folder in models:
        if reason := _unusable(folder):
            parser.error(f"--models {folder}: {reason}")
        if options.models and not os.path.exists(folder):
            print(f"--models {folder}: not there yet; the first merge makes it", file=sys.stderr)
    space = [name for name in env.get("SPACE_HOST", "").split(",") if name]
    named = [*space, *(options.allow_host or env.get("AMALGAM_ALLOW_HOST", "").split(","))]
    try:
        names = hosts(options.host, filter(None, map(str.strip, named)))
    except ValueError as error:
        parser.error(
            f"--allow-host {error}: not a host's name (as in lab.example or lab.example:8443)"
        )
    try:
        auth = tuple(options.auth or map(_login, filter(None, [env.get("AMALGAM_AUTH")])))
    except argparse.ArgumentTypeError as error:
        parser.error(f"AMALGAM_AUTH: {error}")
    _hold_door(parser, options, auth, bool(space))
    return Settings(
        models,
        options.host,
        options.port,
        options.device,
        options.cache,
        int(options.chat_gib * _GIB),
        auth,
        names,
        bool(space),
        options.allow_hub,
    )


class _Parser(argparse.ArgumentParser):
    """Says what is wrong in one line; how all is used, `--help` says."""

    def error(self, message: str) -> NoReturn:
        self.exit(2, one_line(f"{self.prog}: {message}") + "\n")


def _parser(env: Mapping[str, str]) -> argparse.ArgumentParser:
    parser = _Parser(
        prog="python app.py", description="Amalgam: explore, merge and try fine-tuned models."
    )
    parser.add_argument(
        "--models",
        action="append",
        type=Path,
        metavar="DIR",
        help="a folder whose subfolders are models; may be repeated (default: models/)",
    )
    parser.add_argument(
        "--host",
        default=env.get("AMALGAM_HOST") or env.get("GRADIO_SERVER_NAME") or Settings.host,
        help="address to listen on (default: this machine only); others need --auth or --no-auth",
    )
    parser.add_argument(
        "--port", type=_port, default=env.get("AMALGAM_PORT"), help="0: any free port"
    )
    parser.add_argument(
        "--auth",
        action="append",
        type=_login,
        metavar="USER:PASSWORD",
        help="who may come in; may be repeated (or AMALGAM_AUTH, which no list of processes shows)",
    )
    parser.add_argument(
        "--no-auth", action="store_true", help="let in everybody who reaches the server"
    )
    parser.add_argument(
        "--allow-host",
        action="append",
        metavar="NAME[:PORT]",
        help="what the server is called behind a proxy; may be repeated",
    )
    parser.add_argument(
        "--allow-hub",
        action="store_true",
        help="let pages add models: any folder that this server can read, and models of the "
        "Hugging Face Hub, with this server's token and onto its disk; every visitor can do that",
    )
    parser.add_argument(
        "--device",
        choices=DEVICES,
        default=env.get("AMALGAM_DEVICE", "auto"),
    )
    parser.add_argument(
        "--cache",
        type=Path,
        default=cache_folder() / "sketches",
        help="where sketches are kept between runs (default: sketches/ in AMALGAM_CACHE)",
    )
    parser.add_argument(
        "--chat-gib",
        type=_gib,
        default=env.get("AMALGAM_CHAT_GIB", "8"),
        help="memory for loaded chat models, in GiB (default: 8); of larger ones the rest stays "
        "on disk",
    )
    return parser


def _hold_door(
    parser: argparse.ArgumentParser,
    options: argparse.Namespace,
    auth: Sequence[tuple[str, str]],
    is_space: bool,
) -> None:
    """Nobody opens the app to other machines without saying to whom."""
    if auth and options.no_auth:
        parser.error("--auth and --no-auth exclude each other")
    if auth or is_space or is_local(options.host):
        return
    if not options.no_auth:
        parser.error(
            f"--host {options.host} lets other machines in: add --auth USER:PASSWORD, or --no-auth "
            "for everybody"
        )
    print(
        f"--no-auth: whoever reaches {options.host} can see the models here, merge and chat",
        file=sys.stderr,
    )


def _unusable(folder: Path) -> str:
    """Why a folder of models cannot be used; "" where it can, or can be made."""
    try:
        if not folder.exists():
            if folder.is_symlink():
                return "a link to nothing; make its target, or choose another folder"
            above = next(path for path in folder.absolute().parents if path.exists())
            return "" if above.is_dir() else f"{above} is not a folder"
        if not folder.is_dir():
            return "not a folder"
        next(folder.iterdir(), None)
    except OSError as error:
        return f"cannot be read ({error.strerror}); choose another folder"
    return ""


def _login(text: str) -> tuple[str, str]:
    user, colon, password = text.partition(":")
    if not (user.strip() and colon and password):
        raise argparse.ArgumentTypeError("give both, as USER:PASSWORD")
    return user.strip(), password


def _gib(text: str) -> float:
    size = _number(float, text)
    if not 0 < size < math.inf:
        raise argparse.ArgumentTypeError(f"{text} is not a number of GiB above 0")
    return size


def _port(text: str) -> int:
    port = int(_number(int, text))
    if not 0 <= port < 2**16:
        raise argparse.ArgumentTypeError(f"{text} is not a port (0 to 65535)")
    return port


def _number(kind: type[int] | type[float], text: str) -> float:
    try:
        return kind(text)
    except ValueError:
        return -1
