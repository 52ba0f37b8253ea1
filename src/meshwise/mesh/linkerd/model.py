"""Linkerd as a `MeshModel`: what a posture is in Linkerd.

    cell -> resources (YAML) -> snapshot of what the control plane hands out

`posture` writes the resources, `policy` and `destinations` do what Linkerd's controllers do, `proof` asks the
proxies.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache
from typing import Any

from meshwise.mesh.changes import PolicyPush
from meshwise.mesh.expectations import Expectation, Who
from meshwise.mesh.linkerd import caller, hops, posture, proof, traits
from meshwise.mesh.linkerd.caller import rows_of
from meshwise.mesh.linkerd.destinations import Transport
from meshwise.mesh.linkerd.pushed import with_pushed
from meshwise.mesh.linkerd.resources import LinkerdResources, parse
from meshwise.mesh.linkerd.snapshot import snapshot
from meshwise.mesh.probe import Entrance
from meshwise.mesh.protection import guard_rule
from meshwise.mesh.reach import Reach
from meshwise.mesh.request import Headers, request_of
from meshwise.mesh.seam import Delivered, Placement, Proof
from meshwise.study.model import Cell, Http1Transport, MeshName, Workload


@dataclass(frozen=True)
class LinkerdModel:
    """See `meshwise.mesh.seam.MeshModel`."""

    transport: Transport = field(default_factory=Transport)
    guarded: bool = False
    """Whether a rule that forbids is laid over every posture (`mesh.protection.guard_rule`)."""

    @property
    def name(self) -> MeshName:
        return MeshName.LINKERD

    def not_applicable(self, cell: Cell) -> str | None:
        return posture.not_applicable(cell)

    def resources(self, cell: Cell, trust_domain: str) -> str:
        made = posture.resources(cell)
        return guard_rule.over(self.name, cell, made) if self.guarded else made

    def request(self, cell: Cell) -> Headers:
        return request_of(cell)

    def traits(self, build: Mapping[str, str]) -> Mapping[str, str]:
        return traits.traits(self.transport, build["tls_library"])

    def expectations(self, cell: Cell, callee: str) -> Sequence[Expectation]:
        return rows_of(cell, callee)

    def entrance(self, placement: Placement, cell: Cell, who: Who = Who.TWIN) -> Entrance:
        return caller.entrance(placement, cell, who)

    def judge(self, placement: Placement, cell: Cell, reach: Reach, delivered: Delivered) -> Proof:
        begun_ns = time.monotonic_ns()
        wanted = self.snapshot(placement, cell, 0)
        evidence = proof.gather(placement, cell, reach, hops.hops(cell, placement, wanted))
        checks, facts = proof.judge(placement, cell, evidence, wanted, delivered)
        return Proof(checks, facts, time.monotonic_ns() - begun_ns)

    def snapshot(
        self, placement: Placement, cell: Cell, version: int, pushed: PolicyPush | None = None
    ) -> Any:
        """What the control plane hands out in this cell (`proto/snapshot.proto`), with policies that were
        pushed beside those of the posture."""
        resources = _parsed(self.resources(cell, placement.trust_domain))
        absent: Sequence[Workload] = ()
        if pushed is not None:
            resources, absent = with_pushed(resources, cell, pushed)
        return snapshot(resources, placement, version, self.transport_for(cell), absent)

    def transport_for(self, cell: Cell) -> Transport:
        """The mesh's own, with the upgrade that the cell asks for."""
        if cell.http1_transport is Http1Transport.DEFAULT:
            return self.transport
        return replace(self.transport, http2_upgrade=cell.http1_transport is Http1Transport.HTTP2)


@lru_cache(maxsize=64)
def _parsed(text: str) -> LinkerdResources:
    return parse(text)
