"""A saturation study: knees per search, what limited them, latency and CPU against rate, up and down. It
picks; it computes nothing.

All of it is in `study.saturation` of findings.json (docs/findings.md); a study of another kind has none.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from markupsafe import Markup

from meshwise.findings.finding import Finding
from meshwise.findings.metric import metric_of
from meshwise.findings.reason import read_reasons
from meshwise.findings.subject import CellCheck, LimitCheck, SoakDrift, Walk
from meshwise.report import svg, words
from meshwise.report.blocks import (
    Block,
    Figure,
    Paragraph,
    Row,
    Section,
    Sentences,
    Setting,
    Table,
    TableColumn,
    figures,
)
from meshwise.report.charts import WIDTH, slug
from meshwise.report.content import Content, of_curve
from meshwise.stats.verdict import Verdict


@dataclass(frozen=True)
class CellSearches:
    """All searches of one cell, in the order of running."""

    mesh: str
    posture: str
    label: str
    searches: tuple[Mapping[str, Any], ...]
    scope: Mapping[str, Any]
    """Every factor's level; the rate is 0."""

    @property
    def steps(self) -> list[Mapping[str, Any]]:
        return [step for search in self.searches for step in search["steps"]]

    def rates_shown(self, key: str = "knee_rps") -> str:
        """`5120  5040  >=4980`: one number per search."""
        return "  ".join(_rate(search, key) for search in self.searches)


def _rate(search: Mapping[str, Any], key: str) -> str:
    rate = search.get(key)
    if not search.get("ended", True):
        return "unfinished"
    if rate is None:
        return "none"
    return f"{'>=' if search.get('limited') else ''}{rate:.0f}"


def cells(content: Content) -> tuple[CellSearches, ...]:
    """From the lowest rung up; none unless the study searched."""
    found = content.study.get("saturation")
    groups: dict[str, list[Mapping[str, Any]]] = {}
    for search in found.get("searches", ()) if isinstance(found, Mapping) else ():
        if search.get("role", "cell") == "cell":
            groups.setdefault(str(search["cell"]), []).append(search)
    made = []
    for own in groups.values():
        mesh, posture, scope = str(own[0]["mesh"]), str(own[0]["posture"]), own[0]["scope"]
        more = (
            [str(scope.get("protocol", ""))]
            if len({s["scope"]["protocol"] for s in _all(groups)}) > 1
            else []
        )
        label = " ".join([*([] if mesh == "none" else [mesh]), posture, *more])
        made.append(CellSearches(mesh, posture, label, tuple(own), scope))
    return tuple(sorted(made, key=lambda cell: (words.rung_order(cell.posture), cell.mesh, cell.label)))


def _all(groups: Mapping[str, Sequence[Mapping[str, Any]]]) -> list[Mapping[str, Any]]:
    return [search for own in groups.values() for search in own]


def limited_by(cell: CellSearches) -> str:
    """What was at its limit: `proxy (7), cpus (1)`; empty in findings from before it was recorded."""
    counts: dict[str, int] = {}
    for search in cell.searches:
        if limit := search.get("limited_by"):
            counts[str(limit)] = counts.get(str(limit), 0) + 1
    return _counted(counts)


def _counted(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{word} ({count})" for word, count in sorted(counts.items(), key=lambda it: -it[1]))


def beside_the_knee(content: Content) -> list[str]:
    """What limited each cell, whether it has hysteresis, how its soak went: the findings' own sentences."""
    return [
        finding.sentence
        for finding in content.findings
        if isinstance(finding.subject, Walk) or _is_quiet_check(finding)
    ]


def _is_quiet_check(finding: Finding) -> bool:
    """Warnings stand with all other warnings."""
    held = isinstance(finding.subject, CellCheck) and finding.metric == "soak"
    own = held or isinstance(finding.subject, LimitCheck | SoakDrift)
    return own and finding.verdict is not Verdict.WARNING


def broken_by(cell: CellSearches) -> str:
    """What broke at the lowest rate that broke: `p99 (3), errors (1)`."""
    counts: dict[str, int] = {}
    for search in cell.searches:
        reasons = [
            reason.short
            for step in search["steps"]
            if step["result"] == "broken" and step["rate_rps"] == search.get("broken_rps")
            for reason in read_reasons(str(step["reason"]))
        ]
        for word in dict.fromkeys(reasons):
            counts[word] = counts.get(word, 0) + 1
    return _counted(counts)


def section(content: Content) -> Section | None:
    """The knee of every search, how the searches ended, and every step in drawings."""
    own = cells(content)
    if not own:
        return None
    limits = content.study["saturation"].get("limits") or []
    legend = tuple((f"{_hue(cell)} key-line", cell.label) for cell in own)
    drawn = []
    for name, metric, caption, limit_us in (
        ("p99", "response_p99_us", "P99 of response time against rate, ms", _limit(limits, 0.99)),
        ("p50", "response_p50_us", "median response time against rate, ms", _limit(limits, 0.5)),
        ("cpu", "pod_cpu_us_per_request", "CPU of sidecars and services per request against rate, us", None),
    ):
        drawing = curve_chart(f"saturation-{name}", caption, own, metric, limit_us, content.findings)
        if drawing:
            drawn.append(Figure(Markup(drawing), caption, legend))
    objective = str(content.study["saturation"].get("objective", ""))
    about = (
        f"Objective: {objective}, for a whole trial. Each search is one block; `>=`: the instrument, the "
        "host or the study's limit ended it, not the system."
    )
    sentences = tuple(beside_the_knee(content))
    blocks: list[Block] = [Paragraph(about), _table(own, objective), Sentences(sentences), *figures(drawn)]
    return Section("saturation", "Saturation", tuple(blocks))


def _table(own: Sequence[CellSearches], objective: str) -> Table:
    down = any(search.get("down_rps") for cell in own for search in cell.searches)
    rows = tuple(
        Row(
            (
                cell.label,
                cell.rates_shown(),
                *([cell.rates_shown("down_rps")] if down else []),
                str(len(cell.steps)),
                broken_by(cell),
                limited_by(cell),
            )
        )
        for cell in own
    )
    columns = (
        TableColumn("cell", Setting.LABEL, ""), TableColumn("held", Setting.PROSE),
        *([TableColumn("after overload", Setting.PROSE)] if down else []), TableColumn("trials"),
        TableColumn("broken by", Setting.PROSE), TableColumn("limited by", Setting.PROSE),
    )  # fmt: skip
    title = "the highest rate that held, per search, /s"
    return Table("saturation-table", title, columns, rows, remark=objective)


def _limit(limits: Sequence[Mapping[str, Any]], p: float) -> float | None:
    return next((float(limit["at_most_us"]) for limit in limits if limit["p"] == p), None)


def _hue(cell: CellSearches) -> str:
    return f"rung-{slug(cell.posture)}"


def curve_chart(
    name: str,
    title: str,
    own: Sequence[CellSearches],
    metric: str,
    limit_us: float | None,
    findings: Sequence[Finding] = (),
) -> str:
    """Every step of every search at its rate: filled where it held, hollow where it broke, a triangle coming
    down from overload; a line through the means over searches; the objective's limit as a line. Invalid steps
    say nothing and are not drawn, nor is a soak, which is no step of the curve, nor a percentile that falls
    among failed requests, which is infinite. Empty without a value."""
    left, right, top, bottom = 44.0, WIDTH - 10, 10.0, 220.0
    is_time = metric_of(metric).percentile is not None
    unit = 1e3 if is_time else 1.0
    points = [
        (cell, step, float(step["rate_rps"]), float(step[metric]) / unit)
        for cell in own
        for step in cell.steps
        if step.get(metric) and step["result"] != "invalid" and step["phase"] != "soak"
    ]
    if not points:
        return ""
    x = svg.logarithmic([rate for _, _, rate, _ in points], left, right)
    values = [value for *_, value in points] + ([limit_us / unit] if limit_us else [])
    y = svg.logarithmic(values, bottom, top) if is_time else svg.linear(values, bottom, top, zero=True)
    parts = svg.x_axis(x, top, bottom, [(tick, words.axis_number(tick)) for tick in x.ticks(5)])
    parts += svg.y_axis(y, left, right, [(tick, words.axis_number(tick)) for tick in y.ticks(5)])
    if limit_us:
        parts.append(svg.line(left, y(limit_us / unit), right, y(limit_us / unit), "limit"))
        parts.append(svg.text(left + 4, y(limit_us / unit) - 4, f"objective {limit_us / unit:g} ms", "tick"))
    for cell in own:
        means = [(x(rate), y(value / unit)) for rate, value in _means(cell, metric, findings)]
        parts.append(svg.polyline(means, f"curve {_hue(cell)}", f"{cell.label}, mean over searches"))
    for cell, step, rate, value in points:
        held = step["result"] == "held"
        down = _is_down(step)
        how = f"{step['result']}, coming down from overload" if down else step["result"]
        tip = f"{cell.label} at {rate:g}/s: {value:.3g} {'ms' if is_time else 'us'}, {how}"
        cls = f"step {_hue(cell)}" + ("" if held else " hollow")
        mark = svg.triangle if down else svg.diamond if cell.mesh == "linkerd" else svg.circle
        parts.append(mark(x(rate), y(value), 3.0, cls, tip))
    parts.append(svg.text((left + right) / 2, bottom + 30, "offered requests per second", "tick", "middle"))
    caption = f"{len(points)} trials of {len(own)} cells; hollow where the objective did not hold"
    caption += (
        ", triangles coming down from overload." if any(_is_down(step) for _, step, *_ in points) else "."
    )
    return svg.drawing(name, WIDTH, bottom + 36, title, caption, parts)


def _is_down(step: Mapping[str, Any]) -> bool:
    return step["phase"] in ("down", "overload")


def _means(cell: CellSearches, metric: str, findings: Sequence[Finding]) -> list[tuple[float, float]]:
    """(rate, level) along the cell's searches, ascending."""
    fixed = {name: value for name, value in cell.scope.items() if name != "rate_rps"}
    return sorted(
        (float(finding.levels["rate_rps"]), finding.estimate)
        for finding in findings
        if of_curve(finding)
        and finding.metric == metric
        and finding.estimate
        and all(finding.levels.get(name) == value for name, value in fixed.items())
    )
