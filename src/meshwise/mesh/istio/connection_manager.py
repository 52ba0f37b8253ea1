"""The HTTP connection manager: settings and filters, inbound and outbound.

Mirrors buildHTTPConnectionManager in pilot/pkg/networking/core/listener_builder.go, listener_inbound.go
and pilot/pkg/networking/util/proxy_headers.go. Filters that only istio-proxy has are there
when the binary has them (`native`), else replaced (`telemetry`, `alpn`); `fidelity` says which.
"""

from __future__ import annotations

from collections.abc import Sequence

from meshwise.mesh.istio import alpn, authorization, jwt, native, routes, telemetry, tracing
from meshwise.mesh.istio.view import Json, Service, View
from meshwise.study.model import Protocol

_FILTERS = "type.googleapis.com/envoy.extensions.filters.http"


def security_filters(view: View, service: Service) -> list[Json]:
    """What every inbound chain of a workload has in common: tokens first, then policies."""
    return [
        *jwt.filters(view.request_authentications_for(service)),
        *authorization.http_filters(view.policies_for(service), view.trust_domain),
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
    if service.ports.get(port) in (Protocol.HTTP2, Protocol.GRPC):
        settings["http2_protocol_options"] = {}
    log = telemetry.access_log(view, service, "destination")
    return _manager(view, service, prefix, settings, filters, log)


def outbound(view: View, client: Service, port: int) -> Json:
    """For all services of a port; the table of routes comes by RDS."""
    source = view.sources.routes(str(port))
    settings: Json = {"rds": {"route_config_name": str(port), "config_source": source}}
    filters = [
        *_metadata(view, inbound=False),
        _grpc_stats(),
        *alpn.filters(view, client, port),
        *_last(_stats(view, inbound=False)),
    ]
    log = telemetry.access_log(view, client, "source")
    return _manager(view, client, f"outbound_0.0.0.0_{port};", settings, filters, log)


def _manager(
    view: View, owner: Service, prefix: str, settings: Json, filters: list[Json], log: list[Json]
) -> Json:
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
        **tracing.settings(view, owner),
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
