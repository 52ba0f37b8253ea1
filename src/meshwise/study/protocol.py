"""Protocols, their layer, and the ports on which workloads serve them. `study.model` shows them."""

from __future__ import annotations

from enum import StrEnum


class Layer(StrEnum):
    """What a proxy reads of the traffic: connections only (L4), or requests (L7)."""

    L4 = "l4"
    L7 = "l7"


class Protocol(StrEnum):
    HTTP1 = "http1"
    HTTP2 = "http2"
    GRPC = "grpc"
    TCP = "tcp"
    """A framed echo over opaque TCP."""

    @property
    def layer(self) -> Layer:
        return Layer.L4 if self is Protocol.TCP else Layer.L7


SERVICE_PORTS: dict[Protocol, int] = {
    Protocol.HTTP1: 8080, Protocol.HTTP2: 8081, Protocol.GRPC: 8082, Protocol.TCP: 8083,
}  # fmt: skip
"""Every workload serves every protocol, each on its own declared port, so that a change of protocol
needs no restart. Port names follow Istio's rule: `http`, `http2`, `grpc`, `tcp`."""


class Streaming(StrEnum):
    """Which side of a gRPC call sends more than one message."""

    NONE = "none"
    CLIENT = "client"
    SERVER = "server"
    BIDI = "bidi"
    """Both, in turn: a message goes up when the one before it is answered."""
