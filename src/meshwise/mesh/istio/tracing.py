"""What istiod configures for spans. Where nothing is traced no provider is set, but sampling is decided and
the proxy holds the tags. Else the provider is OpenTelemetry over gRPC; a request is traced if its id says so,
and the proxy itself begins no trace (`randomSamplingPercentage: 0` of a Telemetry resource).

Mirrors pilot/pkg/networking/core/tracing.go and pilot/pkg/xds/requestidextension/.
"""

from __future__ import annotations

from meshwise.mesh.istio.authorization import SHADOW_PREFIX
from meshwise.mesh.istio.kinds import Action
from meshwise.mesh.istio.view import Json, Service, View
from meshwise.telemetry.spans import COLLECTOR_PORT

CLUSTER_ID = "Kubernetes"
"""What istiod and its proxies call the cluster (its flag `--clusterID`)."""
_COLLECTOR_HOST = "otel-collector.observability.svc.cluster.local"
COLLECTOR = f"outbound|{COLLECTOR_PORT}||{_COLLECTOR_HOST}"
_OPTIONS = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions"
_UUID = "type.googleapis.com/envoy.extensions.request_id.uuid.v3.UuidRequestIdConfig"
_RBAC_FILTER = "envoy.filters.http.rbac"


def settings(view: View, owner: Service) -> Json:
    """The connection manager's part: spans, and the identifiers of requests."""
    traced = view.options.traced
    return {
        "tracing": {
            "client_sampling": {"value": 100},
            "overall_sampling": {"value": 100},
            "random_sampling": {"value": 0 if traced else 1},
            "custom_tags": sorted([*_who(view, owner), *_dry_runs()], key=lambda tag: str(tag["tag"])),
            **({"provider": _provider(owner)} if traced else {}),
        },
        "request_id_extension": {"typed_config": {"@type": _UUID, "use_request_id_for_trace_sampling": True}},
    }


def collector() -> Json:
    """The cluster of the service that the provider names: the receiver, on the pod's loopback."""
    address = {"socket_address": {"address": "127.0.0.1", "port_value": COLLECTOR_PORT}}
    return {
        "name": COLLECTOR,
        "alt_stat_name": f"{COLLECTOR};",
        "type": "STATIC",
        "connect_timeout": "10s",
        "load_assignment": {
            "cluster_name": COLLECTOR,
            "endpoints": [{"lb_endpoints": [{"endpoint": {"address": address}}]}],
        },
        "typed_extension_protocol_options": {
            _OPTIONS: {
                "@type": f"type.googleapis.com/{_OPTIONS}",
                "explicit_http_config": {"http2_protocol_options": {}},
            }
        },
    }


def _provider(owner: Service) -> Json:
    return {
        "name": "envoy.tracers.opentelemetry",
        "typed_config": {
            "@type": "type.googleapis.com/envoy.config.trace.v3.OpenTelemetryConfig",
            "grpc_service": {"envoy_grpc": {"cluster_name": COLLECTOR, "authority": _COLLECTOR_HOST}},
            "service_name": f"{owner.name}.{owner.namespace}",
        },
    }


def _who(view: View, owner: Service) -> list[Json]:
    facts = {
        "canonical_revision": owner.labels["service.istio.io/canonical-revision"],
        "canonical_service": owner.labels["service.istio.io/canonical-name"],
        "cluster_id": CLUSTER_ID,
        "mesh_id": view.trust_domain,
        "namespace": owner.namespace,
    }
    return [{"tag": f"istio.{name}", "literal": {"value": value}} for name, value in facts.items()]


def _dry_runs() -> list[Json]:
    """What policies of a dry run would have done."""
    found = {"policy.name": "shadow_effective_policy_id", "policy.result": "shadow_engine_result"}
    return [
        {
            "tag": f"istio.authorization.dry_run.{str(action).lower()}_{name}",
            "metadata": {
                "kind": {"request": {}},
                "metadata_key": {"key": _RBAC_FILTER, "path": [{"key": SHADOW_PREFIX[action] + key}]},
            },
        }
        for action in (Action.ALLOW, Action.DENY)
        for name, key in found.items()
    ]
