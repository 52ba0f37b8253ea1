"""Clusters: one per service port outbound, one per own port inbound, and the built-in three.

Mirrors pilot/pkg/networking/core/cluster_builder.go, cluster_tls.go (auto mTLS), cluster_traffic_policy.go
(defaults, circuit breakers) and pilot/pkg/xds/endpoints/endpoint_builder.go (an endpoint's label).
"""

from __future__ import annotations

from meshwise.mesh.istio import native, tls
from meshwise.mesh.istio.resources import DestinationRule
from meshwise.mesh.istio.routes import BLACK_HOLE, PASSTHROUGH, inbound_cluster, outbound_cluster
from meshwise.mesh.istio.view import Json, Service, View
from meshwise.study.model import MtlsMode, Protocol

INBOUND_PASSTHROUGH = "InboundPassthroughCluster"
INBOUND_SOURCE_IP = "127.0.0.6"
"""What the proxy's connections to its own application come from; nat rules let this address through."""

_HTTP2 = (Protocol.HTTP2, Protocol.GRPC)
_UNLIMITED = 4294967295
_NEVER_CLEANED = "9223372035s"
_OPTIONS = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions"
_RAW: Json = {
    "name": "envoy.transport_sockets.raw_buffer",
    "typed_config": {
        "@type": "type.googleapis.com/envoy.extensions.transport_sockets.raw_buffer.v3.RawBuffer"
    },
}


Made = dict[tuple[str, int, bool], Json]
"""Outbound clusters by service, port, and whether the client calls it: the same for every client."""

UNCALLED = "uncalled"
"""Generation of clusters that have no connection to close: a push need not replace them."""


def all_clusters(view: View, owner: Service, made: Made | None = None) -> list[Json]:
    """Everything that CDS delivers to the owner's proxy: all services in its scope, called or not, as Istio
    does without a Sidecar resource. `made`: keeps what clients share."""
    made = {} if made is None else made
    found = []
    for service in view.visible_to(owner):
        called = service.name in owner.calls
        for port in sorted(service.ports):
            if (key := (service.name, port, called)) not in made:
                made[key] = outbound(view, service, port, called=called)
            found.append(made[key])
    return [
        *found,
        *(inbound(view, owner, port) for port in sorted(owner.ports)),
        _passthrough(view, PASSTHROUGH),
        _bound(_passthrough(view, INBOUND_PASSTHROUGH)),
        {"name": BLACK_HOLE, "type": "STATIC", "connect_timeout": "10s"},
    ]


def outbound(view: View, service: Service, port: int, *, called: bool = True) -> Json:
    rule = view.destination_rule_for(service)
    http2 = view.transport_of(service, port) in _HTTP2
    name = outbound_cluster(service, port)
    endpoint: Json = {"endpoint": {"address": _address(service.pod_ip, port)}, "load_balancing_weight": 1}
    auto = view.auto_mtls(service)
    if view.endpoint_takes_mtls(service, port):
        label = {"envoy.transport_socket_match": {"tlsMode": "istio"}}
        endpoint["metadata"] = {"filter_metadata": label}
    cluster: Json = {
        "name": name,
        "alt_stat_name": f"{name};",
        "type": "STATIC",
        "connect_timeout": (rule and rule.connect_timeout) or "10s",
        "lb_policy": "LEAST_REQUEST",
        "load_assignment": {"cluster_name": name, "endpoints": [{"lb_endpoints": [endpoint]}]},
        "circuit_breakers": _breakers(rule),
        "metadata": _metadata(view.generation if called else UNCALLED, service),
    }
    if view.options.telemetry and (exchange := view.options.native.tcp_metadata):
        cluster["filters"] = [native.tcp_metadata(exchange)]
    options = _http2_options() if http2 else {}
    if rule and rule.max_requests_per_connection:
        options.setdefault("explicit_http_config", {"http_protocol_options": {}})
        options["common_http_protocol_options"] = {
            "max_requests_per_connection": rule.max_requests_per_connection
        }
    if options:
        cluster["typed_extension_protocol_options"] = _typed(options)
    mutual = tls.upstream(view, service, port, http2=http2)
    explicit = rule.tls if rule else None
    if explicit is MtlsMode.STRICT:
        cluster["transport_socket"] = mutual
    elif explicit is None and auto:
        cluster["transport_socket_matches"] = [
            {"name": "tlsMode-istio", "match": {"tlsMode": "istio"}, "transport_socket": mutual},
            {"name": "tlsMode-disabled", "match": {}, "transport_socket": _RAW},
        ]
    return cluster


def inbound(view: View, service: Service, port: int) -> Json:
    """To the application beside us, at the address that the caller asked for."""
    name = inbound_cluster(port)
    cluster: Json = {
        "name": name,
        "alt_stat_name": f"{name};",
        "type": "ORIGINAL_DST",
        "lb_policy": "CLUSTER_PROVIDED",
        "connect_timeout": "10s",
        "cleanup_interval": _NEVER_CLEANED,
        "circuit_breakers": _breakers(None),
        "metadata": _metadata(view.generation, service),
    }
    if service.ports[port] in _HTTP2:
        cluster["typed_extension_protocol_options"] = _typed(_http2_options())
    return _bound(cluster)


def _passthrough(view: View, name: str) -> Json:
    return {
        "name": name,
        "type": "ORIGINAL_DST",
        "lb_policy": "CLUSTER_PROVIDED",
        "connect_timeout": "10s",
        "circuit_breakers": _breakers(None),
        "metadata": _metadata(view.generation),
        "typed_extension_protocol_options": _typed(
            {
                "common_http_protocol_options": {"idle_timeout": "300s"},
                "use_downstream_protocol_config": {
                    "http_protocol_options": {},
                    "http2_protocol_options": {},
                },
            }
        ),
    }


def _bound(cluster: Json) -> Json:
    source = {"source_address": {"address": INBOUND_SOURCE_IP, "port_value": 0}}
    return {**cluster, "upstream_bind_config": source}


def _breakers(rule: DestinationRule | None) -> Json:
    def limit(value: int | None) -> int:
        return _UNLIMITED if value is None else value

    threshold = {
        "max_connections": limit(rule.max_connections if rule else None),
        "max_pending_requests": limit(rule.max_pending_requests if rule else None),
        "max_requests": limit(rule.max_requests if rule else None),
        "max_retries": limit(rule.max_retries if rule else None),
    }
    return {"thresholds": [threshold]}


def _http2_options() -> Json:
    return {"explicit_http_config": {"http2_protocol_options": {}}}


def _typed(options: Json) -> Json:
    return {_OPTIONS: {"@type": f"type.googleapis.com/{_OPTIONS}", **options}}


def _address(ip: str, port: int) -> Json:
    return {"socket_address": {"address": ip, "port_value": port}}


def _metadata(generation: str, service: Service | None = None) -> Json:
    """Istio names the service for its metrics; the generation is ours (`View.generation`)."""
    found: Json = {"meshwise": {"generation": generation}}
    if service:
        named = {"host": service.host, "name": service.name, "namespace": service.namespace}
        found["istio"] = {"services": [named]}
    return {"filter_metadata": found}
