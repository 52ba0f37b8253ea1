"""What a posture costs against what it stops, and which postures another one makes pointless. Pure.

One point dominates another if it costs less and stops at least what the other stops, of the attempts that
mean something in both. So attempts are not weighed against one another, and a posture does not look better
for refusing what only its own ports make possible. Which of two costs is less is the verdict of their
comparison where the study has one, else it is sure only if their intervals do not touch.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from enum import Enum

from meshwise.findings.finding import Finding
from meshwise.findings.metric import CPU, INSTRUCTIONS, metric_of
from meshwise.findings.protection import AttemptOutcome, Standing, TradePoint
from meshwise.findings.subject import (
    AgainstNone,
    CellLevel,
    LadderStep,
    Levels,
    MeshDifference,
    PostureProtection,
    Protection,
)
from meshwise.stats.verdict import Verdict
from meshwise.study.factors import CONTEXT_FIELDS, FREE_FIELDS, concerns
from meshwise.study.model import NO_MESH, MeshName
from meshwise.study.security import POSTURES

COSTS = (CPU, "response_p50_us", INSTRUCTIONS, "memory_bytes")
OF_SIDECARS = (CPU, INSTRUCTIONS, "memory_bytes")
"""What no mesh costs nothing of, by what they mean, where it has no level of its own."""

Place = tuple[str, str]
"""Mesh and posture."""


class Less(Enum):
    """Whether one cost is less than another."""

    SURELY = 2
    PERHAPS = 1
    NO = 0


@dataclass(frozen=True)
class Stopped:
    """Attempts against one posture, by what is known of them."""

    surely: frozenset[str]
    perhaps: frozenset[str]
    """Stopped in some tries only, or undecided."""
    through: frozenset[str]

    @property
    def meant(self) -> frozenset[str]:
        return self.surely | self.perhaps | self.through

    def covers(self, other: Stopped) -> Less:
        """Whether it stops at least what the other stops, of what means something in both."""
        both = self.meant & other.meant
        if (other.surely | other.perhaps) & both <= self.surely:
            return Less.SURELY
        return Less.PERHAPS if other.surely & both <= self.surely | self.perhaps else Less.NO

    def exceeds(self, other: Stopped) -> bool:
        """Whether it stops something that the other lets through."""
        return bool(self.surely & other.through)


def trade_points(findings: Sequence[Finding]) -> tuple[TradePoint, ...]:
    """A point for every cell that has both, per metric; those of one context are judged among themselves."""
    stopped = _stopped(findings)
    summaries = {
        _place(each.levels): each for each in findings if isinstance(each.subject, PostureProtection)
    }
    if not summaries:
        return ()
    found: list[TradePoint] = []
    for metric in COSTS:
        levels = [
            each
            for each in findings
            if type(each.subject) is CellLevel
            and each.metric == metric
            and not each.part
            and each.estimate is not None
            and _place(each.levels) in summaries
        ]
        compared = _Compared.of(findings, metric)
        groups: dict[tuple[object, ...], list[TradePoint]] = {}
        for level in levels:
            context = tuple(level.levels.get(name) for name in CONTEXT_FIELDS)
            groups.setdefault(context, []).append(_point(level, summaries[_place(level.levels)]))
        for group in groups.values():
            own = [*_without_mesh(group, summaries), *group]
            found += _judged(own, stopped, compared, len(found))
    return tuple(found)


def _place(at: Levels) -> Place:
    return str(at.get("mesh")), str(at.get("posture"))


def _stopped(findings: Iterable[Finding]) -> Mapping[Place, Stopped]:
    groups: dict[Place, dict[str, set[str]]] = {}
    for each in findings:
        if isinstance(each.subject, Protection) and each.tried is not None:
            groups.setdefault(_place(each.levels), {}).setdefault(each.tried.outcome, set()).add(
                each.subject.attempt
            )
    order = (AttemptOutcome.STOPPED, AttemptOutcome.UNDECIDED, AttemptOutcome.LET_THROUGH)
    return {
        place: Stopped(*(frozenset(by.get(outcome, ())) for outcome in order)) for place, by in groups.items()
    }


def _point(level: Finding, summary: Finding) -> TradePoint:
    assert level.estimate is not None
    cost = level.estimate, level.low, level.high
    return _at(level.levels, level.metric, level.unit, level.provenance, cost, summary)


def _at(
    at: Levels,
    metric: str,
    unit: str,
    provenance: str,
    cost: tuple[float, float | None, float | None],
    summary: Finding,
) -> TradePoint:
    assert summary.estimate is not None
    assert summary.high is not None
    return TradePoint(
        at, metric, unit, provenance, *cost,
        int(summary.estimate), int(summary.high), summary.n, Standing.FRONT,
    )  # fmt: skip


def _without_mesh(group: Sequence[TradePoint], summaries: Mapping[Place, Finding]) -> list[TradePoint]:
    """The point of no mesh, where sidecars are what costs and it has no level."""
    none = (str(MeshName.NONE), NO_MESH.name)
    if none not in summaries or any(_place(each.at) == none for each in group):
        return []
    like = group[0]
    if like.metric not in OF_SIDECARS:
        return []
    at = {name: like.at[name] for name in CONTEXT_FIELDS if name in like.at}
    at |= {"mesh": none[0], "posture": none[1]}
    unit = metric_of(like.metric).unit
    return [_at(at, like.metric, unit, like.provenance, (0.0, 0.0, 0.0), summaries[none])]


def _judged(
    group: Sequence[TradePoint], stopped: Mapping[Place, Stopped], compared: _Compared, first: int
) -> list[TradePoint]:
    """With the standing of each; `first`: the place of the first of them in the list of all."""
    made = []
    for point in group:
        sure: list[int] = []
        perhaps: list[int] = []
        for place, other in enumerate(group):
            if other is point:
                continue
            found = _dominates(other, point, stopped, compared)
            if found is not Less.NO:
                (sure if found is Less.SURELY else perhaps).append(first + place)
        standing = Standing.DOMINATED if sure else Standing.PERHAPS if perhaps else Standing.FRONT
        made.append(replace(point, standing=standing, dominated_by=tuple(sure or perhaps)))
    return made


def _dominates(
    one: TradePoint, other: TradePoint, stopped: Mapping[Place, Stopped], compared: _Compared
) -> Less:
    mine, theirs = stopped[_place(one.at)], stopped[_place(other.at)]
    covers, less = mine.covers(theirs), compared.less(one, other)
    if covers is Less.NO or less is Less.NO:
        return Less.NO
    if covers is Less.SURELY and less is Less.SURELY:
        return Less.SURELY
    gains = one.estimate < other.estimate or mine.exceeds(theirs)
    return Less.PERHAPS if gains else Less.NO


@dataclass(frozen=True)
class _Compared:
    """The study's own comparisons of one metric."""

    pairs: Mapping[tuple[tuple[object, ...], Place, Place], Finding]
    """By the other levels, lower or second, upper or first."""

    @classmethod
    def of(cls, findings: Iterable[Finding], metric: str) -> _Compared:
        pairs = {}
        for each in findings:
            if each.metric != metric or each.part or each.estimate is None:
                continue
            match each.subject:
                case LadderStep(at, lower, upper) | AgainstNone(at, upper, lower):
                    mesh = str(at["mesh"])
                    below = str(MeshName.NONE) if lower == NO_MESH.name else mesh
                    pairs[_others(at), (below, lower), (mesh, upper)] = each
                case MeshDifference(at, first, second):
                    posture = str(at["posture"])
                    pairs[_others(at), (second, posture), (first, posture)] = each
        return cls(pairs)

    def less(self, one: TradePoint, other: TradePoint) -> Less:
        """Whether `one` costs less. No sidecar costs nothing by its meaning, however wide intervals are."""
        if one.metric in OF_SIDECARS and str(MeshName.NONE) in (one.at["mesh"], other.at["mesh"]):
            return Less.SURELY if one.estimate < other.estimate else Less.NO
        verdict = self._verdict(one, other)
        if verdict is not None:
            return verdict
        if one.low is None or one.high is None or other.low is None or other.high is None:
            return Less.PERHAPS
        if one.high < other.low:
            return Less.SURELY
        return Less.PERHAPS if one.low <= other.high else Less.NO

    def _verdict(self, one: TradePoint, other: TradePoint) -> Less | None:
        """By the study's own comparison; None without one."""
        for lower, upper, sign in ((one, other, 1), (other, one, -1)):
            found = self.pairs.get((_others(upper.at), _place(lower.at), _place(upper.at)))
            if found is None or found.verdict is None or not _agree(lower.at, upper.at):
                continue
            assert found.estimate is not None
            if found.verdict is not Verdict.DISTINGUISHABLE:
                return Less.PERHAPS
            return Less.SURELY if sign * found.estimate > 0 else Less.NO
        return None


def _agree(lower: Levels, upper: Levels) -> bool:
    """Whether the levels that mean something in both postures are the same: else this is another pair."""
    postures = [POSTURES[str(at["posture"])] for at in (lower, upper)]
    return all(
        lower.get(name) == upper.get(name)
        for name in FREE_FIELDS
        if all(concerns(name, posture) for posture in postures)
    )


def _others(at: Levels) -> tuple[object, ...]:
    return tuple(sorted((name, str(value)) for name, value in at.items() if name not in ("mesh", "posture")))
