"""Kernels compiled for a GPU that is not there: interpreted ones, which other tests run, are Python
and may hold what a compiler refuses."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from typing import Any


def run(script: str) -> None:
    """Runs a script in a process that does not interpret kernels. Fails where it does."""
    env = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}
    command = [sys.executable, "-c", script]
    done = subprocess.run(command, capture_output=True, text=True, env=env)
    assert done.returncode == 0, done.stderr[-2000:]


def check_registers(
    kernel: Any, types: Mapping[str, str], rest: str, constants: Mapping[str, Any], **options: Any
) -> None:
    """Compiles a kernel for an H100, and sees that it keeps all it works on in registers.

    Args:
        types: of its arguments; of those that are not named, `rest`.
        constants: arguments that it is compiled for.
        options: of the compiler.
    """
    import triton
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    tool = os.path.join(os.path.dirname(triton.__file__), "backends/nvidia/bin/cuobjdump")
    types = {**types, **dict.fromkeys(constants, "constexpr")}
    signature = {name: types.get(name, rest) for name in kernel.arg_names}
    source = ASTSource(kernel, signature, dict(constants))
    made = triton.compile(source, GPUTarget("cuda", 90, 32), options=options)
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(made.asm["cubin"])
        file.flush()
        usage = subprocess.check_output([tool, "-res-usage", file.name], text=True)
    assert "STACK:0 " in usage and "LOCAL:0 " in usage, usage
