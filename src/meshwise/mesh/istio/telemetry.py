"""Stand-ins for what istio-proxy does for its metrics and plain Envoy cannot.

Mirrors, as far as plain Envoy reaches: the `istio.metadata_exchange` and `istio.stats` filters
(envoyproxy/envoy contrib/istio). Each side sends who it is in two headers of the size that Istio's have
for names of usual length, and takes the peer's away; each side counts and times requests per source and
destination. The difference that is left is stated in `fidelity`. A binary that has the filters gets them
instead (`native`).
"""

from __future__ import annotations

import base64

from meshwise.mesh.istio.view import Json, Service, View

ID_HEADER = "x-envoy-peer-metadata-id"
METADATA_HEADER = "x-envoy-peer-metadata"
METADATA_BYTES = 345
"""Raw size of a peer's metadata, 460 characters in base64."""

_STATS = "type.googleapis.com/envoy.extensions.access_loggers.stats.v3.Config"


def announce(view: View, service: Service) -> list[Json]:
    """Headers that tell the peer who we are: on outbound requests and inbound responses."""
    if not _stands_in(view):
        return []
    values = {ID_HEADER: node_id(service), METADATA_HEADER: _metadata(view, service)}
    return [
        {"header": {"key": key, "value": value}, "append_action": "OVERWRITE_IF_EXISTS_OR_ADD"}
        for key, value in values.items()
    ]


def withdraw(view: View) -> list[str]:
    """Headers of the peer that go no further: from inbound requests and outbound responses."""
    return [ID_HEADER, METADATA_HEADER] if _stands_in(view) else []


def _stands_in(view: View) -> bool:
    return view.options.telemetry and view.options.native.metadata is None


def node_id(service: Service) -> str:
    return (
        f"sidecar~{service.pod_ip}~{service.name}.{service.namespace}~{service.namespace}.svc.cluster.local"
    )


def _metadata(view: View, service: Service) -> str:
    facts = (
        f"CLUSTER_ID=Kubernetes;NAMESPACE={service.namespace};WORKLOAD={service.name};APP={service.name};"
        f"SERVICE_ACCOUNT={service.service_account};MESH_ID={view.trust_domain};TYPE=deployment"
    )
    return base64.b64encode(facts.encode().ljust(METADATA_BYTES, b".")).decode()


def access_log(view: View, service: Service, reporter: str) -> list[Json]:
    """Requests, durations and sizes with Istio's label names; `reporter` is `source` or `destination`."""
    if not view.options.telemetry or view.options.native.stats is not None:
        return []
    peer = "destination" if reporter == "source" else "source"
    tags = [
        {"name": "reporter", "value_format": reporter},
        {"name": f"{reporter}_workload", "value_format": service.name},
        {"name": f"{reporter}_workload_namespace", "value_format": service.namespace},
        {"name": f"{peer}_principal", "value_format": _principal(reporter)},
        {"name": "destination_service", "value_format": "%REQ(:AUTHORITY)%"},
        {"name": "request_protocol", "value_format": "%PROTOCOL%"},
        {"name": "response_code", "value_format": "%RESPONSE_CODE%"},
        {"name": "response_flags", "value_format": "%RESPONSE_FLAGS%"},
    ]

    def stat(name: str) -> Json:
        return {"name": name, "tags": tags}

    config: Json = {
        "@type": _STATS,
        "stat_prefix": "istio",
        "counters": [{"stat": stat("requests_total"), "value_fixed": 1}],
        "histograms": [
            {
                "stat": stat("request_duration_milliseconds"),
                "unit": "Milliseconds",
                "value_format": "%DURATION%",
            },
            {"stat": stat("request_bytes"), "unit": "Bytes", "value_format": "%BYTES_RECEIVED%"},
            {"stat": stat("response_bytes"), "unit": "Bytes", "value_format": "%BYTES_SENT%"},
        ],
    }
    return [{"name": "envoy.access_loggers.stats", "typed_config": config}]


def _principal(reporter: str) -> str:
    return "%UPSTREAM_PEER_URI_SAN%" if reporter == "source" else "%DOWNSTREAM_PEER_URI_SAN%"
