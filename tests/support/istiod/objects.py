"""A placement as Kubernetes has it: what istiod reads to know services, endpoints and pods."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from meshwise.mesh.istio.view import Service, View
from meshwise.study.model import Protocol

Json = dict[str, Any]
_PORT_NAMES = {Protocol.HTTP1: "http", Protocol.HTTP2: "http2", Protocol.GRPC: "grpc", Protocol.TCP: "tcp"}
"""By which istiod knows what a port speaks."""
_CRDS = {
    "security.istio.io": ("authorizationpolicies", "peerauthentications", "requestauthentications"),
    "networking.istio.io": ("destinationrules", "sidecars"),
}


def kubernetes_objects(view: View, root_namespace: str) -> Iterator[Json]:
    yield from _crds()
    namespaces = {service.namespace for service in view.services} | {root_namespace}
    for name in sorted(namespaces):
        labels = {"kubernetes.io/metadata.name": name}
        yield _object("v1", "Namespace", {"name": name, "labels": labels}, status={"phase": "Active"})
    yield _object("v1", "Node", {"name": "node"})
    for service in view.services:
        yield from workload_objects(service)


def workload_objects(service: Service) -> Iterator[Json]:
    """A service with one pod."""
    named = {"namespace": service.namespace}
    ports = [
        {"name": _PORT_NAMES[protocol], "port": port, "protocol": "TCP"}
        for port, protocol in sorted(service.ports.items())
    ]
    yield _object(
        "v1", "Service", {**named, "name": service.name},
        spec={
            "clusterIP": service.service_ip, "clusterIPs": [service.service_ip], "type": "ClusterIP",
            "selector": {"app": service.name},
            "ports": [{**port, "targetPort": port["port"]} for port in ports],
        },
    )  # fmt: skip
    pod = pod_name(service)
    yield _object(
        "v1", "Pod", {**named, "name": pod, "labels": dict(service.labels)},
        spec={
            "serviceAccountName": service.service_account, "nodeName": "node",
            "containers": [{"name": name} for name in ("app", "istio-proxy")],
        },
        status={
            "phase": "Running", "podIP": service.pod_ip, "podIPs": [{"ip": service.pod_ip}],
            "conditions": [{"type": "Ready", "status": "True"}],
        },
    )  # fmt: skip
    yield _object(
        "discovery.k8s.io/v1", "EndpointSlice",
        {**named, "name": f"{service.name}-1", "labels": {"kubernetes.io/service-name": service.name}},
        addressType="IPv4", ports=ports,
        endpoints=[
            {
                "addresses": [service.pod_ip], "conditions": {"ready": True}, "nodeName": "node",
                "targetRef": {"kind": "Pod", "name": pod, "namespace": service.namespace},
            }
        ],
    )  # fmt: skip


def pod_name(service: Service) -> str:
    return f"{service.name}-0"


def _crds() -> Iterator[Json]:
    for group, resources in _CRDS.items():
        for resource in resources:
            yield _object(
                "apiextensions.k8s.io/v1", "CustomResourceDefinition", {"name": f"{resource}.{group}"}
            )


def _object(api: str, kind: str, metadata: Json, **more: Any) -> Json:
    return {"apiVersion": api, "kind": kind, "metadata": metadata, **more}
