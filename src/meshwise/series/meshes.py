"""What a production mesh's monitoring holds: the metrics that are asked for, and what a series of each is of.

Names and labels: Istio's standard metrics (istio.io/latest/docs/reference/config/metrics), Linkerd's proxy
metrics (linkerd.io/2/reference/proxy-metrics), the kubelet's cAdvisor metrics.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field

SIDECARS = {"istio-proxy": "istio", "linkerd-proxy": "linkerd"}
"""Containers, with whose they are."""
_OWNERS = ("deployment", "statefulset", "daemonset", "replicaset", "job", "cronjob", "replicationcontroller")


@dataclass(frozen=True)
class AskedMetric:
    """One metric that is asked for."""

    metric: str
    counter: bool
    mesh: str
    """`istio`, `linkerd`, or empty: a container's."""
    namespace_label: str
    matchers: str = ""

    def selector(self, namespaces: tuple[str, ...]) -> str:
        """The metric in these namespaces; in all if there are none. No letter of a namespace's name means
        anything in a query."""
        told = [self.matchers] if self.matchers else []
        if namespaces:
            told.append(f'{self.namespace_label}=~"{"|".join(namespaces)}"')
        return f"{self.metric}{{{','.join(told)}}}" if told else self.metric


def _of(mesh: str, label: str, *metrics: str) -> tuple[AskedMetric, ...]:
    return tuple(AskedMetric(metric, True, mesh, label) for metric in metrics)


MESH_METRICS = (
    *_of(
        "istio", "destination_workload_namespace",
        "istio_requests_total", "istio_request_duration_milliseconds_bucket",
        "istio_request_duration_milliseconds_sum", "istio_request_duration_milliseconds_count",
    ),
    *_of(
        "linkerd", "namespace",
        "request_total", "response_total", "response_latency_ms_bucket", "response_latency_ms_sum",
        "response_latency_ms_count",
    ),
)  # fmt: skip
_CONTAINERS = 'container!="",container!="POD"'
CONTAINER_METRICS = (
    AskedMetric("container_cpu_usage_seconds_total", True, "", "namespace", _CONTAINERS),
    AskedMetric("container_memory_working_set_bytes", False, "", "namespace", _CONTAINERS),
)


@dataclass(frozen=True)
class Belonging:
    """What a series is of."""

    mesh: str | None
    namespace: str
    workload: str
    side: str | None = None
    proxy_of: str | None = None
    pod: str | None = None
    container: str | None = None


@dataclass
class Pods:
    """Which workload a pod belongs to, as the mesh's own series say."""

    known: dict[tuple[str, str], str] = field(default_factory=dict)

    def note(self, namespace: str, pod: str | None, workload: str) -> None:
        if pod:
            self.known[namespace, pod] = workload

    def workload(self, namespace: str, pod: str) -> str:
        """As it was seen; else by the name that a Deployment, DaemonSet or StatefulSet gives its pods."""
        if (seen := self.known.get((namespace, pod))) is not None:
            return seen
        stem = re.sub(r"-[0-9a-f]{6,10}-[0-9a-z]{5}$", "", pod)
        return stem if stem != pod else re.sub(r"-(?:[0-9a-z]{5}|\d+)$", "", pod)


def belonging(asked: AskedMetric, labels: Mapping[str, str], pods: Pods) -> Belonging:
    """Whose series it is; what a label does not tell is `unknown`, as the meshes write it."""
    if asked.mesh == "istio":
        return _istio(labels, pods)
    if asked.mesh == "linkerd":
        return _linkerd(labels, pods)
    namespace, pod = labels.get("namespace", "unknown"), labels.get("pod", "unknown")
    container = labels.get("container", "unknown")
    return Belonging(
        SIDECARS.get(container), namespace, pods.workload(namespace, pod), pod=pod, container=container
    )


def _istio(labels: Mapping[str, str], pods: Pods) -> Belonging:
    asked = (
        labels.get("destination_workload_namespace", "unknown"),
        labels.get("destination_workload", "unknown"),
    )
    asking = (labels.get("source_workload_namespace", "unknown"), labels.get("source_workload", "unknown"))
    server = labels.get("reporter") == "destination"
    whose, pod = asked if server else asking, labels.get("pod")
    pods.note(labels.get("namespace", whose[0]), pod, whose[1])
    return Belonging("istio", *asked, "server" if server else "client", "/".join(whose), pod)


def _linkerd(labels: Mapping[str, str], pods: Pods) -> Belonging:
    own = labels.get("namespace", "unknown"), _owner(labels, "")
    pod = labels.get("pod")
    pods.note(own[0], pod, own[1])
    if labels.get("direction") == "outbound":
        asked = labels.get("dst_namespace", "unknown"), _owner(labels, "dst_")
        return Belonging("linkerd", *asked, "client", "/".join(own), pod)
    return Belonging("linkerd", *own, "server", "/".join(own), pod)


def _owner(labels: Mapping[str, str], prefix: str) -> str:
    found = (labels.get(f"{prefix}{kind}") or labels.get(f"{prefix}k8s_{kind}") for kind in _OWNERS)
    return next(filter(None, found), "unknown")


def failed(metric: str, labels: Mapping[str, str]) -> bool:
    """Whether these requests count as failed: HTTP 5xx or no answer (0), gRPC other than 0; Linkerd's own
    classification."""
    if metric == "response_total":
        return labels.get("classification") == "failure"
    grpc = labels.get("grpc_response_status", "")
    code = labels.get("response_code", "")
    return code.startswith("5") or code == "0" or grpc not in ("", "0")


def over_mtls(mesh: str, labels: Mapping[str, str]) -> bool | None:
    """Whether they came over mutual TLS, None where that is not told (a client's proxy in Istio)."""
    if mesh == "linkerd":
        return labels.get("tls") == "true" if "tls" in labels else None
    policy = labels.get("connection_security_policy", "unknown")
    return None if policy == "unknown" else policy == "mutual_tls"
