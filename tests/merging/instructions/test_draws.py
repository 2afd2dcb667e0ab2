"""Draws by index: per-entry limits."""

from __future__ import annotations

import torch

from merging.instructions import draws

KEYS = (12345, -678)


def test_draws_are_whole_numbers_of_24_bits_spread_evenly() -> None:
    values = draws.draw_at(torch.arange(1 << 16), *KEYS)
    assert int(values.min()) >= 0 and int(values.max()) < draws.RANGE
    counts = torch.bincount(values >> 20, minlength=16)  # sixteenths of the range
    assert (counts - (1 << 12)).abs().max() <= 5 * 62  # five standard deviations of a fair draw


def test_every_entry_may_have_a_limit_of_its_own() -> None:
    index = torch.arange(1000)
    values = draws.draw_at(index, *KEYS)
    assert not draws.kept_at(index, *KEYS, values).any()
    assert draws.kept_at(index, *KEYS, values + 1).all()
    halves = torch.where(index < 500, draws.limit(0.0), draws.limit(1.0))
    assert torch.equal(draws.kept_at(index, *KEYS, halves), index >= 500)


def test_one_limit_for_all_keeps_what_the_mask_keeps() -> None:
    whole = draws.keep_mask(0, 1000, 0.3, KEYS, "cpu")
    assert torch.equal(whole, draws.draw_at(torch.arange(1000), *KEYS) < draws.limit(0.3))


def test_what_is_not_finite_is_seen_whether_it_is_kept_or_dropped() -> None:
    delta = torch.tensor([torch.nan, torch.inf, 2.0, torch.nan, torch.inf, 2.0])
    keep = torch.tensor([True, True, True, False, False, False])
    pruned = draws.drop(delta, keep, 3.0)
    assert pruned.isnan().tolist() == [True, False, False, True, True, False]
    assert pruned[[1, 2, 5]].tolist() == [float("inf"), 6.0, 0.0]
