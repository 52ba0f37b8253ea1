"""The seam `Mesh`: what a posture *is* in one mesh, as data that a testbed can carry out.

A mesh never starts a process or enters a namespace. It says which processes a pod needs
(`ProcessPlan`), what is captured (`Capture`), which files make a posture (`files`), and how to
tell that the posture holds (`prove`); the testbed does it. Where a mesh must ask a running proxy
it gets a `Dial`, so everything here is tested without a testbed.
"""

from __future__ import annotations

import socket
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from meshwise.archive.outcome import Check as Check
from meshwise.archive.outcome import Proof as Proof
from meshwise.study.model import Cell, MeshName, Topology, Workload
from meshwise.telemetry.seam import Sampler

OUTSIDER = "outsider"
"""The pod without a sidecar that stands beside every environment: the plaintext client of proofs."""

SERVICE_RANGE = "10.96.0.0/16"
"""Service addresses. Applications dial these; only a sidecar answers for them."""

POD_RANGE = "10.244.0.0/16"


@dataclass(frozen=True)
class PlacedWorkload:
    """A workload with its addresses in one set of processes."""

    workload: Workload
    pod_ip: str
    service_ip: str

    @property
    def name(self) -> str:
        return self.workload.name


@dataclass(frozen=True)
class Placement:
    """One set of pods of one mesh, at its largest topology, with a directory that they share.

    `directory` is memory-backed, private (0700), and dies with the run: `directory/<workload>/...`
    holds a sidecar's configuration and keys.
    """

    mesh: MeshName
    process_set: str
    workloads: tuple[PlacedWorkload, ...]
    outsider_ip: str
    directory: Path
    trust_domain: str = "cluster.local"

    def __getitem__(self, name: str) -> PlacedWorkload:
        return next(placed for placed in self.workloads if placed.name == name)

    def of(self, topology: Topology) -> tuple[PlacedWorkload, ...]:
        """The placed workloads that this topology uses, client first."""
        return tuple(self[workload.name] for workload in topology.workloads)


@dataclass(frozen=True)
class Ready:
    """A process is ready when GET `path` on its pod's loopback `port` answers 200."""

    port: int
    path: str
    timeout_s: float = 15.0


@dataclass(frozen=True)
class ProcessPlan:
    """One process to run in one pod."""

    pod: str
    role: str
    """`proxy`, `controller`; the last part of a telemetry source."""
    argv: tuple[str, ...]
    environment: Mapping[str, str] = field(default_factory=dict)
    uid: int | None = None
    """Wanted uid; honoured as root, ignored in a one-uid user namespace."""
    ready: Ready | None = None


@dataclass(frozen=True)
class Capture:
    """What the pod's nat rules send to the sidecar, as the mesh's own init container arranges it."""

    inbound_port: int
    """PREROUTING tcp goes here, but for `inbound_exempt_ports`."""
    outbound_port: int
    """OUTPUT tcp goes here: all but the proxy's uid (as root), or SERVICE_RANGE only (one uid)."""
    proxy_uid: int
    inbound_exempt_ports: tuple[int, ...] = ()
    proxy_gid: int | None = None
    """Exempt from outbound capture as well, where the mesh says so (Istio: 1337)."""
    outbound_exempt_ports: tuple[int, ...] = ()
    inbound_source: str | None = None
    """Where the sidecar's own connections to its application come from (Istio: 127.0.0.6); never captured.
    Given: rules as istio-iptables makes them, with calls to oneself sent to the inbound side. None: as
    linkerd2-proxy-init makes them, with all of `lo` exempt."""
    tunnel_port: int | None = None
    """Istio's HBONE port, 15008, which a call to oneself may use uncaptured."""
    inbound_redirects: tuple[tuple[int, int], ...] = ()
    """(from, to): connections to the one port of this pod go to the other, past the sidecar."""


Dial = Callable[[str, str, int], socket.socket]
"""`dial(pod, address, port)`: a connected TCP socket made inside that pod's network namespace (with a
2 s time-out set). `pod` is a workload's name or OUTSIDER. Raises OSError as connect does."""


@dataclass(frozen=True)
class Headers:
    """What every request of a cell carries so that each posture measures the same bytes."""

    method: str
    path: str
    headers: Sequence[tuple[str, str]]


@dataclass(frozen=True)
class Fidelity:
    """A known difference between what runs here and the real mesh."""

    code: str
    what: str
    effect: str


class Mesh(Protocol):
    """One mesh. Conformance suite: `tests/support/mesh_conformance.py`."""

    @property
    def name(self) -> MeshName: ...

    def not_applicable(self, cell: Cell) -> str | None:
        """Why this mesh cannot express the cell, or None."""

    def resources(self, cell: Cell, placement: Placement) -> str:
        """The posture as the mesh's own resources (multi-document YAML), for the archive."""

    def processes(self, placement: Placement, workers: int) -> Sequence[ProcessPlan]:
        """The processes of all sidecars (and of a control plane, if the mesh needs one)."""

    def capture(self, workload: str) -> Capture | None:
        """What is captured in this workload's pod; None without a sidecar."""

    def prepare(self, placement: Placement, cell: Cell) -> None:
        """Write all that the processes need before they start: bootstrap, keys, first configuration."""

    def apply(self, placement: Placement, cell: Cell, dial: Dial) -> None:
        """Push the cell's configuration to the running proxies; return when each has taken it up and
        no connection of the former configuration is left. Raises MW4xx if a proxy refuses it."""

    def prove(self, placement: Placement, cell: Cell, dial: Dial) -> Proof:
        """Try what must work and what must not, and read the proxies' own counters."""

    def state(self, placement: Placement, cell: Cell, dial: Dial) -> Mapping[str, str]:
        """What the cell's proxies say of themselves, for a failed trial: file name to text, bounded and
        without secrets. Never raises for a proxy that does not answer."""

    def request(self, cell: Cell) -> Headers:
        """Method, path and headers that `strict+fine` lets through; the same for every posture."""

    def samplers(self, placement: Placement, dial: Dial) -> Sequence[Sampler]:
        """Readers of the proxies' own statistics."""

    def describe(self) -> Mapping[str, str]:
        """Build, version, path and digest of the proxy; worker model; TLS library."""

    def traits(self) -> Mapping[str, str]:
        """What one has to know before comparing: values of `mesh.traits.TRAITS`, as configured by default;
        nothing for no mesh. What a proof observes is not said here."""

    def fidelity(self, *, privileged: bool) -> Sequence[Fidelity]:
        """The differences from the real mesh that apply to this run."""
