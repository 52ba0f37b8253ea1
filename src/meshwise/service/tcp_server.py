"""The framed echo over opaque TCP, from the side that is called: bytes in, bytes out, no socket.

A message is a head of two big-endian numbers of four bytes, and a payload. In a request they are the bytes
of payload that follow and those that are wanted back; in an answer, the bytes that follow and those that the
request had.

Rules of this file:
- Payload is counted and dropped as it comes; only a head that is cut is kept.
- A number beyond `MAX_PAYLOAD_BYTES` ends the connection without an answer: that is what a TLS hello or an
  HTTP request looks like, and it is not known where the next message would begin.
- A node behind this one cannot be asked for: bytes that no one reads carry no plan. L4 is point to point.
"""

from __future__ import annotations

import struct
from functools import lru_cache

from meshwise.service.arrivals import ArrivalLog
from meshwise.service.behaviour import MAX_BODY_BYTES, SMALL_BODY_BYTES, body_of
from meshwise.service.buffered import BufferedServer

MAX_PAYLOAD_BYTES = MAX_BODY_BYTES
ANSWERED_AT_ONCE_BYTES = 256 << 10
"""With more than this answered, further requests wait until it is sent."""

_HEAD = struct.Struct(">II")


def answer_of(request_bytes: int, response_bytes: int) -> bytes:
    """The whole answer."""
    make = _small_answer if response_bytes <= SMALL_BODY_BYTES else _answer
    return make(request_bytes, response_bytes)


def _answer(request_bytes: int, response_bytes: int) -> bytes:
    return _HEAD.pack(response_bytes, request_bytes) + body_of(response_bytes)


_small_answer = lru_cache(maxsize=512)(_answer)


class TcpServer(BufferedServer):
    """One connection."""

    __slots__ = ("_arrived", "_request", "_to_drop")

    def __init__(self, arrived: ArrivalLog | None = None) -> None:
        super().__init__()
        self._arrived = arrived
        self._request: tuple[int, int] | None = None
        """The head of the request whose payload is coming."""
        self._to_drop = 0

    @property
    def idle(self) -> bool:
        return not self.stalled

    def _advance(self) -> bytes:
        out: list[bytes] = []
        ready = 0
        while self._read_request():
            assert self._request is not None
            answer = answer_of(*self._request)
            self._request = None
            out.append(answer)
            ready += len(answer)
            if ready > ANSWERED_AT_ONCE_BYTES and self._buffer:
                self.stalled = True
                break
        return out[0] if len(out) == 1 else b"".join(out)

    def _read_request(self) -> bool:
        """Whether a request has come whole; takes what there is of it from the buffer."""
        if self._request is None:
            if len(self._buffer) < _HEAD.size:
                return False
            request_bytes, response_bytes = _HEAD.unpack_from(self._buffer)
            if request_bytes > MAX_PAYLOAD_BYTES or response_bytes > MAX_PAYLOAD_BYTES:
                self.closing = True
                if self._arrived is not None:
                    self._arrived.note_bytes("tcp", self._buffer)
                self._buffer = b""
                return False
            self._request = (request_bytes, response_bytes)
            self._to_drop = request_bytes
            self._buffer = self._buffer[_HEAD.size :]
        dropped = min(self._to_drop, len(self._buffer))
        self._to_drop -= dropped
        self._buffer = self._buffer[dropped:]
        return not self._to_drop
