"""Some of the folders that nobody should have: each is refused in a line, or merged."""

from __future__ import annotations

from tests.mutated_folders import Outcome, mutations, try_all


def test_no_folder_stops_the_program() -> None:
    summary, faulty = try_all(64, seed=0)
    assert not faulty, "\n".join(faulty)
    assert summary.startswith("64 folders, 0 commands at fault")


def test_a_seed_gives_the_same_folders_and_no_two_alike() -> None:
    first, again, other = ([one.name for one in mutations(400, seed)] for seed in (1, 1, 2))
    assert first == again != other
    assert len(set(first)) == 400
    assert len({one.name for one in mutations(2000)}) == 2000


def test_every_fault_is_named() -> None:
    def faults(
        status: int | None, err: str = "", seconds: float = 1.0, remains: tuple = ()
    ) -> list:
        return Outcome("merge", status, err, seconds, 10**8, remains).faults

    assert faults(0) == faults(0, "note: x\n") == faults(2, "error: no\n") == []
    assert faults(None, "Traceback\n") == ["status None", "a traceback"]
    assert faults(-9, "no answer", 100.0) == ["status -9", "100.0 s"]
    assert faults(2) == ["no word of why"]
    assert faults(2, "error: a\nerror: b\n") == ["lines"]
    assert faults(2, "error: \x1b" + "x" * 600) == ["a line too long", "a control character"]
    assert faults(2, "error: no\n", remains=(".merged.partial-1",)) == ["left .merged.partial-1"]
    assert Outcome("merge", 0, "", 1.0, 2 * 10**9).faults == ["2000 MB"]
