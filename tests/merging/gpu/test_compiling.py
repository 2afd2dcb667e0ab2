"""Every kind of kernel compiles for a GPU, which needs no GPU: interpreted kernels, which other
tests run where there is none, are Python and may hold what a compiler refuses."""

from __future__ import annotations

from tests.merging.gpu import offline

SCRIPT = """
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource, compile
from merging.gpu import launching, table, triton_kernels as own
from merging.gpu.table import Shape

TYPES = {"addresses": "*i64", "numbers": "*i32", "factors": "*fp32", "records": "*i32"}
SIZES = {"near": 256, "blocks": own.BLOCKS, "columns": 17, "rings": 3}
ties = table.ELECTED + table.NORMALIZED + table.ZERO_IS_POSITIVE
many = ("BF16", "F32", "F16", "BF16"), (4, 1, -1), (True, False, True), (True, True, False)
kinds = [
    Shape(*many, True, ties, "F16"),
    Shape(("BF16",) * 4, (0, -2, 2), (True,) * 3, (False,) * 3, False, table.AVERAGED, "BF16"),
    Shape(("BF16",) * 3, (1, 1), (False,) * 2, (True,) * 2, True, table.EVEN, "BF16", 3, (0, 1)),
]
target = GPUTarget("cuda", 90, 32)
for kind in [launching._kind(shape, "cpu") for shape in kinds]:
    for doubles, kernel in [(True, own.locate), (True, own.merge), (True, own.settle),
                            (True, own.mend), (False, own.merge)]:
        values = SIZES | {"kind": kind._replace(doubles=doubles), "block": own.BLOCK}
        if kernel in (own.settle, own.mend):
            values["block"] = {own.settle: own.SETTLED, own.mend: own.MENDED}[kernel]
        names = list(enumerate(kernel.arg_names))
        types = {"sums": "*fp64"} | TYPES | dict.fromkeys(values, "constexpr")
        signature = {n: types.get(n, "i32") for _, n in names}
        constants = {(i,): values[n] for i, n in names if n in values}
        source = ASTSource(kernel, signature, constants, {})
        made = compile(source, target=target, options={"enable_fp_fusion": False})
        assert "ptx" in made.asm
"""


def test_kernels_compile_for_a_gpu() -> None:
    offline.run(SCRIPT)
