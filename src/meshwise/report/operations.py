"""Tables of the bank's operations: a row per posture, a column per operation."""

from __future__ import annotations

from dataclasses import dataclass

from meshwise.findings.finding import Finding
from meshwise.findings.metric import metric_of
from meshwise.findings.subject import Kind
from meshwise.report import words
from meshwise.report.content import CONTEXT, FREE, Content, Slice, half_width, means

METRICS = ("operation_response_p50_us", "operation_response_p99_us", "operation_error_ratio")


@dataclass(frozen=True)
class OperationRow:
    label: str
    """The posture, with the levels of further factors that vary at it."""
    mesh: str
    """Empty without one."""
    levels: tuple[Finding | None, ...]
    """One for each operation of the table."""


@dataclass(frozen=True)
class OperationTable:
    """One metric in one slice."""

    metric: str
    operations: tuple[str, ...]
    rows: tuple[OperationRow, ...]

    @property
    def title(self) -> str:
        return metric_of(self.metric).title

    @property
    def form(self) -> words.Form:
        shown = [level for row in self.rows for level in row.levels if level]
        return words.form_for(
            shown[0].unit, [level.estimate for level in shown], [half_width(level) for level in shown]
        )

    def cells(self, row: OperationRow) -> list[tuple[str, str]]:
        """(value, interval) of each operation."""
        form = self.form
        return [(form.level(level), _interval(level, form)) for level in row.levels]


def _interval(level: Finding | None, form: words.Form) -> str:
    if level is None or level.low is None or level.high is None:
        return ""
    return f"[{form.bound(level.low)}, {form.bound(level.high)}]"


def of_slice(content: Content, part: Slice) -> tuple[OperationTable, ...]:
    """Empty for all that is not the bank. A metric that is 0 everywhere (errors) is left out."""
    found = []
    for metric in METRICS:
        mine = [
            finding
            for finding in content.of_kind(Kind.LEVEL)
            if finding.metric == metric
            and all(finding.levels.get(name) in (None, value) for name, value in part.levels.items())
        ]
        if any(finding.estimate or finding.estimate is None for finding in mine):
            found.append(_table(metric, mine))
    return tuple(found)


def _table(metric: str, mine: list[Finding]) -> OperationTable:
    operations = tuple(dict.fromkeys(finding.part for finding in mine))
    by_row: dict[tuple[object, ...], dict[str, Finding]] = {}
    for finding in sorted(mine, key=_place):
        by_row.setdefault(_row_key(finding), {})[finding.part] = finding
    varying = words.varying([finding.levels for finding in mine], FREE)
    rows = []
    for levels in by_row.values():
        scope = next(iter(levels.values())).levels
        posture, mesh = str(scope["posture"]), str(scope["mesh"])
        further = [words.level(name, scope.get(name)) for name in varying if means(name, posture)]
        label = f"{posture} ({', '.join(further)})" if further else posture
        rows.append(
            OperationRow(
                label, "" if mesh == "none" else mesh, tuple(levels.get(name) for name in operations)
            )
        )
    return OperationTable(metric, operations, tuple(rows))


def _row_key(finding: Finding) -> tuple[object, ...]:
    return tuple(finding.levels.get(name) for name in ("mesh", "posture", *CONTEXT, *FREE))


def _place(finding: Finding) -> tuple[object, ...]:
    scope = finding.levels
    further = (str(scope.get(name)) for name in FREE)
    return (*words.rung_order(str(scope["posture"])), str(scope["mesh"]), *further)
