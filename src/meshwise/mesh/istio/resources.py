"""Istio's own resources, read from YAML: the subset that a security posture needs.

Laws of this file:
- What is read is what kubectl would apply; names and defaults are Istio's (istio.io/docs/reference).
- What is not understood is refused with file and line, never ignored: a posture that silently lost a
  field would be measured under a wrong name. Which fields are understood is a table (`reading`).
- Values only; what they mean for a proxy is said in `authorization`, `jwt`, `clusters`, `listeners`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from meshwise.mesh.reading import Node, documents
from meshwise.study.model import MtlsMode

ROOT_NAMESPACE = "istio-system"
"""MeshConfig.rootNamespace: resources here apply to the whole mesh."""

_SECURITY = ("security.istio.io/v1", "security.istio.io/v1beta1")
_NETWORKING = ("networking.istio.io/v1", "networking.istio.io/v1beta1", "networking.istio.io/v1alpha3")


@dataclass(frozen=True)
class Meta:
    name: str
    namespace: str


@dataclass(frozen=True)
class Scope:
    """Which workloads a resource is for: its namespace (all, in the root namespace) and labels."""

    namespace: str
    labels: Mapping[str, str] = field(default_factory=dict)

    def covers(self, namespace: str, labels: Mapping[str, str]) -> bool:
        return self.namespace in (ROOT_NAMESPACE, namespace) and self.labels.items() <= labels.items()


@dataclass(frozen=True)
class PeerAuthentication:
    meta: Meta
    scope: Scope
    mode: MtlsMode | None
    """None is UNSET: inherit."""
    port_modes: Mapping[int, MtlsMode | None]


Fields = Mapping[str, tuple[str, ...]]
"""A `source` or `operation`: field name to values, as written (`principals`, `notPaths`, ...)."""


@dataclass(frozen=True)
class Condition:
    key: str
    values: tuple[str, ...]
    not_values: tuple[str, ...]


@dataclass(frozen=True)
class Rule:
    sources: tuple[Fields, ...]
    operations: tuple[Fields, ...]
    when: tuple[Condition, ...]


class Action(StrEnum):
    ALLOW = "ALLOW"
    DENY = "DENY"
    AUDIT = "AUDIT"


@dataclass(frozen=True)
class AuthorizationPolicy:
    meta: Meta
    scope: Scope
    action: Action
    rules: tuple[Rule, ...]


@dataclass(frozen=True)
class JwtRule:
    issuer: str
    audiences: tuple[str, ...]
    jwks: str
    forward: bool
    """`forwardOriginalToken`: without it the proxy removes a verified token."""


@dataclass(frozen=True)
class RequestAuthentication:
    meta: Meta
    scope: Scope
    rules: tuple[JwtRule, ...]


@dataclass(frozen=True)
class DestinationRule:
    """Numbers are None where Istio's default stands."""

    meta: Meta
    host: str
    tls: MtlsMode | None
    """DISABLE, or STRICT for ISTIO_MUTUAL; None leaves auto mTLS to decide."""
    max_connections: int | None = None
    connect_timeout: str | None = None
    max_pending_requests: int | None = None
    max_requests: int | None = None
    max_requests_per_connection: int | None = None
    max_retries: int | None = None
    h2_upgrade: bool = False
    """HTTP/1.1 travels between sidecars over HTTP/2 (`h2UpgradePolicy: UPGRADE`)."""


@dataclass(frozen=True)
class Sidecar:
    meta: Meta
    scope: Scope
    egress_hosts: tuple[str, ...]
    """`namespace/host` patterns: `./*`, `*/*`, `backend/*`."""
    registry_only: bool


@dataclass(frozen=True)
class Resources:
    """All resources of a posture, in the order in which they were written (oldest first)."""

    peer_authentications: tuple[PeerAuthentication, ...] = ()
    authorization_policies: tuple[AuthorizationPolicy, ...] = ()
    request_authentications: tuple[RequestAuthentication, ...] = ()
    destination_rules: tuple[DestinationRule, ...] = ()
    sidecars: tuple[Sidecar, ...] = ()


def parse(text: str, file: str = "resources.yaml") -> Resources:
    """Multi-document YAML. Raises MW401 (not readable) and MW402 (beyond the subset), with file:line."""
    found: dict[str, list[object]] = {kind: [] for kind in _KINDS}
    for document in documents(text, file):
        document.only("apiVersion", "kind", "metadata", "spec", "status")
        kind = document.need("kind").text()
        if kind not in _KINDS:
            raise document.need("kind").beyond(kind, "not one of the resources of a posture", _KINDS)
        versions, read, _ = _KINDS[kind]
        version = document.need("apiVersion")
        version.one_of({name: name for name in versions})
        found[kind].append(read(_meta(document), document.get("spec") or document.empty()))
    return Resources(**{name: tuple(found[kind]) for kind, (_, _, name) in _KINDS.items()})  # type: ignore[arg-type]


# --- one reader per kind -------------------------------------------------------------------------


def _meta(document: Node) -> Meta:
    metadata = document.need("metadata")
    metadata.only("name", "namespace", "labels", "annotations")
    if annotations := metadata.get("annotations"):
        annotations.only("kubectl.kubernetes.io/last-applied-configuration")
    namespace = metadata.get("namespace")
    return Meta(metadata.need("name").text(), namespace.text() if namespace else "default")


def _scope(meta: Meta, spec: Node, name: str = "selector", labels: str = "matchLabels") -> Scope:
    selector = spec.get(name)
    if selector is None:
        return Scope(meta.namespace)
    selector.only(labels)
    wanted = selector.get(labels)
    return Scope(
        meta.namespace, {key: node.text() for key, node in wanted.fields().items()} if wanted else {}
    )


_MODES: Mapping[str, MtlsMode | None] = {
    "UNSET": None, "DISABLE": MtlsMode.DISABLE, "PERMISSIVE": MtlsMode.PERMISSIVE, "STRICT": MtlsMode.STRICT,
}  # fmt: skip


def _mode(node: Node | None) -> MtlsMode | None:
    if node is None:
        return None
    node.only("mode")
    mode = node.get("mode")
    return mode.one_of(_MODES) if mode else None


def _peer_authentication(meta: Meta, spec: Node) -> PeerAuthentication:
    spec.only("selector", "mtls", "portLevelMtls")
    ports = spec.get("portLevelMtls")
    scope = _scope(meta, spec)
    if ports is not None and not scope.labels:
        raise ports.beyond("portLevelMtls", "it needs a selector", ("a selector beside it",))
    port_modes = {int(port): _mode(node) for port, node in ports.fields().items()} if ports else {}
    return PeerAuthentication(meta, scope, _mode(spec.get("mtls")), port_modes)


_SOURCE = (
    "principals", "notPrincipals", "namespaces", "notNamespaces", "serviceAccounts", "notServiceAccounts",
    "requestPrincipals", "notRequestPrincipals", "ipBlocks", "notIpBlocks",
)  # fmt: skip
_OPERATION = ("hosts", "notHosts", "ports", "notPorts", "methods", "notMethods", "paths", "notPaths")
_WHEN = ("request.headers[", "request.auth.claims[", "source.namespace", "source.principal")


def _authorization_policy(meta: Meta, spec: Node) -> AuthorizationPolicy:
    spec.only("selector", "action", "rules")
    action = spec.get("action")
    rules = spec.get("rules")
    return AuthorizationPolicy(
        meta,
        _scope(meta, spec),
        action.one_of({str(each): each for each in Action}) if action else Action.ALLOW,
        tuple(_rule(node) for node in rules.elements()) if rules else (),
    )


def _rule(node: Node) -> Rule:
    node.only("from", "to", "when")
    return Rule(
        tuple(_fields(each, "source", _SOURCE) for each in node.list_of("from")),
        tuple(_fields(each, "operation", _OPERATION) for each in node.list_of("to")),
        tuple(_condition(each) for each in node.list_of("when")),
    )


def _fields(node: Node, name: str, allowed: tuple[str, ...]) -> Fields:
    node.only(name)
    inner = node.need(name)
    inner.only(*allowed)
    return {key: value.texts() for key, value in inner.fields().items()}


def _condition(node: Node) -> Condition:
    node.only("key", "values", "notValues")
    key = node.need("key")
    if not key.text().startswith(_WHEN):
        raise key.beyond(key.text(), "this condition is not translated", [f"{each}..." for each in _WHEN])
    values, not_values = node.get("values"), node.get("notValues")
    return Condition(key.text(), values.texts() if values else (), not_values.texts() if not_values else ())


def _request_authentication(meta: Meta, spec: Node) -> RequestAuthentication:
    spec.only("selector", "jwtRules")
    return RequestAuthentication(
        meta, _scope(meta, spec), tuple(_jwt_rule(each) for each in spec.list_of("jwtRules"))
    )


def _jwt_rule(node: Node) -> JwtRule:
    node.only("issuer", "audiences", "jwks", "forwardOriginalToken")
    audiences, forward = node.get("audiences"), node.get("forwardOriginalToken")
    return JwtRule(
        node.need("issuer").text(),
        audiences.texts() if audiences else (),
        node.need("jwks").text(),
        forward.one_of({"true": True, "false": False}) if forward else False,
    )


def _destination_rule(meta: Meta, spec: Node) -> DestinationRule:
    spec.only("host", "trafficPolicy", "exportTo")
    host = spec.need("host").text()
    policy = spec.get("trafficPolicy")
    if policy is None:
        return DestinationRule(meta, host, None)
    policy.only("tls", "connectionPool")
    tls = policy.get("tls")
    mode: MtlsMode | None = None
    if tls:
        tls.only("mode")
        mode = tls.need("mode").one_of({"DISABLE": MtlsMode.DISABLE, "ISTIO_MUTUAL": MtlsMode.STRICT})
    pool = policy.get("connectionPool") or policy.empty()
    pool.only("tcp", "http")
    tcp, http = pool.get("tcp") or pool.empty(), pool.get("http") or pool.empty()
    tcp.only("maxConnections", "connectTimeout")
    http.only(
        "http1MaxPendingRequests", "http2MaxRequests", "maxRequestsPerConnection", "maxRetries",
        "h2UpgradePolicy",
    )  # fmt: skip
    upgrade = http.get("h2UpgradePolicy")
    timeout = tcp.get("connectTimeout")
    return DestinationRule(
        meta,
        host,
        mode,
        max_connections=tcp.number("maxConnections"),
        connect_timeout=timeout.text() if timeout else None,
        max_pending_requests=http.number("http1MaxPendingRequests"),
        max_requests=http.number("http2MaxRequests"),
        max_requests_per_connection=http.number("maxRequestsPerConnection"),
        max_retries=http.number("maxRetries"),
        h2_upgrade=bool(
            upgrade and upgrade.one_of({"DEFAULT": False, "DO_NOT_UPGRADE": False, "UPGRADE": True})
        ),
    )


def _sidecar(meta: Meta, spec: Node) -> Sidecar:
    spec.only("workloadSelector", "egress", "outboundTrafficPolicy")
    egress: list[str] = []
    for each in spec.list_of("egress"):
        each.only("hosts")
        egress += each.need("hosts").texts()
    policy = spec.get("outboundTrafficPolicy")
    registry_only = False
    if policy:
        policy.only("mode")
        registry_only = policy.need("mode").one_of({"ALLOW_ANY": False, "REGISTRY_ONLY": True})
    scope = _scope(meta, spec, "workloadSelector", "labels")
    return Sidecar(meta, scope, tuple(egress or ["*/*"]), registry_only)


_Reader = Callable[[Meta, Node], object]
_KINDS: Mapping[str, tuple[tuple[str, ...], _Reader, str]] = {
    "PeerAuthentication": (_SECURITY, _peer_authentication, "peer_authentications"),
    "AuthorizationPolicy": (_SECURITY, _authorization_policy, "authorization_policies"),
    "RequestAuthentication": (_SECURITY, _request_authentication, "request_authentications"),
    "DestinationRule": (_NETWORKING, _destination_rule, "destination_rules"),
    "Sidecar": (_NETWORKING, _sidecar, "sidecars"),
}
