"""Errors that a service graph asks for: the study's own; no finding presents them as the mesh's."""

from __future__ import annotations

from meshwise.findings.flag import ERRORS_ASKED, Flag
from meshwise.findings.metric import Metric
from meshwise.study.graph.sums import asked_errors
from meshwise.study.model import Cell


def asked_share(cell: Cell) -> float:
    return 0.0 if cell.topology.graph is None else asked_errors(cell.topology.graph)


def asked_flags(cell: Cell, metric: Metric) -> list[Flag]:
    """The flag of a metric that such errors move."""
    share = asked_share(cell) if metric.fails else 0.0
    return [ERRORS_ASKED(percent=100 * share)] if share else []
