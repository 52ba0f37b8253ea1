"""What a hop between two sidecars has to look like in the proxies' counters, and whether it did. Pure.

Expected names come from the snapshot that the proxies were given: the Server, the route and the
authorization that let the cell's request through end as labels of the server side's counters.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from meshwise.mesh.linkerd.admin import Series, total
from meshwise.mesh.linkerd.names import identity_of, workload_token
from meshwise.mesh.linkerd.posture import by_route, names_of
from meshwise.mesh.seam import PlacedWorkload, Placement
from meshwise.study.demands import effective_posture
from meshwise.study.model import Authorization, Cell, Layer, MtlsMode

OPEN = "tcp_open_connections"


@dataclass(frozen=True)
class Counters:
    """What proxies count of each thing that is allowed, denied or sent on."""

    allowed: str
    denied: str
    sent: str
    sent_labels: Mapping[str, str]


OF_LAYER: Mapping[Layer, Counters] = {
    Layer.L7: Counters(
        "inbound_http_authz_allow_total", "inbound_http_authz_deny_total",
        "request_total", {"direction": "outbound"},
    ),
    Layer.L4: Counters(
        "inbound_tcp_authz_allow_total", "inbound_tcp_authz_deny_total",
        "tcp_open_total", {"direction": "outbound", "peer": "dst"},
    ),
}  # fmt: skip
"""Requests, or connections."""
WATCHED = frozenset(
    {OPEN, *(name for each in OF_LAYER.values() for name in (each.allowed, each.denied, each.sent))}
)

Readings = Mapping[str, tuple[Series, ...]]
"""Workload to what its proxy counted."""


@dataclass(frozen=True)
class Hop:
    """One caller and one callee of a cell."""

    caller: str
    callee: str
    policy: Mapping[str, str]
    """`srv_*`, `route_*` and `authz_*` labels of the entry that lets the call through."""
    server_side: Mapping[str, str]
    client_side: Mapping[str, str]
    counters: Counters

    def __str__(self) -> str:
        return f"{self.caller} -> {self.callee}"

    @property
    def policy_name(self) -> str:
        names = (
            self.policy[f"{part}_name"] for part in ("srv", "route", "authz") if f"{part}_name" in self.policy
        )
        return "/".join(names)


def hops(cell: Cell, placement: Placement, snapshot: Any) -> tuple[Hop, ...]:
    """Every hop of the cell's topology, the client's first."""
    topology = cell.topology
    return tuple(
        _hop(cell, placement, placement[workload.name], placement[callee], snapshot)
        for workload in topology.workloads
        for callee in workload.calls
    )


def _hop(
    cell: Cell, placement: Placement, caller: PlacedWorkload, callee: PlacedWorkload, snapshot: Any
) -> Hop:
    workload = cell.topology[callee.name]
    posture, layer = effective_posture(cell, workload), workload.speaks(cell.protocol).layer
    port, counters = workload.port(cell.protocol), OF_LAYER[layer]
    entry = next(each for each in snapshot.workloads if each.token == workload_token(callee))
    server = entry.ports[port]
    policy = {f"srv_{key}": value for key, value in server.labels.items()}
    if posture.authorization is not Authorization.NONE:
        # A caller may have several entries; it is the first whose request a proof sends.
        source = cell.topology[caller.name]
        name = next(name for name, each in names_of(cell, workload).items() if source in each.callers)
        policy["authz_name"] = name
        if by_route(posture.authorization, layer):
            policy["route_name"] = name
    target = {"target_addr": f"{callee.pod_ip}:{port}"}
    if posture.mtls is MtlsMode.DISABLE:
        none = {"tls": "no_identity"}
        return Hop(caller.name, callee.name, policy, {**target, **none}, {**target, **none}, counters)
    return Hop(
        caller.name, callee.name, policy,
        {**target, "tls": "true", "client_id": identity_of(caller.workload, placement)},
        {**target, "tls": "true", "server_id": identity_of(callee.workload, placement)},
        counters,
    )  # fmt: skip


def judged(hop: Hop, moved: Readings) -> bool:
    """Whether the callee's proxy judged a request by the hop's policy, whatever came of it."""
    labels = {key: value for key, value in hop.policy.items() if not key.startswith("authz_")}
    return any(
        total(moved[hop.callee], name, **labels, **hop.server_side) > 0
        for name in (hop.counters.allowed, hop.counters.denied)
    )


def allowed(hop: Hop, moved: Readings) -> float:
    return total(moved[hop.callee], hop.counters.allowed, **hop.policy, **hop.server_side)


def sent(hop: Hop, moved: Readings) -> float:
    return total(moved[hop.caller], hop.counters.sent, **hop.counters.sent_labels, **hop.client_side)


def stale(hop: Hop, now: Iterable[Series]) -> float:
    """Connections that the caller's proxy still has open to the callee with the other kind of transport."""
    target, tls = hop.client_side["target_addr"], hop.client_side["tls"]
    return sum(
        each.value
        for each in now
        if each.name == OPEN
        and each.labels.get("direction") == "outbound"
        and each.labels.get("peer") == "dst"
        and each.labels.get("target_addr") == target
        and each.labels.get("tls") != tls
    )
