"""A talk over one connection, byte for byte: what is sent, and what came back. Pure.

The prober's `Ask` is a well-formed request. An attempt also sends what no client library would: two
lengths, a lower-case method, a second request where a body should be. Nothing here repairs or refuses what
is to be sent. Who carries it out is a `RawLine` of a `Reach`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol, Self

from meshwise.load.wire import blocks, frames

MOST_BYTES = 1 << 20
MOST_S = 2.0
_WINDOW_BYTES = 1 << 24
_NO_BODY = frozenset((204, 304))


class Wire(StrEnum):
    """How whole answers are told apart in what comes back."""

    HTTP1 = "http1"
    HTTP2 = "http2"
    BYTES = "bytes"


class End(StrEnum):
    """How a line was when reading ended."""

    OPEN = "open"
    CLOSED = "closed"
    RESET = "reset"
    REFUSED = "refused"
    """There never was a connection, or its TLS handshake failed."""


@dataclass(frozen=True)
class Say:
    """`pieces` are sent one after the other, `pause_s` between them; then what comes is read until `answers`
    whole answers have come, or the peer ends, or nothing more comes for `most_s`."""

    pieces: tuple[bytes, ...]
    wire: Wire = Wire.HTTP1
    answers: int = 1
    most_s: float = MOST_S
    pause_s: float = 0.0


@dataclass(frozen=True)
class HeardAnswer:
    status: int
    fields: tuple[tuple[str, str], ...]
    body_bytes: int


@dataclass(frozen=True)
class Heard:
    answers: tuple[HeardAnswer, ...]
    end: End
    received: bytes = b""
    """All that came for this `Say`, up to MOST_BYTES."""
    detail: str = ""
    """Why there was no connection, or what HTTP/2 says of an ended stream or connection."""

    @property
    def statuses(self) -> tuple[int, ...]:
        return tuple(each.status for each in self.answers)

    def __str__(self) -> str:
        seen = " ".join(map(str, self.statuses)) or "no answer"
        more = f" ({self.detail})" if self.detail else ""
        return f"{seen}{more}" if self.end is End.OPEN else f"{seen}, {self.end}{more}"


class RawLine(Protocol):
    """One connection. A context manager, which closes it. Conformance suite:
    `tests/support/line_conformance.py`."""

    def __enter__(self) -> Self: ...

    def __exit__(self, *exc: object) -> None: ...

    def talk(self, say: Say) -> Heard:
        """Nothing that the peer does raises."""


# --- what to send ------------------------------------------------------------------------------------

Fields = Sequence[tuple[str, str]]


def http1(method: str, target: str, host: str, fields: Fields, body: bytes = b"") -> bytes:
    """One request as these words say it; `content-length` is the caller's to add."""
    lines = [f"{method} {target} HTTP/1.1", f"Host: {host}", *(f"{name}: {value}" for name, value in fields)]
    return ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1") + body


def http2_start() -> bytes:
    """What a client sends first (RFC 9113 section 3.4)."""
    settings = {frames.HEADER_TABLE_SIZE: 0, frames.ENABLE_PUSH: 0, frames.INITIAL_WINDOW_SIZE: _WINDOW_BYTES}
    return frames.PREFACE + frames.settings(settings) + frames.window_update(0, _WINDOW_BYTES)


def http2(stream_id: int, method: str, target: str, host: str, fields: Fields, body: bytes = b"") -> bytes:
    """The frames of one request; names go in lower case, all else as it is."""
    pseudo = [(":method", method), (":scheme", "http"), (":authority", host), (":path", target)]
    sent = frames.headers_frames(stream_id, blocks.encode_block([*pseudo, *fields]), end_stream=not body)
    return sent + (frames.data_frames(stream_id, body, end_stream=True) if body else b"")


# --- what came back ----------------------------------------------------------------------------------


def http1_answers(received: bytes) -> tuple[HeardAnswer, ...]:
    """The whole answers at the beginning of what was received; interim ones (1xx) but 101 are skipped. What
    follows an answer without framing is its body."""
    found: list[HeardAnswer] = []
    rest = received
    while (answer := _http1_answer(rest)) is not None:
        head, rest = answer
        if head.status >= 200 or head.status == 101:
            found.append(head)
    return tuple(found)


def _http1_answer(data: bytes) -> tuple[HeardAnswer, bytes] | None:
    head, end, rest = data.partition(b"\r\n\r\n")
    words = head.split(b"\r\n", 1)[0].split(b" ")
    if not end or len(words) < 2 or not words[0].startswith(b"HTTP/") or not words[1].isdigit():
        return None
    fields = tuple(
        (name.strip().lower().decode("latin-1"), value.strip().decode("latin-1"))
        for name, _, value in (line.partition(b":") for line in head.split(b"\r\n")[1:])
    )
    by_name, status = dict(fields), int(words[1])
    if status < 200 or status in _NO_BODY:
        return HeardAnswer(status, fields, 0), rest
    if "chunked" in by_name.get("transfer-encoding", ""):
        return _chunked(status, fields, rest)
    length = by_name.get("content-length", "")
    if not length.isdigit():
        return HeardAnswer(status, fields, len(rest)), b""
    if len(rest) < int(length):
        return None
    return HeardAnswer(status, fields, int(length)), rest[int(length) :]


def _chunked(
    status: int, fields: tuple[tuple[str, str], ...], rest: bytes
) -> tuple[HeardAnswer, bytes] | None:
    size = 0
    while True:
        line, end, rest = rest.partition(b"\r\n")
        try:
            chunk = int(line.split(b";")[0], 16)
        except ValueError:
            return None
        if not end or len(rest) < chunk + 2:
            return None
        rest = rest[chunk + 2 :]
        size += chunk
        if not chunk:
            return HeardAnswer(status, fields, size), rest


class Http2Heard:
    """Collects the answers of one HTTP/2 connection, whose header blocks depend on one another."""

    def __init__(self) -> None:
        self._decoder = blocks.BlockDecoder()
        self._rest = self._block = b""
        self._ends = False
        self._fields: dict[int, list[tuple[str, str]]] = {}
        self._bytes: dict[int, int] = {}

    def feed(self, data: bytes) -> tuple[list[HeardAnswer], str, bytes]:
        """(answers that are whole now, what ended a stream or the connection, what to send back)"""
        answers: list[HeardAnswer] = []
        said, reply = "", b""
        parsed, self._rest = frames.split(self._rest + data)
        for kind, flags, stream_id, payload in parsed:
            if kind == frames.SETTINGS and not flags & frames.ACK:
                reply += frames.SETTINGS_ACK
            elif kind == frames.PING and not flags & frames.ACK:
                reply += frames.ping(payload, ack=True)
            elif kind == frames.GOAWAY:
                said = f"GOAWAY {frames.code_name(frames.parse_goaway(payload)[1])}"
            elif kind == frames.RST_STREAM:
                said = f"RST_STREAM {frames.code_name(frames.parse_code(payload))}"
            elif kind in (frames.HEADERS, frames.CONTINUATION):
                self._on_block(kind, flags, stream_id, payload)
            elif kind == frames.DATA:
                self._bytes[stream_id] = self._bytes.get(stream_id, 0) + len(payload)
                self._ends = bool(flags & frames.END_STREAM)
            if self._ends and not self._block and stream_id in self._fields:
                answers += self._answer(stream_id)
        return answers, said, reply

    def _on_block(self, kind: int, flags: int, stream_id: int, payload: bytes) -> None:
        if kind == frames.HEADERS:
            self._ends = bool(flags & frames.END_STREAM)
        self._block += frames.unpad(kind, flags, payload) if kind == frames.HEADERS else payload
        if flags & frames.END_HEADERS:
            fields = self._fields.setdefault(stream_id, [])
            decoded = self._decoder.decode(self._block)
            fields += [(name.decode("latin-1"), value.decode("latin-1")) for name, value in decoded]
            self._block = b""

    def _answer(self, stream_id: int) -> list[HeardAnswer]:
        self._ends = False
        fields = self._fields.pop(stream_id)
        status = dict(fields).get(":status", "")
        size = self._bytes.pop(stream_id, 0)
        return [HeardAnswer(int(status), tuple(fields), size)] if status.isdigit() else []
