"""The short cut through HTTP/2 parsing: an answer like one that was seen before, but for ids and body.

An `AnswerForm` holds every byte of an answer except the stream ids and the content of DATA. When those bytes
match at an offset that is a frame boundary, the lengths in them are right too, so the answer ends where
the shape ends, and its body is as long as that of the answer that it was learned from: comparing is as good
as parsing. Of a gRPC message, which is all of the DATA, the prefix is compared too. Header blocks in a shape
mean what they meant when it was learned for as long as the peer's dynamic table stays as it is; the
connection forgets its shape when that changes.
"""

from __future__ import annotations

from dataclasses import dataclass

from meshwise.load.wire import frames

_SHAPE_BYTES = 64 * 1024


@dataclass(slots=True)  # not frozen: reading a frozen one is no slower, but making one at every change is
class AnswerForm:
    """HEADERS alone; HEADERS and one DATA; or those and trailers. Offsets are from the answer's start."""

    head: bytes
    """Before the first id."""
    middle: bytes
    """Between the first id and the second: the block, and the head of the next frame if there is one."""
    second_id: int
    """Offset of the second frame's id; 0 = there is no second frame."""
    tail: bytes
    """Head of the trailers, before their id."""
    tail_at: int
    """Offset of the trailers; 0 = there are none."""
    trailers: bytes
    size_bytes: int
    data_bytes: int
    outcome: int
    prefix: bytes = b""
    """How the content of DATA begins; empty = in any way."""


def learn(data: bytes, outcome: int, prefix_bytes: int = 0) -> AnswerForm | None:
    """The shape of `data`, exactly one answer that is not malformed; None if it has none of the three forms.

    `prefix_bytes`: so much of the content of DATA belongs to the shape."""
    if len(data) > _SHAPE_BYTES:
        return None
    parts, rest = frames.split(data)
    if rest or not 1 <= len(parts) <= 3:
        return None
    kinds = tuple((kind, flags) for kind, flags, _, _ in parts)
    head, last = frames.END_HEADERS, frames.END_HEADERS | frames.END_STREAM
    forms = (
        ((frames.HEADERS, last),),
        ((frames.HEADERS, head), (frames.DATA, frames.END_STREAM)),
        ((frames.HEADERS, head), (frames.DATA, 0), (frames.HEADERS, last)),
    )
    if kinds not in forms or len({stream_id for _, _, stream_id, _ in parts}) > 1:
        return None
    block_end = 9 + len(parts[0][3])
    if len(parts) == 1:
        return AnswerForm(data[:5], data[9:], 0, b"", 0, b"", len(data), 0, outcome)
    size = len(parts[1][3])
    shape = AnswerForm(
        data[:5], data[9 : block_end + 5], block_end + 5, b"", 0, b"", len(data), size, outcome
    )
    shape.prefix = parts[1][3][:prefix_bytes]
    if len(shape.prefix) < prefix_bytes:
        return None
    if len(parts) == 3:
        shape.tail_at = block_end + 9 + size
        shape.tail = data[shape.tail_at : shape.tail_at + 5]
        shape.trailers = parts[2][3]
    return shape
