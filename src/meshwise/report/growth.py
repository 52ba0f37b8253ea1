"""What one more of something costs, and whether features cost more together: picked and laid out for tables.

    Growth       one factor and metric: a line per posture (and setting), the levels beside the slope
    Together     one metric: a row per pair of features (and setting), the four levels beside the interaction

Like `content.py` it picks and computes nothing. The levels stand beside a slope because a slope is a straight
line by construction: only they show a bend.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

from meshwise.findings.finding import Finding
from meshwise.findings.flag import DESCRIPTIVE, EXPLORATORY
from meshwise.findings.metric import Metric, metric_of
from meshwise.findings.subject import Interaction, Kind, Slope, SlopePart
from meshwise.report import words
from meshwise.report.content import CONTEXT, FREE, Content, form_of, is_counted, means, of_curve
from meshwise.study.factors import BY_FIELD
from meshwise.study.security import Authorization, MtlsMode, Posture

SETTING = (*CONTEXT, *FREE)


@dataclass(frozen=True)
class Line:
    """One posture of one mesh in one setting."""

    setting: str
    """What else varies, e.g. `grpc · response 4KiB`; empty where nothing does."""
    mesh: str
    posture: str
    levels: tuple[Finding | None, ...]
    """At each of the growth's points."""
    slope: Finding
    subject: Slope

    @property
    def name(self) -> str:
        """`istio strict`; `no mesh`."""
        return "no mesh" if self.mesh == "none" else f"{self.mesh} {self.posture}"


@dataclass(frozen=True)
class Growth:
    factor: str
    part: SlopePart
    metric: str
    points: tuple[Any, ...]
    """Levels of the factor that the study has, ascending."""
    lines: tuple[Line, ...]

    @property
    def step(self) -> str:
        """`each further chain node`; `idling`."""
        return self.lines[0].subject.words

    @property
    def titled(self) -> Metric:
        """The metric; without `per request` where the rate is what varies."""
        known = metric_of(metric_of(self.metric).slope_of or self.metric)
        if self.factor != "rate_rps":
            return known
        return replace(known, title=known.without_per(known.title), short=known.without_per(known.short))

    @property
    def point_names(self) -> tuple[str, ...]:
        return tuple(_point(self.factor, point) for point in self.points)

    @property
    def factor_words(self) -> str:
        """What the points count: `length of the chain`, `policy entries`."""
        shape = str(self.lines[0].slope.levels.get("shape", "chain"))
        step = BY_FIELD[self.factor].growth
        return step.axis.format(shape=shape) if step else "rate"

    @property
    def settings(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys(line.setting for line in self.lines))

    @property
    def highest(self) -> tuple[Line, ...]:
        """No mesh, and the highest posture of every mesh, in each setting."""
        return tuple({(line.setting, line.mesh): line for line in self.lines}.values())

    @property
    def exploratory(self) -> bool:
        return any(line.slope.flagged(EXPLORATORY) for line in self.lines)

    @cached_property
    def form(self) -> words.Form:
        """Of the slopes."""
        return form_of(line.slope for line in self.lines)

    @cached_property
    def level_form(self) -> words.Form:
        return form_of((level for line in self.lines for level in line.levels), self.titled.unit)

    @property
    def level_unit(self) -> str:
        """Of the values at each point; where the rate varies the title does not say per what."""
        per = f" {self.titled.per}" if self.factor == "rate_rps" and self.titled.per else ""
        return self.level_form.unit + per

    @cached_property
    def common_notes(self) -> list[words.Note]:
        return words.common_notes(line.slope for line in self.lines)


@dataclass(frozen=True)
class Pair:
    """One pair of features in one setting of one mesh."""

    setting: str
    mesh: str
    mtls: str
    authorization: str
    levels: tuple[Finding | None, Finding | None, Finding | None, Finding | None]
    """Neither, mTLS alone, authorization alone, both."""
    interaction: Finding


@dataclass(frozen=True)
class Together:
    metric: str
    pairs: tuple[Pair, ...]

    @property
    def titled(self) -> Metric:
        return metric_of(self.metric)

    @property
    def exploratory(self) -> bool:
        return any(pair.interaction.flagged(EXPLORATORY) for pair in self.pairs)

    @property
    def described(self) -> bool:
        """Not judged: percentiles beyond the median do not add up."""
        return any(pair.interaction.flagged(DESCRIPTIVE) for pair in self.pairs)

    @cached_property
    def form(self) -> words.Form:
        return form_of(each for pair in self.pairs for each in (*pair.levels, pair.interaction))

    @cached_property
    def common_notes(self) -> list[words.Note]:
        return words.common_notes(pair.interaction for pair in self.pairs)


def growths(content: Content) -> tuple[Growth, ...]:
    """Slopes of the primary metrics, by factor; CPU split by the rate for every primary CPU metric."""
    return _growths(content, content.primary)


def counted_growths(content: Content) -> tuple[Growth, ...]:
    """Slopes of what was counted."""
    counted = [finding.metric for finding in content.findings if is_counted(finding)]
    return _growths(content, [name for name in counted if metric_of(name).unit == "instructions"])


def _growths(content: Content, metrics: Collection[str]) -> tuple[Growth, ...]:
    groups: dict[tuple[str, SlopePart, str], list[tuple[Finding, Slope]]] = {}
    for finding in content.findings:
        subject = finding.subject
        is_shown = finding.metric in metrics and not finding.part and finding.estimate is not None
        if isinstance(subject, Slope) and is_shown:
            place = (subject.factor, subject.part, finding.metric)
            groups.setdefault(place, []).append((finding, subject))
    return tuple(_growth(*place, slopes, content) for place, slopes in groups.items())


def _growth(
    factor: str, part: SlopePart, metric: str, slopes: list[tuple[Finding, Slope]], content: Content
) -> Growth:
    levels = _levels(content, metric_of(metric).slope_of or metric)
    if factor == "rate_rps":  # of a saturation study: the levels along its searches
        levels = [finding for finding in levels if of_curve(finding)] or levels
    meshed = [finding for finding in levels if finding.levels.get("mesh") != "none"] or levels
    points = sorted({f.levels[factor] for f in meshed if f.levels.get(factor) is not None})
    same = [name for name in SETTING if name != factor]
    found = [slope for slope, _ in slopes]
    varying = _varying([slope for slope in found if slope.levels["mesh"] != "none"] or found, same)
    lines = []
    for slope, subject in slopes:
        own = [
            finding
            for finding in levels
            if all(
                finding.levels.get(name) == slope.levels.get(name)
                or (name in SETTING and words.is_idle(name, finding.levels))
                for name in ("mesh", "posture", *same)
            )
        ]
        by_point = {finding.levels.get(factor): finding for finding in own}
        lines.append(
            Line(
                _setting(slope, varying),
                str(slope.levels["mesh"]),
                str(slope.levels["posture"]),
                tuple(by_point.get(point) for point in points),
                slope,
                subject,
            )
        )
    settings = list(dict.fromkeys(line.setting for line in lines))
    meshes = list(dict.fromkeys(line.mesh for line in lines))
    lines.sort(
        key=lambda at: (
            settings.index(at.setting),
            *words.rung_order(at.posture),
            meshes.index(at.mesh),
        )
    )
    return Growth(factor, part, metric, tuple(points), tuple(lines))


def togethers(content: Content) -> tuple[Together, ...]:
    """Interactions of the primary metrics."""
    groups: dict[str, list[Finding]] = {}
    for finding in content.of_kind(Kind.DIFFERENCE):
        is_shown = finding.metric in content.primary and not finding.part and finding.estimate is not None
        if isinstance(finding.subject, Interaction) and is_shown:
            groups.setdefault(finding.metric, []).append(finding)
    ordered = [metric for metric in content.primary if metric in groups]
    return tuple(_together(metric, groups[metric], content) for metric in ordered)


def _together(metric: str, found: list[Finding], content: Content) -> Together:
    levels = _levels(content, metric)
    varying = _varying(found, SETTING)
    pairs = []
    for finding in found:
        assert isinstance(finding.subject, Interaction)
        mtls, authorization = finding.subject.mtls, finding.subject.authorization
        neither, one, other, both = (
            _at(finding, Posture(mode, kind).name, levels)
            for kind in (Authorization.NONE, Authorization(authorization))
            for mode in (MtlsMode.DISABLE, MtlsMode(mtls))
        )
        pairs.append(
            Pair(
                _setting(finding, varying),
                str(finding.levels["mesh"]),
                mtls,
                authorization,
                (neither, one, other, both),
                finding,
            )
        )
    return Together(metric, tuple(pairs))


def _at(finding: Finding, posture: str, levels: Sequence[Finding]) -> Finding | None:
    """The level of another posture in the setting of `finding`: the one that agrees in most free factors."""
    own = [
        level
        for level in levels
        if level.levels.get("posture") == posture
        and all(level.levels.get(name) == finding.levels.get(name) for name in ("mesh", *CONTEXT))
    ]
    return max(
        own,
        key=lambda at: sum(at.levels.get(name) == finding.levels.get(name) for name in FREE),
        default=None,
    )


def _levels(content: Content, metric: str) -> list[Finding]:
    return [
        finding for finding in content.of_kind(Kind.LEVEL) if finding.metric == metric and not finding.part
    ]


def _varying(found: Iterable[Finding], names: Sequence[str]) -> list[str]:
    return words.varying([finding.levels for finding in found], names)


def _setting(finding: Finding, varying: Sequence[str]) -> str:
    """Levels of what varies and means something in its posture."""
    names = [name for name in varying if means(name, str(finding.levels["posture"]))]
    said = (
        str(finding.levels[name]) if name == "protocol" else words.level(name, finding.levels[name])
        for name in names
        if finding.levels.get(name) is not None
    )
    return " · ".join(text for text in said if text)


def _point(field: str, point: Any) -> str:
    return BY_FIELD[field].text(point)
