"""The one place where it is decided what may be claimed.

`distinguishable`: the p adjusted for the family is below alpha, the estimate exceeds the noise floor, and the
interval that is shown excludes 0. `equivalent`: not that, but both one-sided tests (TOST) put the effect
inside a margin declared in the study. Else `not distinguishable`, with the smallest effect that would have
been seen. A p above alpha is never a finding of "no effect".
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class Verdict(StrEnum):
    DISTINGUISHABLE = "distinguishable"
    EQUIVALENT = "equivalent"
    """Not distinguishable, and shown to lie within the declared margin."""
    NOT_DISTINGUISHABLE = "not distinguishable"
    NOT_ESTIMABLE = "not estimable"
    OK = "ok"
    WARNING = "warning"
    """Of a check: the study's other findings are in doubt as its sentence says."""


class Direction(StrEnum):
    COSTS = "costs"
    SAVES = "saves"


class Doubt(StrEnum):
    """Why an interval that excludes 0 was still not claimed."""

    MULTIPLICITY = "multiplicity"
    BELOW_FLOOR = "below_floor"
    SCALES_DISAGREE = "scales_disagree"


@dataclass(frozen=True)
class Evidence:
    """What is known of one comparison, on the scale of its verdict (natural logs or the unit)."""

    estimate: float
    p_adjusted: float | None
    floor: float | None
    excludes_zero: bool
    """Whether every unadjusted interval shown to the reader excludes "no change"."""
    equivalence_p: float | None = None


@dataclass(frozen=True)
class Judgement:
    verdict: Verdict
    direction: Direction | None
    equivalent: bool
    doubts: tuple[Doubt, ...]


def judge(evidence: Evidence, alpha: float, *, more_is_worse: bool) -> Judgement:
    equivalent = evidence.equivalence_p is not None and evidence.equivalence_p < alpha
    if evidence.p_adjusted is None:
        return Judgement(Verdict.NOT_ESTIMABLE, None, False, ())
    significant = evidence.p_adjusted < alpha
    above_floor = evidence.floor is None or abs(evidence.estimate) > evidence.floor
    if significant and above_floor and evidence.excludes_zero:
        worse = (evidence.estimate > 0) == more_is_worse
        return Judgement(
            Verdict.DISTINGUISHABLE, Direction.COSTS if worse else Direction.SAVES, equivalent, ()
        )
    doubts = []
    if evidence.excludes_zero and not significant:
        doubts.append(Doubt.MULTIPLICITY)
    if evidence.excludes_zero and significant and not above_floor:
        doubts.append(Doubt.BELOW_FLOOR)
    if significant and not evidence.excludes_zero:
        doubts.append(Doubt.SCALES_DISAGREE)
    verdict = Verdict.EQUIVALENT if equivalent else Verdict.NOT_DISTINGUISHABLE
    return Judgement(verdict, None, equivalent, tuple(doubts))
