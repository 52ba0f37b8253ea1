"""The page's sections as plain values for the template: texts, rows of texts, drawings."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from markupsafe import Markup, escape

from meshwise.analysis.curves import Curve, DriftPoint
from meshwise.findings.finding import Finding
from meshwise.findings.metric import metric_of
from meshwise.findings.subject import Kind
from meshwise.report import charts, facts, words
from meshwise.report import operations as of_operations
from meshwise.report.charts import slug as slug
from meshwise.report.content import CONTEXT, FREE, Content, Ladder, Rung, Slice, free_of, means, variant_of
from meshwise.report.record import Record
from meshwise.report.words import Footnotes, Form, VerdictWords, judged_words, typeset, verdict_words
from meshwise.stats.verdict import Verdict
from meshwise.study.model import MeshName

NO_VERDICT = VerdictWords("")


@dataclass(frozen=True)
class Figure:
    drawing: Markup
    caption: str
    legend: tuple[tuple[str, str], ...] = ()
    """Class and words of every key."""


@dataclass(frozen=True)
class Row:
    """One line of a table: every text ready to be set."""

    label: str
    mesh: str
    value: str = ""
    interval: str = ""
    step: str = ""
    step_interval: str = ""
    over_none: str = ""
    ratio: str = ""
    verdict: VerdictWords = NO_VERDICT
    marks: str = ""
    first: bool = True
    """Of its rung (two meshes share one)."""


@dataclass(frozen=True)
class Table:
    title: str
    unit: str
    rows: tuple[Row, ...]
    note: str = ""
    marks: str = ""


@dataclass(frozen=True)
class SliceSection:
    name: str
    label: str
    many: bool
    ladders: tuple[Figure, ...]
    tables: tuple[Table, ...]
    differences: tuple[Table, ...]
    operations: tuple[of_operations.OperationTable, ...]
    """Of the bank."""
    others: tuple[Table, ...]
    distributions: tuple[Figure, ...]
    usage: tuple[Figure, ...]
    drift: tuple[Figure, ...]


def slice_section(content: Content, part: Slice, record: Record, notes: Footnotes) -> SliceSection:
    name = slug(part.label)
    primary = [ladder for metric in content.primary if (ladder := part.ladder(metric))]
    further = [
        ladder
        for ladder in part.ladders
        if ladder.metric not in content.primary and any(rung.step or rung.value for rung in ladder.rungs)
    ]
    return SliceSection(
        name=name,
        label=part.label,
        many=len(part.meshes) > 1,
        ladders=tuple(_ladders(name, part, primary)),
        tables=tuple(_table(ladder, notes) for ladder in primary),
        operations=of_operations.of_slice(content, part),
        differences=tuple(_differences(ladder, notes) for ladder in primary if ladder.differences),
        others=tuple(_table(ladder, notes) for ladder in further),
        distributions=tuple(_distributions(name, part, record.curves)),
        usage=tuple(_usage(name, content, part)),
        drift=tuple(_drift(name, part, record.drift)),
    )


def _ladders(name: str, part: Slice, ladders: Sequence[Ladder]) -> Iterator[Figure]:
    legend = _key(part, "key-mark")
    for ladder in ladders:
        if ladder.titled.unit == "bytes":
            continue  # memory is among the bars
        unit = ladder.form.unit
        drawing = charts.ladder_chart(f"{name}-{ladder.metric}", ladder)
        yield Figure(Markup(drawing), f"{ladder.titled.title}, {unit}", legend)
        if step := charts.step_chart(f"{name}-{ladder.metric}-step", ladder):
            yield Figure(Markup(step), f"added by each step, {unit}", legend)


def _key(part: Slice, kind: str) -> tuple[tuple[str, str], ...]:
    """A key where two meshes share a drawing."""
    meshes = part.meshes if len(part.meshes) > 1 else ()
    return tuple((f"mesh-{slug(mesh)} {kind} {mesh}", mesh) for mesh in meshes)


def _table(ladder: Ladder, notes: Footnotes) -> Table:
    form = ladder.form
    marks = notes.title_mark(ladder.common_notes)
    rows, before = [], ""
    for rung in ladder.rungs:
        value, step, over_none = rung.value, rung.step, rung.over_none
        rows.append(
            Row(
                label=rung.label,
                mesh=rung.mesh if rung.mesh != "none" else "",
                value=typeset(form.level(value)) if value else "",
                interval=_interval(form, value),
                step=typeset(form.signed(step.estimate)) if step else "",
                step_interval=_interval(form, step),
                over_none=typeset(form.signed(over_none.estimate)) if over_none else "",
                verdict=judged_words(step, over_none, form),
                marks=notes.mark(rung.judged, value, without=ladder.common_notes),
                first=rung.label != before,
            )
        )
        before = rung.label
    note = "exploratory: not a primary metric of the study" if ladder.exploratory else ""
    return Table(ladder.titled.title, form.unit, tuple(rows), note, marks)


def _differences(ladder: Ladder, notes: Footnotes) -> Table:
    form = ladder.form
    rows = tuple(
        Row(
            label=facts.difference_place(finding, ladder.free),
            mesh=typeset(facts.difference_name(finding)),
            step=typeset(form.signed(finding.estimate)),
            step_interval=_interval(form, finding),
            ratio=f"{finding.ratio:.3f}" if finding.ratio is not None else "",
            verdict=verdict_words(finding, form),
            marks=notes.mark(finding),
        )
        for finding in ladder.differences
    )
    return Table(ladder.titled.title, form.unit, rows)


def _interval(form: Form, finding: Finding | None) -> str:
    return typeset(form.interval(finding.low, finding.high)) if finding else ""


def _distributions(name: str, part: Slice, curves: Sequence[Curve]) -> Iterator[Figure]:
    own = [curve for curve in curves if of_slice(curve.cell, part)]
    for mesh in part.meshes or ("none",):
        shown = [curve for curve in own if str(curve.cell.mesh) in (mesh, "none")]
        shown = _highest_variants(shown)
        title = f"Distribution of response time, {mesh}" if part.meshes else "Distribution of response time"
        drawing = charts.distribution_chart(f"{name}-{slug(mesh)}-distribution", title, shown)
        postures = {curve.cell.posture.name: _curve_name(curve, own) for curve in shown if len(curve.share)}
        if drawing:
            yield Figure(
                Markup(drawing),
                f"{mesh}: share of requests answered within a time" if part.meshes else title,
                tuple((f"rung-{slug(posture)} key-line", label) for posture, label in postures.items()),
            )


def _highest_variants(found: Sequence[Curve]) -> list[Curve]:
    """One curve per posture, in the order of the ladder: variants (policies, keys) would look the same."""
    ordered = sorted(
        found,
        key=lambda curve: (
            words.rung_order(curve.cell.posture.name),
            tuple(getattr(curve.cell, name) for name in FREE),
        ),
    )
    return list({curve.cell.posture.name: curve for curve in ordered}.values())


def _curve_name(curve: Curve, among: Sequence[Curve]) -> str:
    """The posture, and which of its variants is drawn."""
    posture = curve.cell.posture
    same = [
        other.cell for other in among if other.cell.posture == posture and other.cell.mesh is curve.cell.mesh
    ]
    free = [
        name for name in FREE if means(name, posture.name) and len({getattr(cell, name) for cell in same}) > 1
    ]
    return ", ".join([posture.name, *(words.level(name, getattr(curve.cell, name)) for name in free)])


def of_slice(cell: Any, part: Slice) -> bool:
    def level(name: str) -> Any:
        found = getattr(cell, name)
        return found if isinstance(found, int | float) else str(found)

    return all(part.levels.get(name) in (None, level(name)) for name in CONTEXT)


MOST_BARS = 9
"""Workloads, the client among them, up to which each has bars of its own."""
_USAGE = (
    ("proxy_cpu_us_per_request", "CPU per request: sidecar of {workload}"),
    ("service_cpu_us_per_request", "CPU per request: services"),
    ("instrument_cpu_us_per_request", "CPU per request: load generator"),
    ("proxy_memory_bytes", "resident memory: sidecar of {workload}"),
    ("memory_bytes", "resident memory: all sidecars"),
)


def _usage(name: str, content: Content, part: Slice) -> Iterator[Figure]:
    """Bars of CPU and memory, one figure per process role."""
    for metric, words_of in _USAGE:
        own = [
            finding
            for finding in content.of_kind(Kind.LEVEL)
            if finding.metric == metric
            and finding.estimate is not None
            and all(finding.levels.get(key) in (None, value) for key, value in part.levels.items())
        ]
        workloads = dict.fromkeys(finding.part for finding in own)
        if metric == "service_cpu_us_per_request" or len(workloads) > MOST_BARS:
            workloads = {"": None} if "" in workloads else {}  # the call graph shows them
        for workload in workloads:
            mine = [finding for finding in own if finding.part == workload]
            if metric == "memory_bytes" and _shown_per_workload(content, part):
                continue
            free = free_of(mine)
            mine.sort(
                key=lambda f: (
                    words.rung_order(str(f.levels["posture"])),
                    *(f.levels.get(name) or 0 for name in free),
                    str(f.levels["mesh"]),
                )
            )
            rows = [(_rung_of(finding, free), finding) for finding in mine]
            widths = [(f.high - f.low) / 2 for f in mine if f.low is not None and f.high is not None]
            form = words.form_for(mine[0].unit, [f.estimate for f in mine], widths)
            title = words_of.format(workload=workload) + f", {form.unit}"
            figure = charts.bar_chart(f"{name}-{metric}-{slug(workload)}", title, rows, form)
            yield Figure(Markup(figure), title, _key(part, "key-bar"))


def _shown_per_workload(content: Content, part: Slice) -> bool:
    shown = {
        finding.part
        for finding in content.of_kind(Kind.LEVEL)
        if finding.metric == "proxy_memory_bytes"
        and all(finding.levels.get(key) in (None, value) for key, value in part.levels.items())
    }
    return 0 < len(shown) <= MOST_BARS


def _rung_of(finding: Finding, free: Sequence[str]) -> Rung:
    posture, variant = str(finding.levels["posture"]), variant_of(finding.levels, free)
    label = f"{posture}, {variant}" if variant else posture
    return Rung(str(finding.levels["mesh"]), posture, label, finding, variant=variant)


def _drift(name: str, part: Slice, points: Sequence[DriftPoint]) -> Iterator[Figure]:
    own = [point for point in points if of_slice(point.trial.cell, part)]
    title = "Drift: each trial's p50 against the median of its cell"
    if drawing := charts.drift_chart(f"{name}-drift", title, own):
        yield Figure(Markup(drawing), "each trial's p50 against its cell's median")


@dataclass(frozen=True)
class SummaryRow:
    label: str
    mesh: str
    top: str
    cells: tuple[tuple[str, str, VerdictWords], ...]
    """Per primary metric: change over no mesh with its unit, interval, verdict."""


def summary(content: Content) -> tuple[tuple[str, ...], tuple[SummaryRow, ...]]:
    """What the highest measured rung costs over no mesh: titles of the metrics, a row per slice and mesh."""
    rows = []
    for part in content.slices:
        for mesh in part.meshes:
            found = []
            top = ""
            for metric in content.primary:
                ladder = part.ladder(metric)
                rungs = [r for r in ladder.rungs if r.mesh == mesh and r.over_none] if ladder else []
                if ladder is None or not rungs:
                    found.append(("", "", VerdictWords("")))
                    continue
                top, finding, form = rungs[-1].label, rungs[-1].over_none, ladder.form
                assert finding is not None
                change = typeset(f"{form.signed(finding.estimate)} {form.unit}")
                found.append((change, _interval(form, finding), verdict_words(finding, form)))
            if top:
                rows.append(SummaryRow(part.label, mesh, top, tuple(found)))
    return tuple(metric_of(metric).short for metric in content.primary), tuple(rows)


@dataclass(frozen=True)
class Checks:
    doubts: tuple[str, ...]
    fine: tuple[str, ...]


def checks(content: Content) -> Checks:
    """The sentences of the study's checks."""
    found = content.of_kind(Kind.CHECK)
    return Checks(
        tuple(check.sentence or check.metric for check in found if check.verdict is Verdict.WARNING),
        tuple(check.sentence or check.metric for check in found if check.verdict is not Verdict.WARNING),
    )


def coded(text: object) -> Markup:
    """Escaped, with `words in backticks` set as code."""
    return Markup(re.sub(r"`([^`]+)`", r"<code>\1</code>", str(escape(text))))


def breakable(text: object) -> Markup:
    """Escaped, with places where a long identity or cipher may be broken."""
    return Markup(re.sub(r"(?<=[^/])/(?=[^/])|_", r"\g<0><wbr>", str(escape(text))))


def variance(content: Content) -> tuple[str, ...]:
    return tuple(dict.fromkeys(f.sentence for f in content.of_kind(Kind.VARIANCE) if f.sentence))


@dataclass(frozen=True)
class FairnessRow:
    """One point of comparison between meshes."""

    what: str
    equal: bool
    values: tuple[str, ...]
    """In the order of the card's meshes."""
    observed: bool
    effect: str
    remedy: str
    """How to make it equal, or why that cannot be; empty when it is."""


@dataclass(frozen=True)
class FairnessCard:
    meshes: tuple[str, ...]
    rows: tuple[FairnessRow, ...]
    """What a study can make equal, what else differs, what is equal."""


def fairness(content: Content) -> FairnessCard:
    meshes = tuple(str(mesh) for mesh in MeshName if any(mesh in entry for entry in content.fairness))
    rows = [
        FairnessRow(
            str(entry.get("what", "")),
            bool(entry.get("equal", True)),
            tuple(_LONG_REVISION.sub(r"\1", str(entry.get(mesh, ""))) for mesh in meshes),
            entry.get("basis") == "observed",
            str(entry.get("effect", "")),
            str(entry.get("removable") or (f"no: {why}" if (why := entry.get("why_not")) else "")),
        )
        for entry in content.fairness
    ]
    return FairnessCard(
        meshes, tuple(sorted(rows, key=lambda row: (row.equal, row.remedy.startswith("no:"))))
    )


_LONG_REVISION = re.compile(r"\b([0-9a-f]{8})[0-9a-f]{32}\b")


def flat(
    value: Mapping[str, Any], prefix: str = "", leave_out: tuple[str, ...] = ()
) -> tuple[tuple[str, str], ...]:
    """A nested mapping as lines `a · b`: value."""
    lines: list[tuple[str, str]] = []
    for key, entry in value.items():
        name = f"{prefix}{str(key).replace('_', ' ')}"
        if key in leave_out:
            continue
        if isinstance(entry, Mapping):
            lines += flat(entry, f"{name} · ")
        elif isinstance(entry, list | tuple):
            lines.append((name, ", ".join(str(item) for item in entry) or "none"))
        else:
            lines.append((name, "unknown" if entry is None else str(entry)))
    return tuple(lines)


def commands(content: Content, directory: str) -> tuple[str, ...]:
    return (
        f"meshwise run study.yaml --out {directory}",
        f"meshwise analyze {directory}",
        f"meshwise report {directory}",
    )
