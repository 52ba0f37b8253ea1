"""Linkerd's own policy resources, read from YAML: the subset that a security posture needs.

Rules of this file:
- What is read is what kubectl would apply; names and defaults are Linkerd's (chart `linkerd-crds`, and
  Gateway API for routes).
- What is not understood is refused with file and line, never ignored: a posture that silently lost a
  field would be measured under a wrong name. So is a reference to something that is not there.
- Values only; what they mean for a proxy is said in `policy`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from meshwise.mesh.reading import METADATA, SET_BY_SERVER, DocumentNode, objects

POLICY = "policy.linkerd.io"
GATEWAY = "gateway.networking.k8s.io"
DEFAULT_POLICY_ANNOTATION = "config.linkerd.io/default-inbound-policy"
OPAQUE_PORTS_ANNOTATION = "config.linkerd.io/opaque-ports"
WITHHELD_ANNOTATION = "measurement.meshwise/tls-identity"
"""meshwise's own: `withheld` on a namespace leaves its endpoints without a TLS identity, `withheld:a,b` those
of these workloads. Linkerd has no such setting; it exists to measure a sidecar without encryption."""

DEFAULT_POLICIES = (
    "all-unauthenticated", "all-authenticated", "cluster-unauthenticated", "cluster-authenticated", "deny",
)  # fmt: skip
PROXY_PROTOCOLS = ("unknown", "HTTP/1", "HTTP/2", "gRPC", "opaque")


@dataclass(frozen=True)
class Ref:
    """A reference to another resource; `namespace` is filled in."""

    kind: str
    name: str
    namespace: str


@dataclass(frozen=True)
class Meta:
    name: str
    namespace: str
    where: str = field(compare=False, default="")


@dataclass(frozen=True)
class Namespace:
    meta: Meta
    default_policy: str
    withheld: frozenset[str] | None
    """Workloads without a TLS identity; empty: all of them; None: none."""
    opaque_ports: frozenset[int] | None = None
    """None: Linkerd's own list."""

    def withholds(self, workload: str) -> bool:
        return self.withheld is not None and (not self.withheld or workload in self.withheld)


@dataclass(frozen=True)
class Server:
    """`access`: one of DEFAULT_POLICIES, for callers that no policy names."""

    meta: Meta
    labels: Mapping[str, str]
    port: int
    protocol: str
    access: str


@dataclass(frozen=True)
class AuthorizationPolicy:
    meta: Meta
    target: Ref
    authentications: tuple[Ref, ...]


@dataclass(frozen=True)
class MeshTLSAuthentication:
    """`identities`: DNS names, `*`, or `*.suffix`. `refs`: ServiceAccounts and Namespaces."""

    meta: Meta
    identities: tuple[str, ...]
    refs: tuple[Ref, ...]


@dataclass(frozen=True)
class Network:
    cidr: str
    excepted: tuple[str, ...] = ()


@dataclass(frozen=True)
class NetworkAuthentication:
    meta: Meta
    networks: tuple[Network, ...]


@dataclass(frozen=True)
class HeaderMatch:
    name: str
    value: str
    regex: bool


@dataclass(frozen=True)
class RouteMatch:
    """One match of a rule. For gRPC, `path` is None and `service`/`rpc` are used; empty means any."""

    path: str | None = None
    path_type: str = "PathPrefix"
    method: str | None = None
    service: str = ""
    rpc: str = ""
    headers: tuple[HeaderMatch, ...] = ()


@dataclass(frozen=True)
class Route:
    """HTTPRoute or GRPCRoute. A rule is a tuple of matches, of which one must hold; none matches all."""

    meta: Meta
    group: str
    kind: str
    servers: tuple[Ref, ...]
    rules: tuple[tuple[RouteMatch, ...], ...]


@dataclass(frozen=True)
class LinkerdResources:
    """All resources of a posture."""

    namespaces: tuple[Namespace, ...] = ()
    servers: tuple[Server, ...] = ()
    policies: tuple[AuthorizationPolicy, ...] = ()
    mesh_authentications: tuple[MeshTLSAuthentication, ...] = ()
    network_authentications: tuple[NetworkAuthentication, ...] = ()
    routes: tuple[Route, ...] = ()

    # Looked up by name, because a thousand policies name a thousand authentications.

    @cached_property
    def named(self) -> Mapping[Ref, Any]:
        """Whatever can be referred to."""
        kinds: dict[str, Sequence[Any]] = {
            "Server": self.servers,
            "MeshTLSAuthentication": self.mesh_authentications,
            "NetworkAuthentication": self.network_authentications,
        }
        found = {
            Ref(kind, each.meta.name, each.meta.namespace): each
            for kind, values in kinds.items()
            for each in values
        }
        return found | {Ref(each.kind, each.meta.name, each.meta.namespace): each for each in self.routes}

    @cached_property
    def policies_on(self) -> Mapping[Ref, Sequence[AuthorizationPolicy]]:
        """By target, in the order of their names."""
        found: dict[Ref, list[AuthorizationPolicy]] = {}
        for policy in sorted(self.policies, key=lambda each: each.meta.name):
            found.setdefault(policy.target, []).append(policy)
        return found


def parse(text: str, file: str = "resources.yaml") -> LinkerdResources:
    """Multi-document YAML, or a List of kubectl. Raises MW401 (not readable) and MW402 (beyond the subset),
    with file:line."""
    found: dict[str, list[Any]] = {name: [] for _, _, name in _KINDS.values()}
    for document in objects(text, file):
        document.only("apiVersion", "kind", "metadata", "spec", "status")
        kind = document.need("kind")
        if kind.text() not in _KINDS:
            raise kind.beyond(kind.text(), "not one of the resources of a posture", _KINDS)
        versions, read, name = _KINDS[kind.text()]
        version = document.need("apiVersion").one_of({each: each for each in versions})
        spec = document.get("spec") or document.empty()
        found[name].append(read(document, spec, version.rpartition("/")[0]))
    return LinkerdResources(**{name: tuple(values) for name, values in found.items()})


# --- one reader per kind -------------------------------------------------------------------------


def _meta(document: DocumentNode, *annotations: str) -> Meta:
    metadata = document.need("metadata")
    metadata.only(*METADATA, *SET_BY_SERVER)
    if given := metadata.get("annotations"):
        given.only("kubectl.kubernetes.io/last-applied-configuration", *annotations)
    name = metadata.need("name")
    namespace = metadata.get("namespace")
    return Meta(name.text(), namespace.text() if namespace else "default", name.where)


def _namespace(document: DocumentNode, spec: DocumentNode, _group: str) -> Namespace:
    spec.only("finalizers")  # which the API server gives every namespace
    known = (DEFAULT_POLICY_ANNOTATION, OPAQUE_PORTS_ANNOTATION, WITHHELD_ANNOTATION, "linkerd.io/inject")
    meta = _meta(document, *known)
    annotations = document.need("metadata").get("annotations") or document.empty()
    policy, withheld = annotations.get(DEFAULT_POLICY_ANNOTATION), annotations.get(WITHHELD_ANNOTATION)
    return Namespace(
        meta,
        policy.one_of({each: each for each in DEFAULT_POLICIES}) if policy else DEFAULT_POLICIES[0],
        _withheld(withheld) if withheld else None,
        _ports(opaque) if (opaque := annotations.get(OPAQUE_PORTS_ANNOTATION)) else None,
    )


def _withheld(node: DocumentNode) -> frozenset[str]:
    word, colon, names = node.text().partition(":")
    if word != "withheld" or (colon and not all(names.split(","))):
        raise node.beyond(node.text(), "this is not known here", ("withheld", "withheld:a,b"))
    return frozenset(names.split(",")) if colon else frozenset()


def _ports(node: DocumentNode) -> frozenset[int]:
    """`8083` or `25,8000-8010`."""
    found: set[int] = set()
    for part in node.text().split(","):
        first, _, last = part.strip().partition("-")
        if not first.isdigit() or not (last or first).isdigit():
            raise node.beyond(part, "this is not a port or a range of ports", ("8083", "8000-8010"))
        found |= set(range(int(first), int(last or first) + 1))
    return frozenset(found)


def _server(document: DocumentNode, spec: DocumentNode, _group: str) -> Server:
    spec.only("podSelector", "port", "proxyProtocol", "accessPolicy")
    selector = spec.need("podSelector")
    selector.only("matchLabels")
    labels = selector.get("matchLabels")
    protocol, access = spec.get("proxyProtocol"), spec.get("accessPolicy")
    port = spec.number("port")
    if port is None:
        raise spec.beyond("spec.port", "it is missing", ("a port number",))
    return Server(
        _meta(document),
        {key: value.text() for key, value in labels.fields().items()} if labels else {},
        port,
        protocol.one_of({each: each for each in PROXY_PROTOCOLS}) if protocol else "unknown",
        access.one_of({each: each for each in DEFAULT_POLICIES}) if access else "deny",
    )


_TARGETS = {"Server": POLICY, "HTTPRoute": "", "GRPCRoute": GATEWAY, "Namespace": "core"}
_AUTHENTICATIONS = {
    "MeshTLSAuthentication": POLICY, "NetworkAuthentication": POLICY, "ServiceAccount": "core",
}  # fmt: skip
_IDENTITIES = {"ServiceAccount": "core", "Namespace": "core"}


def _ref(node: DocumentNode, namespace: str, kinds: Mapping[str, str]) -> Ref:
    node.only("group", "kind", "name", "namespace")
    kind = node.need("kind")
    wanted = kind.one_of(kinds)
    group = node.get("group")
    groups = {"core": ("", "core"), "": (POLICY, GATEWAY)}.get(wanted, (wanted,))
    if group is not None or wanted not in ("", "core"):
        (group or node.need("group")).one_of({each: each for each in groups})
    own = node.get("namespace")
    return Ref(kind.text(), node.need("name").text(), own.text() if own else namespace)


def _policy(document: DocumentNode, spec: DocumentNode, _group: str) -> AuthorizationPolicy:
    spec.only("targetRef", "requiredAuthenticationRefs")
    meta = _meta(document)
    target = _ref(spec.need("targetRef"), meta.namespace, _TARGETS)
    if target.namespace != meta.namespace or (target.kind == "Namespace" and target.name != meta.namespace):
        raise spec.need("targetRef").beyond("targetRef", "a policy's target is in its own namespace", ())
    required = spec.need("requiredAuthenticationRefs")
    return AuthorizationPolicy(
        meta, target, tuple(_ref(each, meta.namespace, _AUTHENTICATIONS) for each in required.elements())
    )


def _mesh_tls(document: DocumentNode, spec: DocumentNode, _group: str) -> MeshTLSAuthentication:
    spec.only("identities", "identityRefs")
    meta = _meta(document)
    given = spec.get("identities")
    refs = tuple(_ref(each, meta.namespace, _IDENTITIES) for each in spec.list_of("identityRefs"))
    names = given.texts() if given else ()
    for node in spec.list_of("identities"):
        if "*" in node.text().lstrip("*") or (node.text()[:1] == "*" and node.text()[:2] not in ("*", "*.")):
            raise node.beyond(node.text(), "a star stands alone or before the first dot", ("*", "*.suffix"))
    if not names and not refs:
        raise spec.beyond("spec", "it names no client", ("identities", "identityRefs"))
    return MeshTLSAuthentication(meta, names, refs)


def _networks(document: DocumentNode, spec: DocumentNode, _group: str) -> NetworkAuthentication:
    spec.only("networks")
    networks = []
    for node in spec.need("networks").elements():
        node.only("cidr", "except")
        excepted = node.get("except")
        networks.append(Network(node.need("cidr").text(), excepted.texts() if excepted else ()))
    return NetworkAuthentication(_meta(document), tuple(networks))


def _route(
    kind: str, read: Callable[[DocumentNode], RouteMatch]
) -> Callable[[DocumentNode, DocumentNode, str], Route]:
    def route(document: DocumentNode, spec: DocumentNode, group: str) -> Route:
        spec.only("parentRefs", "rules")
        meta = _meta(document)
        servers = tuple(
            _ref(each, meta.namespace, {"Server": POLICY}) for each in spec.need("parentRefs").elements()
        )
        rules = []
        for rule in spec.list_of("rules"):
            rule.only("matches")
            rules.append(tuple(read(match) for match in rule.list_of("matches")))
        return Route(meta, group, kind, servers, tuple(rules) or ((),))

    return route


_METHODS = ("GET", "POST", "PUT", "DELETE", "PATCH", "OPTIONS", "CONNECT", "HEAD", "TRACE")


def _http_match(node: DocumentNode) -> RouteMatch:
    node.only("path", "method", "headers")
    path, method = node.get("path"), node.get("method")
    kinds = ("Exact", "PathPrefix", "RegularExpression")
    value, path_type = None, "PathPrefix"
    if path:
        path.only("type", "value")
        typed = path.get("type")
        path_type = typed.one_of({each: each for each in kinds}) if typed else path_type
        value = path.need("value").text()
    return RouteMatch(
        path=value,
        path_type=path_type,
        method=method.one_of({each: each for each in _METHODS}) if method else None,
        headers=_headers(node),
    )


def _grpc_match(node: DocumentNode) -> RouteMatch:
    node.only("method", "headers")
    service = rpc = ""
    if method := node.get("method"):
        method.only("type", "service", "method")
        if typed := method.get("type"):
            typed.one_of({"Exact": None})
        named, called = method.get("service"), method.get("method")
        service, rpc = named.text() if named else "", called.text() if called else ""
    return RouteMatch(service=service, rpc=rpc, headers=_headers(node))


def _headers(node: DocumentNode) -> tuple[HeaderMatch, ...]:
    found = []
    for header in node.list_of("headers"):
        header.only("type", "name", "value")
        typed = header.get("type")
        regex = typed.one_of({"Exact": False, "RegularExpression": True}) if typed else False
        found.append(HeaderMatch(header.need("name").text(), header.need("value").text(), regex))
    return tuple(found)


_POLICY_V1ALPHA1 = (f"{POLICY}/v1alpha1",)
_Reader = Callable[[DocumentNode, DocumentNode, str], object]
_KINDS: Mapping[str, tuple[tuple[str, ...], _Reader, str]] = {
    "Namespace": (("v1",), _namespace, "namespaces"),
    "Server": (
        tuple(f"{POLICY}/{version}" for version in ("v1beta3", "v1beta2", "v1beta1")), _server, "servers"
    ),
    "AuthorizationPolicy": (_POLICY_V1ALPHA1, _policy, "policies"),
    "MeshTLSAuthentication": (_POLICY_V1ALPHA1, _mesh_tls, "mesh_authentications"),
    "NetworkAuthentication": (_POLICY_V1ALPHA1, _networks, "network_authentications"),
    "HTTPRoute": (
        (f"{POLICY}/v1beta3", f"{POLICY}/v1beta2", f"{GATEWAY}/v1", f"{GATEWAY}/v1beta1"),
        _route("HTTPRoute", _http_match),
        "routes",
    ),
    "GRPCRoute": ((f"{GATEWAY}/v1",), _route("GRPCRoute", _grpc_match), "routes"),
}  # fmt: skip
