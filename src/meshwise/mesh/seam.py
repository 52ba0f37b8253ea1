"""The seams `MeshModel` and `LocalMesh`: what a posture *is* in one mesh, and how one machine has it.

A model knows no process and no file: it has the posture as the mesh's own resources, what must come of every
call, and the judgement of what came. What it has to find out it asks of a `Reach`, so that the same model
proves a posture on one machine and on a cluster. The local half says which processes a pod needs
(`ProcessPlan`), what is captured (`Capture`), and brings configuration to them; a testbed starts them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from meshwise.archive.outcome import Check as Check
from meshwise.archive.outcome import Proof as Proof
from meshwise.core.patience import USUAL, Patience
from meshwise.mesh.changes import Change, Disturbance, RestartProxy, Taken
from meshwise.mesh.expectations import Expectation, Who
from meshwise.mesh.probe import Entrance
from meshwise.mesh.reach import Reach
from meshwise.mesh.request import Headers
from meshwise.study.model import Cell, MeshName, Topology, Workload
from meshwise.study.timeline import Act
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

    `directory` is memory-backed, private (0700), and is removed with the run: `directory/<workload>/...`
    holds a sidecar's configuration and keys.
    """

    mesh: MeshName
    process_set: str
    workloads: tuple[PlacedWorkload, ...]
    outsider_ip: str
    directory: Path
    trust_domain: str = "cluster.local"
    patience: Patience = USUAL
    counted: bool = False
    """What its sidecars do is counted, so they do nothing by the clock that can be left out."""
    traced: bool = False
    """Some of its cells are traced: its sidecars are started such that they can be."""

    def __getitem__(self, name: str) -> PlacedWorkload:
        return next(placed for placed in self.workloads if placed.name == name)

    def of(self, topology: Topology) -> tuple[PlacedWorkload, ...]:
        """The placed workloads that this topology uses, client first."""
        return tuple(self[workload.name] for workload in topology.workloads)

    def behind(self, topology: Topology) -> tuple[PlacedWorkload, ...]:
        """The workloads behind the first that are called."""
        return tuple(placed for placed in self.of(topology)[2:] if topology.callers(placed.name))


@dataclass(frozen=True)
class Ready:
    """A process is ready when GET `path` on its pod's loopback `port` answers 200."""

    port: int
    path: str


@dataclass(frozen=True)
class Drain:
    """How a mesh ends a proxy so that what is under way is finished: POST `path` to its pod's loopback
    `port`, wait, SIGTERM."""

    port: int = 0
    path: str = ""
    """Empty: nothing is asked, the signal says it."""
    wait_s: float = 0.0
    """As long as the mesh lets it drain before the signal."""
    end_s: float = 5.0
    """How long it may take to heed the signal."""


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
    directory: Path | None = None
    """Where it runs; None: it does not matter."""
    ready: Ready | None = None
    drain: Drain | None = None
    """None: it has nothing to drain."""


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


@dataclass(frozen=True)
class Fidelity:
    """A known difference between what runs here and the real mesh."""

    code: str
    what: str
    effect: str


@dataclass(frozen=True)
class Delivered:
    """What the side that brings configuration to the proxies knows of it."""

    workers: int
    """Threads that each proxy was started with."""
    version: str = ""
    """Of what it last handed out, where it keeps count; else the proxies themselves say what they have."""
    behind: int = 0
    """Streams to proxies that it was not sent on yet."""


class MeshModel(Protocol):
    """One mesh, as far as it can be thought: no process, no file. Conformance suite:
    `tests/support/mesh_conformance.py`."""

    @property
    def name(self) -> MeshName: ...

    def not_applicable(self, cell: Cell) -> str | None:
        """Why this mesh cannot express the cell, or None."""

    def resources(self, cell: Cell, trust_domain: str) -> str:
        """The posture as the mesh's own resources (multi-document YAML), for the archive."""

    def request(self, cell: Cell) -> Headers:
        """Method, path and headers that `strict+fine` lets through; the same for every posture."""

    def traits(self, build: Mapping[str, str]) -> Mapping[str, str]:
        """What one has to know before comparing: values of `mesh.traits.TRAITS`, as configured by default;
        nothing for no mesh. What a proof observes is not said here. `build`: from `LocalMesh.describe`."""

    def expectations(self, cell: Cell, callee: str) -> Sequence[Expectation]:
        """What must come of every kind of call to this workload, by the posture that it demands itself."""

    def entrance(self, placement: Placement, cell: Cell, who: Who = Who.TWIN) -> Entrance:
        """How the entry's sidecar is called without the client's, by an outsider with a certificate; what is
        asked is allowed."""

    def judge(self, placement: Placement, cell: Cell, reach: Reach, delivered: Delivered) -> Proof:
        """Try what must work and what must not, read the proxies' own counters, and judge both by the
        expectations. Raises MW406 for a silent proxy."""


class LocalMesh(Protocol):
    """One mesh on this machine. Conformance suite: `tests/support/mesh_conformance.py`."""

    @property
    def model(self) -> MeshModel: ...

    def processes(self, placement: Placement, workers: int) -> Sequence[ProcessPlan]:
        """The processes of all sidecars (and of a control plane, if the mesh needs one)."""

    def capture(self, workload: str) -> Capture | None:
        """What is captured in this workload's pod; None without a sidecar."""

    def prepare(self, placement: Placement, cell: Cell) -> None:
        """Write all that the processes need before they start: bootstrap, keys, first configuration."""

    def reset(self, placement: Placement, cell: Cell, reach: Reach) -> None:
        """Between trials: bring the cell's configuration to the running proxies; return when each has taken
        it up and no connection and no TLS session of before is left, so that trials are alike. What
        `carry_out` changed is forgotten. Raises MW4xx if a proxy refuses it or takes too long."""

    def push(self, placement: Placement, cell: Cell, reach: Reach) -> None:
        """Within a trial: bring only what differs, as the mesh's control plane does; return when each proxy
        has taken it up. What becomes of connections is up to the proxies, with the drain time that
        they were started with. Raises as `reset`."""

    def cannot(self, cell: Cell, act: Act) -> str | None:
        """Why the event cannot happen to this cell, in words; None if it can. Asked while a study is planned:
        no process, no binary."""

    def foresee(self, placement: Placement, cell: Cell, changes: Sequence[Change]) -> None:
        """Before the measured window of a trial: what `carry_out` will be asked, in that order. What takes a
        CPU and can be made before is made now, so that it is not taken from the trial. Forgotten by the next
        `reset`."""

    def carry_out(
        self, placement: Placement, cell: Cell, act: Change, reach: Reach, restart: RestartProxy
    ) -> Sequence[Taken]:
        """Within a trial of `cell`: one change, on top of those before it; returns when each proxy of the
        cell has taken it up, or says why not. A posture is that which is to hold from now on. What it did is
        undone by the next `reset`. `restart`: for what a proxy takes up at its start only. Raises as `push`
        where a proxy refuses what it must take, and as `restart`."""

    def failing(self, placement: Placement, act: Disturbance) -> AbstractContextManager[None]:
        """Within: the failure of what belongs to the mesh itself (its authority). Of a control plane that is
        a process the testbed takes care."""

    def guard(self, guarded: bool) -> None:
        """Lay the rule that forbids over every posture that is brought from now on, or leave it away again
        (`protection.guard_rule`). Nothing is brought by this."""

    def delivered(self, placement: Placement) -> Delivered: ...

    def state(self, placement: Placement, cell: Cell, reach: Reach) -> Mapping[str, str]:
        """What the cell's proxies say of themselves, for a failed trial: file name to text, bounded and
        without secrets. Never raises for a proxy that does not answer."""

    def samplers(self, placement: Placement, reach: Reach) -> Sequence[Sampler]:
        """Readers of the proxies' own statistics."""

    def describe(self) -> Mapping[str, str]:
        """Build, version, path and digest of the proxy; worker model; TLS library."""

    def fidelity(self, *, privileged: bool) -> Sequence[Fidelity]:
        """The differences from the real mesh that apply to this run."""
