"""A posture *is* a set of Linkerd resources: cell -> YAML, the only input of the translation.

Which resources make which rung follows Linkerd's own guides (linkerd.io, "Authorization Policy", "Setting
up Per-Route Authorization Policy"): the default inbound policy of the namespaces for the mTLS mode; a
Server with an AuthorizationPolicy per called workload; routes with policies of their own for least
privilege. Linkerd answers 404 where no route matches; a route for everything else, which no policy opens,
makes that a refusal (403), as in Istio.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import yaml

from meshwise.mesh.applicable import contradiction
from meshwise.mesh.linkerd.names import OPAQUE_PORTS, labels_of
from meshwise.mesh.linkerd.resources import (
    DEFAULT_POLICY_ANNOTATION,
    GATEWAY,
    OPAQUE_PORTS_ANNOTATION,
    POLICY,
    WITHHELD_ANNOTATION,
)
from meshwise.mesh.request import TENANT, TENANT_HEADER, method_of, path_of
from meshwise.study.model import (
    SERVICE_PORTS,
    Authorization,
    Cell,
    Http1Transport,
    KeyType,
    Level,
    MtlsMode,
    Protocol,
    TlsGroup,
    Workload,
)

Document = dict[str, Any]

PROXY_PROTOCOL = {
    Protocol.HTTP1: "HTTP/1", Protocol.HTTP2: "HTTP/2", Protocol.GRPC: "gRPC", Protocol.TCP: "opaque",
}  # fmt: skip

_DEFAULT_POLICY = {
    MtlsMode.DISABLE: "all-unauthenticated",
    MtlsMode.PERMISSIVE: "all-unauthenticated",
    MtlsMode.STRICT: "all-authenticated",
}
_PLAINTEXT_REMARK = (
    "# Measurement only: no supported Linkerd configuration gives a sidecar without encryption.\n"
)


def not_applicable(cell: Cell) -> str | None:
    """Why Linkerd cannot express the cell, or None."""
    if reason := contradiction(cell, "Linkerd"):
        return reason
    mtls = cell.posture.mtls
    if cell.key_type is not KeyType.ECDSA_P256 and mtls is not MtlsMode.DISABLE:
        return "Linkerd's proxies have ECDSA P-256 keys and no other"
    if cell.tls_group is TlsGroup.X25519 and mtls is not MtlsMode.DISABLE:
        return "two linkerd proxies always agree on X25519MLKEM768: the list of groups is built in"
    return None


def resources(cell: Cell) -> str:
    """Multi-document YAML, as one would apply it."""
    text = yaml.dump_all(_documents(cell), Dumper=_DUMPER, sort_keys=False, width=100, explicit_start=True)
    return (_PLAINTEXT_REMARK if cell.posture.mtls is MtlsMode.DISABLE else "") + str(text)


_DUMPER = getattr(yaml, "CSafeDumper", yaml.SafeDumper)


def _documents(cell: Cell) -> Iterable[Document]:
    mtls, authorization = cell.posture.mtls, cell.posture.authorization
    assert mtls is not None, "not_applicable has been asked before"
    topology = cell.topology
    for namespace in sorted({workload.namespace for workload in topology.workloads}):
        annotations = {
            DEFAULT_POLICY_ANNOTATION: _DEFAULT_POLICY[mtls],
            OPAQUE_PORTS_ANNOTATION: ",".join(map(str, OPAQUE_PORTS)),
        }
        if mtls is MtlsMode.DISABLE:
            annotations[WITHHELD_ANNOTATION] = "withheld"
        yield {
            "apiVersion": "v1",
            "kind": "Namespace",
            "metadata": {"name": namespace, "annotations": annotations},
        }
    if authorization is Authorization.NONE:
        return
    for workload in topology.workloads:
        callers = topology.callers(workload.name)
        if not callers:
            continue
        server = f"{workload.name}-{cell.protocol}"
        yield _document(
            "Server", server, workload,
            {
                "podSelector": {"matchLabels": labels_of(workload)},
                "port": SERVICE_PORTS[cell.protocol],
                "proxyProtocol": _proxy_protocol(cell),
                "accessPolicy": "deny",
            },
        )  # fmt: skip
        for number in range(cell.policy_count):
            nobody = f"other-{number:04d}"
            others = (Workload(nobody, nobody, nobody),)
            yield from _entry(cell, f"before-{workload.name}-{number:04d}", workload, server, others)
        yield from _entry(cell, f"callers-of-{workload.name}", workload, server, callers)
        if _by_route(cell):
            yield _route(cell, f"rest-of-{workload.name}", workload, server, [])


def _proxy_protocol(cell: Cell) -> str:
    """Declared, but for one case: a proxy does not expect HTTP/2 in plaintext on a port that is declared
    HTTP/1, and there it is, for the upgrade between sidecars is the same in every posture."""
    by_http2 = cell.protocol is Protocol.HTTP1 and cell.http1_transport is not Http1Transport.HTTP1
    upgraded = by_http2 and cell.posture.mtls is MtlsMode.DISABLE
    return "unknown" if upgraded else PROXY_PROTOCOL[cell.protocol]


def _by_route(cell: Cell) -> bool:
    """Opaque TCP has no requests to tell apart: least privilege of a TCP port is the caller's identity."""
    return cell.posture.authorization is not Authorization.NAMESPACE and cell.protocol.level is Level.L7


def _entry(
    cell: Cell, name: str, workload: Workload, server: str, callers: Sequence[Workload]
) -> Iterable[Document]:
    """One entry that lets these callers make the cell's request; of the same shape whoever they are."""
    target = _reference(POLICY, "Server", server)
    if _by_route(cell):
        prefix = callers[0].name if callers[0].name.startswith("other-") else ""
        yield _route(cell, name, workload, server, [_match(cell, prefix)])
        kind = "GRPCRoute" if cell.protocol is Protocol.GRPC else "HTTPRoute"
        target = _reference(GATEWAY if kind == "GRPCRoute" else POLICY, kind, name)
    kind, spec = _authentication(cell, callers)
    yield _document(kind, name, workload, spec)
    authentication = _reference(POLICY, kind, name)
    yield _document(
        "AuthorizationPolicy", name, workload,
        {"targetRef": target, "requiredAuthenticationRefs": [authentication]},
    )  # fmt: skip


def _authentication(cell: Cell, callers: Sequence[Workload]) -> tuple[str, Document]:
    match cell.posture.authorization:
        case Authorization.NAMESPACE:
            names = sorted({each.namespace for each in callers})
            return "MeshTLSAuthentication", {
                "identityRefs": [{"kind": "Namespace", "name": name} for name in names]
            }
        case Authorization.FINE:
            accounts = sorted({(each.namespace, each.service_account) for each in callers})
            refs = [
                {"kind": "ServiceAccount", "name": account, "namespace": namespace}
                for namespace, account in accounts
            ]
            return "MeshTLSAuthentication", {"identityRefs": refs}
        case _ if cell.posture.mtls is MtlsMode.STRICT:
            return "MeshTLSAuthentication", {"identities": ["*"]}
        case _:
            return "NetworkAuthentication", {"networks": [{"cidr": "0.0.0.0/0"}, {"cidr": "::/0"}]}


def _match(cell: Cell, prefix: str) -> Document:
    headers = [{"name": TENANT_HEADER, "value": TENANT}]
    path = path_of(cell)
    if cell.protocol is Protocol.GRPC:
        _, service, method = path.split("/")
        service = f"{prefix}.{service}" if prefix else service
        return {"method": {"type": "Exact", "service": service, "method": method}, "headers": headers}
    path = f"/{prefix}{path}" if prefix else path
    return {"path": {"type": "Exact", "value": path}, "method": method_of(cell), "headers": headers}


def _route(cell: Cell, name: str, workload: Workload, server: str, matches: list[Document]) -> Document:
    """Without matches: every request that no better route takes."""
    grpc = cell.protocol is Protocol.GRPC
    if not matches and not grpc:
        matches = [{"path": {"type": "PathPrefix", "value": "/"}}]
    rule: Document = {"matches": matches} if matches else {}
    spec = {"parentRefs": [_reference(POLICY, "Server", server)], "rules": [rule]}
    return _document("GRPCRoute" if grpc else "HTTPRoute", name, workload, spec)


def _reference(group: str, kind: str, name: str) -> Document:
    return {"group": group, "kind": kind, "name": name}


_VERSIONS = {
    "Server": f"{POLICY}/v1beta3", "HTTPRoute": f"{POLICY}/v1beta3", "GRPCRoute": f"{GATEWAY}/v1",
}  # fmt: skip


def _document(kind: str, name: str, workload: Workload, spec: Document) -> Document:
    return {
        "apiVersion": _VERSIONS.get(kind, f"{POLICY}/v1alpha1"),
        "kind": kind,
        "metadata": {"name": name, "namespace": workload.namespace},
        "spec": spec,
    }
