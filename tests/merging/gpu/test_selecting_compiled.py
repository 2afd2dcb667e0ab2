"""What finds order statistics compiles for a GPU and keeps all it works on in registers. That needs
no GPU; interpreted kernels, which other tests run, may hold what compilers refuse."""

from __future__ import annotations

from tests.merging.gpu import offline

SCRIPT = """
from merging.gpu import selection_kernels, sifting_kernels, table
from merging.gpu import tallying_kernels as tallying
from merging.gpu.elements import TYPES
from tests.merging.gpu.offline import check_registers

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
    warps = tallying.WARPS if kernel is tallying.tally else 4
    check_registers(kernel, POINTERS | {"bounds": bounds}, "*i32", constants, num_warps=warps)
"""


def test_kernels_compile_and_spill_nothing() -> None:
    offline.run(SCRIPT)
