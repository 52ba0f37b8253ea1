"""A placement as Kubernetes has it: what istiod reads to know services, endpoints and pods, and the resources
of a posture.

Beside them stands a marker: a workload of its own, with one resource of every kind, all of which carry one
number. istiod takes up changes of one kind in their order, but those of one kind before or after those of
another. Of each kind the marker's is changed last; so when the marker's own configuration shows the number
in every place (`signs`), everything that was changed before has been taken up.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import lru_cache
from typing import Any

import yaml

from meshwise.mesh.istio.kinds import ROOT_NAMESPACE, AuthorizationPolicy, AuthorizationRule, Fields
from meshwise.mesh.istio.view import Service
from meshwise.study.model import Protocol

Json = dict[str, Any]
_Loader: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # several times faster

PORT_NAMES = {Protocol.HTTP1: "http", Protocol.HTTP2: "http2", Protocol.GRPC: "grpc", Protocol.TCP: "tcp"}
"""By which istiod knows what a port speaks."""
CRDS = {
    "security.istio.io": ("authorizationpolicies", "peerauthentications", "requestauthentications"),
    "networking.istio.io": ("destinationrules", "sidecars"),
}
MARKER = "meshwise-marker"
MOST_NUMBERS = 10_000
"""A number is part of two ports."""
_PORT, _MODE_PORT = 20_000, 40_000


def cluster_objects(services: Sequence[Service], resources: Sequence[Json], number: int) -> list[Json]:
    """All that the API holds, the marker's last. `resources`: Istio's own, of the posture; `number`: differs
    between any two calls, and is below `MOST_NUMBERS`."""
    marker = marker_service(number)
    namespaces = sorted({each.namespace for each in (*services, marker)} | {ROOT_NAMESPACE})
    return [
        *_crds(),
        *(
            _object(
                "v1", "Namespace", {"name": name, "labels": {"kubernetes.io/metadata.name": name}},
                status={"phase": "Active"},
            )
            for name in namespaces
        ),
        _object("v1", "Node", {"name": "node"}),
        *(each for service in services for each in workload_objects(service)),
        *resources,
        *_marker_resources(number),
        *workload_objects(marker),
    ]  # fmt: skip


@lru_cache(maxsize=16)
def posture_objects(resources: str) -> tuple[Json, ...]:
    """What kubectl would apply, each in the version that the API serves; not to be changed."""
    found = [each for each in yaml.load_all(resources, _Loader) if each]
    whole = [item for each in found for item in (each["items"] if each["kind"] == "List" else [each])]
    for each in whole:
        each["metadata"].setdefault("namespace", "default")
        each["apiVersion"] = f"{each['apiVersion'].rpartition('/')[0]}/v1"
    return tuple(whole)


def policy_object(policy: AuthorizationPolicy) -> Json:
    """One that was made as a value."""
    metadata: Json = {"name": policy.meta.name, "namespace": policy.meta.namespace}
    if policy.dry_run:
        metadata["annotations"] = {"istio.io/dry-run": "true"}
    spec: Json = {"action": str(policy.action), "rules": [_rule(each) for each in policy.rules]}
    if policy.scope.labels:
        spec["selector"] = {"matchLabels": dict(policy.scope.labels)}
    return _object("security.istio.io/v1", "AuthorizationPolicy", metadata, spec=spec)


def _rule(rule: AuthorizationRule) -> Json:
    def fields(values: Fields) -> Json:
        return {name: list(each) for name, each in values.items()}

    found: Json = {
        "from": [{"source": fields(each)} for each in rule.sources],
        "to": [{"operation": fields(each)} for each in rule.operations],
        "when": [
            {"key": each.key, "values": list(each.values), "notValues": list(each.not_values)}
            for each in rule.when
        ],
    }
    return {name: each for name, each in found.items() if each}


def workload_objects(service: Service) -> Iterator[Json]:
    """A service with one pod."""
    named = {"namespace": service.namespace}
    ports = [
        {"name": PORT_NAMES[protocol], "port": port, "protocol": "TCP"}
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
    owner = {"apiVersion": "apps/v1", "kind": "Deployment", "name": service.name, "uid": service.name}
    yield _object(
        "v1", "Pod",
        {
            **named, "name": pod, "labels": dict(service.labels),
            # As `bootstrap` tells the proxy whose pod it is in.
            "generateName": f"{service.name}-", "ownerReferences": [{**owner, "controller": True}],
        },
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


# --- the marker ------------------------------------------------------------------------------------


def marker_service(number: int) -> Service:
    """With the number as its port; addresses that no placement has."""
    host = f"{MARKER}.{MARKER}.svc.cluster.local"
    ports = {_PORT + number: Protocol.TCP}
    return Service(MARKER, MARKER, host, "10.96.255.1", "10.244.255.1", MARKER, ports)


def of_marker(name: str) -> bool:
    """Whether a resource of xDS is about it; every sidecar is told of its service."""
    return MARKER in name or name.startswith("10.96.255.1_")


def signs(number: int) -> tuple[str, ...]:
    """What stands in the marker's configuration (JSON without spaces) once its resources are taken up."""
    return (
        f'"inbound|{_PORT + number}||"',
        f'"destinationPort":{_MODE_PORT + number}',
        f"policy[{MARKER}-{number}]",
        f'"issuer":"{MARKER}-{number}"',
        f'"connectTimeout":"{number + 1}s"',
        f'"maxConnections":{_PORT + number}',
    )


def _marker_resources(number: int) -> Iterator[Json]:
    """One of each kind: a mode for a port that no service has, a policy, an issuer, a time, a limit."""
    selector = {"selector": {"matchLabels": {"app": MARKER}}}

    def resource(kind: str, spec: Json, group: str = "security", name: str = MARKER) -> Json:
        return _object(f"{group}.istio.io/v1", kind, {"name": name, "namespace": MARKER}, spec=spec)

    ports = {str(_MODE_PORT + number): {"mode": "STRICT"}}
    yield resource("PeerAuthentication", {**selector, "portLevelMtls": ports})
    rules = [{"from": [{"source": {"namespaces": [MARKER]}}]}]
    yield resource("AuthorizationPolicy", {**selector, "rules": rules}, name=f"{MARKER}-{number}")
    rule = {"issuer": f"{MARKER}-{number}", "jwks": '{"keys":[]}'}
    yield resource("RequestAuthentication", {**selector, "jwtRules": [rule]})
    pool: Json = {"tcp": {"connectTimeout": f"{number + 1}s"}}
    policy = {"connectionPool": pool}
    yield resource("DestinationRule", {"host": MARKER, "trafficPolicy": policy}, "networking")
    pool = {"tcp": {"maxConnections": _PORT + number}}
    yield resource("Sidecar", {"egress": [{"hosts": ["./*"]}], "inboundConnectionPool": pool}, "networking")


def _crds() -> Iterator[Json]:
    for group, resources in CRDS.items():
        for resource in resources:
            yield _object(
                "apiextensions.k8s.io/v1", "CustomResourceDefinition", {"name": f"{resource}.{group}"}
            )


def _object(api: str, kind: str, metadata: Json, **more: Any) -> Json:
    return {"apiVersion": api, "kind": kind, "metadata": metadata, **more}
