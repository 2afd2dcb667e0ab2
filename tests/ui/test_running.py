"""The merge that runs, as the top bar shows it."""

from __future__ import annotations

from types import SimpleNamespace

from ui.jobs import Job
from ui.running import drawn


def test_a_merge_is_named_with_its_share_and_the_time_left() -> None:
    job = Job("1", "k", "<x>", progress=SimpleNamespace(done=43, total=100, eta_s=12.0))
    own, other = drawn(job, is_own=True), drawn(job, is_own=False)
    assert "Merging &lt;x&gt;: 43%" in own and "12 s left" in own
    assert "Another page is merging &lt;x&gt;: 43%" in other


def test_nothing_is_shown_where_nothing_runs() -> None:
    assert drawn(None, is_own=False) == ""
