"""From placed workloads to what outbound Watch, Get and GetProfile answer. Pure.

Mirrors linkerd2: `policy-controller/grpc/src/outbound.rs` (a Service without routes of its own) and
`controller/api/destination/endpoint_translator.go` (a meshed pod), with the chart's defaults.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from meshwise.mesh.linkerd import wire
from meshwise.mesh.linkerd.names import DETECT_TIMEOUT_S, INBOUND_PORT, identity_of
from meshwise.mesh.linkerd.proto import destination_pb2, outbound_pb2, snapshot_pb2
from meshwise.mesh.seam import PlacedWorkload, Placement

QUEUE_CAPACITY = 100
FAILFAST_S = 3
EWMA_DEFAULT_RTT_S = 0.03
EWMA_DECAY_S = 10
WEIGHT = 10000
KEEP_ALIVE_INTERVAL_S, KEEP_ALIVE_TIMEOUT_S = 10, 3


@dataclass(frozen=True)
class Transport:
    """How one sidecar reaches another; the defaults are the Helm chart's."""

    http2_upgrade: bool = True
    """HTTP/1 between sidecars travels over HTTP/2 (`--enable-h2-upgrade`)."""
    transport_header: bool = True
    """The peer's inbound port is dialled and a header names the real one (`outboundTransportMode`)."""


@dataclass(frozen=True)
class Port:
    """One port of one workload. `tls`: its endpoints are announced with their identity."""

    placed: PlacedWorkload
    number: int
    tls: bool
    opaque: bool


def service(here: Port, placement: Placement, transport: Transport) -> Any:
    """All that is said about one port of one service."""
    placed, port = here.placed, here.number
    host, namespace = placed.workload.host, placed.workload.namespace
    authority = f"{host}:{port}"
    metadata = wire.resource("core", "Service", placed.name, namespace, port)
    return snapshot_pb2.Service(
        address=wire.tcp_address(placed.service_ip, port),
        authority=authority,
        policy=outbound_pb2.OutboundPolicy(protocol=_protocol(here, authority, metadata), metadata=metadata),
        endpoints=destination_pb2.WeightedAddrSet(
            addrs=[_endpoint(here, placement, transport)],
            metric_labels={"namespace": namespace, "service": placed.name},
        ),
        profile=destination_pb2.DestinationProfile(
            fully_qualified_name=host, parent_ref=metadata, opaque_protocol=here.opaque
        ),
    )


def _protocol(here: Port, authority: str, metadata: Any) -> Any:
    """Protocol detection, as for a port without `appProtocol`, or opaque; each with its default route."""
    http, opaque, proxy = outbound_pb2.HttpRoute, outbound_pb2.OpaqueRoute, outbound_pb2.ProxyProtocol
    backend = _balancer(authority, metadata)
    http_route = http(
        metadata=wire.default("http"),
        rules=[http.Rule(matches=[_any_path()], backends=_first(http, backend))],
    )
    opaque_route = opaque(
        metadata=wire.default("opaque"), rules=[opaque.Rule(backends=_first(opaque, backend))]
    )
    if here.opaque:
        return proxy(opaque=proxy.Opaque(routes=[opaque_route]))
    return proxy(
        detect=proxy.Detect(
            timeout=wire.duration(DETECT_TIMEOUT_S),
            opaque=proxy.Opaque(routes=[opaque_route]),
            http1=proxy.Http1(routes=[http_route]),
            http2=proxy.Http2(routes=[http_route]),
        )
    )


def _any_path() -> Any:
    match = outbound_pb2.HttpRoute.Rule().matches.add()
    match.path.prefix = "/"
    return match


def _first(route: Any, backend: Any) -> Any:
    available = route.Distribution.FirstAvailable(backends=[route.RouteBackend(backend=backend)])
    return route.Distribution(first_available=available)


def _balancer(authority: str, metadata: Any) -> Any:
    message = outbound_pb2.Backend
    discovery = message.EndpointDiscovery(dst=message.EndpointDiscovery.DestinationGet(path=authority))
    ewma = message.BalanceP2c.PeakEwma(
        default_rtt=wire.duration(EWMA_DEFAULT_RTT_S), decay=wire.duration(EWMA_DECAY_S)
    )
    return message(
        metadata=metadata,
        balancer=message.BalanceP2c(discovery=discovery, peak_ewma=ewma),
        queue=outbound_pb2.Queue(capacity=QUEUE_CAPACITY, failfast_timeout=wire.duration(FAILFAST_S)),
    )


def _endpoint(here: Port, placement: Placement, transport: Transport) -> Any:
    placed, workload = here.placed, here.placed.workload
    hint = destination_pb2.ProtocolHint()
    if here.opaque:
        hint.opaque.SetInParent()
    elif transport.http2_upgrade:
        hint.h2.SetInParent()
    # A proxy looks for no TLS on an opaque port, so there the header is the only way to mesh TLS.
    if here.tls and (transport.transport_header or here.opaque):
        hint.opaque_transport.inbound_port = INBOUND_PORT
    message = destination_pb2.WeightedAddr(
        addr=wire.tcp_address(placed.pod_ip, here.number),
        weight=WEIGHT,
        metric_labels={
            "control_plane_ns": "linkerd",
            "pod": placed.name,
            "serviceaccount": workload.service_account,
        },
        protocol_hint=hint,
        http2=destination_pb2.Http2ClientParams(
            keep_alive=destination_pb2.Http2ClientParams.KeepAlive(
                interval=wire.duration(KEEP_ALIVE_INTERVAL_S),
                timeout=wire.duration(KEEP_ALIVE_TIMEOUT_S),
                while_idle=True,
            )
        ),
    )
    if here.tls:
        name = identity_of(workload, placement)
        message.tls_identity.dns_like_identity.name = name
        message.tls_identity.server_name.name = name
    return message
