"""The search for the highest rate that holds an objective. Pure: what was tried -> next step, or knee.

Rules of this file (docs/study-file.md, "Saturation"):
- Ramp by GROWTH to the first rate that breaks the objective, then bisection on the log of the rate to a
  ratio of RESOLUTION.
- A rate's verdict is the majority of its trials. The search ends only when both ends of the bracket have
  `confirm` equal results; a verdict that turns moves the bracket, up or down alike, so that confirming does
  not bias the knee.
- An invalid trial (the instrument or the host was the limit) is never a broken one: it is tried again, and
  a rate that stays invalid closes the bracket as a limit of the instrument: the knee is then a lower bound.
- Hysteresis is found from two walks down from the knee by the same rule, one rested and one straight after
  overload. A walk is not compared with the knee itself, which was picked for holding: by chance alone the
  first rate that holds on the way down lies below it.
- No state but the trials themselves: a search continues from what is stored as if it had never stopped.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from enum import StrEnum

from meshwise.study.model import Phase, Search

GROWTH = 1.5
RESOLUTION = 1.03
INVALID_TRIES = 3
"""Invalid trials at one rate after which it is not tried again."""
LEAST_SHARE = 1 / 20
"""Of the start: below it the search gives up and says that nothing holds."""
OVERLOAD = 1.25
"""Times the lowest rate that broke: where the way down begins."""
DOWN_STEPS = 8
"""Rates that break on a walk down after which it ends: a factor of RESOLUTION ** 16 below the knee."""
UPWARD = (Phase.RAMP, Phase.BISECT, Phase.CONFIRM)


class Result(StrEnum):
    """What a trial said of its rate."""

    HELD = "held"
    BROKEN = "broken"
    INVALID = "invalid"


@dataclass(frozen=True)
class Tried:
    rate_rps: float
    phase: Phase
    result: Result


@dataclass(frozen=True)
class Step:
    """The trial to run next."""

    rate_rps: float
    phase: Phase


@dataclass(frozen=True)
class Knee:
    """How a search ended."""

    held_rps: float | None
    """The highest rate that held; None if not even the lowest did."""
    broken_rps: float | None
    """The lowest rate that broke; None if none did."""
    limited: bool = False
    """The instrument, the host or the study's `limit` ended the search: the knee is at least `held_rps`."""
    undecided: bool = False
    """It ended at `steps` trials, before both ends were confirmed."""
    again_rps: float | None = None
    """The first rate that held on the rested walk down; None if it was not asked or none did."""
    down_rps: float | None = None
    """The same coming down from overload."""


def next_step(search: Search, tried: Sequence[Tried]) -> Step | Knee:
    """`tried` in the order of running."""
    up = [each for each in tried if each.phase in UPWARD]
    found = _upward(search, up)
    if isinstance(found, Step):
        if len(up) < search.steps:
            return found
        return _knee(_Rates.of(search, up), undecided=True)
    return _afterwards(search, found, [each for each in tried if each.phase not in UPWARD])


@dataclass(frozen=True)
class _Rate:
    held: int = 0
    broken: int = 0
    invalid: int = 0

    @property
    def verdict(self) -> Result | None:
        """None: not decided yet."""
        if self.held != self.broken:
            return Result.HELD if self.held > self.broken else Result.BROKEN
        return Result.INVALID if self.invalid >= INVALID_TRIES else None

    def settled(self, confirm: int) -> bool:
        return max(self.held, self.broken) >= confirm or self.invalid >= INVALID_TRIES


@dataclass(frozen=True)
class _Rates:
    by_rate: dict[float, _Rate]
    low: float | None
    """The highest rate that held, below `high`."""
    high: float | None
    """The lowest rate that broke or stayed invalid."""

    @classmethod
    def of(cls, search: Search, up: Sequence[Tried]) -> _Rates:
        rates: dict[float, _Rate] = {}
        for each in up:
            known = rates.get(each.rate_rps, _Rate())
            name = str(each.result)
            rates[each.rate_rps] = replace(known, **{name: getattr(known, name) + 1})
        closed = [rate for rate, seen in rates.items() if seen.verdict in (Result.BROKEN, Result.INVALID)]
        high = min(closed, default=None)
        held = [
            rate
            for rate, seen in rates.items()
            if seen.verdict is Result.HELD and (high is None or rate < high)
        ]
        return cls(rates, max(held, default=None), high)


def _upward(search: Search, up: Sequence[Tried]) -> Step | Knee:
    rates = _Rates.of(search, up)
    for rate, seen in rates.by_rate.items():
        if seen.verdict is None:
            return Step(rate, Phase.CONFIRM)
    low, high = rates.low, rates.high
    if low is None and high is None:
        return Step(round_rate(search.start_rps), Phase.RAMP)
    if high is None:
        assert low is not None
        if low < search.limit_rps:
            return Step(min(round_rate(low * GROWTH), search.limit_rps), Phase.RAMP)
    elif low is None:
        if high / GROWTH >= search.start_rps * LEAST_SHARE:
            return Step(round_rate(high / GROWTH), Phase.RAMP)
    elif high / low > RESOLUTION:
        return Step(round_rate(math.sqrt(low * high)), Phase.BISECT)
    for end in (low, high):
        if end is not None and not rates.by_rate[end].settled(search.confirm):
            return Step(end, Phase.CONFIRM)
    return _knee(rates)


def _knee(rates: _Rates, *, undecided: bool = False) -> Knee:
    broken = rates.high is not None and rates.by_rate[rates.high].verdict is Result.BROKEN
    return Knee(
        held_rps=rates.low,
        broken_rps=rates.high if broken else None,
        limited=not broken,
        undecided=undecided,
    )


def _afterwards(search: Search, knee: Knee, after: Sequence[Tried]) -> Step | Knee:
    """What follows the way up: the soak, the rested walk down, overload, the walk down from it."""
    if knee.held_rps is None:
        return knee
    if search.soak_ns and _is_due(Phase.SOAK, after):
        return Step(round_rate(knee.held_rps * search.soak_share), Phase.SOAK)
    if not search.descend or knee.broken_rps is None:
        return knee
    overloaded = any(each.phase is Phase.OVERLOAD for each in after)
    # Once there was overload nothing is rested any more (and archives from before that walk have none).
    if not overloaded and (step := _walk(knee.held_rps, Phase.AGAIN, after)):
        return step
    if not overloaded:
        return Step(round_rate(knee.broken_rps * OVERLOAD), Phase.OVERLOAD)
    if step := _walk(knee.held_rps, Phase.DOWN, after):
        return step
    return replace(knee, again_rps=_held(Phase.AGAIN, after), down_rps=_held(Phase.DOWN, after))


def _is_due(phase: Phase, tried: Sequence[Tried]) -> bool:
    """Whether a single trial of that phase is still to be run."""
    own = [each.result for each in tried if each.phase is phase]
    return all(result is Result.INVALID for result in own) and len(own) < INVALID_TRIES


def _walk(top_rps: float, phase: Phase, tried: Sequence[Tried]) -> Step | None:
    """Down from `top_rps` in steps of twice the resolution to the first rate that holds; None at its end."""
    own = [each.result for each in tried if each.phase is phase]
    broken, invalid = own.count(Result.BROKEN), own.count(Result.INVALID)
    if Result.HELD in own or broken >= DOWN_STEPS or invalid >= INVALID_TRIES:
        return None
    return Step(round_rate(top_rps / RESOLUTION ** (2 * broken)), phase)


def _held(phase: Phase, tried: Sequence[Tried]) -> float | None:
    return next((each.rate_rps for each in tried if each.phase is phase and each.result is Result.HELD), None)


def round_rate(rate_rps: float) -> float:
    """Four significant digits: legible, and finer than the resolution."""
    return float(f"{rate_rps:.4g}")


def usual_steps(search: Search) -> int:
    """Trials of a search whose knee is six ramp steps above its start and that is sure of each verdict."""
    halvings = math.ceil(math.log2(math.log(GROWTH) / math.log(RESOLUTION)))
    return 6 + halvings + 2 * (search.confirm - 1) + (5 if search.descend else 0) + bool(search.soak_ns)


def most_steps(search: Search) -> int:
    """More trials than this no search has."""
    walks = 1 + 2 * (DOWN_STEPS + INVALID_TRIES - 1) if search.descend else 0
    return search.steps + walks + (INVALID_TRIES if search.soak_ns else 0)
