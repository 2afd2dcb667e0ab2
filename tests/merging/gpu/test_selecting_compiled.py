"""What finds order statistics compiles for a GPU and keeps all it works on in registers. That needs
no GPU; interpreted kernels, which other tests run, may hold what compilers refuse."""

from __future__ import annotations

import subprocess
import sys

SCRIPT = """
import os, subprocess, tempfile
os.environ.pop("TRITON_INTERPRET", None)
import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource
from merging.gpu import selection_kernels, sifting_kernels, table
from merging.gpu import tallying_kernels as tallying
from merging.gpu.elements import TYPES

TOOL = os.path.join(os.path.dirname(triton.__file__), "backends", "nvidia", "bin", "cuobjdump")
POINTERS = {"addresses": "*i64", "factors": "*fp32", "room": "i32", "buckets": "i32",
            "sums": "*fp64"}
stored = tuple(TYPES[name] for name in ("BF16", "F32", "BF16"))
game = sifting_kernels.Sifted(stored, (0, 1), table.VARIANTS["pairwise"], 2)
tallied = tallying.Tallied((TYPES["BF16"],) * 4, 2)
sought = selection_kernels.Sought(stored, 2)
size = {"block": 512, "blocks": 8}
for kernel, constants, bounds in [
    (sifting_kernels.sift, {"kind": game, **size}, "*fp32"),
    (sifting_kernels.weigh, {"kind": game, "step": 4096, "block": 128}, "*fp32"),
    (selection_kernels.count, {"kind": sought, **size}, "*i32"),
    (tallying.above, {"kind": tallied, **size}, "*fp32"),
    (tallying.add, {"kind": tallied, **size}, "*fp32"),
    (tallying.tally, {"kind": tallied, "block": tallying.BLOCK}, "*fp32"),
]:
    types = POINTERS | {"bounds": bounds} | dict.fromkeys(constants, "constexpr")
    signature = {name: types.get(name, "*i32") for name in kernel.arg_names}
    options = {"num_warps": tallying.WARPS if kernel is tallying.tally else 4}
    source = ASTSource(kernel, signature, constants)
    made = triton.compile(source, GPUTarget("cuda", 90, 32), options=options)
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(made.asm["cubin"])
        file.flush()
        told = subprocess.check_output([TOOL, "-res-usage", file.name], text=True)
    assert "STACK:0 " in told and "LOCAL:0 " in told, told
"""


def test_kernels_compile_and_spill_nothing() -> None:
    done = subprocess.run([sys.executable, "-c", SCRIPT], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
