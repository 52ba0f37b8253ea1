"""What postures stop, and cost against it, as findings.json has them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from enum import StrEnum
from typing import Any, Self

from meshwise.findings.subject import Levels


class AttemptOutcome(StrEnum):
    STOPPED = "stopped"
    LET_THROUGH = "let_through"
    """The service really answered, or the plaintext was really found."""
    NOT_APPLICABLE = "not_applicable"
    UNDECIDED = "undecided"
    """Neither was shown: the proxy ended or fell silent, or the attempt itself went wrong; of several tries
    also that they differ."""


DECIDED = (AttemptOutcome.STOPPED, AttemptOutcome.LET_THROUGH)


def is_surprising(outcome: str, expected: str | None) -> bool:
    """It was decided, and not as documented; both are values of `AttemptOutcome`."""
    return outcome in DECIDED and expected in DECIDED and outcome != expected


@dataclass(frozen=True)
class AttemptTries:
    """What came of one attempt against one posture."""

    outcome: str
    """An `AttemptOutcome`: of every try; `undecided` also where tries differ."""
    expected: str | None
    """By the mesh's documentation; None: not known of this attempt."""
    tries: int
    """That were made; of `not_applicable` none was."""
    stopped: int
    let_through: int
    harmed: int
    """Tries after which a proxy had ended or fallen silent."""
    evidence: str
    """Of the first try that shows the outcome: what the attacker saw, the proxy's words and counters, bytes
    on the wire."""

    @property
    def surprising(self) -> bool:
        return is_surprising(self.outcome, self.expected)


@dataclass(frozen=True)
class AttemptCounts:
    """Attempts against one posture, by what came of all their tries."""

    stopped: int
    """In every try."""
    let_through: int
    """In every try."""
    differing: int
    """Stopped in some tries and let through in others."""
    undecided: int
    """Some try showed neither, and no two decided tries differ."""
    not_applicable: int
    surprising: int
    """Of those that were decided: not as documented."""


class Standing(StrEnum):
    FRONT = "front"
    """No other point costs less and stops at least as much."""
    PERHAPS = "perhaps dominated"
    """One may, as far as the costs can be told apart and attempts are decided."""
    DOMINATED = "dominated"


@dataclass(frozen=True)
class TradePoint:
    """What one cell costs in one metric, and what its posture stops."""

    at: Levels
    metric: str
    unit: str
    provenance: str
    estimate: float
    low: float | None
    high: float | None
    """Interval of the cost."""
    stopped: int
    """Attempts that were stopped in every try."""
    stopped_high: int
    """With those that were stopped in some tries only, or are undecided."""
    of: int
    """Attempts that mean something there."""
    standing: Standing
    dominated_by: tuple[int, ...] = ()
    """Places in the list of all points."""

    def as_json(self) -> dict[str, Any]:
        named = asdict(self) | {"scope": dict(self.at), "standing": str(self.standing)}
        named["dominated_by"] = list(self.dominated_by)
        return {name: named[name] for name in ("scope", *(n for n in named if n not in ("at", "scope")))}

    @classmethod
    def read(cls, entry: Mapping[str, Any]) -> Self:
        """The inverse of `as_json`. Raises KeyError, TypeError, ValueError for what is none."""
        known = {each.name: entry[each.name] for each in fields(cls) if each.name in entry}
        return cls(
            **known
            | {
                "at": dict(entry["scope"]),
                "standing": Standing(entry["standing"]),
                "dominated_by": tuple(map(int, entry["dominated_by"])),
            }
        )
