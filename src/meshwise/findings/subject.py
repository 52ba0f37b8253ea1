"""What a finding is about. Code matches on these; findings.json has them as `kind` and `scope`.

`at` are the levels of all factors there, as a finding carries them: of a comparison those of the cell that is
compared, of a slope those of the cell with the highest level, the factor itself as `1 to 4`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from meshwise.study.factors import BY_FIELD, FACTORS
from meshwise.study.model import NO_MESH, MeshName
from meshwise.study.security import POSTURES

ScopeValue = str | float | int
Levels = Mapping[str, ScopeValue]


class Kind(StrEnum):
    LEVEL = "level"
    LEVEL_ALONE = "level_alone"
    INCREMENT = "increment"
    DIFFERENCE = "difference"
    NOISE_FLOOR = "noise_floor"
    VARIANCE = "variance"
    CHECK = "check"
    PROTECTION = "protection"
    EVENT = "event"


class Against(StrEnum):
    """What an event's effect is told from."""

    PLACEBO = "placebo"
    """Other times of the same trials, to which nothing happened."""
    ARM = "arm"
    """The twin in the same round, at the same times."""
    NOTHING = "nothing"
    """It is told by itself: how long something took."""


@dataclass(frozen=True)
class _AtLevels:
    at: Levels


class CellLevel(_AtLevels):
    """How high a metric is in one cell."""


class LevelAlone(_AtLevels):
    """The same of trials that ran without company, in a study that is arranged together."""


class CurvePoint(_AtLevels):
    """How high it is at one rate of the searches of a cell: a point of a curve, not a level of the study."""


@dataclass(frozen=True)
class LadderStep(_AtLevels):
    """What one posture adds to the one below it in the same mesh."""

    lower: str
    upper: str


@dataclass(frozen=True)
class AgainstNone(_AtLevels):
    """What a posture adds to no mesh."""

    upper: str
    lower: str = NO_MESH.name


@dataclass(frozen=True)
class MeshDifference(_AtLevels):
    """First mesh less second, at one posture."""

    first: str
    second: str


@dataclass(frozen=True)
class StepDifference(_AtLevels):
    """What a step adds in the first mesh less what it adds in the second."""

    first: str
    second: str
    lower: str
    upper: str


class Interaction(_AtLevels):
    """What both features of a posture cost together beyond the sum of each alone."""

    @property
    def mtls(self) -> str:
        return str(POSTURES[str(self.at["posture"])].mtls)

    @property
    def authorization(self) -> str:
        return str(POSTURES[str(self.at["posture"])].authorization)

    @property
    def name(self) -> str:
        return f"mtls={self.mtls} x authorization={self.authorization}"


class SlopePart(StrEnum):
    SLOPE = "slope"
    REQUEST = "per request"
    """Of the rate: what a further request costs."""
    IDLE = "idle"
    """Of the rate: what is left at no load."""
    RULE = "per rule"
    """Of policy entries: what a single one costs. Only counts are fine enough to tell it."""


@dataclass(frozen=True)
class SlopeStep:
    """One step of a factor that grows, in words and as a unit."""

    factor: str
    size: int
    words: str
    unit: str
    part: SlopePart = SlopePart.SLOPE


STEPS = (
    *(
        SlopeStep(factor.field, growth.size, growth.words, growth.unit)
        for factor in FACTORS
        if (growth := factor.growth) is not None
    ),
    SlopeStep("rate_rps", 1, "each further request", "", SlopePart.REQUEST),
    SlopeStep("rate_rps", 1, "idling", "/s", SlopePart.IDLE),
    SlopeStep("policy_count", 1, "each further rule", "/rule", SlopePart.RULE),
)


@dataclass(frozen=True)
class Slope(_AtLevels):
    """What one step more of a factor costs."""

    factor: str
    part: SlopePart = SlopePart.SLOPE

    @property
    def step(self) -> SlopeStep:
        return next(each for each in STEPS if (each.factor, each.part) == (self.factor, self.part))

    @property
    def words(self) -> str:
        """`each further chain node`."""
        return self.step.words.format(shape=self.at.get("shape", "chain"))


@dataclass(frozen=True)
class LevelStep(_AtLevels):
    """What one level of a factor adds to the level at which there is none of it, or to another."""

    factor: str
    lower: ScopeValue
    upper: ScopeValue

    @property
    def words(self) -> str:
        """`1% traced`, `ecdsa-p384 key instead of rsa-2048 key`."""
        factor = BY_FIELD[self.factor]
        upper = factor.label(self.upper)
        return upper if factor.says_none else f"{upper} instead of {factor.label(self.lower)}"


class Walk(_AtLevels):
    """What holds coming down from overload, less what holds coming down rested."""


@dataclass(frozen=True)
class NoiseFloor:
    """What an A/A control shows: `same` or `twin` processes."""

    control: str
    cells: tuple[str, ...]


@dataclass(frozen=True)
class VarianceShare:
    """Of the variation of a metric, by its source."""

    source: str


@dataclass(frozen=True)
class StudyCheck:
    """A check of the whole study, named by its metric."""


class CellCheck(_AtLevels):
    """A check of one cell, named by its metric."""


@dataclass(frozen=True)
class OrderCheck:
    """Whether a metric depends on the order of the trials: `position`, `previous_cell`."""

    name: str


@dataclass(frozen=True)
class LimitCheck(_AtLevels):
    """What limited the searches of a cell."""

    limited_by: str


class SoakDrift(_AtLevels):
    """Whether a metric drifts over the soaks of a cell."""


@dataclass(frozen=True)
class Protection(_AtLevels):
    """What a posture does about one attempt. `at`: mesh, posture, and what the services spoke."""

    attempt: str


class PostureProtection(_AtLevels):
    """How many of the attempts that mean something in a posture it stops."""


@dataclass(frozen=True)
class EventEffect(_AtLevels):
    """What something that was done during a trial did, each time."""

    event: str
    """As `events.parquet` has it, with what tells several of a study apart: `posture strict, back`."""
    against: Against


Level = CellLevel | LevelAlone | CurvePoint
Increment = LadderStep | AgainstNone
Difference = MeshDifference | StepDifference | Interaction | Slope | LevelStep | Walk
Check = StudyCheck | CellCheck | OrderCheck | LimitCheck | SoakDrift
Protections = Protection | PostureProtection
Subject = Level | Increment | Difference | NoiseFloor | VarianceShare | Check | Protections | EventEffect


def kind_of(subject: Subject) -> Kind:
    match subject:
        case CellLevel() | CurvePoint():
            return Kind.LEVEL
        case LevelAlone():
            return Kind.LEVEL_ALONE
        case LadderStep() | AgainstNone():
            return Kind.INCREMENT
        case MeshDifference() | StepDifference() | Interaction() | Slope() | LevelStep() | Walk():
            return Kind.DIFFERENCE
        case NoiseFloor():
            return Kind.NOISE_FLOOR
        case VarianceShare():
            return Kind.VARIANCE
        case Protection() | PostureProtection():
            return Kind.PROTECTION
        case EventEffect():
            return Kind.EVENT
        case _:
            return Kind.CHECK


def levels_of(subject: Subject) -> Levels:
    """Empty where it is not about one cell or setting."""
    return subject.at if isinstance(subject, _AtLevels) else {}


def scope_of(subject: Subject) -> dict[str, ScopeValue]:
    """The subject as findings.json has it."""
    scope = dict(levels_of(subject))
    match subject:
        case CurvePoint():
            return scope | {"part": "curve"}
        case LadderStep(_, lower, upper) | AgainstNone(_, upper, lower):
            return scope | {"from": lower, "to": upper}
        case StepDifference(_, first, second, lower, upper):
            return scope | {"mesh": f"{first} - {second}", "from": lower, "to": upper}
        case MeshDifference(_, first, second):
            return scope | {"mesh": f"{first} - {second}", "from": second, "to": first}
        case Interaction():
            return scope | {"interaction": subject.name}
        case Slope(_, factor, part):
            return scope | {"factor": factor, "part": str(part)}
        case LevelStep(_, factor, lower, upper):
            return scope | {"factor": factor, "from": lower, "to": upper, "part": "level"}
        case Walk():
            return scope | {"from": "rested", "to": "after overload", "walk": "down"}
        case NoiseFloor(control, cells):
            return {"control": control, "cells": "; ".join(cells)}
        case VarianceShare(source):
            return {"source": source}
        case OrderCheck(name):
            return {"check": name}
        case LimitCheck(_, limited_by):
            return scope | {"limited_by": limited_by}
        case SoakDrift():
            return scope | {"check": "soak"}
        case Protection(_, attempt):
            return scope | {"attempt": attempt}
        case EventEffect(_, event, against):
            return scope | {"event": event, "against": str(against)}
        case _:
            return scope


def read_subject(kind: Kind, scope: Mapping[str, Any]) -> Subject:
    """The inverse of `kind_of` and `scope_of`; parts of a metric (`workload`, ...) are left out before.

    Raises KeyError for a scope that is none of `kind`.
    """
    at = {name: value for name, value in scope.items() if name not in _TELLING}
    match kind:
        case Kind.LEVEL:
            return CurvePoint(at) if scope.get("part") == "curve" else CellLevel(at)
        case Kind.LEVEL_ALONE:
            return LevelAlone(at)
        case Kind.INCREMENT if scope["from"] == NO_MESH.name:
            return AgainstNone(at, str(scope["to"]))
        case Kind.INCREMENT:
            return LadderStep(at, str(scope["from"]), str(scope["to"]))
        case Kind.DIFFERENCE:
            return _read_difference(at, scope)
        case Kind.NOISE_FLOOR:
            return NoiseFloor(str(scope["control"]), tuple(str(scope.get("cells", "")).split("; ")))
        case Kind.VARIANCE:
            return VarianceShare(str(scope["source"]))
        case Kind.CHECK:
            if "limited_by" in scope:
                return LimitCheck(at, str(scope["limited_by"]))
            if "check" in scope:
                return SoakDrift(at) if scope["check"] == "soak" else OrderCheck(str(scope["check"]))
            return CellCheck(at) if at else StudyCheck()
        case Kind.PROTECTION:
            return Protection(at, str(scope["attempt"])) if "attempt" in scope else PostureProtection(at)
        case Kind.EVENT:
            return EventEffect(at, str(scope["event"]), Against(scope["against"]))


def _read_difference(at: dict[str, Any], scope: Mapping[str, Any]) -> Difference:
    if "walk" in scope:
        return Walk(at)
    if "interaction" in scope:
        return Interaction(at)
    if scope.get("part") == "level":
        return LevelStep(at, str(scope["factor"]), scope["from"], scope["to"])
    if "factor" in scope:
        return Slope(at, str(scope["factor"]), SlopePart(scope.get("part", SlopePart.SLOPE)))
    lower, upper = str(scope["from"]), str(scope["to"])
    first, _, second = str(scope["mesh"]).partition(" - ")
    if upper in tuple(MeshName):
        return MeshDifference(at | {"mesh": first}, first, second)
    return StepDifference(at | {"mesh": first}, first, second, lower, upper)


_TELLING = (
    "from", "to", "part", "interaction", "factor", "walk", "limited_by", "check", "attempt", "event",
    "against",
)  # fmt: skip
