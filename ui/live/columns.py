"""What models said: answers and scores, of the live model and of the models it is made of."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from ui.live.skills import Skill

Score = Mapping[str, float]
"""Of one skill: "score", "low" and "high", 0..1, and "n", the prompts."""


@dataclass
class Column:
    """What one model said.

    Attributes:
        name: what the card calls it.
        model: its id; "" for the live model.
        colour, glyph: its look, as everywhere.
        answers: by prompt.
        growing: the prompt whose answer is still being written.
        scores, seconds: by skill, and how long scoring took.
        problem: why it says nothing.
        before: of the live model, the last that was heard of it with other values.
    """

    name: str
    model: str = ""
    colour: str = ""
    glyph: str = ""
    answers: dict[str, str] = field(default_factory=dict)
    growing: str | None = None
    scores: dict[Skill, Score] = field(default_factory=dict)
    seconds: dict[Skill, float] = field(default_factory=dict)
    problem: str = ""
    before: Column | None = None

    def scores_by_name(self) -> dict[str, Score]:
        """What is scored by now, by what the card calls the skills."""
        scores = list(self.scores.items())
        names = [skill.name for skill, _ in scores]
        return {
            f"{skill.name} (file)" if names.count(skill.name) > 1 and skill.tasks else skill.name: s
            for skill, s in scores
        }

    def followed(self) -> Column:
        """An empty one after it, which remembers it."""
        earlier = self.before or Column(self.name)
        answers = {p: a for p, a in self.answers.items() if p != self.growing}
        last = Column(
            self.name,
            answers={**earlier.answers, **answers},
            scores={**earlier.scores, **self.scores},
        )
        return Column(self.name, before=last)

    def recall(self, earlier: Column) -> None:
        """Takes over what the same bytes said earlier."""
        finished = {p: a for p, a in earlier.answers.items() if p != earlier.growing}
        self.answers = {**finished, **self.answers}
        self.scores = {**earlier.scores, **self.scores}
        self.seconds = {**earlier.seconds, **self.seconds}


@dataclass(frozen=True)
class Beside:
    """The other of two settings, as the live model last answered by it.

    Attributes:
        name: of the side.
        column: None where it was never asked.
    """

    name: str
    column: Column | None = None


@dataclass(frozen=True)
class Scores:
    """A skill's scores of all that the bars show: now and before, by the other of two settings, of
    its expert, of the base."""

    live: Score | None
    before: Score | None
    beside: Score | None
    expert: Score | None
    base: Score | None
