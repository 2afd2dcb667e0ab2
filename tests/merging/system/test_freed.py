"""Memory that was freed goes back to the system."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[3]
CODE = """
import psutil
from merging.system.freed import keep_large_apart
keep_large_apart()
resident = lambda: psutil.Process().memory_info().rss
before = resident()
large = bytearray(24 << 20)
del large  # from here on the C library would keep what is of this size
small = []
for _ in range(8):
    large = bytearray(16 << 20)
    small.append(bytearray(1000))
    kept = small, large
    del large
del kept
print(resident() - before)
"""


def test_what_is_large_is_the_systems_again_once_it_is_freed() -> None:
    done = subprocess.run([sys.executable, "-c", CODE], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) < 4 << 20
