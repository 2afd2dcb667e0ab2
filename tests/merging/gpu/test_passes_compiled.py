"""What draws by rank and selects by variance compiles for a GPU and keeps all it works on in
registers. That needs no GPU; interpreted kernels, which other tests run, may hold what compilers
refuse."""

from __future__ import annotations

import subprocess
import sys

SCRIPT = """
import os, subprocess, tempfile
os.environ.pop("TRITON_INTERPRET", None)
import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource
from merging.gpu import drawing_kernels, launching, order, table, triton_kernels
from merging.gpu import weighing_kernels as weighing
from merging.gpu.table import CHANCED, RANKED, RESCALED, Shape

TOOL = os.path.join(os.path.dirname(triton.__file__), "backends", "nvidia", "bin", "cuobjdump")
TYPES = {"addresses": "*i64", "numbers": "*i32", "factors": "*fp32", "records": "*i32",
         "sums": "*fp64"}
ties = table.ELECTED + table.NORMALIZED + table.ZERO_IS_POSITIVE + table.EVEN
rest = (True,) * 3, (False,) * 3, True, ties, "BF16"
rescaled = Shape(("BF16",) * 4, (RESCALED,) * 3, *rest)
mixed = Shape(("BF16",) * 4, (CHANCED, RANKED, RESCALED), *rest)
kept = ("BF16",) * 4, (0,) * 3, (True,) * 3, (False,) * 3, True
alike = Shape(*kept, table.SELECTED + table.EVEN, "BF16", 0, (), True)
weighed = Shape(*kept, table.SELECTED + table.EVEN + table.WEIGHED, "BF16", 0, (), True)
size = {"block": 512, "blocks": 8, "near": order.NEAR}
listed = size | {"block": triton_kernels.MENDED}
for kernel, shape, sizes in [
    (drawing_kernels.draw, rescaled, size), (drawing_kernels.draw, mixed, size),
    (triton_kernels.merge, mixed, size), (triton_kernels.merge, alike, size),
    (triton_kernels.locate, alike, size), (triton_kernels.mend, alike, listed),
    (weighing.weigh, weighed, size), (weighing.weigh_listed, weighed, listed),
]:
    values = {"kind": launching._kind(shape, "cpu"), **sizes}
    constants = {name: values[name] for name in values if name in kernel.arg_names}
    types = TYPES | dict.fromkeys(constants, "constexpr")
    signature = {name: types.get(name, "i32") for name in kernel.arg_names}
    source = ASTSource(kernel, signature, constants)
    options = {"enable_fp_fusion": False}
    if kernel is weighing.weigh:
        options["maxnreg"] = triton_kernels.REGISTERS
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
