"""What the terminal shows, as plain values: for programs that want the report's words beside its numbers.

It picks from findings.json (by `id`) and adds nothing to it.
"""

from __future__ import annotations

from typing import Any

from meshwise.findings.finding import Finding
from meshwise.findings.subject import Kind
from meshwise.report import facts, saturation
from meshwise.report.blocks import Table
from meshwise.report.content import differs_alone, of_curve
from meshwise.report.counted import counted_line
from meshwise.report.protection import protection_line
from meshwise.report.rounds import rounds_line
from meshwise.report.sections import Report

_SHOWN = (Kind.LEVEL, Kind.INCREMENT, Kind.DIFFERENCE)


def document(report: Report, page: str) -> dict[str, Any]:
    """`page`: where the whole report is."""
    content = report.content
    return {
        "study": content.name,
        "fake": content.fake,
        "page": page,
        "measured": facts.study_line(content),
        "fairness": facts.fidelity_line(content),
        "noise": facts.noise_line(content),
        "rounds": rounds_line(content),
        "counted": counted_line(content),
        "protection": protection_line(content),
        "tradeoff": [point.as_json() for point in content.tradeoff],
        "sentences": list(report.sentences),
        "saturation": saturation.beside_the_knee(content),
        "warnings": list(report.warnings),
        "not_applicable": facts.not_applicable_lines(content),
        "primary": [
            _row(finding)
            for finding in content.findings
            if (finding.kind in _SHOWN or differs_alone(finding))
            and finding.metric in content.primary
            and not finding.part
            and not of_curve(finding)
        ],
        "tables": [
            _table(section.label, block)
            for section in report.in_terminal
            for block in section.blocks
            if isinstance(block, Table) and not block.terminal_only
        ],
    }


def _table(section: str, table: Table) -> dict[str, Any]:
    """As it is set: texts, a row's group before its label."""
    return {
        "section": section,
        "title": table.title,
        "columns": [column.title for column in table.columns],
        "rows": [
            [f"{row.group}, {row.entries[0]}" if row.group else row.entries[0], *map(str, row.entries[1:])]
            for row in table.rows
        ],
    }


def _row(finding: Finding) -> dict[str, Any]:
    return {
        "id": finding.id,
        "metric": finding.metric,
        "estimate": finding.estimate,
        "low": finding.low,
        "high": finding.high,
        "unit": finding.unit,
        "verdict": str(finding.verdict) if finding.verdict else None,
        "sentence": finding.sentence,
    }
