"""Clusters: one per service port outbound, one per own port inbound, and the built-in three.

Mirrors pilot/pkg/networking/core/cluster_builder.go, cluster_tls.go (auto mTLS), cluster_traffic_policy.go
(defaults, circuit breakers) and pilot/pkg/xds/endpoints/endpoint_builder.go (an endpoint's label).
"""

from __future__ import annotations

from dataclasses import dataclass, field

from meshwise.mesh.istio import native, tls, tracing
from meshwise.mesh.istio.kinds import DestinationRule, TrafficPolicy
from meshwise.mesh.istio.routes import BLACK_HOLE, PASSTHROUGH, inbound_cluster, outbound_cluster
from meshwise.mesh.istio.view import Json, Service, View
from meshwise.study.model import MtlsMode, Protocol

CLUSTER_ID = "Kubernetes"
"""Of the cluster of machines, as istiod calls the one that it runs in."""
INBOUND_PASSTHROUGH = "InboundPassthroughCluster"
INBOUND_SOURCE_IP = "127.0.0.6"
"""What the proxy's connections to its own application come from; nat rules let this address through."""

_HTTP2 = (Protocol.HTTP2, Protocol.GRPC)
_UNLIMITED = 4294967295
_CONNECT_TIMEOUT = "10s"
_NEVER_CLEANED = "9223372035s"
_OPTIONS = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions"
_RAW: Json = {
    "name": "envoy.transport_sockets.raw_buffer",
    "typed_config": {
        "@type": "type.googleapis.com/envoy.extensions.transport_sockets.raw_buffer.v3.RawBuffer"
    },
}


@dataclass
class Made:
    """What is the same for several clients; by service, port, and the rule that the client obeys."""

    clusters: dict[tuple[str, int, bool, DestinationRule | None], Json] = field(default_factory=dict)
    """Also by whether the client calls it."""
    endpoints: dict[tuple[str, int, DestinationRule | None], Json] = field(default_factory=dict)


UNCALLED = "uncalled"
"""Generation of clusters that have no connection to close: a push need not replace them."""


def all_clusters(view: View, owner: Service, made: Made | None = None) -> list[Json]:
    """Everything that CDS delivers to the owner's proxy: all services in its scope, called or not, as Istio
    does without a Sidecar resource. `made`: keeps what clients share."""
    made = made or Made()
    found = []
    for service in view.visible_to(owner):
        called = service.name in owner.calls
        rule = view.destination_rule_for(owner, service)
        for port in sorted(service.ports):
            if (key := (service.name, port, called, rule)) not in made.clusters:
                made.clusters[key] = outbound(view, owner, service, port, called=called)
            found.append(made.clusters[key])
    return [
        *found,
        *(inbound(view, owner, port) for port in sorted(owner.ports)),
        {**_passthrough(view, PASSTHROUGH), **_exchange(view)},
        _bound(_passthrough(view, INBOUND_PASSTHROUGH)),
        {
            "name": BLACK_HOLE,
            "alt_stat_name": f"{BLACK_HOLE};",
            "type": "STATIC",
            "connect_timeout": _CONNECT_TIMEOUT,
        },
        *([tracing.collector()] if view.options.traced else []),
    ]


def all_endpoints(view: View, owner: Service, made: Made | None = None) -> list[Json]:
    """Everything that EDS delivers to the owner's proxy. `made`: keeps what clients share."""
    made = made or Made()
    found = []
    for service in view.visible_to(owner):
        rule = view.destination_rule_for(owner, service)
        for port in sorted(service.ports):
            if (key := (service.name, port, rule)) not in made.endpoints:
                made.endpoints[key] = endpoints(view, owner, service, port)
            found.append(made.endpoints[key])
    return found


def endpoints(view: View, client: Service, service: Service, port: int) -> Json:
    """Of one outbound cluster. The workload is named for the metrics of calls that do not reach its sidecar;
    its revision is the default one, which is left out."""
    workload = f"{service.name};{service.namespace};{service.name};;{CLUSTER_ID}"
    metadata: Json = {"istio": {"workload": workload}}
    if view.endpoint_takes_mtls(client, service, port):
        metadata["envoy.transport_socket_match"] = {"tlsMode": "istio"}
    endpoint: Json = {
        "endpoint": {"address": _address(service.pod_ip, port)},
        "health_status": "HEALTHY",
        "load_balancing_weight": 1,
        "metadata": {"filter_metadata": metadata},
    }
    return {
        "cluster_name": outbound_cluster(service, port),
        "endpoints": [{"locality": {}, "load_balancing_weight": 1, "lb_endpoints": [endpoint]}],
    }


def outbound(view: View, client: Service, service: Service, port: int, *, called: bool = True) -> Json:
    policy = view.traffic_policy(client, service)
    http2 = view.http2_to(client, service, port)
    name = outbound_cluster(service, port)
    auto = view.auto_mtls(service)
    cluster: Json = {
        "name": name,
        "alt_stat_name": f"{name};",
        "type": "EDS",
        "eds_cluster_config": {"eds_config": view.sources.endpoints(name), "service_name": name},
        "connect_timeout": policy.connect_timeout or _CONNECT_TIMEOUT,
        "lb_policy": "LEAST_REQUEST",
        "common_lb_config": {"healthy_panic_threshold": {"value": 0}},
        "circuit_breakers": _breakers(policy),
        "metadata": _metadata(
            view.generation if called else UNCALLED, service, view.destination_rule_for(client, service)
        ),
        **_exchange(view),
        **_http_options(http2, policy),
    }
    mutual = tls.upstream(view, service, port, http2=http2)
    if policy.tls is MtlsMode.STRICT:
        cluster["transport_socket"] = mutual
    elif policy.tls is None and auto:
        cluster["transport_socket_matches"] = [
            {"name": "tlsMode-istio", "match": {"tlsMode": "istio"}, "transport_socket": mutual},
            {"name": "tlsMode-disabled", "match": {}, "transport_socket": _RAW},
        ]
    return cluster


def inbound(view: View, service: Service, port: int) -> Json:
    """To the application beside us, at the address that the caller asked for. The limits that a rule sets
    for callers are the server's too."""
    name = inbound_cluster(port)
    rule = view.inbound_rule(service)
    policy = (rule and rule.policy) or TrafficPolicy()
    cluster: Json = {
        "name": name,
        "alt_stat_name": f"{name};",
        "type": "ORIGINAL_DST",
        "lb_policy": "CLUSTER_PROVIDED",
        "common_lb_config": {},
        "connect_timeout": policy.connect_timeout or _CONNECT_TIMEOUT,
        "cleanup_interval": _NEVER_CLEANED,
        "circuit_breakers": _breakers(policy),
        "metadata": _metadata(view.generation, service, rule if rule and rule.policy else None),
        **_http_options(service.ports[port] in _HTTP2, policy),
    }
    return _bound(cluster)


def _passthrough(view: View, name: str) -> Json:
    return {
        "name": name,
        # istiod gives both the name of the outbound one.
        "alt_stat_name": f"{PASSTHROUGH};",
        "type": "ORIGINAL_DST",
        "lb_policy": "CLUSTER_PROVIDED",
        "connect_timeout": _CONNECT_TIMEOUT,
        "circuit_breakers": _breakers(TrafficPolicy()),
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


def _exchange(view: View) -> Json:
    """Istio's metadata exchange of connections, in a binary that has it."""
    name = view.options.native.tcp_metadata if view.options.telemetry else None
    return {"filters": [native.tcp_metadata(name)]} if name else {}


def _breakers(policy: TrafficPolicy) -> Json:
    threshold = {
        "max_connections": policy.max_connections or _UNLIMITED,
        "max_pending_requests": policy.max_pending_requests or _UNLIMITED,
        "max_requests": policy.max_requests or _UNLIMITED,
        "max_retries": policy.max_retries or _UNLIMITED,
    }
    return {"thresholds": [threshold]}


def _http_options(http2: bool, policy: TrafficPolicy) -> Json:
    """Nothing for plain HTTP/1.1, or what is asked for."""
    options: Json = {"explicit_http_config": {"http2_protocol_options": {}}} if http2 else {}
    if policy.max_requests_per_connection:
        options.setdefault("explicit_http_config", {"http_protocol_options": {}})
        options["common_http_protocol_options"] = {
            "max_requests_per_connection": policy.max_requests_per_connection
        }
    return {"typed_extension_protocol_options": _typed(options)} if options else {}


def _typed(options: Json) -> Json:
    return {_OPTIONS: {"@type": f"type.googleapis.com/{_OPTIONS}", **options}}


def _address(ip: str, port: int) -> Json:
    return {"socket_address": {"address": ip, "port_value": port}}


def _metadata(generation: str, service: Service | None = None, rule: DestinationRule | None = None) -> Json:
    """Istio names the service and the rule for its metrics; the generation is ours (`View.generation`)."""
    found: Json = {"meshwise": {"generation": generation}}
    if service:
        named = {"host": service.host, "name": service.name, "namespace": service.namespace}
        found["istio"] = {"services": [named]}
    if rule:
        path = f"namespaces/{rule.meta.namespace}/destination-rule/{rule.meta.name}"
        found["istio"]["config"] = f"/apis/networking.istio.io/v1/{path}"
    return {"filter_metadata": found}
