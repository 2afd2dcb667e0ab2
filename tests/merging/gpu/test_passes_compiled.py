"""What draws by rank and selects by variance compiles for a GPU and keeps all it works on in
registers. That needs no GPU; interpreted kernels, which other tests run, may hold what compilers
refuse."""

from __future__ import annotations

from tests.merging.gpu import offline

SCRIPT = """
from merging.gpu import drawing_kernels, launching, order, table, triton_kernels
from merging.gpu import weighing_kernels as weighing
from merging.gpu.table import CHANCED, RANKED, RESCALED, Shape
from tests.merging.gpu.offline import check_registers

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
    options = {"maxnreg": triton_kernels.REGISTERS} if kernel is weighing.weigh else {}
    check_registers(kernel, TYPES, "i32", constants, enable_fp_fusion=False, **options)
"""


def test_kernels_compile_and_spill_nothing() -> None:
    offline.run(SCRIPT)
