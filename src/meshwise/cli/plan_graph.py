"""The call graph in `meshwise plan`: a tree on the terminal, and a drawing in a file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from rich.console import Console
from rich.text import Text

from meshwise.core import messages
from meshwise.core.files import writing
from meshwise.report.graph_svg import graph_drawing
from meshwise.report.graph_words import tree
from meshwise.study.graph.sums import asked_errors, most_calls, visits
from meshwise.study.model import Study, Topology, TopologyKind

_PLAIN = (TopologyKind.CHAIN, TopologyKind.FANOUT)
"""Nothing to draw that the word does not say."""


def largest_topology(study: Study) -> Topology:
    """What is drawn: the study's topology, at its greatest length."""
    return max((cell.topology for cell in study.cells), key=lambda topology: len(topology.workloads))


def show_graph(study: Study, console: Console) -> None:
    topology = largest_topology(study)
    if topology.shape in _PLAIN:
        return
    services = len(topology.workloads) - 1
    console.print(
        Text.assemble(("\nTopology ", "bold"), f"{topology.name}: {services} services", _sums(topology))
    )
    for line in tree(topology):
        console.print(
            Text.assemble(
                (line.strokes, "dim"), line.name, "  " if line.name and line.more else "", (line.more, "dim")
            ),
            soft_wrap=True,
        )


def _sums(topology: Topology) -> str:
    if topology.graph is None:
        return ""
    inside = sum(visits(topology.graph).values()) - 1
    return f", {inside:.3g} calls between them per request ({most_calls(topology.graph)} at most)"


def write_graph(study: Study, path: Path) -> None:
    """Raises MW121."""
    topology = largest_topology(study)
    try:
        with writing(path) as stream:
            stream.write(graph_drawing("graph", topology, alone=True).encode())
    except OSError as error:
        raise messages.CANNOT_WRITE_DRAWING.error(str(path), reason=error.strerror or str(error)) from error


def graph_document(study: Study) -> dict[str, Any] | None:
    """The same as plain values; None for a study without a graph of its own."""
    topology = largest_topology(study)
    if topology.graph is None:
        return None
    visited = visits(topology.graph)
    return {
        "name": topology.name,
        "asked_errors": asked_errors(topology.graph),
        "most_calls": most_calls(topology.graph),
        "services": [
            {
                "name": workload.name,
                "namespace": workload.namespace,
                "place": str(topology.place(workload.name)),
                "depth": topology.depths[workload.name],
                "calls": list(workload.calls),
                "visits": visited[workload.name],
                "mtls": workload.mtls,
                "authorization": workload.authorization,
            }
            for workload in topology.workloads[1:]
        ],
    }
