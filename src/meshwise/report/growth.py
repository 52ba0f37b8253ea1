"""What one more of something costs, and whether features cost more together: picked and laid out for tables.

    Growth       one factor and metric: a line per posture (and setting), the levels beside the slope
    Together     one metric: a row per pair of features (and setting), the four levels beside the interaction

Like `content.py` it picks and computes nothing. The levels stand beside a slope because a slope is a straight
line by construction: only they show a bend.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

from meshwise.analysis.slope import STEPS
from meshwise.core.units import format_size
from meshwise.findings.finding import Finding, Kind
from meshwise.report import words
from meshwise.report.content import CONTEXT, FREE, Content, half_width, means, of_curve

SETTING = (*CONTEXT, *FREE)
IDLE = "idle"
_FACTOR_WORDS = {
    "length": "nodes of the {shape}",
    "request_bytes": "size of the request",
    "response_bytes": "size of the response",
    "policy_count": "number of policy entries",
    "rate_rps": "rate",
}


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

    @property
    def name(self) -> str:
        """`istio strict`; `no mesh`."""
        return "no mesh" if self.mesh == "none" else f"{self.mesh} {self.posture}"


@dataclass(frozen=True)
class Growth:
    factor: str
    part: str
    """`slope`; for the rate `per request` and `idle`."""
    metric: str
    points: tuple[Any, ...]
    """Levels of the factor that the study has, ascending."""
    lines: tuple[Line, ...]

    @property
    def step(self) -> str:
        """`each further chain node`; `idling`."""
        if self.factor == "rate_rps":
            return "idling" if self.part == IDLE else "each further request"
        shape = str(self.lines[0].slope.scope.get("shape", "chain"))
        return next(step.words for step in STEPS if step.factor == self.factor).format(shape=shape)

    @property
    def titled(self) -> words.Titled:
        """The metric; without `per request` where the rate is what varies."""
        known = words.titled(self.metric)
        if self.factor != "rate_rps":
            return known
        return replace(
            known,
            title=known.title.removesuffix(" per request"),
            short=known.short.removesuffix(" per request"),
        )

    @property
    def point_names(self) -> tuple[str, ...]:
        return tuple(_point(self.factor, point) for point in self.points)

    @property
    def factor_words(self) -> str:
        """What the points count: `length of the chain`, `policy entries`."""
        shape = str(self.lines[0].slope.scope.get("shape", "chain"))
        return _FACTOR_WORDS[self.factor].format(shape=shape)

    @property
    def settings(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys(line.setting for line in self.lines))

    @property
    def exploratory(self) -> bool:
        return any(flag.startswith("exploratory") for line in self.lines for flag in line.slope.flags)

    @cached_property
    def form(self) -> words.Form:
        """Of the slopes."""
        slopes = [line.slope for line in self.lines]
        return words.form_for(slopes[0].unit, [f.estimate for f in slopes], [half_width(f) for f in slopes])

    @cached_property
    def spoken_form(self) -> words.Form:
        """Of the slopes where the words say per what: `each further node adds 12 us`."""
        step_unit = next((step.unit for step in STEPS if step.factor == self.factor), "")
        return replace(self.form, unit=self.form.unit.removesuffix(step_unit))

    @cached_property
    def level_form(self) -> words.Form:
        levels = [level for line in self.lines for level in line.levels if level]
        unit = levels[0].unit if levels else words.titled(self.metric).unit
        return words.form_for(unit, [f.estimate for f in levels], [half_width(f) for f in levels])

    @property
    def level_unit(self) -> str:
        """Of the values at each point; where the rate varies the title does not say per what."""
        per = " per request" if self.titled.title != words.titled(self.metric).title else ""
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

    @property
    def name(self) -> str:
        return f"{self.mtls} mTLS × {self.authorization} authorization"


@dataclass(frozen=True)
class Together:
    metric: str
    pairs: tuple[Pair, ...]

    @property
    def titled(self) -> words.Titled:
        return words.titled(self.metric)

    @property
    def exploratory(self) -> bool:
        return any(flag.startswith("exploratory") for pair in self.pairs for flag in pair.interaction.flags)

    @property
    def described(self) -> bool:
        """Not judged: percentiles beyond the median do not add up."""
        return any(flag.startswith("descriptive") for pair in self.pairs for flag in pair.interaction.flags)

    @cached_property
    def form(self) -> words.Form:
        shown = [level for pair in self.pairs for level in pair.levels if level]
        shown += [pair.interaction for pair in self.pairs]
        return words.form_for(shown[0].unit, [f.estimate for f in shown], [half_width(f) for f in shown])

    @cached_property
    def common_notes(self) -> list[words.Note]:
        return words.common_notes(pair.interaction for pair in self.pairs)


def growths(content: Content) -> tuple[Growth, ...]:
    """Slopes of the primary metrics, by factor; CPU split by the rate for every primary CPU metric."""
    found = [f for f in content.of_kind(Kind.DIFFERENCE) if "factor" in f.scope and "workload" not in f.scope]
    groups: dict[tuple[str, str, str], list[Finding]] = {}
    for finding in found:
        place = (str(finding.scope["factor"]), str(finding.scope.get("part", "slope")), finding.metric)
        if finding.metric in content.primary and finding.estimate is not None:
            groups.setdefault(place, []).append(finding)
    return tuple(_growth(*place, slopes, content) for place, slopes in groups.items())


def _growth(factor: str, part: str, metric: str, slopes: list[Finding], content: Content) -> Growth:
    levels = _levels(content, metric)
    if factor == "rate_rps":  # of a saturation study: the levels along its searches
        levels = [finding for finding in levels if of_curve(finding)] or levels
    meshed = [finding for finding in levels if finding.scope.get("mesh") != "none"] or levels
    points = sorted({f.scope[factor] for f in meshed if f.scope.get(factor) is not None})
    same = [name for name in SETTING if name != factor]
    varying = _varying([slope for slope in slopes if slope.scope["mesh"] != "none"] or slopes, same)
    lines = []
    for slope in slopes:
        own = [
            finding
            for finding in levels
            if all(finding.scope.get(name) == slope.scope.get(name) for name in ("mesh", "posture", *same))
        ]
        by_point = {finding.scope.get(factor): finding for finding in own}
        lines.append(
            Line(
                _setting(slope, varying),
                str(slope.scope["mesh"]),
                str(slope.scope["posture"]),
                tuple(by_point.get(point) for point in points),
                slope,
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
        known = "interaction" in finding.scope and "workload" not in finding.scope
        if known and finding.metric in content.primary and finding.estimate is not None:
            groups.setdefault(finding.metric, []).append(finding)
    ordered = [metric for metric in content.primary if metric in groups]
    return tuple(_together(metric, groups[metric], content) for metric in ordered)


def _together(metric: str, found: list[Finding], content: Content) -> Together:
    levels = _levels(content, metric)
    varying = _varying(found, SETTING)
    pairs = []
    for finding in found:
        mtls, _, authorization = str(finding.scope["posture"]).partition("+")
        postures = ("plaintext", mtls, f"plaintext+{authorization}", f"{mtls}+{authorization}")
        neither, one, other, both = (_at(finding, posture, levels) for posture in postures)
        pairs.append(
            Pair(
                _setting(finding, varying),
                str(finding.scope["mesh"]),
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
        if level.scope.get("posture") == posture
        and all(level.scope.get(name) == finding.scope.get(name) for name in ("mesh", *CONTEXT))
    ]
    return max(
        own, key=lambda at: sum(at.scope.get(name) == finding.scope.get(name) for name in FREE), default=None
    )


def _levels(content: Content, metric: str) -> list[Finding]:
    return [
        finding
        for finding in content.of_kind(Kind.LEVEL)
        if finding.metric == metric and "workload" not in finding.scope
    ]


def _varying(found: Iterable[Finding], names: Sequence[str]) -> list[str]:
    return words.varying([finding.scope for finding in found], names)


def _setting(finding: Finding, varying: Sequence[str]) -> str:
    """Levels of what varies and means something in its posture."""
    names = [name for name in varying if means(name, str(finding.scope["posture"]))]
    return " · ".join(
        str(finding.scope[name]) if name == "protocol" else words.level(name, finding.scope[name])
        for name in names
        if finding.scope.get(name) is not None
    )


def _point(factor: str, point: Any) -> str:
    if factor.endswith("_bytes"):
        return format_size(point)
    return f"{point:g}/s" if factor == "rate_rps" else str(point)
