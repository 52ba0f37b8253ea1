"""Listeners: virtualInbound, virtualOutbound, and outbound one per HTTP port or per address of a TCP service.

Mirrors pilot/pkg/networking/core/listener_inbound.go, listener_builder.go, listener.go and
filterchain_options.go (which chains a port gets in which mTLS mode).
"""

from __future__ import annotations

from collections.abc import Sequence

from meshwise.mesh.istio import authorization, connection_manager, inspectors, native, tls
from meshwise.mesh.istio.clusters import INBOUND_PASSTHROUGH
from meshwise.mesh.istio.routes import BLACK_HOLE, PASSTHROUGH, inbound_cluster, outbound_cluster
from meshwise.mesh.istio.view import Json, Service, View
from meshwise.study.model import Layer, MtlsMode

INBOUND_PORT = 15006
OUTBOUND_PORT = 15001

_CONNECT_TIMEOUT = "15s"
"""For the handshake of what a client's application opens; on plaintext, which it is, it ends at once."""


def all_listeners(view: View, owner: Service) -> list[Json]:
    """Everything that LDS delivers to the owner's proxy."""
    visible = view.visible_to(owner)
    return [
        virtual_inbound(view, owner),
        virtual_outbound(view, owner),
        *(outbound_http(view, owner, port) for port in http_ports(visible)),
        *(
            outbound_tcp(view, service, port)
            for service in visible
            for port in sorted(service.ports)
            if _is_opaque(service, port)
        ),
    ]


def http_ports(services: Sequence[Service]) -> list[int]:
    """Ports on which any of them carries requests, in order."""
    return sorted({port for service in services for port in service.ports if not _is_opaque(service, port)})


def _is_opaque(service: Service, port: int) -> bool:
    return service.ports[port].layer is Layer.L4


# --- inbound -----------------------------------------------------------------------------------


def virtual_inbound(view: View, service: Service) -> Json:
    security = connection_manager.security_filters(view, service)
    chains = [
        _black_hole(
            "virtualInbound-blackhole", INBOUND_PORT, [*_exchange(view), *_tcp_stats(view, inbound=True)]
        ),
        *(
            chain
            for at in (None, *(each for each in view.ports_of_modes(service) if each not in service.ports))
            for chain in _undeclared_chains(view, service, security, at)
        ),
    ]
    for port in sorted(service.ports):
        chains += _port_chains(view, service, port, security)
    return {
        "name": "virtualInbound",
        "address": _any_address(INBOUND_PORT),
        "traffic_direction": "INBOUND",
        "listener_filters": inspectors.of_inbound(chains),
        "listener_filters_timeout": "0s",
        "continue_on_listener_filters_timeout": True,
        "max_connections_to_accept_per_socket_event": 1,
        "filter_chains": chains,
    }


def _port_chains(view: View, service: Service, port: int, security: Sequence[Json]) -> list[Json]:
    """A port with a declared protocol: the chains are the same for all, what is in them is not."""
    mode = view.mode_for(service, port)
    opaque = _is_opaque(service, port)
    if opaque:
        network = [*_exchange(view), *_tcp_security(view, service), _tcp_proxy(inbound_cluster(port))]
    else:
        manager = connection_manager.inbound(view, service, port, inbound_cluster(port), security)
        network = [*_exchange(view), manager]
    secure = tls.downstream(view, http=not opaque)

    def chain(match: Json, socket: Json | None = None) -> Json:
        return _chain(view, f"0.0.0.0_{port}", {"destination_port": port, **match}, network, socket)

    if mode is MtlsMode.STRICT:
        return [chain({"transport_protocol": "tls"}, secure)]
    raw = chain({"transport_protocol": "raw_buffer"})
    if mode is MtlsMode.DISABLE:
        return [raw]
    mutual = {"transport_protocol": "tls", "application_protocols": list(tls.MESH_ALPN)}
    # TLS that is not the mesh's own may be the application's; only an opaque port can pass it on.
    foreign = [chain({"transport_protocol": "tls"})] if opaque else []
    return [chain(mutual, secure), *foreign, raw]


def _tcp_security(view: View, service: Service) -> list[Json]:
    """What an inbound chain that reads no HTTP has before its tcp_proxy."""
    filters = authorization.tcp_filters(view.policies_for(service), view.trust_domain)
    return [*filters, *_tcp_stats(view, inbound=True)]


def _undeclared_chains(
    view: View, service: Service, security: Sequence[Json], port: int | None
) -> list[Json]:
    """A port that no service declares: the protocol is found out, the destination is whatever was asked for.
    `port`: one that has an mTLS mode of its own; None: every other."""
    mode = view.mode_for(service, port)
    at = {"destination_port": port} if port else {}
    manager = connection_manager.inbound(view, service, 0, INBOUND_PASSTHROUGH, security)
    http = [*_exchange(view), manager]
    tcp = [*_exchange(view), *_tcp_security(view, service), _tcp_proxy(INBOUND_PASSTHROUGH)]
    secure_http, secure_tcp = tls.downstream(view, http=True), tls.downstream(view, http=False)
    plain_http = {"transport_protocol": "raw_buffer", "application_protocols": list(tls.PLAIN_ALPN)}
    mesh_http = {"transport_protocol": "tls", "application_protocols": list(tls.HTTP_ALPN)}

    def for_http(match: Json, socket: Json | None = None) -> Json:
        return _chain(view, "virtualInbound-catchall-http", {**at, **match}, http, socket)

    def for_tcp(match: Json, socket: Json | None = None) -> Json:
        return _chain(view, "virtualInbound", {**at, **match}, tcp, socket)

    if mode is MtlsMode.STRICT:
        return [for_http(mesh_http, secure_http), for_tcp({"transport_protocol": "tls"}, secure_tcp)]
    if mode is MtlsMode.DISABLE:
        return [for_http(plain_http), for_tcp({"transport_protocol": "raw_buffer"})]
    mesh_tcp = {"transport_protocol": "tls", "application_protocols": list(tls.TCP_ALPN)}
    return [
        for_http(mesh_http, secure_http),
        for_http(plain_http),
        for_tcp(mesh_tcp, secure_tcp),
        for_tcp({"transport_protocol": "raw_buffer"}),
        for_tcp({"transport_protocol": "tls"}),
    ]


def _exchange(view: View) -> list[Json]:
    """Istio's metadata exchange of connections, first in every inbound chain of a binary that has it."""
    name = view.options.native.tcp_metadata if view.options.telemetry else None
    return [native.tcp_metadata(name)] if name else []


def _tcp_stats(view: View, *, inbound: bool) -> list[Json]:
    name = view.options.native.tcp_stats if view.options.telemetry else None
    return [native.stats(name, inbound=inbound)] if name else []


# --- outbound ----------------------------------------------------------------------------------


def virtual_outbound(view: View, client: Service) -> Json:
    return {
        "name": "virtualOutbound",
        "address": _any_address(OUTBOUND_PORT),
        "traffic_direction": "OUTBOUND",
        "use_original_dst": True,
        "max_connections_to_accept_per_socket_event": 1,
        "filter_chains": [
            _black_hole("virtualOutbound-blackhole", OUTBOUND_PORT, _tcp_stats(view, inbound=False)),
            {
                "name": "virtualOutbound-catchall-tcp",
                "filter_chain_match": {},
                "filters": _elsewhere(view, client),
            },
        ],
    }


def outbound_http(view: View, client: Service, port: int) -> Json:
    """Shared by all services of the port; virtualOutbound hands it the connections to that port."""
    return {
        "name": f"0.0.0.0_{port}",
        "address": _any_address(port),
        "bind_to_port": False,
        "traffic_direction": "OUTBOUND",
        "listener_filters": [inspectors.http()],
        "listener_filters_timeout": "0s",
        "continue_on_listener_filters_timeout": True,
        "filter_chains": [
            {
                "filter_chain_match": {
                    "transport_protocol": "raw_buffer",
                    "application_protocols": list(tls.PLAIN_ALPN),
                },
                "filters": [connection_manager.outbound(view, client, port)],
                "transport_socket_connect_timeout": _CONNECT_TIMEOUT,
            }
        ],
        "default_filter_chain": {
            "name": "PassthroughFilterChain",
            "filter_chain_match": {},
            "filters": _elsewhere(view, client),
        },
    }


def _elsewhere(view: View, client: Service) -> list[Json]:
    """What is not for a service: through, or to nowhere where a Sidecar allows only what is registered."""
    sidecar = view.sidecar_for(client)
    rest = BLACK_HOLE if sidecar and sidecar.registry_only else PASSTHROUGH
    return [*_tcp_stats(view, inbound=False), _tcp_proxy(rest)]


def outbound_tcp(view: View, service: Service, port: int) -> Json:
    """One for each address of a service: bytes name no host that could tell services apart."""
    network = [*_tcp_stats(view, inbound=False), _tcp_proxy(outbound_cluster(service, port))]
    return {
        "name": f"{service.service_ip}_{port}",
        "address": _address(service.service_ip, port),
        "bind_to_port": False,
        "traffic_direction": "OUTBOUND",
        "listener_filters_timeout": "0s",
        "continue_on_listener_filters_timeout": True,
        "filter_chains": [
            {
                "filter_chain_match": {},
                "filters": network,
                "transport_socket_connect_timeout": _CONNECT_TIMEOUT,
            }
        ],
    }


# --- parts -------------------------------------------------------------------------------------


def _chain(view: View, name: str, match: Json, filters: Sequence[Json], socket: Json | None) -> Json:
    chain: Json = {
        "name": name,
        "filter_chain_match": match,
        "filters": list(filters),
        "metadata": {"filter_metadata": {"meshwise": {"generation": view.generation}}},
    }
    return {**chain, "transport_socket": socket} if socket else chain


def _black_hole(name: str, port: int, before: Sequence[Json]) -> Json:
    """Stops a proxy from calling itself without end."""
    return {
        "name": name,
        "filter_chain_match": {"destination_port": port},
        "filters": [*before, _tcp_proxy(BLACK_HOLE)],
    }


def _tcp_proxy(cluster: str) -> Json:
    config = {
        "@type": "type.googleapis.com/envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy",
        "stat_prefix": cluster,
        "cluster": cluster,
    }
    return {"name": "envoy.filters.network.tcp_proxy", "typed_config": config}


def _any_address(port: int) -> Json:
    return _address("0.0.0.0", port)


def _address(ip: str, port: int) -> Json:
    return {"socket_address": {"address": ip, "port_value": port}}
