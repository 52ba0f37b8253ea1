"""The report of an import: levels per workload, what disturbs them, and what such data cannot tell."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import lru_cache
from importlib.resources import files
from typing import Any

import jinja2
from markupsafe import Markup

from meshwise import __version__
from meshwise.findings.finding import Finding
from meshwise.report.blocks import (
    Block,
    Bounds,
    Entry,
    Paragraph,
    Row,
    Sentences,
    Setting,
    Table,
    TableColumn,
)
from meshwise.report.words import Form, form_for

_REQUESTS = (
    ("throughput_rps", "requests", "rate"), ("error_ratio", "failed", "failed"),
    ("mtls_ratio", "over mTLS", "mTLS"), ("reported_p50_us", "p50", "p50"), ("reported_p90_us", "p90", "p90"),
    ("reported_p99_us", "p99", "p99"),
)  # fmt: skip
_TAKES = (
    ("proxy_cpu_us_per_request", "sidecar CPU per request", "sidecar CPU"),
    ("service_cpu_us_per_request", "service CPU per request", "service CPU"),
    ("sidecar_working_set_bytes", "working set of a sidecar", "sidecar memory"),
)
"""Metric, title, and title on a terminal."""
_WITH_BOUNDS = frozenset({"reported_p99_us"})
"""The bucket that it lies in stands beside it."""


def imported_blocks(findings: Sequence[Finding], about: Mapping[str, Any]) -> tuple[Block, ...]:
    """What terminal and page show. `about`: imported.json."""
    shares = int(about["to_unix_ns"]) - int(about["from_unix_ns"])
    head = (
        f"imported from {about['source']}, {_hours(shares)} every {int(about['step_ns']) / 1e9:g} s: "
        f"{about['series']:,} series, {about['samples']:,} samples; nothing here was measured by meshwise"
    )
    notes = list(dict.fromkeys(str(flag) for finding in findings for flag in finding.flags))
    blocks: list[Block] = [
        Paragraph(head, page_only=False),
        _table("requests", "Requests, as the mesh's own proxies count them", findings, _REQUESTS),
        _table("takes", "What they take, as the containers' accounting has it", findings, _TAKES),
    ]
    if told := [*map(str, about.get("notes") or ()), *notes]:
        blocks.append(Sentences(tuple(told), "How it was disturbed"))
    blocks.append(
        Sentences(tuple(map(str, about.get("cannot_tell") or ())), "What these numbers cannot tell")
    )
    return tuple(blocks)


def _hours(time_ns: int) -> str:
    return f"{time_ns / 3.6e12:.3g} h"


def _table(
    name: str, title: str, findings: Sequence[Finding], wanted: Sequence[tuple[str, str, str]]
) -> Table:
    named = {metric for metric, *_ in wanted}
    found = [each for each in findings if each.metric in named]
    metrics = [each for each in wanted if any(finding.metric == each[0] for finding in found)]
    forms = _forms(found)
    columns = [TableColumn("workload", Setting.LABEL), TableColumn("mesh", Setting.MESH)]
    for metric, words, short in metrics:
        unit = forms[metric].unit
        columns.append(
            TableColumn(
                f"{words} ({unit})" if unit else words,
                short=f"{short} {unit.removeprefix('requests')}".rstrip(),
                spare=metric == "reported_p90_us",
            )
        )
        if metric in _WITH_BOUNDS:
            columns.append(TableColumn("between", Setting.INTERVAL))
    rows = []
    for mesh, workload in dict.fromkeys((str(each.levels["mesh"]), each.part) for each in found):
        mine = {each.metric: each for each in found if (each.levels["mesh"], each.part) == (mesh, workload)}
        entries: list[Entry] = [workload, mesh]
        for metric, *_ in metrics:
            entries.append(forms[metric].level(mine.get(metric)))
            if metric in _WITH_BOUNDS:
                entries.append(_bounds(forms[metric], mine.get(metric)))
        rows.append(Row(tuple(entries)))
    return Table(f"imported-{name}", title, tuple(columns), tuple(rows))


def _forms(found: Sequence[Finding]) -> dict[str, Form]:
    """By metric; percentiles have one together, to be read along a row."""
    by: dict[str, list[Finding]] = {}
    for each in found:
        by.setdefault("reported" if each.metric.startswith("reported_") else each.metric, []).append(each)
    made = {
        name: form_for(some[0].unit, [each.low if each.estimate is None else each.estimate for each in some])
        for name, some in by.items()
    }
    return {each.metric: made.get(each.metric) or made["reported"] for each in found}


def _bounds(form: Form, finding: Finding | None) -> Entry:
    if finding is None or finding.low is None:
        return ""
    return Bounds(form.bound(finding.low), "inf" if finding.high is None else form.bound(finding.high))


def imported_page(blocks: Sequence[Block], title: str) -> str:
    """One file that opens without a network."""
    css = (files("meshwise.report.html") / "page.css").read_text(encoding="utf-8")
    return _template().render(blocks=blocks, title=title, css=Markup(css), version=__version__)


@lru_cache(maxsize=1)
def _template() -> jinja2.Template:
    environment = jinja2.Environment(
        autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.tests["block"] = lambda block, kind: type(block).__name__ == kind
    return environment.from_string(
        (files("meshwise.report.html") / "import.html.j2").read_text(encoding="utf-8")
    )


def imported_document(findings: Sequence[Finding], about: Mapping[str, Any], page: str) -> dict[str, Any]:
    """The same as plain values."""
    return {
        "imported": {name: value for name, value in about.items() if name != "files"},
        "page": page,
        "levels": [
            {
                "id": each.id, "mesh": each.levels["mesh"], "workload": each.part, "metric": each.metric,
                "estimate": each.estimate, "low": each.low, "high": each.high, "unit": each.unit,
                "provenance": each.provenance, "flags": [str(flag) for flag in each.flags],
            }
            for each in findings
        ],
    }  # fmt: skip
