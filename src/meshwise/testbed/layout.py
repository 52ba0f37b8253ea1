"""Where everything of a study is placed: a pure function from the study to environments, pods and addresses.

An environment is one mesh's pods with one set of processes: `istio/a` and, when the study has a twin control,
`istio/b`. It is laid out once for the largest topology of its cells; smaller cells use a part of it.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path

from meshwise.core.patience import USUAL, Patience
from meshwise.mesh.seam import OUTSIDER, POD_RANGE, SERVICE_RANGE, PlacedWorkload, Placement
from meshwise.study.design.needs import environments_of
from meshwise.study.model import Cell, MeshName, Study, Topology, Workload

SERVICE = "service"
"""Role of a process of the application."""
_FIRST_POD = 10
_OUTSIDER_POD = 250


@dataclass(frozen=True)
class Environment:
    """One mesh with one set of processes."""

    placement: Placement
    first_cell: Cell
    """The cell whose posture the proxies are started with."""
    scripted: tuple[Topology, ...] = ()
    """Of its cells' topologies, those whose nodes follow scripts."""

    @property
    def name(self) -> str:
        return f"{self.placement.mesh}/{self.placement.process_set}"

    @property
    def patience(self) -> Patience:
        return self.placement.patience

    @property
    def nodes(self) -> tuple[PlacedWorkload, ...]:
        """Every workload but the client, which has no service."""
        return self.placement.workloads[1:]

    def pods(self) -> tuple[tuple[str, str], ...]:
        """(name, ip) of every pod, the outsider's last."""
        placed = [(self.pod_name(workload.name), workload.pod_ip) for workload in self.placement.workloads]
        return (*placed, (self.pod_name(OUTSIDER), self.placement.outsider_ip))

    def part(self, topology: Topology) -> Environment:
        """The same with only the workloads that a smaller topology uses."""
        return replace(self, placement=replace(self.placement, workloads=self.placement.of(topology)))

    def pod_names(self) -> frozenset[str]:
        return frozenset(name for name, _ in self.pods())

    def pod_name(self, workload: str) -> str:
        return f"{self.name}/{workload}"

    def address(self, callee: str) -> str:
        """Where an application dials a workload: its service, which only a sidecar answers, or its pod."""
        placed = self.placement[callee]
        return placed.pod_ip if self.placement.mesh is MeshName.NONE else placed.service_ip

    def authority(self, cell: Cell) -> str:
        """What the instrument calls the first node."""
        return f"{cell.topology.entry.host}:{cell.topology.entry.port(cell.protocol)}"


def lay_out(
    study: Study, directory: Path, patience: Patience = USUAL, *, counting: bool = False
) -> tuple[Environment, ...]:
    """Every environment of the study, in its order; all first sets, then all second ones. Files below
    `directory`. `counting`: those of the counting trials, else those of what is timed."""
    wanted = environments_of(study, counting=counting)
    return tuple(
        _environment(
            number, mesh, process_set, wanted[process_set, order, mesh], directory, patience, counting
        )
        for number, (process_set, order, mesh) in enumerate(sorted(wanted), start=1)
    )


def _environment(
    number: int,
    mesh: MeshName,
    process_set: str,
    cells: list[Cell],
    directory: Path,
    patience: Patience,
    counting: bool,
) -> Environment:
    pods, services = _subnet(POD_RANGE, number), _subnet(SERVICE_RANGE, number)
    placed = tuple(
        PlacedWorkload(workload, str(pods + _FIRST_POD + index), str(services + _FIRST_POD + index))
        for index, workload in enumerate(merged(cells))
    )
    placement = Placement(
        mesh=mesh,
        process_set=process_set,
        workloads=placed,
        outsider_ip=str(pods + _OUTSIDER_POD),
        directory=directory / mesh / process_set,
        patience=patience,
        counted=counting,
        traced=any(cell.traced_share for cell in cells),
    )
    topologies = dict.fromkeys(cell.topology for cell in cells)
    return Environment(placement, cells[0], tuple(each for each in topologies if each.graph))


def _subnet(whole: str, number: int) -> ipaddress.IPv4Address:
    """The third byte of an address tells the environment."""
    return ipaddress.IPv4Network(whole).network_address + 256 * number


def merged(cells: Iterable[Cell]) -> tuple[Workload, ...]:
    """The workloads of all topologies together, client first; each calls all that it calls in any of them."""
    found: dict[str, Workload] = {}
    for topology in dict.fromkeys(cell.topology for cell in cells):
        for workload in topology.workloads:
            known = found.get(workload.name, workload)
            calls = tuple(dict.fromkeys((*known.calls, *workload.calls)))
            found[workload.name] = replace(known, calls=calls)
    return tuple(found.values())
