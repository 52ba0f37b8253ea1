"""Dials a sidecar as another sidecar does: its own inbound port, mesh TLS, and a header that names the port.

For an opaque port there is no other way to mesh TLS, because a proxy looks for none there. The header
(linkerd2-proxy `linkerd/transport-header`): its name, a length of four bytes, and a message with the port.
"""

from __future__ import annotations

import socket
import ssl

from meshwise.mesh.linkerd.names import TRANSPORT_PROTOCOL
from meshwise.mesh.probe import TlsAs


def wrap(connection: socket.socket, tls: TlsAs, port: int) -> ssl.SSLSocket:
    """TLS and header over a connection to the inbound port. Raises OSError as the handshake does."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False  # the probe compares names itself, where it has to
    context.load_verify_locations(tls.root)
    if tls.identity is not None:
        context.load_cert_chain(tls.identity.chain, tls.identity.key)
    context.set_alpn_protocols([TRANSPORT_PROTOCOL])
    try:
        secure = context.wrap_socket(connection, server_hostname=tls.server_name)
    except OSError:
        connection.close()
        raise
    secure.sendall(header(port))
    return secure


def header(port: int) -> bytes:
    message = b"\x08" + _varint(port)
    return f"{TRANSPORT_PROTOCOL}\r\n\r\n".encode() + len(message).to_bytes(4, "big") + message


def _varint(number: int) -> bytes:
    groups = []
    while number >= 0x80:
        groups.append(number & 0x7F | 0x80)
        number >>= 7
    return bytes([*groups, number])
