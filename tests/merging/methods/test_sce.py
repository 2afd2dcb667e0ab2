"""SCE: select, calculate, erase."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from merging.checkpoints import open_family
from merging.engines.eager import Stream
from merging.engines.fused import FusedStream
from merging.errors import NonFinite
from merging.instructions import Keep
from merging.instructions.masks import erase, variance
from merging.methods.sce import count_alike, selection, weights
from merging.recipe import from_mapping
from merging.run.lowering import lower
from tests.families import document, write_family
from tests.shelf import Case, cases


@pytest.fixture(params=[Stream, FusedStream], ids=["torch", "loops"])
def merged(request: pytest.FixtureRequest, tmp_path: Path) -> Callable[..., torch.Tensor]:
    """Merges changes of a base of zeros through each engine, in chunks of so many entries."""

    def merge(
        changes: list[torch.Tensor], select_topk: float, size: int = 40, small: str = "equal"
    ) -> torch.Tensor:
        parent = tmp_path / str(len(list(tmp_path.iterdir())))
        name = "model.layers.0.mlp.up_proj.weight"
        experts = [{name: change.reshape(1, -1)} for change in changes]
        write_family(parent, {name: torch.zeros_like(experts[0][name])}, experts)
        values = {"select_topk": select_topk, "small": small}
        recipe = from_mapping(document("sce", len(changes), values), parent)
        models = {f"expert{i}": parent / f"expert{i}" for i in range(len(changes))}
        family = open_family(parent / "base", models)
        stream = request.param(family, chunk=size)
        stream.resident = size
        reader = stream.open(family.merged[0])
        decisions, outcome = lower(recipe, stream).decide(reader)
        parts = []
        for chunk in reader.merge(decisions, outcome, "F32"):
            if not chunk.finite:
                raise NonFinite("seen when it is written")
            parts.append(bytes(chunk.values))
        return torch.frombuffer(bytearray(b"".join(parts)), dtype=torch.float32)

    return merge


@pytest.mark.parametrize("case", cases("sce"))
def test_numbers_are_those_of_mergekit(case: Case, merged) -> None:
    assert case.close(case.from_base(merged(case.changes, case.parameters["select_topk"])))


def test_a_worked_example(merged) -> None:
    # variances 0.25, 0, 1, 2.25: of three that differ int(0.7 * 3) = 2 stay, entries 2 and 3.
    # mean squares (4 + 1) / 4 and (0 + 4) / 4: weights 5/9 and 4/9; entry 3 elects -.
    first = torch.tensor([1.0, 1.0, 2.0, 1.0])
    second = torch.tensor([2.0, 1.0, 0.0, -2.0])
    assert variance([first, second]).tolist() == [0.25, 0.0, 1.0, 2.25]
    assert merged([first, second], 0.7).tolist() == pytest.approx([0.0, 0.0, 2.0, -2.0])
    # everything stays: sums of squares 7 and 9, so entry 0 is (7 * 1 + 9 * 2) / 16
    assert merged([first, second], 1.0).tolist() == pytest.approx([25 / 16, 1.0, 2.0, -2.0])


def test_chunks_change_nothing(merged) -> None:
    changes = list(torch.randn(3, 500, generator=torch.Generator().manual_seed(0)).unbind())
    whole = merged(changes, 0.3, size=500)
    assert torch.allclose(merged(changes, 0.3, size=150), whole, atol=1e-7)
    assert int((whole != 0).sum()) == 150


def test_of_equal_variances_exactly_as_many_stay_as_asked_for(merged) -> None:
    generator = torch.Generator().manual_seed(1)
    changes = [torch.randint(0, 2, (40_000,), generator=generator).float() for _ in range(2)]
    differ = int((changes[0] != changes[1]).sum())
    left = merged(changes, 0.25, size=9_000)
    assert int((left != 0).sum()) == differ // 4


def test_equal_changes_have_no_variance(merged) -> None:
    tenth = torch.full((5,), 0.1)
    assert not variance([tenth] * 3).any()
    assert not merged([tenth] * 3, 0.5).any()
    assert torch.allclose(merged([tenth] * 3, 1.0), tenth)


def test_the_order_of_the_models_makes_no_variance_larger() -> None:
    row = torch.tensor([0.1, -0.3, 0.7])
    values = [
        variance([row[i : i + 1], row[j : j + 1], row[k : k + 1]]).item()
        for i, j, k in ((0, 1, 2), (1, 2, 0), (2, 1, 0), (2, 0, 1))
    ]
    assert values == [values[0]] * 4


def test_the_variance_is_that_of_torch_to_the_bit() -> None:
    changes = torch.randn(3, 2000, generator=torch.Generator().manual_seed(4))
    assert torch.equal(variance(changes.unbind()), changes.var(dim=0, correction=0))


def test_mean_squares_below_a_millionth_weigh_all_models_alike_unless_told_otherwise() -> None:
    energies = np.array([3e-5, 1e-5])
    assert weights(energies, 100) == (0.5, 0.5)
    assert weights(energies, 100, "weigh") == pytest.approx((0.75, 0.25))
    assert weights(energies * 10, 100) == pytest.approx((0.75, 0.25))
    assert weights(np.zeros(2), 100, "weigh") == (0.5, 0.5)


def test_an_exact_cancellation_elects_plus() -> None:
    assert erase([torch.tensor([0.6]), torch.tensor([-0.6])], (0.5, 0.5)).tolist() == [
        pytest.approx(0.6)
    ]


def test_selecting_nothing_gives_the_base(merged) -> None:
    changes = [torch.tensor([1.0, 2.0]), torch.tensor([0.5, -1.0])]
    assert merged(changes, 0.0).tolist() == [0.0, 0.0]
    assert merged(changes, 0.4).tolist() == [0.0, 0.0]  # int(0.4 * 2) = 0


@pytest.mark.parametrize("select_topk", [0.5, 1.0])
def test_what_is_not_finite_is_an_error(select_topk: float, merged) -> None:
    changes = [torch.tensor([1.0, float("nan")]), torch.tensor([0.5, 1.0])]
    with pytest.raises(NonFinite):
        merged(changes, select_topk)


@pytest.mark.parametrize("engine", [Stream, FusedStream])
def test_the_cut_counts_what_differs_only(engine, tmp_path: Path) -> None:
    values = torch.tensor([0.0] * 90 + [1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0, 9.0, 10.0])
    name = "model.layers.0.mlp.up_proj.weight"
    zeros = torch.zeros(10, 10)
    write_family(tmp_path, {name: zeros}, [{name: values.reshape(10, 10)}, {name: zeros}])
    models = {f"e{i}": tmp_path / f"expert{i}" for i in range(2)}
    family = open_family(tmp_path / "base", models)
    spread = engine(family).open(family.merged[0]).spread([Keep()] * 2)
    cut = selection(spread, 100, 0.3)
    assert cut.value == 16.0  # three of ten: variances 25, 20.25 and 16


@pytest.mark.parametrize("share", [0.02, 0.5, 0.98])
def test_one_pass_finds_the_cut_of_torch_and_bounds_the_energy(
    share: float, tmp_path: Path
) -> None:
    # 90,000 entries, more than are collected whole: a third equal, steps of a 64th
    generator = torch.Generator().manual_seed(6)
    name = "model.layers.0.mlp.up_proj.weight"
    changes = (torch.randn(3, 300, 300, generator=generator) * 8).round() / 64
    changes[:, ::3] = changes[0, ::3]
    write_family(tmp_path, {name: torch.zeros(300, 300)}, [{name: one} for one in changes])
    family = open_family(tmp_path / "base", {f"e{i}": tmp_path / f"expert{i}" for i in range(3)})
    cuts = []
    for engine in (Stream, FusedStream):
        spread = engine(family).open(family.merged[0]).spread([Keep()] * 3)
        cuts.append(selection(spread, 90_000, share))
        assert spread.most_energy() >= float(changes.double().square().sum()) * (1 - 1e-9)
    assert cuts[0] == cuts[1]
    assert spread.most_energy() == pytest.approx(float(changes.double().square().sum()))


def test_changes_too_small_to_be_weighed_are_known_from_a_bound() -> None:
    assert count_alike(0.99e-4, 100, "equal")  # mean squares of 0.99e-6 in all
    assert not count_alike(1e-4, 100, "equal")
    assert not count_alike(0.0, 100, "weigh")
