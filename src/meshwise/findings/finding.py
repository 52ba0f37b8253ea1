"""A finding: one thing that the study says, with how sure it is. The rows of findings.json.

docs/findings.md explains the fields; `schema` is the same as JSON Schema. Within one SCHEMA_VERSION
fields are only added.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from enum import StrEnum
from typing import Any

from meshwise.stats.verdict import Direction, Verdict

SCHEMA_VERSION = 1
OBSERVED, CONFIGURED = "observed", "configured"
"""Of an entry of the fairness card: what its values rest on."""

ScopeValue = str | float | int


class Kind(StrEnum):
    LEVEL = "level"
    INCREMENT = "increment"
    DIFFERENCE = "difference"
    NOISE_FLOOR = "noise_floor"
    VARIANCE = "variance"
    CHECK = "check"


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


@dataclass(frozen=True)
class Finding:
    """None where something cannot be told or does not apply; infinite numbers never appear."""

    id: str
    kind: Kind
    metric: str
    scope: Mapping[str, ScopeValue]
    estimate: float | None
    low: float | None
    high: float | None
    confidence: float
    unit: str
    n: int
    """Independent units behind it: executions with a complete pair; trials for some checks."""
    method: str
    verdict: Verdict | None = None
    provenance: str = "measured"
    flags: tuple[str, ...] = ()
    """`code: words`."""
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
    adjustment: str | None = None
    """`holm` (declared family of a primary metric) or `bh` (exploratory), with the size of the family."""
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

    def as_json(self) -> dict[str, Any]:
        return {entry.name: _plain(getattr(self, entry.name)) for entry in fields(self)}


@dataclass(frozen=True)
class Findings:
    """The whole document."""

    study: Mapping[str, Any]
    environment: Mapping[str, Any]
    findings: tuple[Finding, ...]
    fairness: tuple[Mapping[str, Any], ...] = ()
    """What is equal between the compared meshes, and what is not (`analysis.fairness`)."""
    schema_version: int = field(default=SCHEMA_VERSION)

    def as_json(self) -> dict[str, Any]:
        return {
            "schema_version": self.schema_version,
            "study": _plain(self.study),
            "environment": _plain(self.environment),
            "fairness": _plain(self.fairness),
            "findings": [finding.as_json() for finding in self.findings],
        }


def finite(value: float | None) -> float | None:
    """None for what JSON cannot hold."""
    return None if value is None or not math.isfinite(value) else float(value)


def exp(log: float | None) -> float | None:
    """A ratio from its natural log; None for what JSON cannot hold."""
    return None if log is None or not log < 700 else math.exp(log)


def _plain(value: Any) -> Any:
    if isinstance(value, StrEnum):
        return str(value)
    if isinstance(value, (Companion, WithoutOutliers)):
        return {entry.name: _plain(getattr(value, entry.name)) for entry in fields(value)}
    if isinstance(value, Mapping):
        return {str(key): _plain(entry) for key, entry in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(entry) for entry in value]
    if isinstance(value, float):
        return finite(value)
    return value
