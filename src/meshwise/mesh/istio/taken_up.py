"""Tells from a proxy's own statistics whether it has taken up what it accepted (`Delivery.acknowledged`).

Taken up (`missing` is empty) means: the proxy reports our version for LDS, CDS and SDS, and nothing is
warming. A reset between trials also waits until nothing of the former configuration is left (`left`): no
draining chain or listener, and no connection between sidecars. It replaces all inbound chains and service
clusters (`View.generation`), so that each trial starts from the same state: no connection, no TLS session.
"""

from __future__ import annotations

from dataclasses import dataclass

from meshwise.mesh.delivery.seam import DeliveredVersions
from meshwise.mesh.istio.admin import Stats

WATCHED = (
    r"^(cluster_manager\.(cds\.version_text|warming_clusters)"
    r"|listener_manager\.(lds\.version_text"
    r"|total_(filter_chains_draining|listeners_(warming|draining)))"
    r"|sds\..*\.version_text"
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
        "listener_manager.lds.version_text": pushed.brought.listeners,
        "cluster_manager.cds.version_text": pushed.brought.clusters,
        **{f"sds.{name}.version_text": version for name, version in pushed.brought.secrets.items()},
    }
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
