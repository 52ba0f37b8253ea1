"""Calls a sidecar as another sidecar does: its own inbound port, mesh TLS, and a header that names the port.

For an opaque port there is no other way to mesh TLS, because a proxy looks for none there. The header
(linkerd2-proxy `linkerd/transport-header`): its name, a length of four bytes, and a message with the port.
"""

from __future__ import annotations

from dataclasses import replace

from meshwise.mesh.linkerd.names import TRANSPORT_PROTOCOL
from meshwise.mesh.probe import TlsAs


def to_port(tls: TlsAs, port: int) -> TlsAs:
    """The same caller on the proxy's own inbound port, for a port of the application."""
    return replace(tls, alpn=(TRANSPORT_PROTOCOL,), preface=header(port))


def header(port: int) -> bytes:
    message = b"\x08" + _varint(port)
    return f"{TRANSPORT_PROTOCOL}\r\n\r\n".encode() + len(message).to_bytes(4, "big") + message


def _varint(number: int) -> bytes:
    groups = []
    while number >= 0x80:
        groups.append(number & 0x7F | 0x80)
        number >>= 7
    return bytes([*groups, number])
