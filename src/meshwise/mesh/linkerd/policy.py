"""From Linkerd's policy resources to what WatchPort answers. Pure.

Mirrors linkerd2's policy controller: `policy-controller/k8s/index/src/inbound/index.rs` (which policy holds
for which port), `index/src/defaults.rs` (default policies), `grpc/src/inbound.rs` (the messages).

Rules of this file:
- A Server's own authorizations stay on the Server, a route's on the route; the proxy joins them.
- Authorizations and routes go in the order of their names: where several match, what is scanned before the
  one that holds is known (Linkerd's own order is that of a hash table).
- A reference to something that is not there is refused (MW420), where Linkerd would let it do nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from meshwise.core import messages
from meshwise.mesh.linkerd import wire
from meshwise.mesh.linkerd.names import (
    CLUSTER_NETWORKS,
    DEFAULT_OPAQUE_PORTS,
    DETECT_TIMEOUT_S,
    identity_name,
    identity_suffix,
    labels_of,
)
from meshwise.mesh.linkerd.proto import grpc_route_pb2, http_route_pb2, http_types_pb2, inbound_pb2
from meshwise.mesh.linkerd.resources import (
    DEFAULT_POLICIES,
    POLICY,
    AuthorizationPolicy,
    HeaderMatch,
    LinkerdResources,
    Meta,
    Namespace,
    Network,
    Ref,
    Route,
    RouteMatch,
    Server,
)
from meshwise.study.model import Workload

_ALL = tuple(Network(cidr) for cidr in wire.EVERY_NETWORK)


def checked(resources: LinkerdResources, workloads: Sequence[Workload]) -> LinkerdResources:
    """The resources, when every reference in them leads somewhere. Raises MW420."""
    for server in resources.servers:
        selected = [each for each in workloads if selects(server, each)]
        if not any(port == server.port for each in selected for _, port in each.ports):
            raise _dangling(
                server.meta, f"Server `{server.meta.name}`", f"port {server.port} of any workload"
            )
    for route in resources.routes:
        for ref in route.servers:
            _need(resources, ref, route.meta, f"{route.kind} `{route.meta.name}`")
    for policy in resources.policies:
        name = f"AuthorizationPolicy `{policy.meta.name}`"
        if policy.target.kind != "Namespace":
            _need(resources, policy.target, policy.meta, name)
        for ref in policy.authentications:
            if ref.kind != "ServiceAccount":
                _need(resources, ref, policy.meta, name)
    return resources


def default_server(name: str, *, opaque: bool = False) -> Any:
    """What a port without a Server gets: `name` is one of DEFAULT_POLICIES."""
    return inbound_pb2.Server(
        protocol=_protocol("opaque" if opaque else "unknown", [], []),
        authorizations=_default_authorizations(name),
        labels={"group": "", "kind": "default", "name": name},
    )


def default_policy(resources: LinkerdResources, namespace: str) -> str:
    return next((each.default_policy for each in _namespaces(resources, namespace)), DEFAULT_POLICIES[0])


def server_for(resources: LinkerdResources, workload: Workload, port: int, trust_domain: str) -> Any:
    """What WatchPort answers for one port of one workload. Raises MW420 when two Servers claim it."""
    found = [server for server in resources.servers if server.port == port and selects(server, workload)]
    if not found:
        opaque = is_opaque(resources, workload.namespace, port)
        return default_server(default_policy(resources, workload.namespace), opaque=opaque)
    server, *others = found
    if others:
        raise _dangling(
            others[0].meta, f"Server `{others[0].meta.name}`", "a port that no other Server claims"
        )
    translate = _Translation(resources, trust_domain)
    routes = sorted(
        (route for route in resources.routes if any(_is(ref, server.meta) for ref in route.servers)),
        key=lambda route: route.meta.name,
    )
    return inbound_pb2.Server(
        protocol=_protocol(
            server.protocol,
            [translate.http_route(route) for route in routes if route.kind == "HTTPRoute"],
            [translate.grpc_route(route) for route in routes if route.kind == "GRPCRoute"],
        ),
        authorizations=[
            *translate.authorizations("Server", server.meta),
            *translate.authorizations("Namespace", Meta(server.meta.namespace, server.meta.namespace)),
            *_default_authorizations(server.access),
        ],
        labels={"group": POLICY, "kind": "server", "name": server.meta.name},
    )


def _protocol(kind: str, http: list[Any], grpc: list[Any]) -> Any:
    proxy = inbound_pb2.ProxyProtocol
    match kind:
        case "HTTP/1":
            return proxy(http1=proxy.Http1(routes=http))
        case "HTTP/2":
            return proxy(http2=proxy.Http2(routes=http))
        case "gRPC":
            return proxy(grpc=proxy.Grpc(routes=grpc))
        case "opaque":
            return proxy(opaque=proxy.Opaque())
        case _:
            return proxy(detect=proxy.Detect(timeout=wire.duration(DETECT_TIMEOUT_S), http_routes=http))


def _default_authorizations(name: str) -> list[Any]:
    """Mirrors `defaults.rs`: networks by the first word, authentication by the second."""
    if name == "deny":
        return []
    networks = CLUSTER_NETWORKS if name.startswith("cluster") else wire.EVERY_NETWORK
    authentication = _permit_any_identity() if name.endswith("-authenticated") else _permit_everyone()
    return [
        inbound_pb2.Authz(
            networks=[wire.network(cidr) for cidr in networks],
            authentication=authentication,
            labels={"group": "", "kind": "default", "name": name},
            metadata=wire.default(name),
        )
    ]


def _permit_everyone() -> Any:
    return inbound_pb2.Authn(unauthenticated=inbound_pb2.Authn.PermitUnauthenticated())


def _permit_any_identity() -> Any:
    return _permit([], [inbound_pb2.IdentitySuffix()])


def _permit(names: Sequence[str], suffixes: Sequence[Any]) -> Any:
    clients = inbound_pb2.Authn.PermitMeshTLS.PermitClientIdentities(
        identities=[inbound_pb2.Identity(name=name) for name in names], suffixes=suffixes
    )
    return inbound_pb2.Authn(meshTLS=inbound_pb2.Authn.PermitMeshTLS(identities=clients))


class _Translation:
    """One set of resources in one trust domain."""

    def __init__(self, resources: LinkerdResources, trust_domain: str) -> None:
        self._resources = resources
        self._trust_domain = trust_domain

    def http_route(self, route: Route) -> Any:
        message = inbound_pb2.HttpRoute
        return message(
            metadata=wire.resource(route.group, route.kind, route.meta.name, route.meta.namespace),
            authorizations=self.authorizations(route.kind, route.meta),
            rules=[message.Rule(matches=[_http_match(match) for match in rule]) for rule in route.rules],
        )

    def grpc_route(self, route: Route) -> Any:
        message = inbound_pb2.GrpcRoute
        return message(
            metadata=wire.resource(route.group, route.kind, route.meta.name, route.meta.namespace),
            authorizations=self.authorizations(route.kind, route.meta),
            rules=[message.Rule(matches=[_grpc_match(match) for match in rule]) for rule in route.rules],
        )

    def authorizations(self, kind: str, target: Meta) -> list[Any]:
        """Of all policies that target this resource, by name."""
        policies = self._resources.policies_on.get(Ref(kind, target.name, target.namespace), ())
        return [self._authorization(policy) for policy in policies]

    def _authorization(self, policy: AuthorizationPolicy) -> Any:
        """All required authentications must hold: at most one says who, at most one says from where."""
        networks: tuple[Network, ...] = _ALL
        identities: list[Ref] = []
        for ref in policy.authentications:
            if ref.kind == "NetworkAuthentication":
                networks = self._resources.named[ref].networks
            else:
                identities.append(ref)
        if len(identities) > 1 or len(policy.authentications) - len(identities) > 1:
            raise messages.RESOURCE_BEYOND.error(
                policy.meta.where,
                what=f"AuthorizationPolicy {policy.meta.name}",
                reason="two authentications of one kind cannot both be required",
                understood="one MeshTLSAuthentication or ServiceAccount, and one NetworkAuthentication",
            )
        name = policy.meta.name
        return inbound_pb2.Authz(
            networks=[wire.network(each.cidr, each.excepted) for each in networks],
            authentication=self._authentication(identities[0]) if identities else _permit_everyone(),
            labels={"group": POLICY, "kind": "authorizationpolicy", "name": name},
            metadata=wire.resource(POLICY, "authorizationpolicy", name, policy.meta.namespace),
        )

    def _authentication(self, ref: Ref) -> Any:
        if ref.kind == "ServiceAccount":
            return _permit([identity_name(ref.namespace, ref.name, self._trust_domain)], [])
        found = self._resources.named[ref]
        names = [name for name in found.identities if not name.startswith("*")]
        suffixes = [
            name[2:].split(".") if name[1:] else [] for name in found.identities if name.startswith("*")
        ]
        for each in found.refs:
            if each.kind == "ServiceAccount":
                names.append(identity_name(each.namespace, each.name, self._trust_domain))
            else:
                suffix = f"{each.name}.serviceaccount.{identity_suffix(self._trust_domain)}"
                suffixes.append(suffix.split("."))
        return _permit(names, [inbound_pb2.IdentitySuffix(parts=parts) for parts in suffixes])


def _http_match(match: RouteMatch) -> Any:
    path = match.path if match.path is not None else "/"
    kind = {"Exact": "exact", "PathPrefix": "prefix", "RegularExpression": "regex"}[match.path_type]
    method = http_types_pb2.HttpMethod
    return http_route_pb2.HttpRouteMatch(
        path=http_route_pb2.PathMatch(**{kind: path}),
        headers=[_header(each) for each in match.headers],
        method=method(registered=method.Registered.Value(match.method)) if match.method else None,
    )


def _grpc_match(match: RouteMatch) -> Any:
    return grpc_route_pb2.GrpcRouteMatch(
        rpc=grpc_route_pb2.GrpcRpcMatch(service=match.service, method=match.rpc),
        headers=[_header(each) for each in match.headers],
    )


def _header(header: HeaderMatch) -> Any:
    if header.regex:
        return http_route_pb2.HeaderMatch(name=header.name, regex=header.value)
    return http_route_pb2.HeaderMatch(name=header.name, exact=header.value.encode())


# --- finding ---------------------------------------------------------------------------------------


def selects(server: Server, workload: Workload) -> bool:
    return (
        server.meta.namespace == workload.namespace and server.labels.items() <= labels_of(workload).items()
    )


def _is(ref: Ref, meta: Meta) -> bool:
    return (ref.namespace, ref.name) == (meta.namespace, meta.name)


def _need(resources: LinkerdResources, ref: Ref, meta: Meta, who: str) -> None:
    if ref not in resources.named:
        raise _dangling(meta, who, f"{ref.kind} `{ref.namespace}/{ref.name}`")


def _dangling(meta: Meta, who: str, what: str) -> Exception:
    return messages.DANGLING_REFERENCE.error(meta.where, who=who, what=what)


def _namespaces(resources: LinkerdResources, name: str) -> list[Namespace]:
    return [each for each in resources.namespaces if each.meta.name == name]


def is_opaque(resources: LinkerdResources, namespace: str, port: int) -> bool:
    """Whether proxies pass this port's bytes on without looking at them: by the namespace's word, which
    replaces Linkerd's own list (controller/api/util, `opaquePorts` annotation), or by that list."""
    given = [each.opaque_ports for each in _namespaces(resources, namespace) if each.opaque_ports is not None]
    return port in (given[0] if given else DEFAULT_OPAQUE_PORTS)


def identity_withheld(resources: LinkerdResources, workload: Workload) -> bool:
    """Whether endpoints of this workload are announced without a TLS identity."""
    return any(each.withholds(workload.name) for each in _namespaces(resources, workload.namespace))
