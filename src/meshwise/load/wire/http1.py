"""HTTP/1.1 from the client's side (RFC 9112): keep-alive, one request at a time, no pipelining.

The fast path: a response that arrives whole, with a content length, and whose head was seen before
byte for byte (heads repeat for as long as the date does) costs one comparison, or one search and one look-up.
`heads` is shared by the connections of a run. Everything else takes the slow path, which alone knows chunked
bodies, interim responses, bodies that end with the connection, and every way to be malformed.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from meshwise.load.wire.seam import Completion, ErrorKind, WireError, http_outcome

MAX_HEAD_BYTES = 64 * 1024
MAX_CHUNK_LINE_BYTES = 4 * 1024
KNOWN_HEADS = 1024

_HEAD, _LENGTH, _CHUNK_SIZE, _CHUNK_DATA, _TRAILERS, _UNTIL_CLOSE = range(6)
_STATUS_LINE = re.compile(rb"HTTP/1\.([01]) ([1-9][0-9][0-9])(?: |\r|$)")


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
        if len(self.by_bytes) >= KNOWN_HEADS:
            self.by_bytes.clear()
        self.by_bytes[head] = (len(head) + length, outcome)


@dataclass(frozen=True)
class Head:
    """What the head of a response says about its framing."""

    status: int
    length: int | None
    chunked: bool
    keep_alive: bool


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
    return "\r\n".join([*lines, "", ""]).encode("latin-1") + body


def parse_head(head: bytes, *, is_head_method: bool) -> Head:
    """`head` ends before the empty line. Raises WireError(protocol)."""
    match = _STATUS_LINE.match(head)
    if not match:
        raise WireError(ErrorKind.PROTOCOL, f"not an HTTP/1 status line: {head[:40]!r}")
    status = int(match[2])
    lengths: set[bytes] = set()
    codings: list[bytes] = []
    connection: list[bytes] = []
    for line in head.split(b"\r\n")[1:]:
        name, colon, value = line.partition(b":")
        if not colon:
            raise WireError(ErrorKind.PROTOCOL, f"a header line without a colon: {line[:40]!r}")
        name = name.lower()
        if name == b"content-length":
            lengths.update(part.strip() for part in value.split(b","))
        elif name == b"transfer-encoding":
            codings += [part.strip().lower() for part in value.split(b",")]
        elif name == b"connection":
            connection += [part.strip().lower() for part in value.split(b",")]
    if len(lengths) > 1 or any(not text.isdigit() or len(text) > 18 for text in lengths):
        raise WireError(ErrorKind.PROTOCOL, f"content-length {b', '.join(sorted(lengths))[:40]!r}")
    keep_alive = b"close" not in connection and (match[1] == b"1" or b"keep-alive" in connection)
    if status < 200 or status in (204, 304) or is_head_method:
        return Head(status, 0, False, keep_alive)
    if codings:
        chunked = codings[-1] == b"chunked"
        return Head(status, None, chunked, keep_alive and chunked and not lengths)
    if lengths:
        return Head(status, int(lengths.pop()), False, keep_alive)
    return Head(status, None, False, False)


class Http1:
    """One HTTP/1.1 connection (WireProtocol)."""

    def __init__(self, request: bytes, heads: KnownHeads, *, is_head_method: bool = False) -> None:
        self.ready = True
        self.closing = False
        self.limit = 1
        self.attention = False
        self.reasons: list[str] = []
        self._request = request
        self._heads = heads
        self._is_head_method = is_head_method
        self._tag = -1
        self._between = True  # no byte of a response is waiting or half read
        self._rest = b""
        self._state = _HEAD
        self._head = Head(0, None, False, True)
        self._first_ns = 0
        self._remaining = 0
        self._body_bytes = 0

    @property
    def used(self) -> bool:
        return self._head.status > 0

    def opening(self) -> bytes:
        return b""

    def start(self, tag: int) -> bytes:
        if self._tag >= 0 or self.closing:
            return b""
        self._tag = tag
        return self._request

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

    def end_of_stream(self, now_ns: int) -> Sequence[Completion]:
        self.closing = True
        if self._state == _UNTIL_CLOSE and self._tag >= 0:
            return (self._finish(),)
        return ()

    def take_control(self) -> bytes:
        return b""

    def farewell(self) -> bytes:
        return b""

    def cancel(self, tag: int) -> bool:
        self._tag = -1
        self.closing = True
        return False

    def open_tags(self) -> list[int]:
        return [self._tag] if self._tag >= 0 else []

    # --- the slow path -------------------------------------------------------------------------

    def _receive_slowly(self, data: bytes, now_ns: int) -> Sequence[Completion]:
        if self._tag < 0:
            raise WireError(ErrorKind.PROTOCOL, f"bytes that no request asked for: {data[:40]!r}")
        if self._between:
            self._between = False
            self._first_ns = now_ns
        data = self._rest + data
        self._rest = b""
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
        end = data.find(b"\r\n\r\n", offset)
        if end < 0 or end - offset > MAX_HEAD_BYTES:
            if len(data) - offset > MAX_HEAD_BYTES:
                raise WireError(ErrorKind.PROTOCOL, f"a response head of more than {MAX_HEAD_BYTES} bytes")
            if not b"HTTP/1.".startswith(data[offset : offset + 7]):
                raise WireError(ErrorKind.PROTOCOL, f"not HTTP/1: {data[offset : offset + 40]!r}")
            return -1
        head = parse_head(data[offset:end], is_head_method=self._is_head_method)
        if head.status == 101:
            raise WireError(ErrorKind.PROTOCOL, "status 101, but no upgrade was asked for")
        if head.status < 200:
            return end + 4  # interim: the answer is still to come
        self._head = head
        self._body_bytes = 0
        if head.length is not None:
            self._state = _LENGTH
            self._remaining = head.length
            if head.keep_alive:
                self._heads.learn(data[offset : end + 4], head.length, http_outcome(head.status, head.length))
        else:
            self._state = _CHUNK_SIZE if head.chunked else _UNTIL_CLOSE
        return end + 4

    def _read_plain_body(self, data: bytes, offset: int) -> Sequence[Completion]:
        came = len(data) - offset
        self._body_bytes += came
        if self._state == _UNTIL_CLOSE:
            return ()
        self._remaining -= came
        if self._remaining > 0:
            return ()
        if self._remaining < 0:
            raise WireError(ErrorKind.PROTOCOL, f"{-self._remaining} bytes more than the content length")
        return (self._finish(),)

    def _read_chunk_size(self, data: bytes, offset: int) -> int:
        end = data.find(b"\r\n", offset)
        if end < 0 or end - offset > MAX_CHUNK_LINE_BYTES:
            if len(data) - offset > MAX_CHUNK_LINE_BYTES:
                raise WireError(ErrorKind.PROTOCOL, "a chunk size line without an end")
            return -1
        text = data[offset:end].partition(b";")[0].strip()
        if not re.fullmatch(rb"[0-9a-fA-F]{1,15}", text):
            raise WireError(ErrorKind.PROTOCOL, f"not a chunk size: {text[:40]!r}")
        size = int(text, 16)
        self._remaining = size + 2  # and its line end
        self._state = _CHUNK_DATA if size else _TRAILERS
        self._body_bytes += size
        return end + 2

    def _read_chunk_data(self, data: bytes, offset: int) -> int:
        came = len(data) - offset
        if came < self._remaining:
            # The line end stays unread until it is whole, so that it can be checked.
            eaten = max(0, min(came, self._remaining - 2))
            self._remaining -= eaten
            return offset + eaten if eaten else -1
        end = offset + self._remaining
        if data[end - 2 : end] != b"\r\n":
            raise WireError(ErrorKind.PROTOCOL, "a chunk that does not end where its size says")
        self._state = _CHUNK_SIZE
        return end

    def _read_trailers(self, data: bytes, offset: int) -> Sequence[Completion]:
        if data.startswith(b"\r\n", offset):
            end = offset + 2
        else:
            end = data.find(b"\r\n\r\n", offset)
            if end < 0:
                if len(data) - offset > MAX_HEAD_BYTES:
                    raise WireError(ErrorKind.PROTOCOL, "trailers without an end")
                self._rest = data[offset:]
                return ()
            end += 4
        if end != len(data):
            raise WireError(ErrorKind.PROTOCOL, f"{len(data) - end} bytes behind the last chunk")
        return (self._finish(),)

    def _finish(self) -> Completion:
        tag, self._tag = self._tag, -1
        self._between = True
        self._state = _HEAD
        if not self._head.keep_alive:
            self.closing = True
            self.attention = True
        return tag, self._first_ns, http_outcome(self._head.status, self._body_bytes)
