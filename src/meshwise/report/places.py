"""Sidecars by place, laid out: a row per place and mesh, a column per rung with its value and its step."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from meshwise.findings.finding import Finding
from meshwise.findings.metric import metric_of
from meshwise.findings.subject import Kind, LadderStep
from meshwise.report import words
from meshwise.report.content import Content, Slice, half_width
from meshwise.report.words import Form

METRICS = ("place_cpu_us_per_request", "place_memory_bytes")


@dataclass(frozen=True)
class PlaceRow:
    place: str
    mesh: str
    rungs: tuple[str, ...]
    """Per posture `value  +step ±half-width`; empty where it was not measured."""


@dataclass(frozen=True)
class PlaceTable:
    title: str
    postures: tuple[str, ...]
    rows: tuple[PlaceRow, ...]


def place_tables(content: Content, part: Slice) -> tuple[PlaceTable, ...]:
    """CPU first; none where the topology has no places."""
    found = [_table(content, part, metric) for metric in METRICS]
    return tuple(table for table in found if table is not None)


def _table(content: Content, part: Slice, metric: str) -> PlaceTable | None:
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
        return None
    steps = {_place(finding): finding for finding in mine if _is_a_step(finding)}
    form = words.form_for(levels[0].unit, [f.estimate for f in mine], [half_width(f) for f in mine])
    postures = sorted({str(finding.levels["posture"]) for finding in levels}, key=words.rung_order)
    rows: dict[tuple[str, str], dict[str, str]] = {}
    for finding in levels:
        mesh, posture, place = _place(finding)
        rows.setdefault((place, mesh), {}).setdefault(
            posture, _cell(form, finding, steps.get((mesh, posture, place)))
        )
    return PlaceTable(
        f"{metric_of(metric).title}, {form.unit}",
        tuple(postures),
        tuple(
            PlaceRow(place, mesh, tuple(texts.get(posture, "") for posture in postures))
            for (place, mesh), texts in rows.items()
        ),
    )


def _place(finding: Finding) -> tuple[str, str, str]:
    at = finding.levels
    return str(at["mesh"]), str(at["posture"]), finding.part


def _is_a_step(finding: Finding) -> bool:
    """Over the rung below; what a first rung adds to nothing is its value."""
    return isinstance(finding.subject, LadderStep)


def _cell(form: Form, level: Finding, step: Finding | None) -> str:
    value = form.level(level)
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
