"""gRPC over HTTP/2, what a unary call needs (gRPC's PROTOCOL-HTTP2.md), and `message {bytes payload = 1}`."""

from __future__ import annotations

from functools import lru_cache
from urllib.parse import quote

CONTENT_TYPE = "application/grpc"
OK, INVALID_ARGUMENT, RESOURCE_EXHAUSTED, UNIMPLEMENTED, INTERNAL, UNAVAILABLE = 0, 3, 8, 12, 13, 14
PREFIX_BYTES = 5

_FROM_HTTP = {200: OK, 400: INVALID_ARGUMENT, 404: UNIMPLEMENTED, 413: RESOURCE_EXHAUSTED, 502: UNAVAILABLE}


def status_of(http_status: int) -> int:
    return _FROM_HTTP.get(http_status, INTERNAL)


def message_text(text: str) -> str:
    """A status message as the header grpc-message carries it."""
    return quote(text[:200], safe=" !\"#$&'()*+,-./:;<=>?@[\\]^_`{|}~")


def frame_payload(payload: bytes) -> bytes:
    """A length-prefixed, uncompressed message with `payload` in field 1; no payload: an empty message."""
    message = b"\x0a" + _varint(len(payload)) + payload if payload else b""
    return b"\x00" + len(message).to_bytes(4, "big") + message


@lru_cache(maxsize=256)
def payload_bytes(framed_bytes: int) -> int:
    """The inverse of `frame_payload`, for sizes; 0 for what is no message."""
    message = framed_bytes - PREFIX_BYTES
    return next((size for n in range(1, 6) if len(_varint(size := max(0, message - 1 - n))) == n), 0)


def complaint(first: bytes, size_bytes: int) -> tuple[int, str] | None:
    """What is wrong with a request body of which the first bytes and the size are known, or None."""
    if len(first) < PREFIX_BYTES:
        return INTERNAL, "a unary call carries one message"
    if first[0]:
        return UNIMPLEMENTED, "compressed messages are not understood"
    if int.from_bytes(first[1:5], "big") + PREFIX_BYTES != size_bytes:
        return INTERNAL, "the message is not as long as its prefix says"
    return None


def _varint(value: int) -> bytes:
    out = bytearray()
    while value > 127:
        out.append(value & 127 | 128)
        value >>= 7
    out.append(value)
    return bytes(out)
