"""Which traced requests are shown of each cell: one of about the median time, one of about the P99."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from meshwise.analysis.contrast import cell_scope
from meshwise.findings.pictures import DrawnSpan, Waterfall
from meshwise.findings.subject import Levels
from meshwise.measure.spans import Node, RequestTrace
from meshwise.measure.trial import TrialResult
from meshwise.study.model import Cell, Role


def waterfalls(results: Sequence[TrialResult]) -> Iterator[Waterfall]:
    """Two of each traced cell, of the trial whose median duration is in the middle of its trials."""
    by_cell: dict[Cell, list[tuple[int, TrialResult]]] = {}
    for each in results:
        if each.typical is not None and each.trial.role is Role.CELL:
            by_cell.setdefault(each.trial.cell, []).append((each.typical.root.duration_ns, each))
    for cell, members in by_cell.items():
        ordered = sorted(members, key=lambda member: member[0])
        result = ordered[(len(ordered) - 1) // 2][1]
        at = cell_scope(cell)
        for which, trace in (("typical", result.typical), ("slow", result.slow)):
            if trace is not None:
                yield waterfall(at, which, result.trial.trial_id, trace)


def waterfall(at: Levels, which: str, trial_id: str, trace: RequestTrace) -> Waterfall:
    depths: Mapping[str, int] = _depths(trace.root)
    zero_ns = trace.root.begun_ns
    return Waterfall(
        at,
        which,
        trial_id,
        trace.trace_id,
        tuple(
            DrawnSpan(
                depths[span.span_id], f"{span.workload}/{span.role}", span.name, span.kind, str(span.part),
                (span.begun_ns - zero_ns) / 1e3, (span.ended_ns - zero_ns) / 1e3,
                span.own_ns / 1e3, span.critical_ns / 1e3,
            )
            for span in trace.spans
        ),
    )  # fmt: skip


def _depths(node: Node, depth: int = 0) -> dict[str, int]:
    found = {node.span_id: depth}
    for child in node.children:
        found |= _depths(child, depth + 1)
    return found
