"""A framed echo over opaque TCP, from the client's side: what L4 studies send, and no proxy can read.

A message is a head of two big-endian numbers of four bytes, and a payload. In a request they are the bytes
of payload that follow and those that are wanted back; in an answer, the bytes that follow and those that the
request had. One request at a time per connection.

The answer's head is known before it comes, so the fast path is one comparison and one length. There is no
status: an answer that comes whole is good, and whatever else comes breaks the connection.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence

from meshwise.load.wire.one_request import OneRequest
from meshwise.load.wire.seam import Completion, ErrorKind, WireError, outcome

_HEAD = struct.Struct(">II")
HEAD_BYTES = _HEAD.size


def encode_request(payload: bytes, response_bytes: int) -> bytes:
    """The whole request, which asks for `response_bytes` of payload."""
    return _HEAD.pack(len(payload), response_bytes) + payload


def answer_head(request_bytes: int, response_bytes: int) -> bytes:
    """How the answer to a request with that much payload begins."""
    return _HEAD.pack(response_bytes, request_bytes)


class Tcp(OneRequest):
    """One connection of the framed echo (WireProtocol)."""

    def __init__(self, request: bytes) -> None:
        """`request` as `encode_request` makes it."""
        super().__init__(request)
        self.used = False
        self._ask(request)
        self._begun = b""
        """The part of a head that has come."""
        self._came_bytes = 0
        self._first_ns = 0

    def _ask(self, request: bytes) -> None:
        """What is sent from now on, and so what is expected."""
        request_bytes, response_bytes = _HEAD.unpack_from(request)
        self._request = request
        self._head = answer_head(request_bytes, response_bytes)
        self._answer_bytes = HEAD_BYTES + response_bytes
        self._outcome = outcome(0, body_bytes=response_bytes)

    def receive(self, data: bytes, now_ns: int) -> Sequence[Completion]:
        tag = self._tag
        if tag < 0:
            raise WireError(ErrorKind.PROTOCOL, f"bytes that no request asked for: {data[:40]!r}")
        if not self._came_bytes:
            if len(data) == self._answer_bytes and data.startswith(self._head):
                self._tag = -1
                self.used = True
                return ((tag, now_ns, self._outcome),)
            self._first_ns = now_ns
        return self._receive_part(data)

    def end_of_stream(self, now_ns: int, *, clean: bool = True) -> Sequence[Completion]:
        self.closing = True
        return ()

    def _receive_part(self, data: bytes) -> Sequence[Completion]:
        if len(self._begun) < HEAD_BYTES:
            self._begun += data[: HEAD_BYTES - len(self._begun)]
            if not self._head.startswith(self._begun):
                raise WireError(ErrorKind.PROTOCOL, f"not the head of an answer: {self._begun!r}")
        self._came_bytes += len(data)
        if self._came_bytes > self._answer_bytes:
            more = self._came_bytes - self._answer_bytes
            raise WireError(ErrorKind.PROTOCOL, f"{more} bytes more than the answer has")
        if self._came_bytes < self._answer_bytes:
            return ()
        tag, self._tag = self._tag, -1
        self._begun, self._came_bytes = b"", 0
        self.used = True
        return ((tag, self._first_ns, self._outcome),)
