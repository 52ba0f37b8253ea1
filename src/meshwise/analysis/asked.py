"""Errors that a service graph asks for: the study's own, which no finding may pass for the mesh's."""

from __future__ import annotations

from meshwise.study.graph.sums import asked_errors
from meshwise.study.model import Cell

_CONCERNED = ("error_ratio", "response_", "service_p", "service_mean", "throughput_rps", "saturation")


def asked_share(cell: Cell) -> float:
    return 0.0 if cell.topology.graph is None else asked_errors(cell.topology.graph)


def asked_flags(cell: Cell, metric: str) -> list[str]:
    """The flag of a metric that such errors move."""
    share = asked_share(cell) if metric.startswith(_CONCERNED) else 0.0
    if not share:
        return []
    return [
        f"errors_asked: the service graph makes {100 * share:.3g} % of the requests fail by its own errors"
    ]
