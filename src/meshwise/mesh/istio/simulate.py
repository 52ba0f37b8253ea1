"""A call walks the generated configuration, as a packet would, and ends at a cluster or a named refusal.

The second depth of proof. Pure: configuration, call and time in; the end of the walk out. It knows what
Envoy does with what we generate, and refuses (`Unknown`) what we do not generate, so it cannot silently
pass a configuration that it was not written for.

Mirrors, as an idea, istio's pilot/pkg/simulation. Envoy's rules: filter chain match (api
config/listener/v3/listener_components.proto: destination port first, then transport protocol, then ALPN, the
most specific wins), RBAC (source/extensions/filters/common/rbac), transport socket match.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from meshwise.mesh.delivery.seam import ProxyConfig
from meshwise.mesh.istio import alpn as offers
from meshwise.mesh.istio import inspectors, jwt_places, paths, rbac_walk
from meshwise.mesh.istio.view import Json
from meshwise.mesh.tokens import verify


@dataclass(frozen=True)
class Certificate:
    """A client's certificate: its name, and whether the mesh's own authority has signed it."""

    spiffe_id: str
    trusted: bool = True


@dataclass(frozen=True)
class HttpRequest:
    method: str
    path: str
    authority: str
    headers: Mapping[str, str]


@dataclass(frozen=True)
class InboundConnection:
    """What arrives at a server's pod. `tls` False is plaintext; `alpn` is what the client offers, or in
    plaintext what an inspector would find (`http/1.1`, `h2c`)."""

    port: int
    tls: bool
    alpn: tuple[str, ...]
    certificate: Certificate | None = None
    server_names: tuple[str, ...] | None = None
    """What the client accepts as the server's identity; None: anything."""
    source_ip: str = "0.0.0.0"
    destination_ip: str = "0.0.0.0"
    server_name: str = ""
    """Asked for in TLS (SNI)."""


@dataclass(frozen=True)
class Reached:
    """The end: this cluster gets the request. `path` is the way, for a person to read."""

    cluster: str
    way: tuple[str, ...] = ()
    tls: bool = False
    """The application gets the caller's TLS as it came; no one on the way has ended it."""


@dataclass(frozen=True)
class Refused:
    """The end: refused, by what. `reason` is one of `REASONS`."""

    reason: str
    way: tuple[str, ...] = ()


NO_CHAIN = "no filter chain matches"
NOT_HTTP = "TLS to a chain that reads plaintext"
NO_CERTIFICATE = "no client certificate"
UNTRUSTED = "client certificate not trusted"
WRONG_SERVER = "server's identity is not the expected one"
BAD_TOKEN = "token not valid"
DENIED = "denied by RBAC"
NO_ROUTE = "no route for the host"
REASONS = (NO_CHAIN, NOT_HTTP, NO_CERTIFICATE, UNTRUSTED, WRONG_SERVER, BAD_TOKEN, DENIED, NO_ROUTE)

End = Reached | Refused


class Unknown(Exception):
    """The configuration holds something whose effect is not known here."""


@dataclass(frozen=True)
class OutboundRoute:
    """How a client's sidecar leaves for a call: the cluster, the address, the connection that it makes."""

    cluster: str
    address: tuple[str, int]
    connection: InboundConnection
    way: tuple[str, ...] = field(default=())


# --- the server's side ---------------------------------------------------------------------------


def arrive(
    config: ProxyConfig, connection: InboundConnection, request: HttpRequest, server_id: str, now_s: float
) -> End:
    """A connection to a server's pod, and the request on it. `server_id`: who the server is."""
    listener = _named(config.listeners, "virtualInbound")
    chain = match_chain(listener, connection)
    if chain is None:
        return Refused(NO_CHAIN)
    way = (f"virtualInbound/{chain['name']}",)
    if "transport_socket" in chain:
        refusal = _handshake(chain["transport_socket"], connection, server_id)
        if refusal:
            return Refused(refusal, way)
    elif connection.tls and _http_manager(chain) is not None:
        return Refused(NOT_HTTP, way)
    manager = _http_manager(chain)
    if manager is None:
        return _tcp(chain, connection, way)
    peer = connection.certificate.spiffe_id if connection.tls and connection.certificate else None
    return _http(manager, request, connection, peer, now_s, way)


def match_chain(listener: Json, connection: InboundConnection) -> Json | None:
    """Envoy's order: destination port, transport protocol, application protocols; exact before any."""
    # An inspector that is switched off for the port leaves its property unknown.
    sees_tls = inspectors.inspects(listener, "tls_inspector", connection.port)
    transport = "tls" if connection.tls and sees_tls else "raw_buffer"
    alpn: tuple[str, ...] = ()
    if transport == "tls" or (
        not connection.tls and inspectors.inspects(listener, "http_inspector", connection.port)
    ):
        alpn = connection.alpn
    candidates = _most_specific(listener["filter_chains"], "destination_port", connection.port)
    by_transport = _most_specific(candidates, "transport_protocol", transport)
    for wanted in alpn:
        for chain in by_transport:
            if wanted in chain["filter_chain_match"].get("application_protocols", ()):
                return chain
    for chain in by_transport:
        if not chain["filter_chain_match"].get("application_protocols"):
            return chain
    default: Json | None = listener.get("default_filter_chain")
    return default


def _most_specific(chains: Sequence[Json], criterion: str, value: object) -> list[Json]:
    """Those that name this value; only when there are none, those that do not ask."""
    named = [chain for chain in chains if chain["filter_chain_match"].get(criterion) == value]
    return named or [chain for chain in chains if criterion not in chain["filter_chain_match"]]


def _handshake(socket: Json, connection: InboundConnection, server_id: str) -> str | None:
    config = socket["typed_config"]
    if not config.get("require_client_certificate"):
        raise Unknown("a server that asks for no certificate")
    if connection.certificate is None:
        return NO_CERTIFICATE
    context = config["common_tls_context"]["combined_validation_context"]["default_validation_context"]
    matchers = [each["matcher"] for each in context["match_typed_subject_alt_names"]]
    named = any(rbac_walk.text_matches(each, connection.certificate.spiffe_id) for each in matchers)
    if not connection.certificate.trusted or not named:
        return UNTRUSTED
    if connection.server_names is not None and server_id not in connection.server_names:
        return WRONG_SERVER
    return None


def _http(
    manager: Json, request: HttpRequest, connection: InboundConnection, peer: str | None, now_s: float,
    way: tuple[str, ...],
) -> End:  # fmt: skip
    claims: Mapping[str, object] = {}
    if manager["normalize_path"]:
        request = replace(request, path=paths.normalised(request.path))
    for each in manager["http_filters"]:
        name, config = each["name"], each["typed_config"]
        if name == "envoy.filters.http.jwt_authn":
            found = _token(config, request, now_s)
            if found is None:
                return Refused(BAD_TOKEN, (*way, name))
            claims = found
        elif name == "envoy.filters.http.rbac":
            if not rbac_walk.passes(config, _facts(connection, peer, request, claims)):
                return Refused(DENIED, (*way, name))
        elif name not in _HARMLESS:
            raise Unknown(name)
    host = request.authority.partition(":")[0]
    return _route(manager["route_config"], host, way)


_HARMLESS = {
    f"envoy.filters.http.{name}" for name in ("grpc_stats", "fault", "cors", "router", "set_filter_state")
}


def _facts(
    connection: InboundConnection, peer: str | None, request: HttpRequest, claims: Mapping[str, object]
) -> rbac_walk.Facts:
    """What RBAC sees. The original caller is who the last proxy before this one names, where one does."""
    headers = {name.lower(): value for name, value in request.headers.items()}
    told = headers.get("x-forwarded-for", "").rpartition(",")[2].strip()
    return rbac_walk.Facts(
        peer, connection.port, {**headers, ":method": request.method, ":authority": request.authority},
        request.path, claims, connection.source_ip, told or connection.source_ip, connection.destination_ip,
        connection.server_name if connection.tls else "",
    )  # fmt: skip


def _token(config: Json, request: HttpRequest, now_s: float) -> Mapping[str, object] | None:
    """The claims; none for a missing token (which passes); None for one that is not valid."""
    refused = False
    for provider in config["providers"].values():
        found = [
            verify(token, provider["local_jwks"]["inline_string"], now_s)
            for token in jwt_places.tokens(provider, request.path, request.headers)
        ]
        if found and all(claims and _meant_for(provider, claims) for claims in found):
            return found[0]
        refused = refused or bool(found)
    return None if refused else {}


def _meant_for(provider: Json, claims: Mapping[str, object]) -> bool:
    asked, audiences = claims.get("aud", ()), provider.get("audiences")
    named = {asked} if isinstance(asked, str) else set(asked) if isinstance(asked, list) else set()
    return claims.get("iss") == provider["issuer"] and (not audiences or not named.isdisjoint(audiences))


def _tcp(chain: Json, connection: InboundConnection, way: tuple[str, ...]) -> End:
    ended = "transport_socket" in chain
    for each in chain["filters"]:
        name, config = each["name"], each["typed_config"]
        if name == "envoy.filters.network.rbac":
            known = connection.certificate if ended else None
            peer = known.spiffe_id if known else None
            if not rbac_walk.passes(config, _facts(connection, peer, HttpRequest("", "", "", {}), {})):
                return Refused(DENIED, (*way, name))
        elif name == "envoy.filters.network.tcp_proxy":
            return Reached(config["cluster"], (*way, name), tls=connection.tls and not ended)
    raise Unknown("a TCP chain without an end")


# --- the client's side ---------------------------------------------------------------------------


def leave(
    config: ProxyConfig, address: str, port: int, request: HttpRequest, identity: Certificate, alpn: str
) -> OutboundRoute | Refused:
    """An application's plaintext connection to `address:port` through its own sidecar."""
    listener = _handed_over(config.listeners, address, port)
    way = (listener["name"],)
    opened = InboundConnection(port, tls=False, alpn=(alpn,))
    chain = match_chain(listener, opened)
    if chain is None:
        return Refused(NO_CHAIN, way)
    manager = _http_manager(chain)
    if manager is None:
        end = _tcp(chain, opened, way)
        if isinstance(end, Refused):
            return end
        return _through(config, end, (address, port), identity, (), alpn)
    table = config.routes[int(manager["rds"]["route_config_name"])]
    end = _route(table, request.authority.partition(":")[0], way)
    if isinstance(end, Refused):
        return end
    host = next(each for each in table["virtual_hosts"] if each["name"] == end.way[-1])
    override = offers.offered(manager, host)
    names = tuple(filter(None, override.split(",")))
    return _through(config, end, (address, port), identity, names, alpn)


def _through(
    config: ProxyConfig,
    end: Reached,
    original: tuple[str, int],
    identity: Certificate,
    override: tuple[str, ...],
    plain_alpn: str,
) -> OutboundRoute | Refused:
    """The connection that the cluster at the end of the walk makes."""
    way = end.way
    cluster = next((each for each in config.clusters if each["name"] == end.cluster), None)
    if cluster is None:
        return Refused(NO_ROUTE, way)
    if cluster["type"] == "ORIGINAL_DST":
        return OutboundRoute(
            cluster["name"], original, InboundConnection(original[1], False, (plain_alpn,)), way
        )
    assigned = next(each for each in config.endpoints if each["cluster_name"] == cluster["name"])
    endpoint = assigned["endpoints"][0]["lb_endpoints"][0]
    place = endpoint["endpoint"]["address"]["socket_address"]
    socket = _socket_for(cluster, endpoint)
    connection = InboundConnection(
        place["port_value"], tls=False, alpn=(plain_alpn,), destination_ip=place["address"]
    )
    if socket and socket["name"] == "envoy.transport_sockets.tls":
        common = socket["typed_config"]["common_tls_context"]
        names = common["combined_validation_context"]["default_validation_context"]
        connection = replace(
            connection,
            tls=True,
            alpn=override or tuple(common["alpn_protocols"]),
            certificate=identity,
            server_names=tuple(each["matcher"]["exact"] for each in names["match_typed_subject_alt_names"]),
            server_name=socket["typed_config"]["sni"],
        )
    return OutboundRoute(cluster["name"], (place["address"], place["port_value"]), connection, way)


def _socket_for(cluster: Json, endpoint: Json) -> Json | None:
    labels = endpoint.get("metadata", {}).get("filter_metadata", {}).get("envoy.transport_socket_match", {})
    for each in cluster.get("transport_socket_matches", ()):
        if each["match"].items() <= labels.items():
            socket: Json = each["transport_socket"]
            return socket
    return cluster.get("transport_socket")


# --- parts -----------------------------------------------------------------------------------------


def _handed_over(listeners: Sequence[Json], address: str, port: int) -> Json:
    """Whom virtualOutbound hands a connection to: the listener of that address, else of that port, else
    it keeps it."""
    for wanted in (address, "0.0.0.0"):
        place = {"address": wanted, "port_value": port}
        for each in listeners:
            if not each.get("bind_to_port", True) and each["address"]["socket_address"] == place:
                return each
    return _named(listeners, "virtualOutbound")


def _route(table: Json, host: str, way: tuple[str, ...]) -> End:
    hosts = [each for each in table["virtual_hosts"] if host in each["domains"]]
    hosts += [each for each in table["virtual_hosts"] if "*" in each["domains"]]
    if not hosts:
        return Refused(NO_ROUTE, way)
    route = hosts[0]["routes"][0]
    if route["match"] != {"prefix": "/"}:
        raise Unknown(f"route match {route['match']}")
    way = (*way, hosts[0]["name"])
    return Reached(route["route"]["cluster"], way) if "route" in route else Refused(NO_ROUTE, way)


def _http_manager(chain: Json) -> Json | None:
    for each in chain["filters"]:
        if each["name"] == "envoy.filters.network.http_connection_manager":
            config: Json = each["typed_config"]
            return config
    return None


def _named(listeners: Sequence[Json], name: str) -> Json:
    return next(each for each in listeners if each["name"] == name)
