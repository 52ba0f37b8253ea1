"""Routes: outbound tables by port (RDS), inbound routes inline.

Mirrors pilot/pkg/networking/core/httproute.go, route/route.go and route/retry/retry.go.
"""

from __future__ import annotations

from meshwise.mesh.istio import alpn, telemetry
from meshwise.mesh.istio.view import Json, Service, View
from meshwise.study.model import Layer, Protocol

PASSTHROUGH = "PassthroughCluster"
BLACK_HOLE = "BlackHoleCluster"

_RETRY: Json = {
    "retry_on": "connect-failure,refused-stream,unavailable,cancelled,retriable-status-codes",
    "num_retries": 2,
    "retry_host_predicate": [
        {
            "name": "envoy.retry_host_predicates.previous_hosts",
            "typed_config": {
                "@type": "type.googleapis.com/envoy.extensions.retry.host.previous_hosts.v3."
                "PreviousHostsPredicate"
            },
        }
    ],
    "host_selection_retry_max_attempts": "5",
}
_INBOUND_RETRY: Json = {"retry_on": "reset-before-request", "num_retries": 2}
_NO_LIMIT: Json = {"timeout": "0s", "max_grpc_timeout": "0s"}
"""Outbound: no limit of ours; a caller's `grpc-timeout` is a deadline that this proxy keeps and passes on."""
_NO_STREAM_LIMIT: Json = {"max_stream_duration": "0s", "grpc_timeout_header_max": "0s"}


def outbound_cluster(service: Service, port: int) -> str:
    return f"outbound|{port}||{service.host}"


def inbound_cluster(port: int) -> str:
    return f"inbound|{port}||"


def outbound(view: View, client: Service, port: int) -> Json:
    """The route table of one port: all services of that port, told apart by host, then the rest."""
    upgraded = alpn.any_http2(view, client, port)

    def offers(service: Service) -> Json:
        return alpn.of_host(view, client, service, port) if upgraded else {}

    hosts = [
        {**_virtual_host(client, service, port), **offers(service)}
        for service in view.visible_to(client)
        if service.ports.get(port, Protocol.TCP).layer is Layer.L7
    ]
    table: Json = {
        "name": str(port),
        "virtual_hosts": [*hosts, _rest(view, client)],
        "validate_clusters": False,
        "ignore_port_in_host_matching": True,
        "max_direct_response_body_size_bytes": 1048576,
    }
    if announced := telemetry.announce(view, client):
        table["request_headers_to_add"] = announced
        table["response_headers_to_remove"] = telemetry.withdraw(view)
    return table


def _virtual_host(client: Service, service: Service, port: int) -> Json:
    short = f"{service.name}.{service.namespace}"
    domains = [service.host, f"{service.host}.", f"{short}.svc", short, service.service_ip]
    if client.namespace == service.namespace:
        domains.insert(2, service.name)
    action = {
        "cluster": outbound_cluster(service, port),
        **_NO_LIMIT,
        "retry_policy": _RETRY,
    }
    return {
        "name": f"{service.host}:{port}",
        "domains": domains,
        "include_request_attempt_count": True,
        "routes": [
            {
                "name": "default",
                "match": {"prefix": "/"},
                "decorator": {"operation": f"{service.host}:{port}/*"},
                "route": action,
            }
        ],
    }


def _rest(view: View, client: Service) -> Json:
    sidecar = view.sidecar_for(client)
    if sidecar and sidecar.registry_only:
        route: Json = {"direct_response": {"status": 502}}
    else:
        route = {"route": {"cluster": PASSTHROUGH, **_NO_LIMIT}}
    name = "block_all" if "direct_response" in route else "allow_any"
    return {
        "name": name,
        "domains": ["*"],
        "include_request_attempt_count": True,
        "routes": [{"name": name, "match": {"prefix": "/"}, **route}],
    }


def inbound(view: View, service: Service, port: int, cluster: str) -> Json:
    """The inline table of an inbound chain; one route to the application."""
    action: Json = {"cluster": cluster, "timeout": "0s", "max_stream_duration": _NO_STREAM_LIMIT}
    if service.ports.get(port) is not Protocol.GRPC:
        action["retry_policy"] = _INBOUND_RETRY
    route: Json = {
        "name": "default",
        "match": {"prefix": "/"},
        "decorator": {"operation": f"{service.host if port else ''}:{port}/*"},
        "route": action,
    }
    table: Json = {
        "name": cluster,
        "validate_clusters": False,
        "virtual_hosts": [{"name": f"inbound|http|{port}", "domains": ["*"], "routes": [route]}],
    }
    if announced := telemetry.announce(view, service):
        table["response_headers_to_add"] = announced
        table["request_headers_to_remove"] = telemetry.withdraw(view)
    return table
