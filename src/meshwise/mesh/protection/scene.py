"""Where an attempt is tried: one posture of one mesh, brought and proven, and what is special to the mesh."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from meshwise.mesh.expectations import What
from meshwise.mesh.probe import Ask, ProbeAnswer, TlsAs, on_hop
from meshwise.mesh.protection.credentials import Credential
from meshwise.mesh.protection.stage import AttackStage
from meshwise.mesh.reach import Reach
from meshwise.mesh.seam import OUTSIDER, PlacedWorkload, Placement
from meshwise.service.plan import Plan
from meshwise.study.model import Cell, MeshName

Counted = Mapping[str, int]


@dataclass(frozen=True)
class Side:
    """What one has to know of a mesh to attack it."""

    mesh: MeshName
    tls: Callable[[Placement, Cell, PlacedWorkload, Credential | None], TlsAs]
    """A TLS client as its sidecars are, at the target's own port; None: without a certificate."""
    counted: Callable[[Reach, str], Counted]
    """What the proxy of a pod has counted of refusals and handshakes. Raises MW406."""
    inbound_port: int = 0
    outbound_port: int = 0
    admin_port: int = 0
    metrics: tuple[int, str] = (0, "")
    """Port and path."""
    tunnel_port: int = 0
    reason_fields: tuple[str, ...] = ()
    """Response fields in which its proxy says why it refuses."""
    forms: Callable[[TlsAs, int], tuple[TlsAs, int]] | None = None
    """How a TLS client names a port of the application on the proxy's own port, where the mesh has that."""


@dataclass(frozen=True)
class Scene:
    side: Side
    placement: Placement
    cell: Cell
    reach: Reach
    stage: AttackStage | None = None
    """None where nothing can be changed meanwhile."""

    @property
    def client(self) -> PlacedWorkload:
        """Who may call the target."""
        return self.placement.of(self.cell.topology)[0]

    @property
    def target(self) -> PlacedWorkload:
        return self.placement.of(self.cell.topology)[1]

    @property
    def port(self) -> int:
        return self.cell.topology[self.target.name].port(self.cell.protocol)

    def request(self, response_bytes: int = 96, what: What = What.ALLOWED) -> Ask:
        """What the client may ask of the target."""
        topology = self.cell.topology
        caller, callee = topology[self.client.name], topology[self.target.name]
        return on_hop(self.cell, caller, callee, what, Plan(bytes=response_bytes))

    def through_sidecar(self, request: Ask) -> ProbeAnswer:
        """The client's application asks; without a mesh it dials the pod."""
        address = self.target.pod_ip if self.side.mesh is MeshName.NONE else self.target.service_ip
        return self.reach.call(self.client.name, address, self.port, request)

    def from_outside(self, request: Ask, tls: TlsAs | None = None, port: int | None = None) -> ProbeAnswer:
        """A pod without a sidecar asks the target's pod."""
        return self.reach.call(OUTSIDER, self.target.pod_ip, port or self.port, request, tls)

    def tls(self, credential: Credential | None) -> TlsAs:
        return self.side.tls(self.placement, self.cell, self.target, credential)


def marker() -> bytes:
    """Bytes that nothing else sends."""
    return f"meshwise-{secrets.token_hex(16)}".encode()
