"""Policies that are pushed within a trial, beside those of the posture, as Linkerd's own resources. Pure.

Each is an AuthorizationPolicy with a MeshTLSAuthentication that names a service account which nobody has: no
request meets it, and a proxy that has it scans it before the entry that lets the request through (names sort
before those of `posture`; `policy` hands out by name).

Rules of this file:
- On the workloads that are called, in turn. A policy has to stand beside a Server: where the posture needs
  none, the push brings one that admits whom the namespace's default policy admits.
- On others: a Server of a workload that is not here. Linkerd's policy controller tells a proxy about the
  ports of its own pod only, so what these proxies are sent stays the same, and nothing is sent.
- A later push has other policies, none of the former ones.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from meshwise.mesh.changes import PolicyPush
from meshwise.mesh.linkerd import policy
from meshwise.mesh.linkerd.names import labels_of
from meshwise.mesh.linkerd.posture import by_route, names_of
from meshwise.mesh.linkerd.resources import (
    AuthorizationPolicy,
    LinkerdResources,
    MeshTLSAuthentication,
    Meta,
    Ref,
    Server,
)
from meshwise.study.demands import effective_posture
from meshwise.study.model import Cell, Layer, Protocol, Workload

ELSEWHERE = "elsewhere"
"""A workload that is in no placement, for policies on others."""
_NOBODY = "nobody"


def with_pushed(
    resources: LinkerdResources, cell: Cell, pushed: PolicyPush
) -> tuple[LinkerdResources, Sequence[Workload]]:
    """The posture's resources with those that were pushed, and the workloads without pods that these are
    about."""
    called = [each for each in cell.topology.workloads if cell.topology.callers(each.name)]
    absent: tuple[Workload, ...] = ()
    if not pushed.act.relevant:
        entry = cell.topology.entry
        absent = (replace(entry, name=ELSEWHERE, service_account=ELSEWHERE, calls=()),)
        called = list(absent)
    servers = {each.name: _server_of(resources, cell, each) for each in called}
    policies, authentications = [], []
    for number in range(pushed.act.count):
        workload = called[number % len(called)]
        name = f"added-{pushed.number}-{number:04d}"
        meta = Meta(name, workload.namespace)
        nobody = Ref("ServiceAccount", f"{_NOBODY}-{pushed.number}-{number}", workload.namespace)
        authentications.append(MeshTLSAuthentication(meta, (), (nobody,)))
        needed = (Ref("MeshTLSAuthentication", name, workload.namespace),)
        policies.append(AuthorizationPolicy(meta, _target(cell, workload, servers[workload.name]), needed))
    return replace(
        resources,
        servers=(*resources.servers, *(each for each in servers.values() if each not in resources.servers)),
        policies=(*resources.policies, *policies),
        mesh_authentications=(*resources.mesh_authentications, *authentications),
    ), absent


def _server_of(resources: LinkerdResources, cell: Cell, workload: Workload) -> Server:
    """The posture's own, or one that changes nothing about who is admitted."""
    port, protocol = workload.port(cell.protocol), workload.speaks(cell.protocol)
    for server in resources.servers:
        if server.port == port and policy.selects(server, workload):
            return server
    return Server(
        Meta(f"{workload.name}-{protocol}", workload.namespace),
        labels_of(workload),
        port,
        "opaque" if protocol.layer is Layer.L4 else "unknown",
        policy.default_policy(resources, workload.namespace),
    )


def _target(cell: Cell, workload: Workload, server: Server) -> Ref:
    """Where it is scanned first: the route that lets requests through, if routes do."""
    protocol = workload.speaks(cell.protocol)
    if workload.name == ELSEWHERE or not by_route(
        effective_posture(cell, workload).authorization, protocol.layer
    ):
        return Ref("Server", server.meta.name, server.meta.namespace)
    kind = "GRPCRoute" if protocol is Protocol.GRPC else "HTTPRoute"
    return Ref(kind, next(iter(names_of(cell, workload))), workload.namespace)
