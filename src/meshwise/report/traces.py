"""Where the time of a traced request goes: a table of its parts, and a typical and a slow one drawn."""

from __future__ import annotations

from collections.abc import Iterator

from markupsafe import Markup

from meshwise.findings.finding import Finding
from meshwise.findings.metric import metric_of
from meshwise.findings.subject import Kind
from meshwise.report import words
from meshwise.report.blocks import (
    Block,
    Drawing,
    Heading,
    Paragraph,
    Ranged,
    Row,
    Section,
    Setting,
    Table,
    TableColumn,
    bounds,
    mesh_column,
    mesh_entry,
)
from meshwise.report.content import CONTEXT, FREE, Content, form_of, means
from meshwise.report.waterfall import waterfall_drawing

METRICS = ("span_own_p50_us", "span_own_p99_us", "span_critical_mean_us")
PARTS = {
    "client app": "client\napp", "client proxy": "client\nproxy",
    "client proxy and network": "proxy and\nnetwork", "network": "network",
    "server proxy": "server\nproxy", "service": "service",
}  # fmt: skip
"""In the order of a request's way; as a terminal has room for them."""
_ABOUT = (
    "Own time: what a request spends in one part of its way and in none within it. Client app: between the "
    "caller's call and its sidecar. Client proxy: that sidecar, and network: from there to the server's "
    "sidecar, TLS of both among it; Envoy's one span does not say when it has sent, so both are one. Server "
    "proxy: between the server's sidecar and its service. On the critical path every moment belongs to one "
    "part, so the means add up to the mean time of a traced request."
)


def section(content: Content) -> Section | None:
    """None where nothing was traced."""
    tables = [table for metric in METRICS if (table := _table(content, metric))]
    if not tables:
        return None
    blocks: list[Block] = [Paragraph(_ABOUT), *tables]
    if drawn := content.pictures.waterfalls:
        about = (
            "A typical request (of about the median duration) and a slow one (about the P99) of each cell."
        )
        blocks += [Heading("Span by span"), Paragraph(about)]
        for number, each in enumerate(drawn):
            label = f"{each.which} request, span by span"
            blocks.append(Drawing(Markup(waterfall_drawing(f"waterfall-{number}", each)), label))
    name = "Where a request's time goes"
    return Section("traces", name, tuple(blocks), name)


def _table(content: Content, metric: str) -> Table | None:
    mine = [
        finding
        for finding in content.of_kind(Kind.LEVEL)
        if finding.metric == metric and finding.part and finding.estimate is not None
    ]
    if not mine:
        return None
    parts = [part for part in PARTS if any(finding.part == part for finding in mine)]
    by_row: dict[tuple[object, ...], dict[str, Finding]] = {}
    for finding in mine:
        key = tuple(finding.levels.get(name) for name in ("mesh", "posture", *CONTEXT, *FREE))
        by_row.setdefault(key, {})[finding.part] = finding
    form = form_of(mine)
    many = len({str(finding.levels["mesh"]) for finding in mine} - {"none"}) > 1
    varying = words.varying_within([finding.levels for finding in mine], (*CONTEXT, *FREE))
    rows = tuple(_rows(by_row, parts, form, varying, many=many))
    return Table(
        metric.replace("_", "-"),
        f"{metric_of(metric).title}, {form.unit}",
        (
            TableColumn("posture", Setting.LABEL, ""),
            *mesh_column(many=many),
            *(TableColumn(part, short=PARTS[part]) for part in parts),
        ),
        rows,
        caption="means over executions, with their intervals",
        page_only=metric != METRICS[0],
    )


def _rows(
    by_row: dict[tuple[object, ...], dict[str, Finding]],
    parts: list[str],
    form: words.Form,
    varying: list[str],
    *,
    many: bool,
) -> Iterator[Row]:
    for own in by_row.values():
        at = next(iter(own.values())).levels
        posture = str(at["posture"])
        further = [
            words.level(name, at.get(name))
            for name in varying
            if name != "protocol" and (name in CONTEXT or means(name, posture))
        ]
        said = [text for text in further if text]
        label = f"{posture} ({', '.join(said)})" if said else posture
        yield Row(
            (
                label,
                *mesh_entry(str(at["mesh"]), many=many),
                *(
                    Ranged(form.level(found), str(bounds(form, found))) if (found := own.get(part)) else ""
                    for part in parts
                ),
            )
        )
