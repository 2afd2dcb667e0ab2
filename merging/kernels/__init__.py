"""Builds and loads the fused loops: once per machine, where a C compiler is present.

The library is kept in the user's cache under a name made of its source, the compiler and the
processor, so a new version or another machine builds its own. Without a compiler everything works
through torch; `library()` is then None.
"""

from __future__ import annotations

import contextlib
import ctypes
import functools
import hashlib
import logging
import os
import platform
import shutil
import subprocess
import tempfile
from pathlib import Path

log = logging.getLogger(__name__)

SOURCE = Path(__file__).with_name("kernels.c")  # includes all the others
MAX_RINGS, MAX_EXPERTS = 16, 64
TABLE = (1 << 16) + 272  # counters of one table of a profile, as profile.h has it
_FLAGS = (
    "-O3",
    "-march=native",
    "-ffp-contract=off",
    "-fno-math-errno",
    "-fno-trapping-math",
    "-std=gnu11",
    "-shared",
    "-fPIC",
)


class Expert(ctypes.Structure):
    """One expert of a chunk, as prune.h declares it."""

    _fields_ = (
        ("data", ctypes.c_void_p),
        ("type", ctypes.c_int32),
        ("rings", ctypes.c_int32),
        ("random", ctypes.c_int32),
        ("key0", ctypes.c_uint32),
        ("key1", ctypes.c_uint32),
        ("keep", ctypes.c_uint32),
        ("scale", ctypes.c_float),
        ("weight", ctypes.c_float),
        ("active", ctypes.c_int32),
        ("low", ctypes.c_float),
        ("high", ctypes.c_float),
        ("threshold", ctypes.c_float),
        ("top", ctypes.c_float),
        ("parted", ctypes.c_int32),
        ("first", ctypes.c_uint32),
        ("bits", ctypes.c_void_p),
        ("clipped", ctypes.c_int32),
        ("limit", ctypes.c_float),
        ("lower", ctypes.c_float * MAX_RINGS),
        ("upper", ctypes.c_float * MAX_RINGS),
        ("ties", ctypes.c_uint32 * MAX_RINGS),
        ("factor", ctypes.c_float * MAX_RINGS),
    )


class Bands(ctypes.Structure):
    """Equal entries that a pass looks at, as select.h declares it."""

    _fields_ = (
        ("n", ctypes.c_int32),
        ("first", ctypes.c_uint32),
        ("values", ctypes.c_void_p),
        ("limits", ctypes.c_void_p),
        ("below", ctypes.c_void_p),
        ("inside", ctypes.c_void_p),
        ("room", ctypes.c_int64),
        ("places", ctypes.c_void_p),
    )


class Rule(ctypes.Structure):
    """How a chunk's experts combine, as prune.h declares it."""

    _fields_ = (
        ("ties", ctypes.c_int32),
        ("normalize", ctypes.c_int32),
        ("zero_is_positive", ctypes.c_int32),
        ("divisor", ctypes.c_float),
        ("strength", ctypes.c_float),
        ("base_weight", ctypes.c_float),
        ("competition", ctypes.c_int32),
        ("masks", ctypes.c_int32),
        ("task", ctypes.c_int32),
        ("agreement", ctypes.c_int32),
        ("zero_is_negative", ctypes.c_int32),
        ("scale", ctypes.c_float),
        ("epsilon", ctypes.c_float),
        ("selection", ctypes.POINTER(Expert)),
    )


class Spread(ctypes.Structure):
    """Several experts taken as one, as values.h declares it."""

    _fields_ = (
        ("n", ctypes.c_int32),
        ("types", ctypes.c_int32 * MAX_EXPERTS),
        ("data", ctypes.c_void_p * MAX_EXPERTS),
        ("energy", ctypes.c_void_p),
    )


@functools.cache
def library() -> ctypes.CDLL | None:
    """The loaded library, built if need be; None without a compiler or where building fails."""
    target = _target()
    if target is None:
        return None
    try:
        if not target.exists():
            _build(target)
        return _declare(ctypes.CDLL(str(target)))
    except (OSError, subprocess.SubprocessError) as error:
        log.warning("fused loops are not available: %s", error)
        return None


def is_built() -> bool:
    """True where loading costs no compilation."""
    target = _target()
    return target is not None and target.exists()


def can_build() -> bool:
    """True where there is a compiler."""
    return _target() is not None


@functools.cache
def cache_folder() -> Path:
    """Where Amalgam keeps what can be made again: AMALGAM_CACHE, else the user's cache folder, else
    a folder of the user's own among the temporary ones."""
    if chosen := os.environ.get("AMALGAM_CACHE"):
        return Path(chosen)
    own = Path(tempfile.gettempdir()) / f"amalgam-{os.getuid()}"
    try:
        folder = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "amalgam"
        folder.mkdir(parents=True, exist_ok=True)
        if os.access(folder, os.W_OK):
            return folder
    except (OSError, RuntimeError):
        pass  # no home, or one that cannot be written
    with contextlib.suppress(OSError):
        own.mkdir(mode=0o700, exist_ok=True)
        if own.stat().st_uid == os.getuid() and not own.is_symlink():
            return own
    return Path(tempfile.mkdtemp(prefix="amalgam-"))  # another's folder has that name


@functools.cache
def _target() -> Path | None:
    compiler = _compiler()
    if compiler is None:
        return None
    source = b"".join(path.read_bytes() for path in sorted(SOURCE.parent.glob("*.[ch]")))
    parts = [source, " ".join(_FLAGS).encode(), compiler.encode(), _processor()]
    name = hashlib.sha256(b"\0".join(parts)).hexdigest()[:20]
    return cache_folder() / f"kernels-{name}.so"


def _compiler() -> str | None:
    choice = os.environ.get("CC")
    return next(
        (path for name in (choice, "cc", "gcc", "clang") if name and (path := shutil.which(name))),
        None,
    )


def _processor() -> bytes:
    """What -march=native depends on."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        flags = next(line for line in lines if line.startswith(("flags", "Features")))
    except (OSError, StopIteration):
        flags = platform.processor()
    return f"{platform.machine()} {flags}".encode()


def _build(target: Path) -> None:
    """Compiles into a temporary file and renames it, so that two processes can build at once."""
    target.parent.mkdir(parents=True, exist_ok=True)
    descriptor, partial = tempfile.mkstemp(dir=target.parent, suffix=".so")
    os.close(descriptor)
    command = [_compiler() or "cc", *_FLAGS, str(SOURCE), "-o", partial, "-lm"]
    try:
        subprocess.run(command, check=True, capture_output=True, timeout=120)
        os.replace(partial, target)
    finally:
        Path(partial).unlink(missing_ok=True)


def _declare(loaded: ctypes.CDLL) -> ctypes.CDLL:
    p, i, l64 = ctypes.c_void_p, ctypes.c_int, ctypes.c_int64
    u = ctypes.c_uint32
    expert, rule, bands = map(ctypes.POINTER, (Expert, Rule, Bands))
    signatures = {
        "amalgam_histogram": (None, [p, i, expert, l64, l64, i, p, p]),
        "amalgam_collect": (u, [p, i, p, i, l64, l64, i, p, p, p, p, l64, p, p, l64, p]),
        "amalgam_look": (None, [p, i, p, i, l64, bands]),
        "amalgam_select": (u, [p, l64, l64, u, u, p, p]),
        "amalgam_norm": (None, [p, i, p, i, l64, p]),
        "amalgam_gram": (None, [p, i, p, p, i, l64, p]),
        "amalgam_pruned_norms": (None, [p, i, expert, l64, l64, p]),
        "amalgam_ranked": (i, [p, i, p, i, l64, l64, l64, u, u, u, u, p, p]),
        "amalgam_differing": (l64, [p, i, p, l64]),
        "amalgam_mask_sums": (None, [p, i, expert, i, rule, l64, l64, p, p]),
        "amalgam_count": (None, [p, i, p, i, l64, i, p, p]),
        "amalgam_profile": (None, [p, i, p, p, i, l64, p, p, p, p, p, i, p, p, p, l64, p]),
        "amalgam_score_histogram": (None, [p, i, expert, i, rule, l64, l64, i, p, p]),
        "amalgam_merge": (l64, [p, i, expert, i, rule, l64, l64, p, i, p]),
        "amalgam_balance": (l64, [p, i, expert, i, l64, l64]),
        "amalgam_checksum": (ctypes.c_uint64, [p, l64, l64]),
        "amalgam_map": (p, [i, l64]),
        "amalgam_gather": (l64, [i, l64, l64, l64, l64, p]),
        "amalgam_unmap": (None, [p, l64]),
        "amalgam_bring": (None, [p, l64]),
        "amalgam_drop": (None, [p, l64]),
        "amalgam_lost": (i, []),
    }
    for name, (result, arguments) in signatures.items():
        function = getattr(loaded, name)
        function.restype, function.argtypes = result, arguments
    return loaded
