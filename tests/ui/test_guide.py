"""The guide is written from the declarations, and escapes them."""

from __future__ import annotations

from dataclasses import replace
from html import escape

from merging.declarations.methods import GROUPS
from merging.methods import CONSENSUS, PRESETS, PRUNERS, RULES
from ui import guide


def test_every_axis_preset_and_knob_has_its_line() -> None:
    page = guide.page()
    for preset in PRESETS.values():
        assert escape(preset.use_when) in page
    for axis in (*PRUNERS.values(), *RULES.values()):
        assert escape(axis.formula) in page
        assert escape(axis.paper) in page
        for knob in axis.knobs:
            assert escape(knob.info) in page
            assert f"<code>{knob.name}</code>" in page


def test_presets_stand_under_the_title_of_their_group() -> None:
    page = guide.page()
    titles = [page.index(f"colspan='3'>{escape(title)}</th>") for title in GROUPS.values()]
    assert titles == sorted(titles)
    for preset in PRESETS.values():
        at = page.index(f"<code>{preset.id}</code></th><td>{escape(preset.summary)}")
        assert sum(title < at for title in titles) == 1 + list(GROUPS).index(preset.group)


def test_bounds_are_written_in_full() -> None:
    assert "<td>0 to 2147483647</td>" in guide.page()
    assert "e+" not in guide.page()


def test_sources_are_links() -> None:
    page = guide.page()
    for axis in (*PRUNERS.values(), *RULES.values()):
        if axis.url:
            assert f"href='{axis.url}'" in page


def test_declarations_are_text_not_markup(monkeypatch) -> None:
    odd = replace(CONSENSUS["ties"], id="odd", summary="<script>alert(1)</script>")
    monkeypatch.setitem(guide.CONSENSUS, "odd", odd)
    assert "<script>" not in guide.page()


def test_limits_of_the_built_in_family_are_said() -> None:
    assert "built-in family, and its limits" in guide.page()
