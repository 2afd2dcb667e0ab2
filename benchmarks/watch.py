"""Runs a command and prints its exit status, wall seconds, CPU seconds and peak resident bytes.

    python -S watch.py LOG COMMAND...

A program of its own, and a small one: a process begins with the peak memory of the one that starts
it, so a large one cannot measure what it starts itself.
"""

from __future__ import annotations

import os
import sys
import time


def main(log: str, command: list[str]) -> None:
    """Runs the command, its output into `log`."""
    output = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    actions = [(os.POSIX_SPAWN_DUP2, output, 1), (os.POSIX_SPAWN_DUP2, output, 2)]
    started = time.perf_counter()
    process = os.posix_spawnp(command[0], command, os.environ, file_actions=actions)
    _, status, usage = os.wait4(process, 0)
    wall = time.perf_counter() - started
    cpu = usage.ru_utime + usage.ru_stime
    print(os.waitstatus_to_exitcode(status), wall, cpu, usage.ru_maxrss * 1024)


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2:])
