"""Sidecars by where they stand in the topology: means over the edge, the inner ones, the leaves, each depth.

Laws of this file:
- A place's value is the mean over its sidecars, per request of the client: what one more such service costs.
- Depth is told where it says more than the workloads themselves: not of a chain.
- Only a topology with more than one service has places; and in a large one the sidecars' own metrics are
  shown but not compared, so that the number of comparisons does not grow with the number of services.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from meshwise.study.model import Cell, MeshName, TopologyKind
from meshwise.study.topology import Place

CPU_METRIC, MEMORY_METRIC = "place_cpu_us_per_request", "place_memory_bytes"
MOST_COMPARED = 8
"""Workloads, the client among them, up to which each sidecar's own metrics are compared."""
_OWN_METRICS = ("proxy_cpu_us_per_request", "proxy_memory_bytes", "service_cpu_us_per_request")


def members(cell: Cell) -> Mapping[str, tuple[str, ...]]:
    """Place (`edge`, `depth 2`) -> names of its workloads; nothing for point to point."""
    topology = cell.topology
    services = topology.workloads[1:]
    if len(services) < 2:
        return {}
    found: dict[str, list[str]] = {str(place): [] for place in (Place.EDGE, Place.INNER, Place.LEAF)}
    for workload in services:
        found[str(topology.place(workload.name))].append(workload.name)
    if topology.shape is not TopologyKind.CHAIN:
        for workload in sorted(services, key=lambda each: topology.depths[each.name]):
            found.setdefault(f"depth {topology.depths[workload.name]}", []).append(workload.name)
    return {place: tuple(names) for place, names in found.items() if names}


def by_place(
    cell: Cell, proxy_cpu_us: Mapping[str, float], proxy_memory: Mapping[str, float], measured: bool
) -> dict[str, float]:
    """Metric -> mean over the sidecars of a place, of places of which every sidecar was read. Without a mesh
    they are 0, not missing, if the trial was `measured` at all."""
    values: dict[str, float] = {}
    for place, names in members(cell).items():
        if cell.mesh is MeshName.NONE:
            values |= {f"{metric}@{place}": 0.0 for metric in (CPU_METRIC, MEMORY_METRIC) if measured}
            continue
        for metric, read in ((CPU_METRIC, proxy_cpu_us), (MEMORY_METRIC, proxy_memory)):
            if all(name in read for name in names):
                values[f"{metric}@{place}"] = sum(read[name] for name in names) / len(names)
    return values


def is_of_place(metric_name: str) -> bool:
    return metric_name.partition("@")[0] in (CPU_METRIC, MEMORY_METRIC)


def compared_by_workload(names: Iterable[str], cells: Sequence[Cell]) -> list[str]:
    """Without the sidecars' own metrics where the topology is large; a service's own are never compared."""
    large = max((len(cell.topology.workloads) for cell in cells), default=0) > MOST_COMPARED
    return [
        name
        for name in names
        if not (
            "@" in name
            and name.partition("@")[0] in (_OWN_METRICS if large else ("service_cpu_us_per_request",))
        )
    ]
