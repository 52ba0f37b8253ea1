"""A finding: one thing that the study says, with how sure it is. The rows of findings.json.

docs/findings.md explains the fields; `schema` is the same as JSON Schema. Within one SCHEMA_VERSION
fields are only added.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from meshwise.findings.event import EventFacts
from meshwise.findings.flag import Flag, FlagKind
from meshwise.findings.metric import MetricKey
from meshwise.findings.pictures import Pictures
from meshwise.findings.protection import AttemptCounts, AttemptTries, TradePoint
from meshwise.findings.subject import Kind, Levels, ScopeValue, Subject, kind_of, levels_of, scope_of
from meshwise.stats.verdict import Direction, Verdict

SCHEMA_VERSION = 1
OBSERVED, CONFIGURED = "observed", "configured"
"""Of an entry of the fairness card: what its values rest on."""


class Provenance(StrEnum):
    """Where a number comes from. Files may hold other words, of versions to come."""

    MEASURED = "measured"
    COUNTED = "counted"
    """Instructions or system calls, under a counter: no time."""
    TRANSLATED = "translated"
    """Counted, and turned into time by what an instruction takes in the same study: nobody measured it."""
    IMPORTED = "imported"
    """Of a production mesh's own monitoring: nothing was controlled or repeated."""
    TRIED = "tried"
    """Attempts that were made on running proxies: what came of them, and no time."""


@dataclass(frozen=True)
class Companion:
    """The same quantity by a method with other assumptions (Hodges-Lehmann), in the finding's unit."""

    method: str
    estimate: float
    low: float | None
    high: float | None
    confidence: float | None


@dataclass(frozen=True)
class WithoutOutliers:
    """The finding again without the trials that the study's outlier rule flags."""

    rule: str
    removed: int
    """Blocks that lost their pair."""
    n: int
    estimate: float | None
    low: float | None
    high: float | None
    ratio: float | None
    ratio_low: float | None
    ratio_high: float | None


class Method(StrEnum):
    """How p-values are made to hold for several comparisons."""

    HOLM = "holm"
    """Of the declared family of a primary metric."""
    BENJAMINI_HOCHBERG = "bh"
    """Exploratory."""
    BONFERRONI = "bonferroni"


@dataclass(frozen=True)
class Adjustment:
    method: Method
    comparisons: int
    """Size of the family."""

    def __str__(self) -> str:
        return f"{self.method}, {self.comparisons} comparisons"

    @classmethod
    def read(cls, text: str) -> Adjustment:
        """The inverse of `str`. Raises ValueError for what is none."""
        method, _, rest = text.partition(", ")
        return cls(Method(method), int(rest.removesuffix(" comparisons")))


@dataclass(frozen=True)
class Finding:
    """None where something cannot be told or does not apply; infinite numbers never appear."""

    id: str
    subject: Subject
    key: MetricKey
    estimate: float | None
    low: float | None
    high: float | None
    confidence: float
    unit: str
    n: int
    """Independent units behind it: executions with a complete pair; trials for some checks."""
    method: str
    verdict: Verdict | None = None
    provenance: str = Provenance.MEASURED
    """`Provenance`."""
    flags: tuple[Flag, ...] = ()
    sentence: str = ""
    direction: Direction | None = None
    """Of a distinguishable difference: whether `to` costs more than `from`, or saves."""
    ratio: float | None = None
    ratio_low: float | None = None
    ratio_high: float | None = None
    simultaneous_low: float | None = None
    """Bounds that hold for all comparisons of the family at once (Bonferroni), on the scale of `estimate`."""
    simultaneous_high: float | None = None
    p: float | None = None
    p_adjusted: float | None = None
    adjustment: Adjustment | None = None
    floor: float | None = None
    """Noise floor for this comparison, in the unit of `estimate`."""
    floor_ratio: float | None = None
    mde: float | None = None
    """Smallest effect that this comparison would have claimed with 80 % power, in the unit of `estimate`."""
    mde_ratio: float | None = None
    equivalent_within: float | None = None
    """The declared margin, as a share, if the effect is shown to lie within it."""
    higher_in: int | None = None
    """Units in which `to` was higher than `from`, of n."""
    higher_share_low: float | None = None
    higher_share_high: float | None = None
    companion: Companion | None = None
    without_outliers: WithoutOutliers | None = None
    tried: AttemptTries | None = None
    """Of an attempt against a posture."""
    attempts: AttemptCounts | None = None
    """Of all attempts against a posture."""
    event: EventFacts | None = None
    """Of something that was done during trials."""

    @property
    def kind(self) -> Kind:
        return kind_of(self.subject)

    @property
    def metric(self) -> str:
        return self.key.metric

    @property
    def part(self) -> str:
        """Of which workload, place or operation; empty: of everything."""
        return self.key.part

    @property
    def levels(self) -> Levels:
        """Of every factor, where it is about one cell or setting."""
        return levels_of(self.subject)

    @property
    def scope(self) -> dict[str, ScopeValue]:
        """What it is about, as findings.json has it."""
        return scope_of(self.subject) | self.key.scope

    def flagged(self, kind: FlagKind) -> bool:
        return any(flag.code == kind.code for flag in self.flags)


OF_SOME = ("tried", "attempts", "event")
"""Fields that only findings about attempts, or events, have in findings.json."""


@dataclass(frozen=True)
class Findings:
    """The whole document."""

    study: Mapping[str, Any]
    environment: Mapping[str, Any]
    findings: tuple[Finding, ...]
    fairness: tuple[Mapping[str, Any], ...] = ()
    """What is equal between the compared meshes, and what is not (`analysis.fairness`)."""
    pictures: Pictures = field(default_factory=Pictures)
    tradeoff: tuple[TradePoint, ...] = ()
    """Cost against protection, where both are known."""
    schema_version: int = field(default=SCHEMA_VERSION)


def finite(value: float | None) -> float | None:
    """None for what JSON cannot hold."""
    return None if value is None or not math.isfinite(value) else float(value)


def exp(log: float | None) -> float | None:
    """A ratio from its natural log; None for what JSON cannot hold."""
    return None if log is None or not log < 700 else math.exp(log)
