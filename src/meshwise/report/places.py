"""Sidecars by place: a row per place and mesh, a column per rung with its value and its step."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from meshwise.findings.finding import Finding
from meshwise.findings.metric import metric_of
from meshwise.findings.subject import Kind, LadderStep
from meshwise.report import words
from meshwise.report.blocks import Row, Setting, Table, TableColumn, mesh_column, mesh_entry
from meshwise.report.content import Content, Slice, form_of, half_width
from meshwise.report.words import Form

Rows = dict[tuple[str, str], dict[str, Finding]]
"""Place and mesh -> posture -> level."""
METRICS = ("place_cpu_us_per_request", "place_memory_bytes")


def place_tables(name: str, content: Content, part: Slice) -> Iterator[Table]:
    """CPU first; none where the topology has no places."""
    many = len(part.meshes) > 1
    for number, metric in enumerate(METRICS):
        mine = [
            finding
            for finding in content.of_kind(Kind.LEVEL, Kind.INCREMENT)
            if finding.metric == metric
            and finding.levels.get("mesh") != "none"
            and finding.estimate is not None
            and all(finding.levels.get(name) in (None, value) for name, value in part.levels.items())
        ]
        levels = [finding for finding in mine if finding.kind is Kind.LEVEL]
        if not levels:
            continue
        steps = {_place(finding): finding for finding in mine if _is_a_step(finding)}
        form = form_of(mine)
        postures = sorted({str(finding.levels["posture"]) for finding in levels}, key=words.rung_order)
        rows: dict[tuple[str, str], dict[str, Finding]] = {}
        for finding in levels:
            mesh, posture, place = _place(finding)
            rows.setdefault((place, mesh), {}).setdefault(posture, finding)
        yield Table(
            f"{name}-places-{number + 1}",
            f"{metric_of(metric).title}, {form.unit}",
            (TableColumn("place", Setting.LABEL, ""), *mesh_column(many=many), *map(TableColumn, postures)),
            tuple(
                Row(
                    (
                        place,
                        *mesh_entry(mesh, many=many),
                        *(
                            _cell(form, own.get(posture), steps.get((mesh, posture, place)))
                            for posture in postures
                        ),
                    )
                )
                for (place, mesh), own in _each_once(rows).items()
            ),
            caption="mean over the sidecars of a place; + what the rung adds to the one below",
            page_only=bool(number),
        )


def _each_once(rows: Rows) -> Rows:
    """Without the depths that hold the same sidecars as a role: their values are the same numbers."""
    met: dict[tuple[object, ...], None] = {}
    found = {}
    for (place, mesh), own in rows.items():
        values = (mesh, *sorted((posture, finding.estimate, finding.low) for posture, finding in own.items()))
        if not (place.startswith("depth ") and values in met):
            found[place, mesh] = own
        met[values] = None
    return found


def _place(finding: Finding) -> tuple[str, str, str]:
    at = finding.levels
    return str(at["mesh"]), str(at["posture"]), finding.part


def _is_a_step(finding: Finding) -> bool:
    """Over the rung below; what a first rung adds to nothing is its value."""
    return isinstance(finding.subject, LadderStep)


def _cell(form: Form, level: Finding | None, step: Finding | None) -> str:
    value = form.level(level) if level else ""
    if step is None:
        return value
    half = half_width(step)
    return f"{value}  {form.signed(step.estimate)}" + ("" if half is None else f" ±{form.value(half)}")


def figures(content: Content, part: Slice) -> dict[str, list[str]]:
    """Workload -> lines for its box: the sidecar's CPU on each mesh's highest rung, and the service's."""
    found: dict[str, list[str]] = {}
    levels = [
        finding
        for finding in content.of_kind(Kind.LEVEL)
        if finding.part
        and finding.estimate is not None
        and all(finding.levels.get(name) in (None, value) for name, value in part.levels.items())
    ]
    for mesh in part.meshes:
        own = _of(levels, "proxy_cpu_us_per_request", mesh)
        top = max((str(f.levels["posture"]) for f in own), key=words.rung_order, default="")
        for finding in own:
            if finding.levels["posture"] == top:
                lines = found.setdefault(finding.part, [])
                label = "sidecar" if len(part.meshes) == 1 else mesh
                lines.append(f"{label} {_us(finding)}")
    for mesh in ("none", *part.meshes):
        services = _of(levels, "service_cpu_us_per_request", mesh)
        lowest = min((str(f.levels["posture"]) for f in services), key=words.rung_order, default="")
        for finding in services:
            if finding.levels["posture"] == lowest:
                found.setdefault(finding.part, []).append(f"service {_us(finding)}")
        if services:
            break
    return found


def _of(levels: Sequence[Finding], metric: str, mesh: str) -> list[Finding]:
    return [f for f in levels if f.metric == metric and f.levels.get("mesh") == mesh]


def _us(finding: Finding) -> str:
    assert finding.estimate is not None
    return f"{finding.estimate:.1f} us" if finding.estimate < 100 else f"{finding.estimate:.0f} us"
