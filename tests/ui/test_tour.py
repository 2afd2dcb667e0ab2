"""The tour's markup: five steps and an end, and none where the built-in family is not offered."""

from __future__ import annotations

from ui import guide, tour


def test_there_are_five_steps_and_an_end_all_hidden_at_first() -> None:
    page = tour.markup("demo:base")
    assert page.count("<section ") == page.count('data-key="') == 6
    assert page.count('" hidden><h2>') == 6
    assert 'data-base="demo:base"' in page


def test_without_built_in_models_there_is_no_base_to_tour() -> None:
    assert 'data-base=""' in tour.Tour("recipe", base="models/base").html_template
    assert 'data-base="demo:base"' in tour.Tour("recipe", base="demo:base").html_template


def test_the_guide_starts_it() -> None:
    assert tour.button() in guide.page()
