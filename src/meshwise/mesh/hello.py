"""What a server chooses when a proxy calls: a ClientHello as linkerd2-proxy sends it, and the answer.

The TLS library of Python need not know the hybrid group that two proxies agree on, and a proxy counts no
groups. But the choice stands in the ServerHello, in the clear: so a hello with the proxy's own lists is
sent, its answer is read, and the connection is dropped. No handshake is completed.

RFC 8446 sections 4.1.2-4.2.8 (messages, extensions), RFC 8446 5.1 (records); X25519MLKEM768:
draft-ietf-tls-ecdhe-mlkem (share of the client: ML-KEM key of 1184 bytes, then X25519 of 32). The lists:
linkerd2-proxy `linkerd/rustls/src/crypto.rs`, as `rustls_info` shows them.
"""

from __future__ import annotations

import os
import socket
import struct
from collections.abc import Callable, Iterable
from dataclasses import dataclass

X25519MLKEM768 = 0x11EC
GROUPS = {X25519MLKEM768: "X25519MLKEM768", 0x001D: "X25519", 0x0017: "P-256", 0x0018: "P-384"}
CIPHERS = {
    0x1301: "TLS_AES_128_GCM_SHA256",
    0x1302: "TLS_AES_256_GCM_SHA384",
    0x1303: "TLS_CHACHA20_POLY1305_SHA256",
}
_VERSIONS = {0x0304: "TLSv1.3", 0x0303: "TLSv1.2"}
_SIGNATURES = (0x0403, 0x0503, 0x0603, 0x0807, 0x0804, 0x0805, 0x0806, 0x0401, 0x0501, 0x0601)

_SERVER_NAME, _GROUPS, _SIGNATURE_ALGORITHMS = 0, 10, 13
_SUPPORTED_VERSIONS, _KEY_SHARE = 43, 51
_HANDSHAKE, _ALERT, _SERVER_HELLO = 22, 21, 2
_MAX_ANSWER_BYTES = 16384


@dataclass(frozen=True)
class Choice:
    """What the server chose; names as TLS registries have them, or a number in hexadecimal."""

    version: str
    cipher: str
    group: str


def choice_of(connect: Callable[[], socket.socket], server_name: str) -> Choice | str:
    """Ask; why there is no choice, in words, when the peer speaks no TLS to this name."""
    try:
        with connect() as connection:
            connection.sendall(client_hello(server_name, os.urandom(64)))
            return _read_choice(connection)
    except OSError as error:
        return str(error) or error.__class__.__name__
    except (ValueError, struct.error, IndexError) as error:
        return f"not TLS: {error}"


def client_hello(server_name: str, random: bytes) -> bytes:
    """`random`: 64 bytes, for the hello's random and the session id."""
    shares = _share(X25519MLKEM768, bytes(1152) + random[:32] + b"\x09" + bytes(31))
    extensions = b"".join(
        (
            _extension(_SERVER_NAME, _sized(2, b"\x00" + _sized(2, server_name.encode()))),
            _extension(_SUPPORTED_VERSIONS, _sized(1, struct.pack(">H", 0x0304))),
            _extension(_GROUPS, _sized(2, _shorts(GROUPS))),
            _extension(_SIGNATURE_ALGORITHMS, _sized(2, _shorts(_SIGNATURES))),
            _extension(_KEY_SHARE, _sized(2, shares)),
        )
    )
    body = b"".join(
        (
            b"\x03\x03", random[:32], _sized(1, random[32:64]),
            _sized(2, _shorts(CIPHERS)), b"\x01\x00", _sized(2, extensions),
        )
    )  # fmt: skip
    message = b"\x01" + _sized(3, body)
    return struct.pack(">BH", _HANDSHAKE, 0x0301) + _sized(2, message)


def parse_server_hello(message: bytes) -> Choice:
    """`message`: from the handshake type on. A HelloRetryRequest is read as well: it names the group too."""
    if message[0] != _SERVER_HELLO:
        raise ValueError(f"handshake message {message[0]} instead of ServerHello")
    at = 4 + 2 + 32
    at += 1 + message[at]
    (cipher,) = struct.unpack_from(">H", message, at)
    at += 3
    (length,) = struct.unpack_from(">H", message, at)
    at, end = at + 2, at + 2 + length
    version, group = 0x0303, 0
    while at < end:
        kind, size = struct.unpack_from(">HH", message, at)
        if kind == _SUPPORTED_VERSIONS:
            (version,) = struct.unpack_from(">H", message, at + 4)
        elif kind == _KEY_SHARE:
            (group,) = struct.unpack_from(">H", message, at + 4)
        at += 4 + size
    return Choice(_name(_VERSIONS, version), _name(CIPHERS, cipher), _name(GROUPS, group))


def _read_choice(connection: socket.socket) -> Choice:
    answer = b""
    while len(answer) < 5 or len(answer) < 5 + struct.unpack_from(">H", answer, 3)[0]:
        data = connection.recv(_MAX_ANSWER_BYTES)
        if not data:
            raise ValueError("closed without an answer")
        answer += data
        if answer[0] not in (_HANDSHAKE, _ALERT) or len(answer) > _MAX_ANSWER_BYTES:
            raise ValueError(f"record of type {answer[0]}")
    if answer[0] == _ALERT:
        raise ValueError(f"alert {answer[6]}")
    return parse_server_hello(answer[5:])


def _name(names: dict[int, str], number: int) -> str:
    return names.get(number, f"{number:#06x}")


def _sized(width: int, data: bytes) -> bytes:
    return len(data).to_bytes(width, "big") + data


def _extension(kind: int, data: bytes) -> bytes:
    return struct.pack(">H", kind) + _sized(2, data)


def _share(group: int, key: bytes) -> bytes:
    return struct.pack(">H", group) + _sized(2, key)


def _shorts(numbers: Iterable[int]) -> bytes:
    return b"".join(struct.pack(">H", number) for number in numbers)
