"""The page's drawings, with captions and keys: of a slice, and of slopes and interactions."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TypeVar

from markupsafe import Markup

from meshwise.findings.finding import Finding
from meshwise.findings.metric import metric_of
from meshwise.findings.pictures import COURSE_QUANTILES, Course, Curve, DriftPoint, StepCourse
from meshwise.findings.subject import Kind
from meshwise.report import charts, words
from meshwise.report.blocks import Figure
from meshwise.report.charts import slug as slug
from meshwise.report.content import FREE, Content, Ladder, Rung, Slice, form_of, free_of, means, variant_of
from meshwise.report.course import course_chart
from meshwise.report.growth import Growth, Pair, Together
from meshwise.report.step_course import step_course_chart, step_label

Drawn = TypeVar("Drawn", Curve, Course, DriftPoint, StepCourse)


def ladders(name: str, part: Slice, ladders: Sequence[Ladder]) -> Iterator[Figure]:
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


def distributions(name: str, part: Slice, curves: Sequence[Curve]) -> Iterator[Figure]:
    own = _of_slice(curves, part)
    for mesh in part.meshes or ("none",):
        shown = _one_per_posture([curve for curve in own if curve.at["mesh"] in (mesh, "none")])
        title = f"Distribution of response time, {mesh}" if part.meshes else "Distribution of response time"
        drawing = charts.distribution_chart(f"{name}-{slug(mesh)}-distribution", title, shown)
        postures = {str(curve.at["posture"]): _curve_name(curve, own) for curve in shown if len(curve.share)}
        if drawing:
            yield Figure(
                Markup(drawing),
                f"{mesh}: share of requests answered within a time" if part.meshes else title,
                tuple((f"rung-{slug(posture)} key-line", label) for posture, label in postures.items()),
            )


def _one_per_posture(found: Sequence[Drawn]) -> list[Drawn]:
    """In the order of the ladder; of variants (policies, keys), which would look the same, the highest."""
    ordered = sorted(
        found,
        key=lambda each: (
            words.rung_order(str(each.at["posture"])),
            tuple(str(each.at.get(name)) for name in FREE),
        ),
    )
    return list({each.at["posture"]: each for each in ordered}.values())


def _curve_name(curve: Curve, among: Sequence[Curve]) -> str:
    """The posture, and which of its variants is drawn."""
    posture = str(curve.at["posture"])
    same = [each.at for each in among if all(each.at[name] == curve.at[name] for name in ("mesh", "posture"))]
    free = [name for name in FREE if means(name, posture) and len({at.get(name) for at in same}) > 1]
    return ", ".join([posture, *(words.level(name, curve.at[name]) for name in free)])


def _of_slice(found: Sequence[Drawn], part: Slice) -> list[Drawn]:
    return [
        each
        for each in found
        if all(each.at.get(name) in (None, value) for name, value in part.levels.items() if value is not None)
    ]


MOST_BARS = 9
"""Workloads, the client among them, up to which each has bars of its own."""
_USAGE = (
    ("proxy_cpu_us_per_request", "CPU per request: sidecar of {workload}"),
    ("service_cpu_us_per_request", "CPU per request: services"),
    ("instrument_cpu_us_per_request", "CPU per request: load generator"),
    ("proxy_memory_bytes", "resident memory: sidecar of {workload}"),
    ("memory_bytes", "resident memory: all sidecars"),
)


def usage(name: str, content: Content, part: Slice) -> Iterator[Figure]:
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
            form = form_of(mine)
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


def drift(name: str, part: Slice, points: Sequence[DriftPoint]) -> Iterator[Figure]:
    own = _of_slice(points, part)
    title = "Drift: each trial's p50 against the median of its cell"
    if drawing := charts.drift_chart(f"{name}-drift", title, own):
        yield Figure(Markup(drawing), "each trial's p50 against its cell's median")


_SPOKEN_QUANTILES = {0.5: "median", 0.9: "P90"}


def course_figures(part: Slice, found: Sequence[Course]) -> Iterator[Figure]:
    """A figure per mesh and quantile, no mesh beside each."""
    own = _of_slice(found, part)
    for mesh in part.meshes or ("none",):
        shown = _one_per_posture([course for course in own if course.at["mesh"] in (mesh, "none")])
        for p in COURSE_QUANTILES:
            title = f"{mesh}: {_SPOKEN_QUANTILES[p]} response time over a trial, and the intended rate"
            name = f"{slug(part.label)}-{slug(mesh)}-course-{100 * p:g}"
            if drawing := course_chart(name, title, shown, p):
                keys = [str(course.at["posture"]) for course in shown]
                legend = tuple((f"rung-{slug(posture)} key-line", posture) for posture in keys)
                yield Figure(Markup(drawing), title, legend)


def step_figures(part: Slice, found: Sequence[StepCourse]) -> Iterator[Figure]:
    """A figure per mesh and metric."""
    own = _of_slice(found, part)
    for mesh, metric in dict.fromkeys((str(each.at["mesh"]), each.metric) for each in own):
        shown = _one_per_posture([e for e in own if (e.at["mesh"], e.metric) == (mesh, metric)])
        title = f"{mesh}: each step by second, {metric_of(metric).title}"
        if drawing := step_course_chart(f"{slug(part.label)}-{slug(mesh)}-steps-{metric}", title, shown):
            legend = tuple((f"rung-{slug(each.upper)} key-line", step_label(each)) for each in shown)
            yield Figure(Markup(drawing), title, legend)


def _meshes(growth: Growth) -> tuple[str, ...]:
    return tuple(dict.fromkeys(line.mesh for line in growth.lines if line.mesh != "none"))


def growth_figures(name: str, growth: Growth) -> Iterator[Figure]:
    """A drawing per setting: their names would not fit beside the postures."""
    many = _meshes(growth) if len(_meshes(growth)) > 1 else ()
    for number, setting in enumerate(growth.settings):
        rows = [
            (Rung(line.mesh, line.posture, line.posture, line.slope), line.slope)
            for line in growth.lines
            if line.setting == setting
        ]
        heading = f"{growth.titled.title}, {growth.form.unit}"
        title = f"What {growth.step} adds to {heading}" + (f", {setting}" if setting else "")
        drawing = charts.effect_chart(
            f"{name}-{growth.metric}-{number}", rows, growth.form, title, "Slope of each posture"
        )
        if drawing:
            legend = tuple((f"mesh-{slug(mesh)} key-mark {mesh}", mesh) for mesh in many)
            yield Figure(Markup(drawing), f"{heading}{f' ({setting})' if setting else ''}", legend)


def together_figures(name: str, tables: Sequence[Together]) -> Iterator[Figure]:
    for table in tables:
        rows = [(Rung(p.mesh, p.setting, _pair_label(p), p.interaction), p.interaction) for p in table.pairs]
        heading = f"{table.titled.title}, {table.form.unit}"
        drawing = charts.effect_chart(
            f"{name}-{table.metric}",
            rows,
            table.form,
            f"Beyond the sum of the parts: {heading}",
            "Interaction",
        )
        yield Figure(Markup(drawing), heading)


def _pair_label(pair: Pair) -> str:
    features = f"{pair.mtls} × {pair.authorization}"
    return f"{pair.setting}: {features}" if pair.setting else features
