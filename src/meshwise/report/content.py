"""What there is to show, picked out of findings.json and laid out as ladders. It picks; it computes nothing.

    Content
      Slice          one protocol (and one level of each further factor that varies)
        Ladder       one metric: rows are the rungs, per mesh
          Rung       value, increment over the rung below, increment over no mesh
        differences  between two meshes, per rung

Slopes and interactions are laid out by `growth.py`.
A finding that lacks something is shown without it; what is no findings document is refused (MW702).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from meshwise.core import messages
from meshwise.findings.document import read_finding
from meshwise.findings.finding import SCHEMA_VERSION, Finding
from meshwise.findings.flag import EXPLORATORY
from meshwise.findings.metric import INSTRUCTIONS, Inference, Metric, metric_of
from meshwise.findings.pictures import Pictures
from meshwise.findings.protection import TradePoint
from meshwise.findings.subject import (
    AgainstNone,
    CurvePoint,
    Kind,
    LadderStep,
    MeshDifference,
    StepDifference,
)
from meshwise.report import words
from meshwise.stats.verdict import Verdict
from meshwise.study.factors import CONTEXT_FIELDS, FREE_FIELDS, concerns
from meshwise.study.security import POSTURES

CONTEXT, FREE = CONTEXT_FIELDS, FREE_FIELDS
"""Fields of factors. A slice for every combination of levels of CONTEXT; where one of FREE varies, which
means something in some rungs only, a rung for every level."""


def means(field: str, posture: str) -> bool:
    """Whether a level of this factor means anything in the posture of this name."""
    return posture not in POSTURES or concerns(field, POSTURES[posture])


def of_curve(finding: Finding) -> bool:
    """A level at one rate of a search: it stands in the curve, not in a ladder."""
    return isinstance(finding.subject, CurvePoint)


def differs_alone(finding: Finding) -> bool:
    """A level without company that differs from that in company by more than their intervals."""
    return finding.kind is Kind.LEVEL_ALONE and finding.verdict is Verdict.DISTINGUISHABLE


def is_counted(finding: Finding) -> bool:
    return finding.key.entry.inference is Inference.EXACT


def form_of(found: Iterable[Finding | None], unit: str = "") -> words.Form:
    """One form for all of these; `unit` where none has one."""
    shown = [finding for finding in found if finding]
    return words.form_for(
        next((finding.unit for finding in shown if finding.unit), unit),
        [finding.low if finding.estimate is None else finding.estimate for finding in shown],
        map(half_width, shown),
    )


def half_width(finding: Finding) -> float | None:
    return None if finding.low is None or finding.high is None else (finding.high - finding.low) / 2


@dataclass(frozen=True)
class Rung:
    mesh: str
    posture: str
    label: str
    """The posture, with the levels of further factors that vary at this rung."""
    value: Finding | None
    step: Finding | None = None
    """Increment over the rung below."""
    over_none: Finding | None = None
    """Increment over no mesh."""
    variant: str = ""
    """What `label` says beside the posture."""
    alone: Finding | None = None
    """The level without company, where it differs from `value` by more than their intervals."""

    @property
    def judged(self) -> Finding | None:
        """What the verdict is about: the step; over no mesh where no rung is below (factorial studies)."""
        return self.step or self.over_none


@dataclass(frozen=True)
class Ladder:
    """One metric in one slice."""

    metric: str
    rungs: tuple[Rung, ...]
    differences: tuple[Finding, ...] = ()
    """Between meshes, at a rung or of an increment."""
    free: tuple[str, ...] = ()
    """Factors of FREE that have several levels at some rung."""

    @property
    def titled(self) -> Metric:
        return metric_of(self.metric)

    @property
    def exploratory(self) -> bool:
        """Not among the metrics that the study declared before its first trial."""
        return any(rung.step.flagged(EXPLORATORY) for rung in self.rungs if rung.step)

    def rung_like(self, other: Rung) -> Rung | None:
        """Of the same mesh, posture and variant; where only the other ladder has variants, of the posture."""
        same = [rung for rung in self.rungs if (rung.mesh, rung.posture) == (other.mesh, other.posture)]
        exact = [rung for rung in same if rung.variant == other.variant]
        return next(iter(exact or (same if len(same) == 1 else [])), None)

    @cached_property
    def form(self) -> words.Form:
        shown = [item for rung in self.rungs for item in (rung.value, rung.step, rung.over_none)]
        return form_of([*shown, *self.differences], self.titled.unit)

    @cached_property
    def common_notes(self) -> list[words.Note]:
        """Flags that all values, or all steps, carry."""
        values = words.common_notes(rung.value for rung in self.rungs)
        steps = words.common_notes(rung.step for rung in self.rungs)
        return list(dict.fromkeys([*values, *steps]))


@dataclass(frozen=True)
class Slice:
    """What is compared among itself: one protocol, one level of every further factor."""

    levels: Mapping[str, Any]
    label: str
    meshes: tuple[str, ...]
    """Without `none`."""
    ladders: tuple[Ladder, ...]

    def ladder(self, metric: str) -> Ladder | None:
        return next((ladder for ladder in self.ladders if ladder.metric == metric), None)


@dataclass(frozen=True)
class Content:
    study: Mapping[str, Any]
    environment: Mapping[str, Any]
    findings: tuple[Finding, ...]
    slices: tuple[Slice, ...]
    primary: tuple[str, ...]
    fairness: tuple[Mapping[str, Any], ...] = ()
    """What is equal between the meshes: `what`, `equal`, a value per mesh, `basis`, `effect`, `removable`."""
    counted: tuple[Slice, ...] = ()
    """The same of what was counted, which has no rate."""
    statuses: Mapping[str, int] = field(default_factory=dict)
    """How many trials ended `ok`, `failed`, `unproven`."""
    pictures: Pictures = field(default_factory=Pictures)
    tradeoff: tuple[TradePoint, ...] = ()

    @property
    def name(self) -> str:
        return str(self.study.get("name") or "study")

    @property
    def fake(self) -> bool:
        """No proxy ran: this is an archive of the fake testbed."""
        return str(self.environment.get("testbed", "")) == "fake"

    def counted_beside(self, part: Slice) -> Ladder | None:
        """Instructions per request of what differs from `part` by its rate only; where the study counts with
        connections or streams of their own, with the fewest of them that it has."""
        free = ("rate_rps", "connections", "streams")
        same = [
            each
            for each in self.counted
            if all(each.levels[name] == part.levels[name] for name in CONTEXT if name not in free)
        ]
        exact = [each for each in same if all(each.levels[name] == part.levels[name] for name in free[1:])]
        found = exact or sorted(same, key=lambda each: [each.levels[name] for name in free[1:]])
        return found[0].ladder(INSTRUCTIONS) if found else None

    def of_kind(self, *kinds: str) -> tuple[Finding, ...]:
        return tuple(finding for finding in self.findings if finding.kind in kinds)


def content(
    document: Mapping[str, Any],
    where: str = "findings.json",
    statuses: Mapping[str, int] | None = None,
) -> Content:
    """Lay a findings document out, with what only the archive knows.

    Raises MW702 when it is not one, MW703 when it is of a newer version.
    """
    try:
        version = int(document["schema_version"])
        study, environment = dict(document["study"]), dict(document["environment"])
        if version > SCHEMA_VERSION:
            raise messages.NEWER_FINDINGS.error(where, found=version, known=SCHEMA_VERSION)
        findings = tuple(read_finding(entry) for entry in document["findings"])
        pictures = Pictures.read(document.get("pictures") or {})
        tradeoff = tuple(map(TradePoint.read, document.get("tradeoff") or ()))
    except (LookupError, TypeError, ValueError, AttributeError) as error:
        raise messages.NO_FINDINGS_DOCUMENT.error(where, reason=f"{type(error).__name__}: {error}") from error
    declared = study.get("primary_metrics") or ()
    measured = {finding.metric for finding in findings if finding.kind == "level" and not of_curve(finding)}
    primary = tuple(metric for metric in (*declared, "memory_bytes") if metric in measured)
    return Content(
        study,
        environment,
        findings,
        _slices(tuple(finding for finding in findings if not is_counted(finding))),
        tuple(dict.fromkeys(primary)),
        tuple(entry for entry in document.get("fairness") or () if isinstance(entry, Mapping)),
        _slices(tuple(filter(is_counted, findings))),
        statuses or {},
        pictures,
        tradeoff,
    )


def _slices(findings: tuple[Finding, ...]) -> tuple[Slice, ...]:
    levels = [finding for finding in findings if finding.kind is Kind.LEVEL and "protocol" in finding.levels]
    levels = [finding for finding in levels if not of_curve(finding)]
    meshed = [finding for finding in levels if finding.levels.get("mesh") != "none"] or levels
    keys = list(dict.fromkeys(_context(finding) for finding in meshed))
    varying = words.varying([dict(zip(CONTEXT, key, strict=True)) for key in keys], CONTEXT)
    return tuple(_slice(key, varying, findings) for key in keys)


def _context(finding: Finding) -> tuple[Any, ...]:
    return tuple(finding.levels.get(name) for name in CONTEXT)


def _slice(key: tuple[Any, ...], varying: list[str], findings: tuple[Finding, ...]) -> Slice:
    levels = dict(zip(CONTEXT, key, strict=True))
    mine = [
        finding
        for finding in findings
        if not finding.part
        and not of_curve(finding)
        and all(finding.levels.get(name) in (None, value) for name, value in levels.items())
    ]
    metrics = dict.fromkeys(finding.metric for finding in mine if finding.kind is Kind.LEVEL)
    meshes = dict.fromkeys(str(finding.levels.get("mesh")) for finding in mine if finding.kind is Kind.LEVEL)
    said = (words.level(name, levels[name]) for name in varying if name != "protocol")
    others = [text for text in said if text]
    return Slice(
        levels=levels,
        label=" · ".join([str(levels["protocol"]), *others]),
        meshes=tuple(mesh for mesh in meshes if mesh != "none"),
        ladders=tuple(_ladder(metric, [f for f in mine if f.metric == metric]) for metric in metrics),
    )


def _ladder(metric: str, mine: list[Finding]) -> Ladder:
    levels = [finding for finding in mine if finding.kind is Kind.LEVEL]
    increments = [finding for finding in mine if finding.kind is Kind.INCREMENT]
    alone = [finding for finding in mine if differs_alone(finding)]
    free = free_of(levels)
    meshes = list(dict.fromkeys(finding.levels["mesh"] for finding in levels))

    def place(finding: Finding) -> tuple[Any, ...]:
        at = finding.levels
        levels_of_free = [at.get(name) or 0 for name in free]
        return (*words.rung_order(str(at["posture"])), *levels_of_free, meshes.index(at["mesh"]))

    ordered = sorted(levels, key=place)
    bottom: dict[Any, Any] = {}
    for finding in ordered:
        bottom.setdefault(finding.levels["mesh"], finding.levels["posture"])
    lowest = [finding for finding in ordered if bottom[finding.levels["mesh"]] == finding.levels["posture"]]
    return Ladder(
        metric,
        tuple(_rung(finding, increments, alone, free, finding in lowest) for finding in ordered),
        tuple(finding for finding in mine if isinstance(finding.subject, MeshDifference | StepDifference)),
        tuple(free),
    )


def variant_of(scope: Mapping[str, Any], free: Sequence[str]) -> str:
    """Levels of the free factors that vary and mean something in this posture."""
    said = (
        words.level(name, scope[name])
        for name in free
        if means(name, str(scope["posture"])) and not words.is_idle(name, scope)
    )
    return ", ".join(text for text in said if text)


def free_of(levels: Sequence[Finding]) -> list[str]:
    """Free factors of which some posture has several levels."""
    return [name for name in FREE if _varies_within_a_posture(name, levels)]


def _varies_within_a_posture(name: str, levels: Sequence[Finding]) -> bool:
    seen: dict[tuple[Any, Any], set[Any]] = {}
    for finding in levels:
        if finding.levels.get("mesh") != "none":
            seen.setdefault((finding.levels["mesh"], finding.levels["posture"]), set()).add(
                finding.levels.get(name)
            )
    return any(len(values) > 1 for values in seen.values())


def _rung(
    level: Finding, increments: list[Finding], alone: list[Finding], free: list[str], lowest: bool
) -> Rung:
    """`lowest`: nothing but no mesh is below it."""
    at = level.levels
    own = [
        (finding, finding.subject)
        for finding in increments
        if isinstance(finding.subject, LadderStep | AgainstNone)
        and finding.subject.upper == at["posture"]
        and finding.levels.get("mesh") == at["mesh"]
        and all(finding.levels.get(name) == at.get(name) for name in FREE)
    ]
    own.sort(key=lambda each: words.rung_order(each[1].lower))
    over_none = next((finding for finding, subject in own if isinstance(subject, AgainstNone)), None)
    steps = [finding for finding, subject in own if isinstance(subject, LadderStep) or lowest]
    posture = str(at["posture"])
    variant = variant_of(at, free)
    label = f"{posture}, {variant}" if variant else posture
    without_company = next((finding for finding in alone if finding.levels == at), None)
    step = steps[-1] if steps else None
    return Rung(str(at["mesh"]), posture, label, level, step, over_none, variant, without_company)
