"""The bootstrap of one sidecar: what pilot-agent renders before Envoy starts.

Mirrors tools/packaging/common/envoy_bootstrap.json, pkg/bootstrap/config.go and pkg/envoy/proxy.go.
Dynamic resources come from a control plane of ours (`delivery`), readiness from Envoy itself instead of the
agent, and a few statistics are kept beside Istio's own list because the proof and the telemetry read
them (`PROOF_STATISTICS`).
"""

from __future__ import annotations

from pathlib import Path

from meshwise.mesh.delivery.names import (
    CONTROLLER_DIRECTORY,
    SDS_CLUSTER,
    SDS_SOCKET,
    XDS_CLUSTER,
    XDS_SOCKET,
)
from meshwise.mesh.istio.clusters import CLUSTER_ID
from meshwise.mesh.istio.telemetry import node_id
from meshwise.mesh.istio.view import Json, Service

ADMIN_PORT = 15000
READY_PORT = 15021
READY_PATH = "/healthz/ready"
METRICS_PORT = 15090
TUNNEL_PORT = 15008
EXEMPT_PORTS = (METRICS_PORT, READY_PORT, 15020)

ISTIO_STATISTICS: tuple[Json, ...] = (
    *({"prefix": prefix} for prefix in (
        "reporter=", "cluster_manager", "listener_manager", "server", "cluster.xds-grpc", "wasm",
        "component", "istio",
    )),
    *({"suffix": suffix} for suffix in (
        "rbac.allowed", "rbac.denied", "shadow_allowed", "shadow_denied",
    )),
    {"safe_regex": {"regex": r"vhost\..*\.route\..*"}},
)  # fmt: skip
"""What a default sidecar keeps."""

_COUNTED = (
    "(total|active|2xx|4xx|5xx|http2_total|destroy|connect_fail|rx_reset|tx_reset|timeout|overflow|retry)"
)
PROOF_STATISTICS: tuple[Json, ...] = (
    {"prefix": "sds."},
    {"safe_regex": {"regex": rf"http\.(in|out)bound_.*;\.(downstream_(cx|rq)_(ssl_)?{_COUNTED})"}},
    {"safe_regex": {"regex": r"http\.(in|out)bound_.*;\.(rds|jwt_authn)\..*"}},
    {"safe_regex": {"regex": rf"cluster\.(in|out)bound\|.*;\.upstream_(cx|rq)_{_COUNTED}"}},
    {"safe_regex": {"regex": r"(cluster\.outbound\|.*;|listener\.0\.0\.0\.0_15006)\.ssl\..*"}},
    {"safe_regex": {"regex": rf"listener\.0\.0\.0\.0_15006\.(worker_\d+\.)?downstream_cx_{_COUNTED}"}},
    {"suffix": "15006.no_filter_chain_match"},
)
"""What meshwise keeps beside that."""

_TAGS = {
    "cluster_name": r"^cluster\.((.+?(\..+?\.svc\.cluster\.local)?);\.)",
    "http_conn_manager_prefix": r"^http\.(((?:in|out)bound_[0-9.]+_[0-9]+);\.)",
    "listener_address": r"^listener\.(([0-9.]+_[0-9]+)\.)",
    "response_code_class": r"_rq(_([0-9]xx))$",
    "response_code": r"_rq(_([0-9]{3}))$",
    "authz_enforce_result": r"rbac(\.(allowed|denied))$",
}


def bootstrap(service: Service, *, counted: bool = False) -> Json:
    """Paths are from the directory in which the sidecar runs. `counted`: it flushes its statistics
    when it is asked for them, not every five seconds, which would be in some windows and not in others."""
    return {
        **({"stats_flush_on_admin": True} if counted else {}),
        "node": {
            "id": node_id(service),
            "cluster": f"{service.name}.{service.namespace}",
            "metadata": _node_metadata(service),
        },
        "admin": {"address": _socket("127.0.0.1", ADMIN_PORT)},
        "dynamic_resources": {
            "lds_config": _by_ads(),
            "cds_config": _by_ads(),
            "ads_config": {
                "api_type": "DELTA_GRPC",
                "set_node_on_first_message_only": True,
                "transport_api_version": "V3",
                "grpc_services": [{"envoy_grpc": {"cluster_name": XDS_CLUSTER}}],
            },
        },
        "static_resources": {
            "clusters": [_admin_cluster(), _agent(), _control_plane()],
            "listeners": [
                _admin_listener(METRICS_PORT, "stats", "/stats/prometheus", "/stats/prometheus"),
                _admin_listener(READY_PORT, "agent", READY_PATH, "/ready"),
            ],
        },
        "stats_config": {
            "use_all_default_tags": False,
            "stats_tags": [{"tag_name": name, "regex": regex} for name, regex in _TAGS.items()],
            "stats_matcher": {"inclusion_list": {"patterns": [*ISTIO_STATISTICS, *PROOF_STATISTICS]}},
        },
        "layered_runtime": {
            "layers": [
                {
                    "name": "global config",
                    "static_layer": {
                        "re2.max_program_size.error_level": "32768",
                        "envoy.reloadable_features.http_reject_path_with_fragment": False,
                        "envoy.reloadable_features.fixed_heap_use_allocated": True,
                        "envoy.reloadable_features.coalesce_lb_rebuilds_on_batch_update": False,
                    },
                },
                {"name": "admin", "admin_layer": {}},
            ]
        },
        "overload_manager": {
            "resource_monitors": [
                {
                    "name": "envoy.resource_monitors.global_downstream_max_connections",
                    "typed_config": {
                        "@type": "type.googleapis.com/envoy.extensions.resource_monitors."
                        "downstream_connections.v3.DownstreamConnectionsConfig",
                        "max_active_downstream_connections": "2147483647",
                    },
                }
            ]
        },
        "deferred_stat_options": {"enable_deferred_creation_stats": True},
        "bootstrap_extensions": [
            {
                "name": "envoy.bootstrap.internal_listener",
                "typed_config": {
                    "@type": "type.googleapis.com/envoy.extensions.bootstrap.internal_listener.v3."
                    "InternalListener",
                    "buffer_size_kb": 64,
                },
            }
        ],
    }


def _node_metadata(service: Service) -> Json:
    """Who we are, as Istio's metadata exchange sends it; plain Envoy ignores it."""
    return {
        "NAME": f"{service.name}-0",
        "NAMESPACE": service.namespace,
        "WORKLOAD_NAME": service.name,
        "OWNER": f"kubernetes://apis/apps/v1/namespaces/{service.namespace}/deployments/{service.name}",
        "SERVICE_ACCOUNT": service.service_account,
        "CLUSTER_ID": CLUSTER_ID,
        "LABELS": dict(service.labels),
    }


def arguments(envoy: Path, config: Path, workers: int, drain_time_s: int) -> tuple[str, ...]:
    """Istio's flags but for the drain time, which decides how long a replaced configuration lives on."""
    return (
        str(envoy), "--config-path", str(config), "--concurrency", str(workers),
        "--drain-time-s", str(drain_time_s), "--drain-strategy", "immediate",
        "--local-address-ip-version", "v4", "--file-flush-interval-msec", "1000", "--disable-hot-restart",
        "--allow-unknown-static-fields", "--log-level", "warning", "--component-log-level", "misc:error",
    )  # fmt: skip


def _by_ads() -> Json:
    return {"ads": {}, "resource_api_version": "V3", "initial_fetch_timeout": "0s"}


def _agent() -> Json:
    """Where secrets come from."""
    return _on_socket(SDS_CLUSTER, f"./{SDS_SOCKET}")


def _control_plane() -> Json:
    """Where everything else comes from; in Istio by way of the agent's own socket."""
    limit = {"max_connections": 100000, "max_pending_requests": 100000, "max_requests": 100000}
    return {
        **_on_socket(XDS_CLUSTER, f"../{CONTROLLER_DIRECTORY}/{XDS_SOCKET}"),
        "circuit_breakers": {
            "thresholds": [{"priority": priority, **limit} for priority in ("DEFAULT", "HIGH")]
        },
        "max_requests_per_connection": 1,
    }


def _on_socket(name: str, path: str) -> Json:
    """`path`: from the directory in which the proxy runs."""
    options = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions"
    endpoint = {"endpoint": {"address": {"pipe": {"path": path}}}}
    return {
        "name": name,
        "alt_stat_name": f"{name};",
        "type": "STATIC",
        "connect_timeout": "1s",
        "lb_policy": "ROUND_ROBIN",
        "load_assignment": {"cluster_name": name, "endpoints": [{"lb_endpoints": [endpoint]}]},
        "typed_extension_protocol_options": {
            options: {
                "@type": f"type.googleapis.com/{options}",
                "explicit_http_config": {"http2_protocol_options": {}},
            }
        },
    }


def _admin_cluster() -> Json:
    endpoint = {"endpoint": {"address": _socket("127.0.0.1", ADMIN_PORT)}}
    return {
        "name": "prometheus_stats",
        "type": "STATIC",
        "connect_timeout": "0.250s",
        "load_assignment": {
            "cluster_name": "prometheus_stats",
            "endpoints": [{"lb_endpoints": [endpoint]}],
        },
    }


def _admin_listener(port: int, prefix: str, path: str, target: str) -> Json:
    route = {
        "match": {"prefix": path},
        "route": {"cluster": "prometheus_stats", "prefix_rewrite": target},
    }
    manager = {
        "@type": "type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3."
        "HttpConnectionManager",
        "stat_prefix": prefix,
        "codec_type": "AUTO",
        "route_config": {"virtual_hosts": [{"name": "backend", "domains": ["*"], "routes": [route]}]},
        "http_filters": [
            {
                "name": "envoy.filters.http.router",
                "typed_config": {
                    "@type": "type.googleapis.com/envoy.extensions.filters.http.router.v3.Router"
                },
            }
        ],
    }
    return {
        "name": f"{prefix}_{port}",
        "address": _socket("0.0.0.0", port),
        "ignore_global_conn_limit": True,
        "bypass_overload_manager": True,
        "filter_chains": [
            {"filters": [{"name": "envoy.filters.network.http_connection_manager", "typed_config": manager}]}
        ],
    }


def _socket(address: str, port: int) -> Json:
    return {"socket_address": {"address": address, "port_value": port}}
