"""The family that stays in a device's memory. What needs a GPU runs here on the CPU."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from merging.checkpoints import Family, open_checkpoint, open_family
from merging.engines.residents import Residents
from merging.engines.sources import Files, KeptFamily
from tests.families import write_family


@pytest.fixture
def family(tmp_path: Path) -> Family:
    base = {"x": torch.zeros(50, 7)}
    parent = write_family(tmp_path, base, [{"x": torch.ones(50, 7)}])
    expert = open_checkpoint(parent / "expert0", "expert0")
    return open_family(open_checkpoint(parent / "base", "base"), [expert])


def everywhere(family: Family, device: str) -> bool:
    return True


def test_on_the_cpu_files_are_the_source(family: Family) -> None:
    assert isinstance(Residents().source(family, "cpu"), Files)


def test_a_family_is_read_once(family: Family) -> None:
    residents = Residents(everywhere)
    first = residents.source(family, "cpu")
    assert isinstance(first, KeptFamily)
    assert residents.source(family, "cpu") is first
    assert Residents(everywhere).source(family, "cpu") is not first, "each keeps its own"


def test_another_content_is_another_family(family: Family) -> None:
    residents = Residents(everywhere)
    first = residents.source(family, "cpu")
    file = family.base.tensors["x"].file
    file.write_bytes(file.read_bytes())
    assert residents.source(family, "cpu") is not first


def test_what_is_let_go_of_is_read_again(family: Family) -> None:
    residents = Residents(everywhere)
    first = residents.source(family, "cpu")
    residents.release("cpu")
    assert residents.source(family, "cpu") is not first
