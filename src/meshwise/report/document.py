"""What the terminal shows, as plain values: for programs that want the report's words beside its numbers.

It picks from findings.json (by `id`) and adds nothing to it.
"""

from __future__ import annotations

from typing import Any

from meshwise.findings.finding import Finding
from meshwise.findings.subject import Kind
from meshwise.report import facts, saturation, sentences
from meshwise.report.content import Content, of_curve
from meshwise.stats.verdict import Verdict


def document(content: Content, page: str) -> dict[str, Any]:
    """`page`: where the whole report is."""
    return {
        "study": content.name,
        "fake": content.fake,
        "page": page,
        "measured": facts.study_line(content),
        "fairness": facts.fidelity_line(content),
        "noise": facts.noise_line(content),
        "sentences": sentences.closing(content),
        "saturation": saturation.beside_the_knee(content),
        "warnings": [
            finding.sentence for finding in content.of_kind("check") if finding.verdict is Verdict.WARNING
        ],
        "not_applicable": facts.not_applicable_lines(content),
        "primary": [
            _row(finding)
            for finding in content.of_kind(Kind.LEVEL, Kind.INCREMENT, Kind.DIFFERENCE)
            if finding.metric in content.primary and not finding.part and not of_curve(finding)
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
