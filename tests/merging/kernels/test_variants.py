"""The loops as compiled for other processors give the same bits as those for this one."""

from __future__ import annotations

import ctypes
import subprocess
from pathlib import Path

import numpy as np
import pytest
import torch

from merging import kernels
from merging.instructions import draws
from merging.instructions.masks import variance
from merging.instructions.ranked import Ranked, limits

SIZE = 10_007  # whole blocks and a part of one
NEAR = ((0x3C00, 0x3C90), (0x3D00, 0x3D08))  # upper bits: about 0.008 to 0.018, 0.031 to 0.033
ROOM = 4096


V3 = {"avx2", "bmi2", "f16c", "fma"} <= set(kernels._processor().decode().split())
LEVELS = {"baseline": [], **({"x86-64-v3": ["-march=x86-64-v3"]} if V3 else {})}


def compiled_for(level: str, folder: Path) -> ctypes.CDLL:
    flags = [flag for flag in kernels._FLAGS if not flag.startswith("-march")]
    target = folder / "kernels.so"
    compiler = kernels._compiler()
    assert compiler
    files = [str(kernels.SOURCE), "-o", str(target), "-lm"]
    subprocess.run([compiler, *flags, *LEVELS[level], *files], check=True, capture_output=True)
    return kernels._declare(ctypes.CDLL(str(target)))


def rounded(values: np.ndarray) -> np.ndarray:
    """float32 as the upper halves of bfloat16."""
    return (values.astype(np.float32).view(np.uint32) >> 16).astype(np.uint16)


def family(kind: str, seed: int) -> list[np.ndarray]:
    """Raw base and three experts: heavy-tailed changes, many of them zero or equal."""
    draw = np.random.default_rng(seed)
    base = draw.normal(0, 0.02, SIZE).astype(np.float32)
    experts = [base + draw.standard_t(3, SIZE) * 3e-3 for _ in range(3)]
    experts[1][::3] = base[::3]
    experts[2][:] = base + np.float32(2.0**-9) * draw.integers(-2, 3, SIZE)
    scale = np.float32(1e-20 if kind == "tiny" else 1)  # squares of tiny ones are too small to add
    raw = [one.astype(np.float32) * scale for one in (base, *experts)]
    return [rounded(one) for one in raw] if kind == "BF16" else raw


def profile(library: ctypes.CDLL, raw: list[np.ndarray], kind: str) -> dict[str, np.ndarray]:
    """Everything amalgam_profile writes."""
    experts, near = len(raw) - 1, len(NEAR)
    dtype = 1 if kind == "BF16" else 0
    out = {
        "tables": np.zeros((experts, 2, kernels.TABLE), np.uint32),
        "sums": np.zeros((experts, 2)),
        "top": np.zeros(experts, np.uint32),
        "dots": np.zeros((experts, experts)),
        "base": np.zeros(1),
        "found": np.zeros((experts, near), np.int64),
        "keys": np.zeros((experts, near, ROOM), np.uint32),
    }
    first, last = (np.array([[one[k] for one in NEAR]] * experts, np.uint16) for k in (0, 1))
    pointers = (ctypes.c_void_p * experts)(*(one.ctypes.data for one in raw[1:]))
    types = (ctypes.c_int32 * experts)(*[dtype] * experts)
    library.amalgam_profile(
        raw[0].ctypes.data, dtype, pointers, types, experts, SIZE,
        out["tables"].ctypes.data, out["sums"].ctypes.data, out["top"].ctypes.data,
        out["dots"].ctypes.data, out["base"].ctypes.data, near, first.ctypes.data,
        last.ctypes.data, out["found"].ctypes.data, ROOM, out["keys"].ctypes.data,
    )  # fmt: skip
    out["tables"] = out["tables"].sum(axis=1)  # which half an entry is counted in is free
    return out


@pytest.fixture(scope="module", params=LEVELS)
def other(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> ctypes.CDLL:
    """The loops compiled for another processor, once for all tests."""
    return compiled_for(request.param, tmp_path_factory.mktemp(request.param))


@pytest.mark.parametrize("kind", ["BF16", "F32", "tiny"])
def test_a_profile_is_the_same_on_other_processors(other: ctypes.CDLL, kind: str) -> None:
    ours = kernels.library()
    assert ours is not None
    raw = family(kind, 7)
    here = profile(ours, raw, kind)
    there = profile(other, raw, kind)
    for name, values in here.items():
        assert np.array_equal(values, there[name]), name
    assert (here["sums"] > 0).all()


@pytest.mark.parametrize("kind", ["BF16", "F32"])
def test_a_profile_counts_what_numpy_counts(kind: str) -> None:
    ours = kernels.library()
    assert ours is not None
    raw = family(kind, 8)
    found = profile(ours, raw, kind)
    wide = [
        (one.astype(np.uint32) << 16).view(np.float32) if kind == "BF16" else one for one in raw
    ]
    for index, expert in enumerate(wide[1:]):
        bits = np.abs(expert - wide[0]).view(np.uint32)
        fine = (bits & 0xFFFF) != 0
        places = (bits >> 16) + np.where(fine, 1 << 15, 0)
        expected = np.bincount(places, minlength=1 << 16)
        assert np.array_equal(found["tables"][index, : 1 << 16], expected)
        assert found["top"][index] == bits.max()
        for k, (low, high) in enumerate(NEAR):
            inside = bits[fine & (bits >> 16 >= low) & (bits >> 16 <= high)]
            assert found["found"][index, k] == inside.size
            assert np.array_equal(found["keys"][index, k, : inside.size], inside)
    assert found["found"][0, 0] > 100


def kept_by_rank(library: ctypes.CDLL, raw: list[np.ndarray], drawn: Ranked, columns: int) -> bytes:
    """The bits that amalgam_ranked sets for the last expert, whole rows of so many columns."""
    rows, dtype = SIZE // columns, 1 if raw[0].dtype == np.uint16 else 0
    bits, sums = np.zeros(SIZE // 8 + 1, np.uint8), np.zeros(2)
    low, high = (drawn.low, drawn.high) if columns > 1 else (drawn.only, drawn.only)
    first, second = (key & 0xFFFFFFFF for key in drawn.keys)
    failed = library.amalgam_ranked(
        raw[0].ctypes.data, dtype, raw[-1].ctypes.data, dtype, 0, rows, columns, low, high, first,
        second, bits.ctypes.data, sums.ctypes.data,
    )  # fmt: skip
    assert not failed
    delta = widened(raw[-1])[: rows * columns] - widened(raw[0])[: rows * columns]
    magnitudes = np.abs(delta.astype(np.float64))
    kept = np.unpackbits(bits, bitorder="little")[: magnitudes.size] == 1
    assert sums == pytest.approx([magnitudes.sum(), magnitudes[kept].sum()])
    return bits.tobytes()


def widened(raw: np.ndarray) -> np.ndarray:
    return (raw.astype(np.uint32) << 16).view(np.float32) if raw.dtype == np.uint16 else raw


@pytest.mark.parametrize("columns", [1, 2, 77, 1000, 5003])
@pytest.mark.parametrize("kind", ["BF16", "F32", "close"])
def test_draws_by_rank_are_those_of_torch_on_every_processor(
    other: ctypes.CDLL, kind: str, columns: int
) -> None:
    ours = kernels.library()
    assert ours is not None
    raw = family(kind, 9)[:2]
    if kind == "close":  # changes that differ in their last bits: many ranks must be counted
        raw[0][:] = 0
        raw[1][:] = 1 + np.random.default_rng(9).integers(0, 4000, SIZE) * np.float32(2.0**-23)
    drawn = Ranked((1234567, -7654321), 1 << 21, 15 << 20, 1 << 23)
    size = SIZE // columns * columns
    delta = torch.from_numpy(widened(raw[1])[:size] - widened(raw[0])[:size])
    below = limits(delta.reshape(-1, columns), drawn).flatten()
    kept = draws.kept_at(torch.arange(size), *drawn.keys, below).numpy()
    expected = np.zeros(8 * (SIZE // 8 + 1), bool)
    expected[:size] = kept
    for library in (ours, other):
        found = kept_by_rank(library, raw, drawn, columns)
        assert found == np.packbits(expected, bitorder="little").tobytes()


@pytest.mark.parametrize("count", [3, 5, 6, 7, 11])
def test_a_variance_is_that_of_torch_on_every_processor(other: ctypes.CDLL, count: int) -> None:
    ours = kernels.library()
    assert ours is not None
    draw = np.random.default_rng(count)
    rows = draw.standard_t(3, (count, SIZE)).astype(np.float32)
    rows[:, ::5] *= np.float32(1e-18)
    rows[1:, ::7] = rows[0, ::7]
    expected = variance(list(torch.from_numpy(rows))).numpy().view(np.uint32)
    for library in (ours, other):
        assert np.array_equal(variances(library, rows), expected)


def variances(library: ctypes.CDLL, rows: np.ndarray) -> np.ndarray:
    """The bits of all variances, as amalgam_collect collects them."""
    spread, base = kernels.Spread(len(rows)), np.zeros(SIZE, np.float32)
    for index, row in enumerate(rows):
        spread.data[index], spread.types[index] = row.ctypes.data, 0
    low, high = np.zeros(1, np.uint32), np.full(1, 0x7FFFFFFF, np.uint32)
    above, found = np.zeros((2, 1), np.int64)
    keys, indices = np.zeros((2, SIZE + 32), np.uint32)
    library.amalgam_collect(
        base.ctypes.data, 0, ctypes.addressof(spread), 4, 0, SIZE, 1, low.ctypes.data,
        high.ctypes.data, above.ctypes.data, found.ctypes.data, SIZE, keys.ctypes.data,
        indices.ctypes.data, 1, np.zeros(1024, np.uint32).ctypes.data,
    )  # fmt: skip
    assert found[0] == SIZE
    return keys[:SIZE]
