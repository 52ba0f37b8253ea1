"""What a posture costs against what it stops: a compact table, and a drawing per metric. It picks; it
computes nothing: the points and who dominates whom are `tradeoff` of findings.json."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from markupsafe import Markup

from meshwise.analysis.tradeoff import COSTS
from meshwise.findings.metric import CPU, INSTRUCTIONS, metric_of
from meshwise.findings.protection import Standing, TradePoint
from meshwise.findings.subject import Kind
from meshwise.report import words
from meshwise.report.blocks import (
    Block,
    Figure,
    Heading,
    Paragraph,
    Ranged,
    Row,
    Section,
    Setting,
    Table,
    TableColumn,
    figures,
    mesh_column,
    mesh_entry,
)
from meshwise.report.charts import slug
from meshwise.report.content import CONTEXT, FREE, Content, Slice, variant_of
from meshwise.report.tradeoff_chart import PlottedPoint, tradeoff_chart
from meshwise.report.words import Form, form_for

HOW_TO_COST = "not measured; `meshwise run STUDY.yaml --out DIR` measures them in the same archive"
_SHORTER = {CPU: "CPU", INSTRUCTIONS: "instructions", "memory_bytes": "memory"}
"""Where a metric's short name is too long for a column, or for a list."""
_MARKS = {Standing.FRONT: "•", Standing.PERHAPS: "~", Standing.DOMINATED: "\u00a0"}
_ABOUT = (
    "A posture is dominated where another one costs less and stops at least what it stops, of the attempts "
    "that mean something in both. •: on the Pareto front, no other dominates it; ~: one may, as far as costs "
    "can be told apart and attempts are decided; no mark: dominated."
)
_ON_PAGE = (
    "Dominated postures have hollow marks. Horizontal lines are intervals of the cost, vertical ones go from "
    "what was stopped in every try to what may be stopped. The dashed line is the most that postures on the "
    "front stop at a cost; who is on the front below it stops something that those on it let through. "
    "Attempts are of mesh and posture; they are not tried apart for each protocol or number of policies."
)
MOST_NAMED = 2
"""Dominating postures that are named."""


@dataclass(frozen=True)
class _Rung:
    mesh: str
    posture: str
    variant: str

    @property
    def label(self) -> str:
        return f"{self.posture}, {self.variant}" if self.variant else self.posture

    def named(self, *, many: bool) -> str:
        """As it stands in a list; `many`: of several meshes."""
        if self.mesh == "none":
            return "no mesh"
        return f"{self.mesh} {self.label}" if many else self.label


def tradeoff_line(content: Content) -> str:
    """How to get what is missing: costs where there is protection only. Empty where both are there."""
    tried = any(finding.kind is Kind.PROTECTION for finding in content.findings)
    return HOW_TO_COST if tried and not content.tradeoff else ""


def section(content: Content) -> Section | None:
    """None where costs or protection are not known."""
    parts = [part for part in content.slices or content.counted if _points(content, part)]
    if not parts:
        return None
    blocks: list[Block] = [Paragraph(_ABOUT, page_only=False), Paragraph(_ON_PAGE)]
    for part in parts:
        if len(parts) > 1:
            blocks.append(Heading(part.label))
        blocks += _slice(content, part, several=len(parts) > 1)
    return Section("tradeoff", "Cost against protection", tuple(blocks), "cost against protection")


def _points(content: Content, part: Slice) -> dict[str, list[TradePoint]]:
    """Points of this slice by metric; of what is counted those that stand beside it."""
    beside = content.counted_beside(part)
    counted = next((rung.value.levels for rung in beside.rungs if rung.value), None) if beside else None
    found: dict[str, list[TradePoint]] = {}
    for metric in COSTS:
        levels: Mapping[str, object] | None = counted if metric == INSTRUCTIONS else part.levels
        own = [
            point
            for point in content.tradeoff
            if levels is not None
            and point.metric == metric
            and all(point.at.get(name) == levels.get(name) for name in CONTEXT)
        ]
        if own:
            found[metric] = own
    return found


def _slice(content: Content, part: Slice, *, several: bool) -> Iterator[Block]:
    found = _points(content, part)
    every = [point for points in found.values() for point in points]
    many = len({str(point.at["mesh"]) for point in every} - {"none"}) > 1
    free = _free(every)
    forms = {metric: _form(points) for metric, points in found.items()}
    name = f"tradeoff-{slug(part.label)}"
    drawn = []
    for metric, points in found.items():
        form = forms[metric]
        title = f"{metric_of(metric).title}, {form.unit}, and attempts stopped"
        plotted = [
            PlottedPoint(
                str(point.at["mesh"]), _rung(point, free).label, point,
                _dominators(content, point, free, many=many) if point.dominated_by else "",
            )
            for point in points
        ]  # fmt: skip
        drawing = tradeoff_chart(f"{name}-{slug(metric)}", title, plotted, form)
        meshes = dict.fromkeys(each.mesh for each in plotted)
        legend = [
            (f"mesh-{slug(mesh)} key-mark {mesh}", "no mesh" if mesh == "none" else mesh) for mesh in meshes
        ]
        drawn.append(
            Figure(Markup(drawing), title, (*legend, ("front key-line", "the most that is stopped")))
        )
    yield from figures(drawn)
    yield _table(content, part, found, forms, free, many=many, several=several)


def _free(points: Sequence[TradePoint]) -> list[str]:
    """Factors of which some posture has several levels in one metric."""
    seen: dict[tuple[object, ...], set[object]] = {}
    for point in points:
        for name in FREE:
            place = name, point.metric, point.at["mesh"], point.at["posture"]
            seen.setdefault(place, set()).add(point.at.get(name))
    return [name for name in FREE if any(key[0] == name and len(levels) > 1 for key, levels in seen.items())]


def _rung(point: TradePoint, free: Sequence[str]) -> _Rung:
    mesh, posture = str(point.at["mesh"]), str(point.at["posture"])
    known = [name for name in free if name in point.at]
    return _Rung(mesh, posture, "" if mesh == "none" else variant_of(point.at, known))


def _form(points: Sequence[TradePoint]) -> Form:
    halves = [(each.high - each.low) / 2 for each in points if each.low is not None and each.high is not None]
    return form_for(points[0].unit, [each.estimate for each in points], halves)


def _table(
    content: Content,
    part: Slice,
    found: Mapping[str, Sequence[TradePoint]],
    forms: Mapping[str, Form],
    free: Sequence[str],
    *,
    many: bool,
    several: bool,
) -> Table:
    by_rung: dict[_Rung, dict[str, TradePoint]] = {}
    for metric, points in found.items():
        for point in points:
            by_rung.setdefault(_rung(point, free), {})[metric] = point
    rows = []
    for rung in sorted(
        by_rung, key=lambda each: (each.mesh != "none", each.mesh, words.rung_order(each.posture))
    ):
        own = by_rung[rung]
        any_point = next(iter(own.values()))
        rows.append(
            Row(
                (
                    rung.label,
                    *mesh_entry(rung.mesh, many=many),
                    _stopped(any_point),
                    str(any_point.of),
                    *(_cost(own.get(metric), forms[metric]) for metric in found),
                    _dominated(content, own, free, many=many),
                )
            )
        )
    columns = (
        TableColumn("posture", Setting.LABEL, ""), *mesh_column(many=many),
        TableColumn("stopped", Setting.STRONG), TableColumn("of"),
        *(TableColumn(_title(metric, forms[metric])) for metric in found),
        TableColumn("dominated by", Setting.PROSE),
    )  # fmt: skip
    title = "what is stopped, and what it costs"
    return Table(
        f"tradeoff-table-{slug(part.label)}", f"{part.label}: {title}" if several else title, columns,
        tuple(rows), dense=True,
    )  # fmt: skip


def _title(metric: str, form: Form) -> str:
    """`CPU, us`; `instructions` need no unit."""
    unit = form.unit.removesuffix("instructions").strip()
    return f"{_short(metric)}, {unit}" if unit else _short(metric)


def _short(metric: str) -> str:
    return _SHORTER.get(metric, metric_of(metric).short)


def _stopped(point: TradePoint) -> str:
    more = point.stopped_high > point.stopped
    return f"{point.stopped} to {point.stopped_high}" if more else str(point.stopped)


def _cost(point: TradePoint | None, form: Form) -> Ranged | str:
    if point is None:
        return ""
    value = f"{form.value(point.estimate)}\u00a0{_MARKS[point.standing]}"
    return Ranged(value, form.interval(point.low, point.high))


def _dominated(content: Content, own: Mapping[str, TradePoint], free: Sequence[str], *, many: bool) -> str:
    """By which, in which metrics: `none`; `CPU: linkerd strict; p50: perhaps linkerd strict`."""
    told: dict[str, list[str]] = {}
    for metric, point in own.items():
        if point.dominated_by:
            perhaps = "perhaps " if point.standing is Standing.PERHAPS else ""
            names = _dominators(content, point, free, many=many)
            told.setdefault(perhaps + names, []).append(_short(metric))
    if len(told) == 1 and len(next(iter(told.values()))) == len(own):
        return next(iter(told))
    return "; ".join(f"{', '.join(metrics)}: {names}" for names, metrics in told.items())


def _dominators(content: Content, point: TradePoint, free: Sequence[str], *, many: bool) -> str:
    """The dominating points, those on the front first."""
    others = sorted(
        (content.tradeoff[place] for place in point.dominated_by),
        key=lambda each: (each.standing is not Standing.FRONT, -each.stopped, each.estimate),
    )
    names = list(dict.fromkeys(_rung(each, free).named(many=many) for each in others))
    rest = len(names) - MOST_NAMED
    return ", ".join(names[:MOST_NAMED]) + (f" and {rest} more" if rest > 0 else "")
