"""The HTTP connection manager: settings and filters, inbound and outbound.

Mirrors buildHTTPConnectionManager in pilot/pkg/networking/core/listener_builder.go, listener_inbound.go
and pilot/pkg/networking/util/proxy_headers.go. Filters that only istio-proxy has are there
when the binary has them (`native`), else replaced (`telemetry`, `_alpn_override`); `fidelity` says which.
"""

from __future__ import annotations

from collections.abc import Sequence

from meshwise.mesh.istio import authorization, jwt, native, routes, telemetry
from meshwise.mesh.istio.view import Json, Service, View
from meshwise.study.model import Protocol

_FILTERS = "type.googleapis.com/envoy.extensions.filters.http"
_ALPN_BY_PROTOCOL = {
    Protocol.HTTP1: "istio-http/1.1,istio,http/1.1",
    Protocol.HTTP2: "istio-h2,istio,h2",
    Protocol.GRPC: "istio-h2,istio,h2",
}


def security_filters(view: View, service: Service) -> list[Json]:
    """What every inbound chain of a workload has in common: tokens first, then policies."""
    return [
        *jwt.filters(view.request_authentications_for(service)),
        *authorization.http_filters(view.policies_for(service)),
    ]


def inbound(view: View, service: Service, port: int, cluster: str, security: Sequence[Json]) -> Json:
    """For a declared port, or (`port` 0) for whatever HTTP comes to another one."""
    prefix = f"inbound_0.0.0.0_{port};" if port else "InboundPassthroughCluster;"
    filters = [
        *_metadata(view, inbound=True),
        *security,
        _grpc_stats(),
        *_last(_stats(view, inbound=True)),
    ]
    settings: Json = {
        "route_config": routes.inbound(view, service, port, cluster),
        "server_name": "istio-envoy",
        "forward_client_cert_details": "APPEND_FORWARD",
        "set_current_client_cert_details": {"subject": True, "uri": True, "dns": True},
    }
    return _manager(prefix, settings, filters, telemetry.access_log(view, service, "destination"))


def outbound(view: View, client: Service, port: int, protocol: Protocol) -> Json:
    """For all services of a port; the table of routes comes by RDS. `protocol`: what the requests come in."""
    settings: Json = {"rds": {"route_config_name": str(port), "config_source": routes_source(port)}}
    filters = [
        *_metadata(view, inbound=False),
        _grpc_stats(),
        _alpn_override(view, _transport(view, port, protocol)),
        *_last(_stats(view, inbound=False)),
    ]
    return _manager(
        f"outbound_0.0.0.0_{port};", settings, filters, telemetry.access_log(view, client, "source")
    )


ROUTES_DIRECTORY = "/etc/meshwise-routes"
"""Stands in configurations for the sidecar's own directory; `delivery` puts the real one in its place."""


def routes_source(port: int) -> Json:
    directory = f"{ROUTES_DIRECTORY}/{port}"
    return {
        "path_config_source": {
            "path": f"{directory}/routes.json",
            "watched_directory": {"path": directory},
        },
        "resource_api_version": "V3",
        "initial_fetch_timeout": "0s",
    }


def _manager(prefix: str, settings: Json, filters: list[Json], log: list[Json]) -> Json:
    config: Json = {
        "@type": "type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3."
        "HttpConnectionManager",
        "stat_prefix": prefix,
        "codec_type": "AUTO",
        "use_remote_address": False,
        "normalize_path": True,
        "path_with_escaped_slashes_action": "KEEP_UNCHANGED",
        "stream_idle_timeout": "0s",
        "proxy_100_continue": True,
        "upgrade_configs": [{"upgrade_type": "websocket"}],
        "tracing": {
            "client_sampling": {"value": 100},
            "overall_sampling": {"value": 100},
            "random_sampling": {"value": 1},
        },
        **settings,
        "http_filters": filters,
    }
    if log:
        config["access_log"] = log
    return {"name": "envoy.filters.network.http_connection_manager", "typed_config": config}


def _metadata(view: View, *, inbound: bool) -> list[Json]:
    name = view.options.native.metadata if view.options.telemetry else None
    return [native.http_metadata(name, inbound=inbound)] if name else []


def _stats(view: View, *, inbound: bool) -> list[Json]:
    name = view.options.native.stats if view.options.telemetry else None
    return [native.stats(name, inbound=inbound)] if name else []


def _grpc_stats() -> Json:
    return {
        "name": "envoy.filters.http.grpc_stats",
        "typed_config": {
            "@type": f"{_FILTERS}.grpc_stats.v3.FilterConfig",
            "emit_filter_state": True,
            "stats_for_all_methods": False,
        },
    }


def _transport(view: View, port: int, protocol: Protocol) -> Protocol:
    """What the port's services are reached by; a posture upgrades every called workload or none."""
    upgraded = {view.transport_of(service, port) for service in view.services if port in service.ports}
    return Protocol.HTTP2 if Protocol.HTTP2 in upgraded and protocol is Protocol.HTTP1 else protocol


def _alpn_override(view: View, protocol: Protocol) -> Json:
    """Istio's filter, or what it does per request fixed by the port's declared protocol: the server's
    chains tell HTTP between sidecars from other TLS by these names."""
    if view.options.native.alpn:
        return native.alpn(view.options.native.alpn)
    value = {
        "object_key": "envoy.network.application_protocols",
        "format_string": {"text_format_source": {"inline_string": _ALPN_BY_PROTOCOL[protocol]}},
    }
    return {
        "name": "envoy.filters.http.set_filter_state",
        "typed_config": {
            "@type": f"{_FILTERS}.set_filter_state.v3.Config",
            "on_request_headers": [value],
        },
    }


def _last(stats: list[Json]) -> list[Json]:
    return [
        {
            "name": "envoy.filters.http.fault",
            "typed_config": {"@type": f"{_FILTERS}.fault.v3.HTTPFault"},
        },
        {"name": "envoy.filters.http.cors", "typed_config": {"@type": f"{_FILTERS}.cors.v3.Cors"}},
        *stats,
        {"name": "envoy.filters.http.router", "typed_config": {"@type": f"{_FILTERS}.router.v3.Router"}},
    ]
