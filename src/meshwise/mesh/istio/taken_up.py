"""Tells from a proxy's own statistics whether it has taken a configuration up, however that reached it.

Taken up (`missing` is empty) means: the proxy reports our version for LDS, CDS, RDS and SDS, and nothing is
warming. A reset between trials also waits until nothing of the former configuration is left (`left`): no
draining chain or listener, and no connection between sidecars. It replaces all inbound chains and service
clusters (`View.generation`), so that each trial starts from the same state: no connection, no TLS session.
"""

from __future__ import annotations

from dataclasses import dataclass

from meshwise.mesh.delivery.seam import DeliveredVersions
from meshwise.mesh.istio.admin import Stats
from meshwise.mesh.istio.tls import CERTIFICATE_SECRET, ROOT_SECRET

WATCHED = (
    r"^(cluster_manager\.(cds\.(version_text|update_rejected)|warming_clusters)"
    r"|listener_manager\.(lds\.(version_text|update_rejected)"
    r"|total_(filter_chains_draining|listeners_(warming|draining)))"
    r"|sds\..*\.(version_text|update_rejected)"
    r"|http\.outbound_.*\.rds\..*\.(version_text|update_rejected)"
    r"|listener\.0\.0\.0\.0_15006\.downstream_cx_active"
    r"|cluster\.outbound\|.*\.upstream_cx_active)$"
)
_INBOUND_CONNECTIONS = "listener.0.0.0.0_15006.downstream_cx_active"
_WARMING = ("cluster_manager.warming_clusters", "listener_manager.total_listeners_warming")
_DRAINING = (
    "listener_manager.total_filter_chains_draining",
    "listener_manager.total_listeners_draining",
)


@dataclass(frozen=True)
class Pushed:
    """What a proxy has to report once it has taken a push up."""

    brought: DeliveredVersions
    stores: frozenset[int] = frozenset()
    """Ports of services that carry no requests. Their clients keep connections of their own and open them
    again at once, so that only what drains shows that none is left of the former configuration."""
    is_store: bool = False
    """Whether the proxy stands before such a service."""


def missing(stats: Stats, pushed: Pushed) -> list[str]:
    """What a proxy still lacks by its `WATCHED` statistics, in words; empty: it has taken the push up."""
    wanted: dict[str, str] = {
        "listener_manager.lds.version_text": pushed.brought.version,
        "cluster_manager.cds.version_text": pushed.brought.version,
    }
    if pushed.brought.secrets_version:
        for secret in (CERTIFICATE_SECRET, ROOT_SECRET):
            wanted[f"sds.{secret}.version_text"] = pushed.brought.secrets_version
    for port, version in pushed.brought.routes_versions.items():
        wanted[f"http.outbound_0.0.0.0_{port};.rds.{port}.version_text"] = version
    missing = [
        f"{name} is {stats.get(name)!r}, not {value!r}"
        for name, value in wanted.items()
        if stats.get(name) != value
    ]
    return missing + [f"{name} is {stats[name]}" for name in _WARMING if stats.get(name, 0) != 0]


def left(stats: Stats, pushed: Pushed, *, drains_at_once: bool = True) -> list[str]:
    """What is still there of the former configuration, in words: connections; and chains and listeners, which
    stand empty until the drain time is over where the proxy has one."""
    found = [f"{name} is {stats[name]}" for name in _DRAINING if drains_at_once and stats.get(name, 0) != 0]
    if not pushed.is_store and stats.get(_INBOUND_CONNECTIONS, 0) != 0:
        found.append(f"{_INBOUND_CONNECTIONS} is {stats[_INBOUND_CONNECTIONS]}")
    return found + [
        f"{name} is {value}"
        for name, value in stats.items()
        if name.endswith(".upstream_cx_active") and value != 0 and _port_of(name) not in pushed.stores
    ]


def _port_of(statistic: str) -> int:
    """Of an outbound cluster: `cluster.outbound|5432||postgres.stores...`."""
    return int(statistic.split("|")[1])


def rejections(stats: Stats) -> int:
    """How many updates the proxy has refused so far."""
    return sum(int(value) for name, value in stats.items() if name.endswith(".update_rejected"))
