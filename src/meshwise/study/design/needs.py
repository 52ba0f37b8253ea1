"""What a study needs of a machine at one time: all its environments run side by side. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from meshwise.study.design.counting import counting_design
from meshwise.study.design.rounds import Task, block_rounds
from meshwise.study.model import Cell, ControlPlane, MeshName, Study, TopologyKind, Trial

BESIDE_SERVICE_BYTES = {MeshName.NONE: 18 << 20, MeshName.ISTIO: 43 << 20, MeshName.LINKERD: 24 << 20}
"""Of a workload: its service and its sidecar; pages that processes share counted once. A study of 30 services
took 1.27 GiB with Istio's sidecars and 0.71 GiB with Linkerd's (benchmarks/thirty_services.py)."""
BANK_BYTES = 280 << 20
"""What a bank has more than as many nodes of a graph: its five services take 300 MiB, PostgreSQL 47, Redis 16
(two banks in one round, counted likewise)."""
COUNTED_BYTES = {MeshName.ISTIO: 400 << 20, MeshName.LINKERD: 200 << 20}
"""What a sidecar takes more under callgrind."""
ISTIOD_BYTES = 240 << 20
"""What istiod takes with 40 sidecars; 130 MiB with three."""
RECEIVER_BYTES = 40 << 20
"""The receiver of spans, without any."""
SPAN_BYTES = 4000
"""Of a span after its trial: as it came, decoded, and as a row."""
CONTROLLER_BYTES = 26 << 20
"""Of Istio's control plane in one environment (its share of pages, of a chain of three); Linkerd's is in what
its sidecars take."""
OWN_FILES = 1024
"""Of a process that holds the connections of a round: what it has open beside them."""


@dataclass(frozen=True)
class Needs:
    """At one time, by whatever runs in the study's pods."""

    environments: int
    workloads: Mapping[MeshName, int]
    """In a mesh each has a sidecar."""
    banks: int
    counting: bool = False
    """Its sidecars run under a counter."""
    controllers: int = 0
    """Control planes of Istio's environments, each a process."""
    connections: int = 0
    """Open at once in its largest round, from one process: the instrument, or the client that counts."""
    istiod: bool = False
    """The real one runs beside it."""
    spans: int = 0
    """Of its largest round, where something is traced."""

    @property
    def sidecars(self) -> int:
        return sum(count for mesh, count in self.workloads.items() if mesh is not MeshName.NONE)

    @property
    def envoys(self) -> int:
        return self.workloads.get(MeshName.ISTIO, 0)

    @property
    def open_files(self) -> int:
        """Of the process that has most."""
        return OWN_FILES + self.connections

    @property
    def memory_bytes(self) -> int:
        beside = sum(BESIDE_SERVICE_BYTES[mesh] * count for mesh, count in self.workloads.items())
        counted = sum(COUNTED_BYTES.get(mesh, 0) * count for mesh, count in self.workloads.items())
        istiod = ISTIOD_BYTES if self.istiod else 0
        traced = RECEIVER_BYTES + SPAN_BYTES * self.spans if self.spans else 0
        beside += CONTROLLER_BYTES * self.controllers + istiod + traced
        return beside + BANK_BYTES * self.banks + (counted if self.counting else 0)


def environments_of(study: Study, *, counting: bool = False) -> dict[tuple[str, int, MeshName], list[Cell]]:
    """The cells of each environment, by (set of processes, number of the mesh in the study, mesh).
    `counting`: of the counting trials, which have environments of their own."""
    timed: Iterable[Task | Trial] = (task for arms in block_rounds(study) for task in arms)
    found: dict[tuple[str, int, MeshName], list[Cell]] = {}
    for task in counting_design(study) if counting else timed:
        place = (task.process_set, study.environments.index(task.cell.mesh), task.cell.mesh)
        found.setdefault(place, []).append(task.cell)
    return found


def needs_of(study: Study, *, counting: bool = False) -> Needs:
    """`counting`: while it counts, else while it measures time."""
    workloads: dict[MeshName, int] = {}
    banks = 0
    environments = environments_of(study, counting=counting)
    for (_, _, mesh), cells in environments.items():
        names = {workload.name for cell in cells for workload in cell.topology.workloads}
        workloads[mesh] = workloads.get(mesh, 0) + len(names)
        banks += any(cell.shape is TopologyKind.BANK for cell in cells)
    spans = 0 if counting else max((_spans(study, arms) for arms in block_rounds(study)), default=0)
    return Needs(
        len(environments),
        workloads,
        banks,
        counting,
        controllers=sum(mesh is MeshName.ISTIO for _, _, mesh in environments),
        connections=_connections(study, counting=counting),
        istiod=study.control_plane is ControlPlane.ISTIOD,
        spans=spans,
    )


def spans_of(cell: Cell) -> int:
    """Of a traced request, at most: Linkerd's sidecars have two each, and a call has one at either end."""
    return 6 * (len(cell.topology.workloads) - 1)


def _spans(study: Study, arms: Iterable[Task]) -> int:
    seconds = (study.trial.warmup_ns + study.trial.duration_ns) / 1e9
    return round(
        sum(task.cell.rate_rps * task.cell.traced_share * spans_of(task.cell) for task in arms) * seconds
    )


def _connections(study: Study, *, counting: bool) -> int:
    """Those that are replaced count twice: one may still be ending when the next is there."""
    rounds: Counter[int] = Counter()
    if counting:
        for trial in counting_design(study):
            rounds[trial.round] += trial.cell.connections
    else:
        for number, arms in enumerate(block_rounds(study)):
            cells = [task.cell for task in arms]
            replaced = [cell for cell in cells if cell.churn_per_s or cell.requests_per_connection]
            rounds[number] = sum(cell.connections for cell in (*cells, *replaced))
    return max(rounds.values(), default=0)
