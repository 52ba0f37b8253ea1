"""What was counted against an earlier count: has anything changed? Pure.

Both are findings: a `findings.json`, or the part of one that this needs (`baseline_of`), small enough to be
committed. Counts of other proxies, of another counter or CPU, or with other cryptography say nothing about a
change, so they are refused and not compared.

Rules of this file:
- The two counts share no execution: levels are compared by Welch's t on logs, steps and slopes by Welch's t.
- A change must exceed the noise rule of both (the finding's `floor`) as well.
- System calls are shown and not judged: an Envoy makes more or fewer of them as the machine is busy, because
  its timers then find it at work (docs/counting.md).
- Holm over the sums of instructions per request of one kind, Benjamini-Hochberg over all else.
- A cell that is asked for and was counted before, but not now, is *lost*: nobody can say that it has not
  changed. A cell that the study does not ask for any more is not lost.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from meshwise.findings.finding import Finding
from meshwise.findings.metric import (
    CALLS,
    HANDSHAKE,
    INSTRUCTIONS,
    PER_KIB,
    PER_RULE,
    RESUMED,
    MetricKey,
    PartOf,
)
from meshwise.findings.subject import Kind, LadderStep, Slope
from meshwise.stats.interval import Interval
from meshwise.stats.multiplicity import benjamini_hochberg, holm
from meshwise.stats.welch import Uncertain, difference, of_bounds, welch_p

COMPARED = (INSTRUCTIONS, CALLS, HANDSHAKE, RESUMED, PER_KIB, PER_RULE)
_KEPT = (
    "id", "kind", "metric", "scope", "estimate", "low", "high", "confidence", "unit", "n", "method",
    "provenance", "floor", "floor_ratio",
)  # fmt: skip
"""Fields of a finding that a baseline keeps."""
_OF_A_PROXY = ("proxy", "version", "revision", "digest", "build", "tls_library")
_OF_THE_COUNTER = ("tool", "version", "cpu")
_UNKNOWN = "unknown"


@dataclass(frozen=True)
class Counts:
    """One side of the comparison."""

    name: str
    """Of the study."""
    identity: Mapping[str, str]
    """What must be equal, in words -> value."""
    tls: Mapping[str, Mapping[str, str]]
    """Cell -> what its proof observed of its cryptography."""
    findings: tuple[Finding, ...]


@dataclass(frozen=True)
class CountChange:
    """One finding, then and now."""

    then: Finding
    now: Finding
    share: Interval | None
    """Change as a share of the earlier value; None for steps and slopes, which may be near 0."""
    difference: Interval
    """Now less then, in the unit."""
    rule: float
    """What it had to exceed, in the unit of `share` if there is one, else of `difference`."""
    p_adjusted: float

    @property
    def key(self) -> MetricKey:
        return self.now.key

    @property
    def is_judged(self) -> bool:
        return self.key.metric != CALLS

    def beyond(self, alpha: float) -> bool:
        """Whether it is a change, of what is judged."""
        judged = self.share or self.difference
        return (
            self.is_judged
            and self.p_adjusted < alpha
            and judged.excludes(0)
            and abs(judged.estimate) > self.rule
        )


@dataclass(frozen=True)
class Comparison:
    changes: tuple[CountChange, ...]
    alpha: float
    only_then: tuple[str, ...] = ()
    """Ids of findings that the other side lacks."""
    only_now: tuple[str, ...] = ()
    lost: tuple[Finding, ...] = ()
    """Of `only_then`: instructions per request of cells that are asked for now as well."""

    @property
    def changed(self) -> tuple[CountChange, ...]:
        return tuple(each for each in self.changes if each.beyond(self.alpha))


def baseline_of(document: Mapping[str, Any]) -> dict[str, Any]:
    """The part of a findings document that a later count is compared with."""
    environment = document["environment"]
    rows = [
        {name: row.get(name) for name in _KEPT}
        for row in document["findings"]
        if row["provenance"] == "counted" and row["metric"] in COMPARED
    ]
    study = {name: document["study"].get(name) for name in ("name", "counting")}
    return {
        "schema_version": document["schema_version"],
        "study": study,
        "environment": {
            name: environment[name] for name in ("testbed", "counter", "proxies") if name in environment
        },
        "findings": rows,
    }


def counts_of(
    study: Mapping[str, Any], environment: Mapping[str, Any], findings: Sequence[Finding]
) -> Counts:
    """One side, of a findings document that was read. Raises AttributeError, TypeError, ValueError for what
    `meshwise count` does not write."""
    counting = study.get("counting") or {}
    tls = {str(cell): dict(facts) for cell, facts in (counting.get("tls") or {}).items()}
    return Counts(
        str(study.get("name", "")),
        {"counter": str(counting.get("counter") or _UNKNOWN), **identity_of(environment)},
        tls,
        tuple(_sound(each) for each in findings if each.metric in COMPARED and _is_compared(each)),
    )


def identity_of(environment: Mapping[str, Any]) -> dict[str, str]:
    """What of a count is known before anything is counted: its counter, and its proxies."""
    counter = environment.get("counter") or {}
    identity = {f"counter's {name}": str(counter.get(name) or _UNKNOWN) for name in _OF_THE_COUNTER}
    for mesh, facts in (environment.get("proxies") or {}).items():
        if mesh != "none":
            known = (str(facts[name]) for name in _OF_A_PROXY if facts.get(name))
            identity[f"{mesh}'s proxy"] = ", ".join(known) or _UNKNOWN
    return identity


def _sound(finding: Finding) -> Finding:
    """The finding. Raises ValueError where its numbers are no interval of a mean (a file may be altered)."""
    estimate, low, high, floor = finding.estimate, finding.low, finding.high, finding.floor
    numbers = (estimate, low, high, floor, finding.confidence, finding.floor_ratio or 1.0)
    if not all(isinstance(each, int | float) and math.isfinite(each) for each in numbers):
        raise ValueError(f"{finding.id}: a value is no number")
    assert estimate is not None
    assert low is not None
    assert high is not None
    rounding = 1e-9 * abs(estimate)
    if not low - rounding <= estimate <= high + rounding:
        raise ValueError(f"{finding.id}: the estimate is not in its interval")
    if not (isinstance(finding.n, int) and finding.n >= 1 and 0 < finding.confidence < 1):
        raise ValueError(f"{finding.id}: no interval has n {finding.n}, confidence {finding.confidence}")
    return finding


def _is_compared(finding: Finding) -> bool:
    if finding.estimate is None or finding.low is None or finding.high is None or finding.floor is None:
        return False
    of_kind = finding.kind is Kind.LEVEL or isinstance(finding.subject, Slope)
    is_step = isinstance(finding.subject, LadderStep) and finding.metric == INSTRUCTIONS
    return (of_kind or is_step) and finding.key.entry.parts is PartOf.WORKLOAD


def unlike(then: Counts, now: Counts) -> list[str]:
    """Why the two may not be compared; empty if they may. What only one of them has (a mesh) is left out of
    the comparison, not a reason."""
    reasons = unlike_identity(then.identity, now.identity)
    differing: dict[str, list[str]] = {}
    for cell, facts in then.tls.items():
        for fact, value in facts.items():
            other = now.tls.get(cell, {}).get(fact, value)
            if other != value:
                differing.setdefault(f"{fact.replace('_', ' ')} is {other}, not {value}", []).append(cell)
    reasons += [f"{what}, in {', '.join(cells)}" for what, cells in differing.items()]
    if not set(map(_about, then.findings)) & set(map(_about, now.findings)):
        reasons.append("they have no cell in common")
    return reasons


def unlike_identity(then: Mapping[str, str], now: Mapping[str, str]) -> list[str]:
    """The part of `unlike` that can be told before anything is counted."""
    return [
        f"{what} is {now[what]}, not {value}"
        for what, value in then.items()
        if what in now and now[what] != value
    ]


def compare(
    then: Counts, now: Counts, confidence: float, asked: Collection[Mapping[str, object]] = ()
) -> Comparison:
    """Of what both have. `unlike` is asked first. `asked`: levels of the cells to be counted now."""
    before = {_about(each): each for each in then.findings}
    pairs = [(before[_about(each)], each) for each in now.findings if _about(each) in before]
    changes = [_change(*pair, confidence) for pair in pairs]
    adjusted = _adjusted(changes)
    after = set(map(_about, now.findings))
    gone = {about: each for about, each in before.items() if about not in after}
    wanted = {(Kind.LEVEL, INSTRUCTIONS, *_in_order(levels)) for levels in asked}
    return Comparison(
        tuple(CountChange(*parts, p) for parts, p in zip(changes, adjusted, strict=True)),
        1 - confidence,
        tuple(each.id for each in gone.values()),
        tuple(each.id for each in now.findings if _about(each) not in before),
        tuple(each for about, each in gone.items() if about in wanted),
    )


def _about(finding: Finding) -> tuple[object, ...]:
    """What it says something of, however the study calls it."""
    return finding.kind, finding.metric, *_in_order(finding.scope)


def _in_order(scope: Mapping[str, object]) -> Iterator[tuple[str, str]]:
    yield from sorted((name, str(value)) for name, value in scope.items())


_Parts = tuple[Finding, Finding, Interval | None, Interval, float]


def _change(then: Finding, now: Finding, confidence: float) -> _Parts:
    plain = difference(_estimate(now), _estimate(then), confidence)
    if now.kind is Kind.LEVEL and all(_positive(each) for each in (then, now)):
        logs = difference(_estimate(now, logs=True), _estimate(then, logs=True), confidence)
        estimate, low, high = np.expm1([logs.estimate, logs.low, logs.high]).tolist()
        share = Interval(estimate, low, high, confidence, logs.n)
        return then, now, share, plain, max(each.floor_ratio or 1.0 for each in (then, now)) - 1
    return then, now, None, plain, max(each.floor or 0.0 for each in (then, now))


def _positive(finding: Finding) -> bool:
    return finding.low is not None and finding.low > 0


def _estimate(finding: Finding, *, logs: bool = False) -> Uncertain:
    assert finding.estimate is not None
    assert finding.low is not None
    assert finding.high is not None
    bounds = np.array([finding.estimate, finding.low, finding.high])
    middle, low, high = (np.log(bounds) if logs else bounds).tolist()
    return of_bounds(middle, low, high, finding.n, finding.confidence)


def _adjusted(changes: Sequence[_Parts]) -> list[float]:
    """As in the analysis of one count: sums of instructions per request are what it is about."""
    found = [1.0] * len(changes)
    for places, method in _families(changes):
        p = np.array([_p(changes[place]) for place in places])
        for place, value in zip(places, method(p), strict=True):
            found[place] = float(value)
    return found


def _families(changes: Sequence[_Parts]) -> Iterator[tuple[list[int], Any]]:
    primary = [now.metric == INSTRUCTIONS and not now.part for _, now, *_ in changes]
    for kind in (Kind.LEVEL, Kind.INCREMENT):
        places = [place for place, (_, now, *_) in enumerate(changes) if primary[place] and now.kind is kind]
        if places:
            yield places, holm
    rest = [place for place, is_primary in enumerate(primary) if not is_primary]
    if rest:
        yield rest, benjamini_hochberg


def _p(parts: _Parts) -> float:
    then, now, share, _, _ = parts
    logs = share is not None
    return welch_p(_estimate(now, logs=logs), _estimate(then, logs=logs))
