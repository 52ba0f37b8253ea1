"""gRPC unary calls over HTTP/2 (grpc/doc/PROTOCOL-HTTP2.md): one message up, one down, a status.

The status comes in the trailers, or in the only HEADERS of the answer (trailers-only). An answer
without a status is what a proxy gives that does not speak gRPC: then the HTTP status is the error.
Received body bytes include the five bytes in front of the message.
"""

from __future__ import annotations

from collections.abc import Sequence

from meshwise.load.wire import http2_request
from meshwise.load.wire.grpc_messages import PREFIX_BYTES
from meshwise.load.wire.http2 import Http2
from meshwise.load.wire.http2_stream import Stream
from meshwise.load.wire.seam import GRPC_STATUS_BASE, ErrorKind, outcome

OK, UNKNOWN, INTERNAL = 0, 2, 13


def encode_request(
    scheme: str,
    path: str,
    authority: str,
    headers: Sequence[tuple[str, str]],
    message: bytes,
    *,
    messages: int = 1,
) -> http2_request.Request:
    """`path` is `/package.Service/Method`; `message` is the serialised request, sent uncompressed, `messages`
    times."""
    fields = [("te", "trailers"), ("content-type", "application/grpc"), *headers]
    body = (b"\0" + len(message).to_bytes(4, "big") + message) * messages
    return http2_request.encode_request(
        "POST", scheme, path, authority, fields, body, content_length=False, parts=messages
    )


def payload_message(size_bytes: int) -> bytes:
    """A message with one field, number 1, of type bytes (or string): `size_bytes` of payload."""
    if not size_bytes:
        return b""
    length, number = bytearray(), size_bytes
    while number >= 128:
        length.append(number & 127 | 128)
        number >>= 7
    return b"\x0a" + bytes([*length, number]) + b"x" * size_bytes


class Grpc(Http2):
    """One HTTP/2 connection whose answers are judged by their gRPC status (WireProtocol)."""

    def _outcome(self, stream: Stream) -> int:
        code, size = stream.grpc_status, stream.body_bytes
        if code < 0:
            if stream.status != 200:
                return outcome(stream.status, ErrorKind.HTTP_STATUS, size)
            code = UNKNOWN
        elif code == OK and not self._is_complete(stream):
            code = INTERNAL
        error = ErrorKind.GRPC_STATUS if code else ErrorKind.NONE
        return outcome(GRPC_STATUS_BASE + code, error, size)

    def _is_complete(self, stream: Stream) -> bool:
        """Whether an answer that is OK has what it must have: one message."""
        return stream.body_bytes >= PREFIX_BYTES
