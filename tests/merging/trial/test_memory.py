"""Free memory, as the system's limits allow."""

from __future__ import annotations

import os
import resource

import psutil

from merging.trial.memory import batch_bytes, free_bytes


def test_a_limit_on_addresses_is_heeded() -> None:
    before = resource.getrlimit(resource.RLIMIT_AS)
    taken = psutil.Process(os.getpid()).memory_info().vms
    resource.setrlimit(resource.RLIMIT_AS, (taken + (256 << 20), before[1]))
    try:
        limited = free_bytes()
    finally:
        resource.setrlimit(resource.RLIMIT_AS, before)
    assert 0 < limited <= 256 << 20 < free_bytes()
    assert 0 < batch_bytes() <= free_bytes()
