"""An HTTP/2 answer under way, and what its header blocks say of it."""

from __future__ import annotations

from meshwise.load.wire import frames
from meshwise.load.wire.blocks import FieldList
from meshwise.load.wire.frames import FramingError
from meshwise.load.wire.grpc_messages import MessageReader


class Stream:
    """An answer that is under way."""

    __slots__ = ("body_bytes", "first_ns", "grpc_status", "reader", "status", "unacknowledged")

    def __init__(self, first_ns: int) -> None:
        self.first_ns = first_ns
        self.status = 0
        self.grpc_status = -1
        self.body_bytes = 0
        self.unacknowledged = 0
        self.reader: MessageReader | None = None


Meaning = tuple[int, int]
"""(HTTP status or 0, gRPC status or -1) of a header block"""


def meaning_of(fields: FieldList) -> Meaning:
    status, grpc_status = 0, -1
    for name, value in fields:
        if name == b":status":
            status = _number(value, 100, 999)
        elif name == b"grpc-status":
            grpc_status = _number(value, 0, 1000)
    return status, grpc_status


def _number(text: bytes, low: int, high: int) -> int:
    if not text.isdigit() or len(text) > 4 or not low <= int(text) <= high:
        raise FramingError(frames.PROTOCOL_ERROR, f"a status of {text[:20]!r}")
    return int(text)
