"""Sidecars by where they stand in the topology: means over the edge, the inner ones, the leaves, each depth.

Rules of this file:
- A place's value is the mean over its sidecars, per request of the client: what one more such service costs.
- Depth is reported where it says more than the workloads themselves: not of a chain.
- Only a topology with more than one service has places.
"""

from __future__ import annotations

from collections.abc import Mapping

from meshwise.findings.metric import MetricKey
from meshwise.study.model import Cell, MeshName, TopologyKind
from meshwise.study.topology import GraphPosition

CPU_METRIC, MEMORY_METRIC = "place_cpu_us_per_request", "place_memory_bytes"


def members(cell: Cell) -> Mapping[str, tuple[str, ...]]:
    """Place (`edge`, `depth 2`) -> names of its workloads; nothing for point to point."""
    topology = cell.topology
    services = topology.workloads[1:]
    if len(services) < 2:
        return {}
    found: dict[str, list[str]] = {
        str(place): [] for place in (GraphPosition.EDGE, GraphPosition.INNER, GraphPosition.LEAF)
    }
    for workload in services:
        found[str(topology.place(workload.name))].append(workload.name)
    if topology.shape is not TopologyKind.CHAIN:
        for workload in sorted(services, key=lambda each: topology.depths[each.name]):
            found.setdefault(f"depth {topology.depths[workload.name]}", []).append(workload.name)
    return {place: tuple(names) for place, names in found.items() if names}


def by_place(
    cell: Cell, proxy_cpu_us: Mapping[str, float], proxy_memory: Mapping[str, float], measured: bool
) -> dict[MetricKey, float]:
    """Metric -> mean over the sidecars of a place, of places of which every sidecar was read. Without a mesh
    they are 0, not missing, if the trial was `measured` at all."""
    values: dict[MetricKey, float] = {}
    for place, names in members(cell).items():
        if cell.mesh is MeshName.NONE:
            values |= {MetricKey(metric, place): 0.0 for metric in (CPU_METRIC, MEMORY_METRIC) if measured}
            continue
        for metric, read in ((CPU_METRIC, proxy_cpu_us), (MEMORY_METRIC, proxy_memory)):
            if all(name in read for name in names):
                values[MetricKey(metric, place)] = sum(read[name] for name in names) / len(names)
    return values
