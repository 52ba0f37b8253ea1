"""Tables of the bank's operations: a row per posture, a column per operation."""

from __future__ import annotations

from collections.abc import Iterator

from meshwise.findings.finding import Finding
from meshwise.findings.metric import metric_of
from meshwise.findings.subject import Kind
from meshwise.report import words
from meshwise.report.blocks import (
    Entry,
    Ranged,
    Row,
    Setting,
    Table,
    TableColumn,
    bounds,
    mesh_column,
    mesh_entry,
)
from meshwise.report.content import CONTEXT, FREE, Content, Slice, form_of, means

METRICS = ("operation_response_p50_us", "operation_response_p99_us", "operation_error_ratio")


def operation_tables(name: str, content: Content, part: Slice) -> Iterator[Table]:
    """None for all that is not the bank. A metric that is 0 everywhere (errors), or that no operation had
    enough requests for, is left out."""
    for metric in METRICS:
        mine = [
            finding
            for finding in content.of_kind(Kind.LEVEL)
            if finding.metric == metric
            and all(finding.levels.get(name) in (None, value) for name, value in part.levels.items())
        ]
        if any(finding.estimate for finding in mine):
            yield _table(f"{name}-{metric}", metric, mine)


def _table(name: str, metric: str, mine: list[Finding]) -> Table:
    operations = tuple(dict.fromkeys(finding.part for finding in mine))
    by_row: dict[tuple[object, ...], dict[str, Finding]] = {}
    for finding in sorted(mine, key=_place):
        by_row.setdefault(_row_key(finding), {})[finding.part] = finding
    form = form_of(mine)
    many = len({str(finding.levels["mesh"]) for finding in mine} - {"none"}) > 1
    varying = words.varying([finding.levels for finding in mine], FREE)
    rows = []
    for levels in by_row.values():
        at = next(iter(levels.values())).levels
        posture = str(at["posture"])
        further = [words.level(name, at.get(name)) for name in varying if means(name, posture)]
        label = f"{posture} ({', '.join(further)})" if further else posture
        values = (_entry(form, levels.get(operation)) for operation in operations)
        rows.append(Row((label, *mesh_entry(str(at["mesh"]), many=many), *values)))
    columns = (
        TableColumn("posture", Setting.LABEL, ""),
        *mesh_column(many=many),
        *map(TableColumn, operations),
    )
    unit = f", {form.unit}" if form.unit else ""
    return Table(name, metric_of(metric).title + unit, columns, tuple(rows))


def _entry(form: words.Form, level: Finding | None) -> Entry:
    interval = bounds(form, level)
    return Ranged(form.level(level), str(interval)) if interval else form.level(level)


def _row_key(finding: Finding) -> tuple[object, ...]:
    return tuple(finding.levels.get(name) for name in ("mesh", "posture", *CONTEXT, *FREE))


def _place(finding: Finding) -> tuple[object, ...]:
    scope = finding.levels
    further = (str(scope.get(name)) for name in FREE)
    return (*words.rung_order(str(scope["posture"])), str(scope["mesh"]), *further)
