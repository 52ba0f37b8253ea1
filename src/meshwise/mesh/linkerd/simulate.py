"""The second depth: a call walks what a proxy is given, and ends allowed, denied or unmatched.

The rules are those of linkerd2-proxy (`linkerd/app/inbound/src/policy/http.rs`, `linkerd/http/route`): the
best route (path, then headers, then method), then the first authorization that holds, of the route's and
then the Server's.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class InboundRequest:
    """A request as it arrives. `identity` None: no client certificate; `tls`: the connection has TLS."""

    identity: str | None
    tls: bool
    method: str
    path: str
    headers: Mapping[str, str] = field(default_factory=dict)
    source: str = "10.244.1.1"


@dataclass(frozen=True)
class AuthorizationVerdict:
    allowed: bool
    route: str
    authorization: str
    """Empty when denied."""


def walk(server: Any, call: InboundRequest) -> AuthorizationVerdict:
    """What becomes of the call at a port with this Server."""
    kind = server.protocol.WhichOneof("kind")
    protocol = getattr(server.protocol, kind)
    routes = protocol.http_routes if kind == "detect" else () if kind == "opaque" else protocol.routes
    authorizations, name = list(server.authorizations), "default"
    if routes:
        ranked = [
            (rank, -number) for number, route in enumerate(routes) if (rank := _rank(route, call)) is not None
        ]
        if not ranked:
            return AuthorizationVerdict(False, "none", "")
        route = routes[-max(ranked)[1]]
        name = route.metadata.resource.name
        authorizations = [*route.authorizations, *authorizations]
    for authorization in authorizations:
        if _from(authorization, call.source) and _who(authorization.authentication, call):
            return AuthorizationVerdict(True, name, authorization.labels["name"])
    return AuthorizationVerdict(False, name, "")


def _rank(route: Any, call: InboundRequest) -> tuple[int, ...] | None:
    """How well the best match of the route fits; None when none does. A rule without matches fits all."""
    ranks: list[tuple[int, ...]] = []
    for rule in route.rules:
        if not rule.matches:
            ranks.append((0, 0, 0, 0))
        ranks += [rank for match in rule.matches if (rank := _match(match, call)) is not None]
    return max(ranks, default=None)


def _match(match: Any, call: InboundRequest) -> tuple[int, ...] | None:
    if hasattr(match, "rpc"):
        _, service, method = call.path.split("/")
        fits = (
            match.rpc.service in ("", service) and match.rpc.method in ("", method) and call.method == "POST"
        )
        path, asked = (1, len(match.rpc.service) + len(match.rpc.method)), 0
    else:
        kind = match.path.WhichOneof("kind")
        value = getattr(match.path, kind)
        fits = {
            "exact": call.path == value,
            "prefix": (call.path + "/").startswith(value.rstrip("/") + "/"),
            "regex": re.fullmatch(value, call.path) is not None,
        }[kind]
        path, asked = (2 if kind == "exact" else 1, len(value)), int(match.HasField("method"))
        if asked:
            fits &= match.method.Registered.Name(match.method.registered) == call.method
    for header in match.headers:
        given = call.headers.get(header.name)
        wanted = header.WhichOneof("value")
        fits &= given is not None and (
            given.encode() == header.exact
            if wanted == "exact"
            else re.fullmatch(header.regex, given) is not None
        )
    return (*path, len(match.headers), asked) if fits else None


def _from(authorization: Any, source: str) -> bool:
    address = ipaddress.IPv4Address(source)

    def within(net: Any) -> bool:
        if net.ip.WhichOneof("ip") == "ipv6":
            return False
        return address in ipaddress.IPv4Network((net.ip.ipv4, net.prefix_len))

    return any(
        within(network.net) and not any(map(within, getattr(network, "except")))
        for network in authorization.networks
    )


def _who(authentication: Any, call: InboundRequest) -> bool:
    if authentication.WhichOneof("permit") == "unauthenticated":
        return True
    clients = authentication.meshTLS
    if clients.WhichOneof("clients") == "unauthenticated":
        return call.tls
    if call.identity is None:
        return False
    labels = call.identity.split(".")
    return any(identity.name == call.identity for identity in clients.identities.identities) or any(
        not suffix.parts
        or (len(labels) > len(suffix.parts) and labels[-len(suffix.parts) :] == list(suffix.parts))
        for suffix in clients.identities.suffixes
    )
