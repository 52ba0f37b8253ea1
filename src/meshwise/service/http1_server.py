"""The HTTP/1.1 side of a node that is called: bytes in, bytes out, no socket.

Rules of this file:
- A head is parsed once per distinct bytes, the value of `x-request-id` (which a proxy makes anew for every
  request) left out; what was made of it (`RequestHead`) holds the whole answer ready to send.
- One request of a connection at a time: while its calls are under way, pipelined bytes wait.
- After an error of syntax the connection ends; it is not known where the next message would begin.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from http import HTTPStatus

from meshwise.service import arrivals, behaviour, plan
from meshwise.service.arrivals import ArrivalLog
from meshwise.service.behaviour import PlannedAnswer, body_of
from meshwise.service.buffered import BufferedServer
from meshwise.service.http1_syntax import (
    MAX_HEAD_BYTES,
    Body,
    ChunkedBody,
    Fields,
    Http1SyntaxError,
    LengthBody,
    body_length,
    split_head,
    values_of,
)
from meshwise.service.outgoing import Outgoing, StartCalls
from meshwise.service.script import Play, Script, no_scripts
from meshwise.service.spec import NodeSpec
from meshwise.service.work import work
from meshwise.study.model import Protocol

CACHED_HEADS = 1024
CACHED_BYTES = 64 << 20
"""Of answers ready to send; with more, what is known is forgotten."""
ANSWERED_AT_ONCE_BYTES = 256 << 10
"""With more than this answered, further pipelined requests wait until it is sent."""
CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"
_ID_FIELD = b"\r\nx-request-id: "


@dataclass(frozen=True, slots=True)
class PreparedHttp1Call:
    """A call whose head is written but for the request id between `before` and `after`."""

    call: behaviour.PlannedCall
    before: bytes
    after: bytes


@dataclass(frozen=True, slots=True)
class RequestHead:
    """All that a request head means, and the answer to it."""

    simple: bool
    """No body, calls, work or close: the answer can go out at once."""
    answer: bytes
    length: int
    """Bytes of the request's body; -1 for chunked."""
    close: bool
    expects_continue: bool
    head_only: bool
    work_rounds: int = 0
    calls: tuple[PreparedHttp1Call, ...] = ()
    script: Script[PreparedHttp1Call] | None = None
    """Played instead of `calls`."""
    body_bytes: int = 0
    """Of an answer to a script, before what was answered to it is added."""
    passes_on: bool = False
    """The request is held until others have answered."""
    momentary: bool = False
    """The answer holds for this once."""


class RequestHeadCache:
    """The heads that were seen, shared by all connections of a node."""

    def __init__(self, spec: NodeSpec, rounds_per_us: float, arrived: ArrivalLog | None = None) -> None:
        self._spec = spec
        self.date = spec.date
        self._rounds_per_us = rounds_per_us
        self.arrived = arrived or ArrivalLog()
        self._known: dict[bytes, RequestHead] = {}
        self._known_bytes = 0

    def get(self, raw: bytes) -> RequestHead:
        """Raises Http1SyntaxError."""
        at = raw.find(_ID_FIELD)
        if at >= 0:
            at += len(_ID_FIELD)
            key = raw[:at] + raw[raw.find(b"\r", at) :]
        else:
            key = raw
        known = self._known.get(key)
        if known is not None:
            return known
        head = self._parse(raw)
        if head.momentary:
            return head
        if len(self._known) >= CACHED_HEADS or self._known_bytes > CACHED_BYTES:
            self._known.clear()
            self._known_bytes = 0
        self._known[key] = head
        self._known_bytes += len(head.answer)
        return head

    def _parse(self, raw: bytes) -> RequestHead:
        line, fields = split_head(raw)
        method, path, version = _request_line(line)
        hosts = [value for name, value in fields if name == "host"]
        if len(hosts) > 1 or (not hosts and version == "HTTP/1.1"):
            raise Http1SyntaxError(400, "one host field is needed")
        options = values_of(fields, "connection")
        close = "close" in options or (version == "HTTP/1.0" and "keep-alive" not in options)
        length = body_length(fields) or 0
        if path == arrivals.PATH and method == "GET":
            return _told(self.arrived.to_json(), close=close)
        self.arrived.note("http1", method, line.split(" ")[1], "".join(hosts), fields)
        plan_text = next((value for name, value in fields if name == plan.HEADER), None)
        decision = behaviour.decide(path, plan_text, self._spec, self._rounds_per_us)
        return RequestHead(
            simple=not (
                length or decision.calls or decision.work_rounds or close or decision.script is not None
            ),
            answer=encode_answer(decision, close=close, head_only=method == "HEAD", date=self.date),
            length=length,
            close=close,
            expects_continue="100-continue" in values_of(fields, "expect") and version == "HTTP/1.1",
            head_only=method == "HEAD",
            work_rounds=decision.work_rounds,
            calls=tuple(_prepare(call, method, path, fields) for call in decision.calls),
            script=(
                decision.script.prepared(lambda call: _prepare(call, method, path, fields))
                if decision.script
                else None
            ),
            body_bytes=decision.body_bytes,
            passes_on=bool(decision.calls) or decision.script is not None,
        )


def _told(content: bytes, *, close: bool) -> RequestHead:
    head = f"HTTP/1.1 200 OK\r\ncontent-length: {len(content)}\r\ncontent-type: application/json\r\n"
    answer = head.encode() + (b"connection: close\r\n" if close else b"") + b"\r\n" + content
    return RequestHead(
        simple=not close, answer=answer, length=0, close=close, expects_continue=False, head_only=False,
        momentary=True,
    )  # fmt: skip


def _request_line(line: str) -> tuple[str, str, str]:
    parts = line.split(" ")
    if len(parts) != 3 or not all(parts) or not parts[0].isalpha() or not line.isprintable():
        raise Http1SyntaxError(400, "not a request line")
    method, target, version = parts
    if version not in ("HTTP/1.1", "HTTP/1.0"):
        raise Http1SyntaxError(505, "HTTP/1.1 is spoken here")
    if target.startswith("http://"):
        target = "/" + target[7:].partition("/")[2]
    return method, target, version


def _prepare(call: behaviour.PlannedCall, method: str, path: str, fields: Fields) -> PreparedHttp1Call:
    lines = [f"{method} {path} HTTP/1.1", f"host: {call.upstream.authority(Protocol.HTTP1)}"]
    lines += [f"{name}: {value}" for name, value in behaviour.passed_on(fields)]
    text = "\r\n".join([*lines, f"{plan.HEADER}: {call.plan}"])
    return PreparedHttp1Call(call, text.encode("latin-1"), b"\r\n\r\n")


def encode_answer(decision: PlannedAnswer, *, close: bool, head_only: bool = False, date: str = "") -> bytes:
    """A whole response. It has no date of its own: a proxy in front adds it, and the node need not know the
    time."""
    lines = [
        f"HTTP/1.1 {decision.status} {HTTPStatus(decision.status).phrase}",
        f"content-length: {decision.body_bytes}",
    ]
    if decision.body_bytes:
        lines.append("content-type: application/octet-stream")
    if date:
        lines.append(f"date: {date}")
    if decision.reason:
        lines.append(f"{behaviour.REASON_HEADER}: {_printable(decision.reason)}")
    if close:
        lines.append("connection: close")
    head = ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1")
    return head if head_only else head + body_of(decision.body_bytes)


def _printable(text: str) -> str:
    return "".join(char if " " <= char <= "~" else "?" for char in text)[:200]


def _outgoing(prepared: PreparedHttp1Call, field: bytes, body: bytes) -> Outgoing:
    """The call with its request id and its body: the one of the script, else the one that is passed on."""
    wanted = prepared.call.request_bytes
    if wanted is not None:
        body = body_of(wanted)
    if body:
        field += b"\r\ncontent-length: %d" % len(body)
    return Outgoing(prepared.call.upstream, prepared.before + field + prepared.after, body)


class Http1Server(BufferedServer):
    """One connection."""

    __slots__ = (
        "_body", "_busy", "_ended", "_head", "_heads", "_play", "_raw_head", "_start",
    )  # fmt: skip

    def __init__(
        self, heads: RequestHeadCache, start: StartCalls, play: Play[PreparedHttp1Call] = no_scripts
    ) -> None:
        super().__init__()
        self._heads = heads
        self._start = start
        self._play = play
        self._busy = False
        self._head: RequestHead | None = None
        """The request whose body is being read, or whose calls are under way."""
        self._raw_head = b""
        self._body: Body | None = None
        self._ended = False
        """The peer has shut its side."""

    @property
    def idle(self) -> bool:
        return not (self._busy or self.stalled)

    def receive(self, data: bytes) -> bytes:
        """Returns what to send."""
        if (
            self._head is None
            and not self._buffer
            and data[-4:] == b"\r\n\r\n"
            and data.find(b"\r\n\r\n") == len(data) - 4
        ):  # one head and nothing else: nearly always
            try:
                head = self._heads.get(data)
            except Http1SyntaxError:
                pass  # the error is answered by `_advance`
            else:
                if head.simple:
                    return head.answer
        return super().receive(data)

    def eof(self) -> bytes:
        self._ended = True
        return super().eof()

    def _advance(self) -> bytes:
        out: list[bytes] = []
        ready = counted = 0
        try:
            while self._buffer and not self._busy and not self.closing:
                ready, counted = ready + sum(map(len, out[counted:])), len(out)
                if ready > ANSWERED_AT_ONCE_BYTES:
                    self.stalled = True
                    break
                if self._head is None and not self._read_head(out):
                    break
                if not self._read_body(out):
                    break
        except Http1SyntaxError as error:
            self.closing = True
            self._heads.arrived.note_bytes("http1", self._raw_head + self._buffer)
            self._buffer = b""
            out.append(encode_answer(PlannedAnswer(error.status, reason=str(error)), close=True))
        if self._ended and self.idle:
            self.closing = True
        return b"".join(out)

    def _read_head(self, out: list[bytes]) -> bool:
        self._raw_head = b""
        if self._buffer.startswith(b"\r\n"):
            self._buffer = self._buffer.lstrip(b"\r\n")  # RFC 9112 section 2.2
        end = self._buffer.find(b"\r\n\r\n") + 4
        if end > MAX_HEAD_BYTES or (end < 4 and len(self._buffer) > MAX_HEAD_BYTES):
            raise Http1SyntaxError(431, f"head longer than {MAX_HEAD_BYTES} bytes")
        if end < 4:
            return False
        self._raw_head, self._buffer = self._buffer[:end], self._buffer[end:]
        head = self._head = self._heads.get(self._raw_head)
        self._body = ChunkedBody() if head.length < 0 else LengthBody(head.length)
        if head.expects_continue and head.length and not self._buffer:
            out.append(CONTINUE)
        return True

    def _read_body(self, out: list[bytes]) -> bool:
        head, body = self._head, self._body
        assert head is not None
        assert body is not None
        rest = body.feed(self._buffer)
        if head.passes_on and body.size > behaviour.MAX_BODY_BYTES:
            raise Http1SyntaxError(413, f"a body to pass on may have {behaviour.MAX_BODY_BYTES} bytes")
        if not head.passes_on:
            body.pieces.clear()
        self._buffer = rest or b""
        if rest is None:
            return False
        if head.work_rounds:
            work(head.work_rounds)
        if head.passes_on:
            self._busy = True
            self._pass_on(head, b"".join(body.pieces))
            return True
        out.append(head.answer)
        self._head = self._body = None
        self.closing = self.closing or head.close
        return True

    def _pass_on(self, head: RequestHead, body: bytes) -> None:
        """Make the calls of this request, or play its script, its id and body put in."""
        at = self._raw_head.find(_ID_FIELD)
        field = self._raw_head[at : self._raw_head.find(b"\r", at + 2)] if at >= 0 else b""
        if b"\n" in field[2:]:
            field = b""
        make = self._maker(partial(_outgoing, field=field, body=body))
        if head.script is None:
            self._start(Protocol.HTTP1, list(map(make, head.calls)), self._called)
        else:
            self._play(Protocol.HTTP1, head.script, make, self._played)

    def _maker(
        self, make: Callable[[PreparedHttp1Call], Outgoing]
    ) -> Callable[[PreparedHttp1Call], Outgoing]:
        """How the calls of this request are made."""
        return make

    def _called(self, reason: str, answered_bytes: int) -> None:
        """All calls have ended; an empty reason: well."""
        self._finish(PlannedAnswer(502, reason=reason) if reason else None)

    def _played(self, reason: str, answered_bytes: int) -> None:
        """Likewise for a script."""
        head = self._head
        assert head is not None
        assert head.script is not None
        if reason:
            self._finish(behaviour.failed(reason))
        elif head.script.aggregates:
            self._finish(PlannedAnswer(200, head.body_bytes + answered_bytes))
        else:
            self._finish(None)

    def _finish(self, decision: PlannedAnswer | None) -> None:
        """Answer the request whose calls have ended; without a decision as its head says."""
        head = self._head
        assert head is not None
        close = head.close or self.closing
        answer = head.answer
        if decision is not None:
            answer = encode_answer(decision, close=close, head_only=head.head_only, date=self._heads.date)
        self._busy = False
        self._head = self._body = None
        self.closing = close
        self.emit(answer if close else answer + self._advance())
