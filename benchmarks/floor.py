"""The floor of any merge: reads every input byte and writes as many bytes as the output has.

`python -m benchmarks.floor BASE EXPERT... --out FILE`. Plain reads into one reused buffer, plain
writes; no arithmetic, no torch.
"""

from __future__ import annotations

import argparse
import mmap
import os
from pathlib import Path

BLOCK = 1 << 24


def read_all(folders: list[Path]) -> int:
    """Reads every safetensors file of the folders. Returns the bytes read."""
    buffer = mmap.mmap(-1, BLOCK)  # begins at a page: some processors copy slower elsewhere
    total = 0
    for folder in folders:
        for path in sorted(folder.glob("*.safetensors")):
            with path.open("rb", buffering=0) as handle:
                while count := handle.readinto(buffer):
                    total += count
    return total


def write_as_many(folder: Path, out: Path) -> None:
    """Writes as many bytes as the safetensors files of `folder` have."""
    rest = sum(path.stat().st_size for path in folder.glob("*.safetensors"))
    block = memoryview(mmap.mmap(-1, BLOCK))
    with out.open("wb", buffering=0) as handle:
        while rest:
            rest -= handle.write(block[: min(rest, BLOCK)])


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("models", nargs="+", type=Path)
    parser.add_argument("--out", type=Path)
    args = parser.parse_args()
    read_all(args.models)
    if args.out:
        write_as_many(args.models[0], args.out)
        os.unlink(args.out)


if __name__ == "__main__":
    main()
