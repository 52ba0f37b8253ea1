"""HTTP/1.1 from the client's side (RFC 9112): keep-alive, one request at a time, no pipelining.

The fast path: a response that arrives whole, with a content length, and whose head was seen before
byte for byte (heads repeat for as long as the date does) costs one comparison, or one search and one look-up.
`heads` is shared by the connections of a run. Everything else takes the slow path, which alone knows chunked
bodies, interim responses, bodies that end with the connection, and every way to be malformed.

A response that ends before its framing says so is malformed (`protocol`), in whatever good order its
connection was closed. So is one with more bytes behind it, but for line ends, which every client skips.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from meshwise.load.wire.foreign import foreign
from meshwise.load.wire.http1_head import (
    HEAD_END,
    Malformed,
    ResponseHead,
    check_beginning,
    check_trailers,
    parse_head,
    speaks_another,
)
from meshwise.load.wire.one_request import OneRequest
from meshwise.load.wire.seam import Completion, ErrorKind, WireError, http_outcome, outcome

MAX_HEAD_BYTES = 128 * 1024
"""Of a head, of the interim ones before it together, and of trailers."""
MAX_CHUNK_LINE_BYTES = 4 * 1024
KNOWN_HEADS = 1024
KNOWN_HEAD_BYTES = 2 * 1024
"""Longer heads are parsed each time: 1024 of the longest that is read would be 128 MiB."""

_HEAD, _LENGTH, _CHUNK_SIZE, _CHUNK_DATA, _TRAILERS, _UNTIL_CLOSE = range(6)
_WHERE = (
    "in its head",
    "before the end of its content-length",
    "before its last chunk",
    "in a chunk",
    "in its trailers",
)
_CHUNK_SIZE_TEXT = re.compile(rb"[0-9a-fA-F]{1,15}")


class KnownHeads:
    """Heads that were parsed before, of answers that have a length and keep the connection.

    `last` ends with its empty line, so bytes that start with it have exactly this head.
    """

    __slots__ = ("by_bytes", "last", "last_answer_bytes", "last_outcome")

    def __init__(self) -> None:
        self.by_bytes: dict[bytes, tuple[int, int]] = {}
        """head with its empty line -> (bytes of the whole answer, outcome)"""
        self.last = b"none"
        self.last_answer_bytes = 0
        self.last_outcome = 0

    def learn(self, head: bytes, length: int, outcome: int) -> None:
        if len(head) > KNOWN_HEAD_BYTES:
            return
        if len(self.by_bytes) >= KNOWN_HEADS:
            self.by_bytes.clear()
        self.by_bytes[head] = (len(head) + length, outcome)


def encode_request(
    method: str, path: str, authority: str, headers: Sequence[tuple[str, str]], body: bytes
) -> bytes:
    """The whole request. A body, or a method that usually has one, brings a content length."""
    lines = [f"{method} {path} HTTP/1.1"]
    names = {name.lower() for name, _ in headers}
    if "host" not in names:
        lines.append(f"host: {authority}")
    if "user-agent" not in names:
        lines.append("user-agent: meshwise")
    lines += [f"{name}: {value}" for name, value in headers]
    if (body or method in ("POST", "PUT", "PATCH")) and "content-length" not in names:
        lines.append(f"content-length: {len(body)}")
    return "\r\n".join([*lines, "", ""]).encode("utf-8", "surrogateescape") + body


def _unasked(data: bytes, *, used: bool) -> WireError:
    """What `data` says about a server that sends it while no request is open."""
    if data.startswith(b"HTTP/1."):  # it may say why it ends an idle connection (408)
        kind = ErrorKind.RESET
    else:
        kind = ErrorKind.PROTOCOL
        if not used and (protocol := foreign(data)):  # one whose servers speak first
            return WireError(kind, speaks_another(protocol))
    return WireError(kind, f"bytes that no request asked for: {data[:40]!r}")


class Http1(OneRequest):
    """One HTTP/1.1 connection (WireProtocol)."""

    def __init__(self, request: bytes, heads: KnownHeads, *, is_head_method: bool = False) -> None:
        super().__init__(request)
        self._heads = heads
        self._is_head_method = is_head_method
        self._between = True  # no byte of a response is waiting or half read
        self._rest = b""
        self._state = _HEAD
        self._head = ResponseHead(0, None, False, True)
        self._first_ns = 0
        self._remaining = 0
        self._body_bytes = 0
        self._interim_bytes = 0

    @property
    def used(self) -> bool:
        return self._head.status > 0

    def receive(self, data: bytes, now_ns: int) -> Sequence[Completion]:
        heads = self._heads
        if self._between and self._tag >= 0:
            if not (data.startswith(heads.last) and len(data) == heads.last_answer_bytes):
                head = data[: data.find(b"\r\n\r\n") + 4]
                known = heads.by_bytes.get(head)
                if known is None or len(data) != known[0]:
                    return self._receive_slowly(data, now_ns)
                heads.last = head
                heads.last_answer_bytes, heads.last_outcome = known
            tag, self._tag = self._tag, -1
            return ((tag, now_ns, heads.last_outcome),)
        return self._receive_slowly(data, now_ns)

    def end_of_stream(self, now_ns: int, *, clean: bool = True) -> Sequence[Completion]:
        self.closing = True
        if self._tag < 0 or self._between:
            return ()
        if self._state == _UNTIL_CLOSE:
            if clean:
                return (self._finish(),)
            return (self._give_up("a body without a length, and TLS ended without close_notify"),)
        return (self._give_up(f"the connection ended within a response, {_WHERE[self._state]}"),)

    # --- the slow path -------------------------------------------------------------------------

    def _receive_slowly(self, data: bytes, now_ns: int) -> Sequence[Completion]:
        if self._between:
            if self.used:  # line ends behind a response are no part of the next one
                data = data.lstrip(b"\r\n")
                if not data:
                    return ()
            if self._tag < 0:
                raise _unasked(data, used=self.used)
            self._between = False
            self._first_ns = now_ns
        elif self._tag < 0:
            return ()  # of a response that was given up
        data = self._rest + data
        self._rest = b""
        try:
            return self._read(data)
        except Malformed as error:
            if not self.used:  # it is no server of HTTP/1: the connection's fault rather than the response's
                raise WireError(ErrorKind.PROTOCOL, str(error)) from error
            return (self._give_up(str(error)),)

    def _give_up(self, reason: str) -> Completion:
        """The response is malformed: its request has failed, and the connection cannot be used again."""
        self.reasons.append(reason)
        self.closing = self.attention = True
        tag, self._tag = self._tag, -1
        status = 0 if self._state == _HEAD else self._head.status
        return tag, self._first_ns, outcome(status, ErrorKind.PROTOCOL, self._body_bytes)

    def _read(self, data: bytes) -> Sequence[Completion]:
        offset = 0
        while True:
            state = self._state
            if state == _HEAD:
                advanced = self._read_head(data, offset)
            elif state in (_LENGTH, _UNTIL_CLOSE):
                return self._read_plain_body(data, offset)
            elif state == _CHUNK_SIZE:
                advanced = self._read_chunk_size(data, offset)
            elif state == _CHUNK_DATA:
                advanced = self._read_chunk_data(data, offset)
            else:
                return self._read_trailers(data, offset)
            if advanced < 0:
                self._rest = data[offset:]
                return ()
            offset = advanced

    def _read_head(self, data: bytes, offset: int) -> int:
        found = HEAD_END.search(data, offset)
        end = found.end() if found else len(data)
        if end - offset + self._interim_bytes > MAX_HEAD_BYTES:
            raise Malformed(f"response heads of more than {MAX_HEAD_BYTES} bytes")
        if not found:
            check_beginning(data[offset : offset + 24])
            return -1
        head = parse_head(data[offset : found.start()], is_head_method=self._is_head_method)
        if head.status == 101:
            raise Malformed("status 101, but no upgrade was asked for")
        if head.status < 200:
            self._interim_bytes += end - offset
            return end  # the answer is still to come
        self._head = head
        self._body_bytes = 0
        if head.length is not None:
            self._state = _LENGTH
            self._remaining = head.length
            if head.keep_alive:
                self._heads.learn(data[offset:end], head.length, http_outcome(head.status, head.length))
        else:
            self._state = _CHUNK_SIZE if head.chunked else _UNTIL_CLOSE
        return end

    def _read_plain_body(self, data: bytes, offset: int) -> Sequence[Completion]:
        came = len(data) - offset
        if self._state == _UNTIL_CLOSE:
            self._body_bytes += came
            return ()
        self._body_bytes += min(came, self._remaining)
        self._remaining -= came
        if self._remaining > 0:
            return ()
        self._check_behind(data, len(data) + self._remaining)
        return (self._finish(),)

    def _check_behind(self, data: bytes, end: int) -> None:
        """Behind a response there is nothing, or line ends."""
        if end < len(data) and data[end:].strip(b"\r\n"):
            raise Malformed(f"more bytes than the response has, beginning with {data[end : end + 16]!r}")

    def _read_chunk_size(self, data: bytes, offset: int) -> int:
        end = data.find(b"\n", offset)
        if end - offset > MAX_CHUNK_LINE_BYTES or (end < 0 and len(data) - offset > MAX_CHUNK_LINE_BYTES):
            raise Malformed("a chunk size line without an end")
        found = _CHUNK_SIZE_TEXT.match(data, offset)
        if not found:
            if offset < len(data):
                raise Malformed(f"not a chunk size: {data[offset : offset + 40]!r}")
            return -1
        if end < 0:
            return -1
        behind = data[found.end() : end]
        if not behind.endswith(b"\r") or behind.lstrip(b" \t")[:1] not in (b"\r", b";"):
            raise Malformed(f"not a chunk size: {data[offset : offset + 40]!r}")
        size = int(found[0], 16)
        self._remaining = size + 2  # and its line end
        self._state = _CHUNK_DATA if size else _TRAILERS
        return end + 1

    def _read_chunk_data(self, data: bytes, offset: int) -> int:
        came = len(data) - offset
        if came < self._remaining:
            # The line end stays unread until it is whole, so that it can be checked.
            eaten = max(0, min(came, self._remaining - 2))
            self._remaining -= eaten
            self._body_bytes += eaten
            return offset + eaten if eaten else -1
        end = offset + self._remaining
        if data[end - 2 : end] != b"\r\n":
            raise Malformed("a chunk that does not end where its size says")
        self._body_bytes += self._remaining - 2
        self._state = _CHUNK_SIZE
        return end

    def _read_trailers(self, data: bytes, offset: int) -> Sequence[Completion]:
        if data.startswith(b"\r\n", offset):
            end = offset + 2
        else:
            found = HEAD_END.search(data, offset)
            if data.startswith(b"\n", offset) or (not found and len(data) - offset > MAX_HEAD_BYTES):
                raise Malformed("trailers without an end")
            if not found:
                self._rest = data[offset:]
                return ()
            check_trailers(data[offset : found.start()])
            end = found.end()
        self._check_behind(data, end)
        return (self._finish(),)

    def _finish(self) -> Completion:
        tag, self._tag = self._tag, -1
        self._between = True
        self._state = _HEAD
        self._interim_bytes = 0
        if not self._head.keep_alive:
            self.closing = True
            self.attention = True
        return tag, self._first_ns, http_outcome(self._head.status, self._body_bytes)
