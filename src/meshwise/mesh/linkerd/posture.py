"""A posture *is* a set of Linkerd resources: cell -> YAML, the only input of the translation.

Which resources make which rung follows Linkerd's own guides (linkerd.io, "Authorization Policy", "Setting
up Per-Route Authorization Policy"): the default inbound policy of the namespaces for the mTLS mode; a
Server with an AuthorizationPolicy per called workload; routes with policies of their own for least
privilege. Linkerd answers 404 where no route matches; a route for everything else, which no policy opens,
makes that a refusal (403), as in Istio.

Rules of this file:
- What a workload demands stands above the posture (`study.demands`): of a whole namespace by its default
  inbound policy, of one workload by the accessPolicy of a Server on the port that is called.
- Who may call is said by the callee. A mode of mTLS per caller does not exist in Linkerd either: its proxies
  use mTLS with every peer that has an identity.
- Opaque TCP has no requests to tell apart: least privilege of a TCP port is the caller's identity.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from meshwise.mesh.applicable import contradiction
from meshwise.mesh.linkerd.names import DEFAULT_OPAQUE_PORTS, labels_of, opaque_ports
from meshwise.mesh.linkerd.resources import (
    DEFAULT_POLICY_ANNOTATION,
    GATEWAY,
    OPAQUE_PORTS_ANNOTATION,
    POLICY,
    WITHHELD_ANNOTATION,
)
from meshwise.mesh.request import (
    ABSENT_HEADER,
    TENANT,
    TENANT_HEADER,
    Allowance,
    allowances,
    no_caller,
    of_no_caller,
)
from meshwise.mesh.writing import written
from meshwise.study.demands import effective_posture, modes
from meshwise.study.model import (
    OF_A_REQUEST,
    Authorization,
    Cell,
    Http1Transport,
    KeyType,
    Layer,
    MtlsMode,
    Protocol,
    Resumption,
    RuleKind,
    RulePlace,
    SanMatch,
    TlsGroup,
    TlsVersion,
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
    if reason := _no_such_rule(cell):
        return reason
    if _in_plaintext(cell, cell.topology.workloads):
        return None
    if cell.stranger_share and cell.topology.entry.speaks(cell.protocol).layer is Layer.L4:
        return (
            "the instrument cannot call the port on which Linkerd's proxies take opaque TCP from each other"
        )
    if cell.key_type is not KeyType.ECDSA_P256:
        return "Linkerd's proxies have ECDSA P-256 keys and no other"
    if cell.tls_group is TlsGroup.X25519:
        return "two linkerd proxies always agree on X25519MLKEM768: the list of groups is built in"
    return _no_such_handshake(cell)


def _no_such_handshake(cell: Cell) -> str | None:
    """linkerd2-proxy: linkerd/rustls/src/crypto.rs (versions), linkerd/meshtls/src/creds/store.rs (sessions,
    verifier), linkerd/meshtls/verifier (names)."""
    if cell.tls_version is TlsVersion.TLS_1_2:
        return "linkerd proxies speak TLS 1.3 and no other version"
    if cell.crl_entries:
        return "linkerd proxies read no list of revoked certificates"
    if cell.san_match is SanMatch.PREFIX:
        return "linkerd proxies want the whole name of a server, and cannot be told otherwise"
    if cell.resumption is Resumption.ON:
        return "linkerd proxies keep no TLS session when they call, so none is resumed"
    return None


def _no_such_rule(cell: Cell) -> str | None:
    if not cell.policy_count:
        return None
    if cell.rule_place is RulePlace.DENY:
        return "Linkerd has no policy that denies: what no policy allows is refused"
    if cell.rule_kind is RuleKind.CLAIM:
        return "Linkerd reads no tokens, so no rule can ask for a claim"
    if cell.rule_kind is RuleKind.PATH_SUFFIX:
        return "Linkerd's routes match a path exactly, by prefix or by regular expression, not by suffix"
    if cell.rule_kind is RuleKind.METHOD and cell.protocol is Protocol.GRPC:
        return "every gRPC request is a POST, and Linkerd's gRPC routes match no method of HTTP"
    if cell.rule_place is RulePlace.HIT and cell.rule_kind not in OF_A_REQUEST:
        return "Linkerd has no rule of a caller that could be met and yet let no one in"
    kinds = {effective_posture(cell, workload).authorization for workload in cell.topology.workloads[1:]}
    if cell.rule_kind in OF_A_REQUEST and Authorization.NAMESPACE in kinds:
        kind = cell.rule_kind
        return f"rules by {kind} are matches of routes, and where callers alone are read Linkerd has none"
    return None


def resources(cell: Cell) -> str:
    """Multi-document YAML, as one would apply it."""
    text = written(_documents(cell))
    return (_PLAINTEXT_REMARK if WITHHELD_ANNOTATION in text else "") + text


def _documents(cell: Cell) -> Iterable[Document]:
    assert cell.posture.mtls is not None, "not_applicable has been asked before"
    topology = cell.topology
    for namespace in sorted({workload.namespace for workload in topology.workloads}):
        inside = [workload for workload in topology.workloads if workload.namespace == namespace]
        yield _namespace(cell, namespace, inside)
    for workload in topology.workloads:
        if topology.callers(workload.name):
            yield from _Entries(cell, workload).documents()


def _namespace(cell: Cell, name: str, inside: Sequence[Workload]) -> Document:
    annotations = {DEFAULT_POLICY_ANNOTATION: _DEFAULT_POLICY[modes(cell).of_namespace(name)]}
    ports = dict.fromkeys(port for workload in inside for port in opaque_ports(workload))
    if not ports.keys() <= set(DEFAULT_OPAQUE_PORTS):
        # A list of one's own replaces Linkerd's.
        annotations[OPAQUE_PORTS_ANNOTATION] = ",".join(
            map(str, dict.fromkeys((*DEFAULT_OPAQUE_PORTS, *ports)))
        )
    withheld = [
        workload.name for workload in inside if effective_posture(cell, workload).mtls is MtlsMode.DISABLE
    ]
    if withheld:
        everyone = len(withheld) == len(inside)
        annotations[WITHHELD_ANNOTATION] = "withheld" if everyone else f"withheld:{','.join(withheld)}"
    return {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "annotations": annotations}}


def _in_plaintext(cell: Cell, workloads: Sequence[Workload]) -> bool:
    return all(effective_posture(cell, each).mtls is MtlsMode.DISABLE for each in workloads)


def names_of(cell: Cell, workload: Workload) -> dict[str, Allowance]:
    """The entries of a called workload by name, as resources and counters have it."""
    authorization = effective_posture(cell, workload).authorization
    layer = workload.speaks(cell.protocol).layer
    if not by_route(authorization, layer):
        return {f"callers-of-{workload.name}": Allowance(cell.topology.callers(workload.name), ())}
    found = allowances(cell, workload)
    if len(found) == 1:
        return {f"callers-of-{workload.name}": found[0]}
    return {f"{'-'.join(caller.name for caller in each.callers)}-to-{workload.name}": each for each in found}


def by_route(authorization: Authorization, layer: Layer) -> bool:
    """Whether entries are routes with policies of their own, or a policy of the Server."""
    return authorization in (Authorization.FINE, Authorization.REQUEST) and layer is Layer.L7


class _Entries:
    """The Server of one called workload, and who may call it."""

    def __init__(self, cell: Cell, workload: Workload) -> None:
        self._cell, self._workload = cell, workload
        self._posture = effective_posture(cell, workload)
        self._protocol = workload.speaks(cell.protocol)
        self._server = f"{workload.name}-{self._protocol}"
        self._by_route = by_route(self._posture.authorization, self._protocol.layer)

    def documents(self) -> Iterable[Document]:
        assert self._posture.mtls is not None
        if self._posture.authorization is Authorization.NONE:
            # Of one's own accord only what the namespace does not say; detection stays as it would be.
            wanted = _DEFAULT_POLICY[self._posture.mtls]
            if wanted != _DEFAULT_POLICY[modes(self._cell).of_namespace(self._workload.namespace)]:
                yield self._server_with(wanted, "opaque" if self._protocol.layer is Layer.L4 else "unknown")
            return
        yield self._server_with("deny", self._proxy_protocol())
        entries = names_of(self._cell, self._workload)
        requests = next(iter(entries.values())).requests
        prefix = "past" if self._cell.rule_place is RulePlace.AFTER else "before"
        for number in range(self._cell.policy_count):
            name = f"{prefix}-{self._workload.name}-{number:04d}"
            yield from self._never(name, number, requests, next(iter(entries)))
        for name, allowed in entries.items():
            yield from self._entry(name, allowed)
        if self._by_route:
            yield self._route(f"rest-of-{self._workload.name}", [])

    def _server_with(self, access: str, proxy_protocol: str) -> Document:
        return _document(
            "Server", self._server, self._workload,
            {
                "podSelector": {"matchLabels": labels_of(self._workload)},
                "port": self._workload.port(self._cell.protocol),
                "proxyProtocol": proxy_protocol,
                "accessPolicy": access,
            },
        )  # fmt: skip

    def _proxy_protocol(self) -> str:
        """Declared, but for one case: a proxy does not expect HTTP/2 in plaintext on a port that is declared
        HTTP/1, and there it is, for the upgrade between sidecars is the same in every posture."""
        by_http2 = self._protocol is Protocol.HTTP1 and self._cell.http1_transport is not Http1Transport.HTTP1
        upgraded = by_http2 and self._posture.mtls is MtlsMode.DISABLE
        return "unknown" if upgraded else PROXY_PROTOCOL[self._protocol]

    def _entry(self, name: str, allowed: Allowance) -> Iterable[Document]:
        """One entry that lets these callers send these requests; of the same shape for every caller."""
        target = _reference(POLICY, "Server", self._server)
        if self._by_route:
            prefix = allowed.callers[0].name if allowed.never_matches else ""
            yield self._route(name, [self._match(request, prefix) for request in allowed.requests])
            target = self._route_reference(name)
        kind, spec = self._authentication(allowed.callers)
        yield _document(kind, name, self._workload, spec)
        authentication = _reference(POLICY, kind, name)
        yield _document(
            "AuthorizationPolicy", name, self._workload,
            {"targetRef": target, "requiredAuthenticationRefs": [authentication]},
        )  # fmt: skip

    def _never(
        self, name: str, number: int, requests: tuple[tuple[str, str], ...], first: str
    ) -> Iterable[Document]:
        """One that no request meets, of the kind that the cell says. `first`: the name of an entry that lets
        callers in, at whose route others are not let in."""
        kind, entry = self._cell.rule_kind, of_no_caller(number, requests)
        if kind is RuleKind.WHOLE:
            yield from self._entry(name, entry)
            return
        target = _reference(POLICY, "Server", self._server)
        if self._by_route:
            route = first
            if kind in OF_A_REQUEST:
                route = name
                yield self._route(name, [self._one_demand(kind, number, requests[0])])
            target = self._route_reference(route)
        names = (_namespaces if kind is RuleKind.NAMESPACE else _accounts)(entry.callers)
        yield _document("MeshTLSAuthentication", name, self._workload, {"identityRefs": names})
        authentication = _reference(POLICY, "MeshTLSAuthentication", name)
        yield _document(
            "AuthorizationPolicy", name, self._workload,
            {"targetRef": target, "requiredAuthenticationRefs": [authentication]},
        )  # fmt: skip

    def _one_demand(self, kind: RuleKind, number: int, allowed: tuple[str, str]) -> Document:
        """What a route of this kind matches: no request, or in part every one like `allowed`."""
        name, hit = no_caller(number), self._cell.rule_place is RulePlace.HIT
        headers = (
            [{"name": TENANT_HEADER, "value": TENANT if hit else name}] if kind is RuleKind.HEADER else []
        )
        if hit:
            headers.append({"name": ABSENT_HEADER, "value": name})
        asked: Document = {"headers": headers} if headers else {}
        method, path = allowed if hit else ("TRACE", f"/{name}")
        if self._protocol is Protocol.GRPC:
            if kind is RuleKind.HEADER:
                return asked
            service, called = path.split("/")[1:] if hit else (name, "Call")
            exact = {"type": "Exact", "service": service}
            return {"method": {**exact, "method": called} if kind is RuleKind.PATH else exact, **asked}
        match kind:
            case RuleKind.HEADER:
                return {"path": {"type": "PathPrefix", "value": "/"}, **asked}
            case RuleKind.METHOD:
                return {"path": {"type": "PathPrefix", "value": "/"}, "method": method, **asked}
            case RuleKind.PATH:
                return {"path": {"type": "Exact", "value": path}, **asked}
            case _:
                return {"path": {"type": "PathPrefix", "value": path}, **asked}

    def _route_reference(self, name: str) -> Document:
        kind = "GRPCRoute" if self._protocol is Protocol.GRPC else "HTTPRoute"
        return _reference(GATEWAY if kind == "GRPCRoute" else POLICY, kind, name)

    def _authentication(self, callers: Sequence[Workload]) -> tuple[str, Document]:
        match self._posture.authorization:
            case Authorization.NAMESPACE:
                return "MeshTLSAuthentication", {"identityRefs": _namespaces(callers)}
            case Authorization.FINE:
                return "MeshTLSAuthentication", {"identityRefs": _accounts(callers)}
            case _ if self._posture.mtls is MtlsMode.STRICT:
                return "MeshTLSAuthentication", {"identities": ["*"]}
            case _:
                return "NetworkAuthentication", {"networks": [{"cidr": "0.0.0.0/0"}, {"cidr": "::/0"}]}

    def _match(self, request: tuple[str, str], prefix: str) -> Document:
        headers = [{"name": TENANT_HEADER, "value": TENANT}]
        method, path = request
        if self._protocol is Protocol.GRPC:
            _, service, called = path.split("/")
            service = f"{prefix}.{service}" if prefix else service
            return {"method": {"type": "Exact", "service": service, "method": called}, "headers": headers}
        path = f"/{prefix}{path}" if prefix else path
        return {"path": {"type": "Exact", "value": path}, "method": method, "headers": headers}

    def _route(self, name: str, matches: list[Document]) -> Document:
        """Without matches: every request that no better route takes."""
        grpc = self._protocol is Protocol.GRPC
        if not matches and not grpc:
            matches = [{"path": {"type": "PathPrefix", "value": "/"}}]
        rule: Document = {"matches": matches} if matches else {}
        spec = {"parentRefs": [_reference(POLICY, "Server", self._server)], "rules": [rule]}
        return _document("GRPCRoute" if grpc else "HTTPRoute", name, self._workload, spec)


def _namespaces(callers: Sequence[Workload]) -> list[Document]:
    return [{"kind": "Namespace", "name": name} for name in sorted({each.namespace for each in callers})]


def _accounts(callers: Sequence[Workload]) -> list[Document]:
    accounts = sorted({(each.namespace, each.service_account) for each in callers})
    return [
        {"kind": "ServiceAccount", "name": account, "namespace": namespace} for namespace, account in accounts
    ]


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
