"""An HTTP/2 request, assembled once: everything but the stream id, which is joined in between."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from meshwise.load.wire import frames
from meshwise.load.wire.blocks import encode_block


@dataclass(frozen=True)
class EncodedRequest:
    """A request without its stream id. `head` has no END_STREAM when a body follows."""

    pieces: tuple[bytes, ...]
    """Joined by the stream id they are the whole request: HEADERS, then DATA frames."""
    head_pieces: tuple[bytes, ...]
    """The same for the HEADERS frame alone, when the body has to wait for the peer's window."""
    body: bytes
    bodiless: bool = False
    """The answer has no body, whatever its head says: the method is HEAD."""


def encode_request(
    method: str,
    scheme: str,
    path: str,
    authority: str,
    headers: Sequence[tuple[str, str]],
    body: bytes,
    *,
    content_length: bool = True,
    parts: int = 1,
) -> EncodedRequest:
    """Pseudo-header fields first. A field of the caller stands in place of a built-in one; its `host` is
    `:authority`. Fields that HTTP/2 forbids are `load.fields`' to refuse.

    `parts`: the body is so many pieces of one size, each in DATA frames of its own."""
    names = {name.lower() for name, _ in headers}
    authority = next((value for name, value in headers if name.lower() == "host"), authority)
    fields = [(":method", method), (":scheme", scheme), (":authority", authority), (":path", path)]
    if "user-agent" not in names:
        fields.append(("user-agent", "meshwise"))
    fields += [(name, value) for name, value in headers if name.lower() != "host"]
    if body and content_length and "content-length" not in names:
        fields.append(("content-length", str(len(body))))
    block = encode_block(fields)
    head = frames.headers_frames(0, block, end_stream=not body)
    size = len(body) // parts
    data = [
        frames.data_frames(0, body[at * size : (at + 1) * size], end_stream=at == parts - 1)
        for at in range(parts if body else 0)
    ]
    whole = b"".join([head, *data])
    return EncodedRequest(_without_ids(whole), _without_ids(head), body, bodiless=method == "HEAD")


def _without_ids(data: bytes) -> tuple[bytes, ...]:
    pieces, start, offset = [], 0, 0
    while offset < len(data):
        pieces.append(data[start : offset + 5])
        start = offset + 9
        offset = start + frames.parse_head(data, offset)[0]
    return (*pieces, data[start:])
