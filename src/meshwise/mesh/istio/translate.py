"""Resources -> the whole dynamic configuration of one proxy. Pure; the first of the three depths of proof."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping

from meshwise.mesh.delivery.seam import ProxyConfig
from meshwise.mesh.istio import clusters, listeners, routes, telemetry
from meshwise.mesh.istio.view import View

Configure = Callable[[View, str, bool], Mapping[str, ProxyConfig]]
"""From what istiod would see to the configuration of every sidecar. With the text of the posture's resources,
which the view has read (policies that it has beside them were pushed within a trial), and whether this is
within a trial."""


def translated(view: View, _resources: str, _within_trial: bool) -> Mapping[str, ProxyConfig]:
    """All sidecars at once: what they have in common is made once. A `Configure`."""
    made = clusters.Made()
    return {service.name: translate(view, service.name, made) for service in view.services}


def translate(view: View, workload: str, made: clusters.Made | None = None) -> ProxyConfig:
    """`made`: what the proxies of one push have in common; the same values stand in all of their
    configurations."""
    owner, made = view.service(workload), made or clusters.Made()
    return ProxyConfig(
        node=telemetry.node_id(owner),
        listeners=tuple(listeners.all_listeners(view, owner)),
        clusters=tuple(clusters.all_clusters(view, owner, made)),
        routes={
            port: routes.outbound(view, owner, port) for port in listeners.http_ports(view.visible_to(owner))
        },
        endpoints=tuple(clusters.all_endpoints(view, owner, made)),
    )


def fingerprint(*parts: object) -> str:
    """A short name for what a configuration was made from; begins every version that a proxy reports."""
    return hashlib.sha256("\0".join(map(str, parts)).encode()).hexdigest()[:12]
