"""The one place where it is decided what may be claimed.

`distinguishable`: the p adjusted for the family is below alpha, the estimate exceeds the noise floor, and the
interval that is shown excludes 0. `equivalent`: not that, but both one-sided tests (TOST) put the effect
inside a margin declared in the study. Else `not distinguishable`, with the smallest effect that would have
been seen. A p above alpha is never a finding of "no effect".
"""

from __future__ import annotations

from dataclasses import dataclass

from meshwise.analysis.finding import Direction, Verdict


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
    reasons: tuple[str, ...]
    """Flags: why an interval that excludes 0 was still not claimed."""


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
    reasons = []
    if evidence.excludes_zero and not significant:
        reasons.append(
            "multiplicity: its own interval excludes 0, but not after allowing for the whole family"
        )
    if evidence.excludes_zero and significant and not above_floor:
        reasons.append("below_floor: its interval excludes 0, but the A/A control shows effects as large")
    if significant and not evidence.excludes_zero:
        reasons.append("scales_disagree: blocks are too uneven for ratio and difference to agree")
    verdict = Verdict.EQUIVALENT if equivalent else Verdict.NOT_DISTINGUISHABLE
    return Judgement(verdict, None, equivalent, tuple(reasons))
