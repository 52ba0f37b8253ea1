"""What Istio's sidecars do, for the fairness card: read off the configuration that they are given. Pure."""

from __future__ import annotations

from collections.abc import Mapping

from meshwise.mesh.delivery.stream import SOURCES
from meshwise.mesh.identity import LEAF_LIFE
from meshwise.mesh.istio import clusters, connection_manager, routes
from meshwise.mesh.istio.kinds import IstioResources
from meshwise.mesh.istio.view import Json, Options, Service, View
from meshwise.study.model import SERVICE_PORTS, Protocol


def traits(options: Options, tls_library: str) -> Mapping[str, str]:
    service = Service("node-1", "backend", "node-1.backend.svc.cluster.local", "10.96.0.1", "10.244.0.1", "x")
    view = View((service,), IstioResources(), "cluster.local", "traits", SOURCES, options)
    port = SERVICE_PORTS[Protocol.HTTP1]
    cluster = clusters.outbound(view, service, service, port)
    http2 = clusters.outbound(view, service, service, SERVICE_PORTS[Protocol.HTTP2])
    action = routes.outbound(view, service, port)["virtual_hosts"][0]["routes"][0]["route"]
    manager = connection_manager.outbound(view, service, port)["typed_config"]
    retry, threshold = action["retry_policy"], cluster["circuit_breakers"]["thresholds"][0]
    return {
        "worker_model": "one event loop per worker, connections bound to it",
        "http1_transport": _transport(cluster),
        "protocol_detection": "declared by the service's port name",
        "tls_library": tls_library,
        "crl": "none",
        "san_match": "prefix" if options.san_prefix else "exact",
        "chain_depth": "1",
        "certificate_life": f"{LEAF_LIFE.total_seconds():g} s",
        "request_telemetry": _telemetry(options),
        "access_log": "none" if not _writes_log(manager) else "written",
        "authorization": "per request (per connection for tcp)",
        "retries": f"{retry['num_retries']}, on {retry['retry_on'].replace(',', ', ')}",
        "balancing": str(cluster["lb_policy"]).lower().replace("_", " "),
        "pool": f"a pool per worker, {_limit(threshold['max_connections'])}",
        "http2_windows": _windows(http2),
        "keepalive": "set" if "upstream_connection_options" in cluster else "none",
        "connect_timeout": cluster["connect_timeout"],
        "queue": _limit(threshold["max_pending_requests"]),
    }


def _transport(cluster: Json) -> str:
    return (
        "http2"
        if "http2_protocol_options" in str(cluster.get("typed_extension_protocol_options"))
        else "http1"
    )


def _telemetry(options: Options) -> str:
    if not options.telemetry:
        return "off"
    native = options.native.stats is not None and options.native.metadata is not None
    return "on: istio.stats and metadata exchange" if native else "on: stand-ins for istio.stats"


def _writes_log(manager: Json) -> bool:
    """An access logger that writes lines; one that only counts is telemetry."""
    return any("stats" not in log["name"] for log in manager.get("access_log", ()))


def _windows(cluster: Json) -> str:
    (options,) = cluster["typed_extension_protocol_options"].values()
    given = options["explicit_http_config"]["http2_protocol_options"]
    return f"stream {given['initial_stream_window_size']}" if given else "Envoy's own default"


def _limit(value: int) -> str:
    return "unlimited" if value >= 2**32 - 1 else str(value)
