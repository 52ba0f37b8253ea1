"""gRPC unary calls over HTTP/2 (grpc/doc/PROTOCOL-HTTP2.md): one message up, one down, a status.

The status comes in the trailers, or in the only HEADERS of the answer (trailers-only). An answer
without a status is what a proxy gives that does not speak gRPC: then the HTTP status is the error, unless
it is 200: that is an answer which was cut. An answer that says OK and has no message, more than one, or a
message cut behind its prefix is malformed too; its status is recorded as it was sent.
Received body bytes include the five bytes in front of the message.
"""

from __future__ import annotations

from collections.abc import Sequence

from meshwise.load.wire import http2_request
from meshwise.load.wire.grpc_messages import MessageReader
from meshwise.load.wire.http2 import Http2
from meshwise.load.wire.http2_stream import NO_STATUS, NOT_A_STATUS, ResponseStream
from meshwise.load.wire.seam import GRPC_STATUS_BASE, ErrorKind, outcome

OK, INTERNAL = 0, 13
_NO_MESSAGES = MessageReader()


def encode_request(
    scheme: str,
    path: str,
    authority: str,
    headers: Sequence[tuple[str, str]],
    message: bytes,
    *,
    messages: int = 1,
) -> http2_request.EncodedRequest:
    """A field of the caller stands in place of a built-in one.

    `path` is `/package.Service/Method`; `message` is the serialised request, sent uncompressed, `messages`
    times."""
    names = {name.lower() for name, _ in headers}
    built_in = (("te", "trailers"), ("content-type", "application/grpc"))
    fields = [*(field for field in built_in if field[0] not in names), *headers]
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
    """One HTTP/2 connection whose answers are judged by their gRPC status and messages (WireProtocol)."""

    _counts_messages = True

    def _count_messages(self, key: bytes, payload: bytes) -> None:
        stream = self._answers.get(key)
        if stream is None:
            return
        if stream.reader is None:
            stream.reader = MessageReader()
        if stream.reader.feed(payload):
            self._on_messages(key, stream.reader.whole)

    def _on_messages(self, key: bytes, whole: int) -> None:
        """So many have come by now on this stream."""

    def _wrong(self, stream: ResponseStream) -> str:
        if stream.grpc_status == NOT_A_STATUS:
            return "a grpc-status that is no number"
        if stream.grpc_status == NO_STATUS and stream.status == 200:
            return "an answer of gRPC without the grpc-status that belongs in its trailers"
        if stream.grpc_status == OK:
            reader = stream.reader or _NO_MESSAGES
            if reader.partial:
                return "a message of gRPC that is shorter than its prefix says"
            if reader.malformed:
                return "a message of gRPC whose prefix does not begin with 0 or 1"
            if reader.compressed and not stream.encoded:
                return "a message of gRPC that is marked as compressed, without a grpc-encoding"
            problem = self._wrong_count(reader.whole)
            if problem:
                return problem
        return super()._wrong(stream)

    def _wrong_count(self, messages: int) -> str:
        """Of an answer that is OK; a unary one has exactly one message."""
        if messages == 1:
            return ""
        return (
            "a unary answer of gRPC with more than one message"
            if messages
            else "a unary answer of gRPC without a message"
        )

    def _outcome(self, stream: ResponseStream) -> int:
        code, size = stream.grpc_status, stream.body_bytes
        if code == NO_STATUS:
            return outcome(stream.status, ErrorKind.HTTP_STATUS, size)
        if code == OK and not self._is_complete(stream):
            code = INTERNAL
        error = ErrorKind.GRPC_STATUS if code else ErrorKind.NONE
        return outcome(GRPC_STATUS_BASE + code, error, size)

    def _malformed(self, stream: ResponseStream) -> int:
        status = stream.status if stream.grpc_status < 0 else GRPC_STATUS_BASE + stream.grpc_status
        return outcome(status, ErrorKind.PROTOCOL, stream.body_bytes)

    def _is_complete(self, stream: ResponseStream) -> bool:
        """Whether an answer that is OK has as many messages as were asked for."""
        return True
