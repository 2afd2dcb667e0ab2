"""All that the live card shows at one time."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from ui.live.columns import Beside, Column
from ui.live.probes import Probe
from ui.live.skills import Skill


@dataclass
class Scene:
    """What the card shows.

    Attributes:
        status: what is going on, or was done.
        saved: whether what answers is saved, and as what; "" while that is not known.
        fingerprint: of the tensors in memory; "" where it is not worked out.
        is_wrong: the status is a complaint.
        is_settled: what answers follows from the settings that the page has.
        has_no_room: there is no memory for it, and would be without other loaded models.
        is_busy: a merge is under way: what the live model said is of earlier values.
        sources: the base, then the experts.
        beside: the other of two settings; None where there is none.
        per_skill: prompts that a skill is scored on, at most.
    """

    status: str = ""
    saved: str = ""
    fingerprint: str = ""
    is_wrong: bool = False
    has_no_room: bool = False
    is_busy: bool = False
    is_settled: bool = False
    probes: Sequence[Probe] = ()
    skills: Sequence[Skill] = ()
    live: Column = field(default_factory=lambda: Column("live"))
    sources: Sequence[Column] = ()
    beside: Beside | None = None
    per_skill: int = 0

    @property
    def columns(self) -> list[Column]:
        """The live model, then its sources."""
        return [self.live, *self.sources]

    def source(self, model: str) -> Column | None:
        """The column of a model."""
        return next((one for one in self.sources if model and one.model == model), None)
