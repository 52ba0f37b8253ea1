"""The HTTP/1.1 side of a node that calls: one call at a time on a kept connection. No socket."""

from __future__ import annotations

from collections.abc import Callable

from meshwise.service.http1_syntax import (
    MAX_HEAD_BYTES,
    Body,
    ChunkedBody,
    Http1SyntaxError,
    LengthBody,
    UntilCloseBody,
    body_length,
    split_head,
    values_of,
)
from meshwise.service.ticket import Ticket

CACHED_HEADS = 256


class ResponseHeads:
    """What response heads mean (status, length, close), remembered by their bytes."""

    def __init__(self) -> None:
        self._known: dict[bytes, tuple[int, int | None, bool]] = {}

    def get(self, raw: bytes) -> tuple[int, int | None, bool]:
        """(status, body length or -1 for chunked or None, whether it ends). Raises Http1SyntaxError."""
        known = self._known.get(raw)
        if known is None:
            line, fields = split_head(raw)
            version, _, rest = line.partition(" ")
            status = rest[:3]
            if version not in ("HTTP/1.1", "HTTP/1.0") or not (status.isascii() and status.isdigit()):
                raise Http1SyntaxError(502, "not a status line")
            options = values_of(fields, "connection")
            close = "close" in options or (version == "HTTP/1.0" and "keep-alive" not in options)
            known = (int(status), body_length(fields), close)
            if len(self._known) >= CACHED_HEADS:
                self._known.clear()
            self._known[raw] = known
        return known


class Http1Client:
    """One connection. `on_free` is called when it can take the next call, `on_lost` of a call that was sent
    on a kept connection which turned out to be closed."""

    __slots__ = ("_body", "_buffer", "_heads", "_on_free", "_on_lost", "_silent", "_status", "_ticket",
                 "_used", "closing", "emit")  # fmt: skip

    def __init__(
        self,
        heads: ResponseHeads,
        on_free: Callable[[Http1Client], None],
        on_lost: Callable[[Ticket], None],
    ) -> None:
        self._heads = heads
        self._on_free = on_free
        self._on_lost = on_lost
        self._buffer = b""
        self._ticket: Ticket | None = None
        self._body: Body | None = None
        self._status = 0
        self._used = False
        self._silent = True
        """Nothing has come back for this call yet."""
        self.closing = False
        self.emit: Callable[[bytes], None] = lambda data: None

    stalled = False
    """A call is sent whole; only answers can stall."""

    @property
    def idle(self) -> bool:
        return self._ticket is None

    @property
    def waiting_bytes(self) -> int:
        return 0

    def send(self, ticket: Ticket) -> None:
        self._ticket = ticket
        self._silent = True
        ticket.abandon = self._abandon
        self.emit(ticket.outgoing.head + ticket.outgoing.body)

    def receive(self, data: bytes) -> bytes:
        self._silent = False
        self._buffer += data
        try:
            self._read()
        except Http1SyntaxError as error:
            self._end(f"not HTTP/1.1: {error}", close=True)
        return b""

    def eof(self) -> bytes:
        if isinstance(self._body, UntilCloseBody):
            self._end(_verdict(self._status), close=True, answered_bytes=self._body.size)
        self.lost()
        return b""

    def resume(self) -> bytes:
        return b""

    def shut_down(self) -> bytes:
        self.closing = True
        return b""

    def fail(self, reason: str) -> None:
        """The connection never came about."""
        if self._ticket is not None:
            self._ticket.settle(reason)

    def lost(self) -> None:
        """The connection is gone."""
        ticket, self._ticket = self._ticket, None
        self.closing = True
        if ticket is None or ticket.settled:
            return
        if self._used and self._silent and not ticket.tries:
            ticket.tries += 1
            self._on_lost(ticket)
        else:
            ticket.settle("connection lost")

    def _read(self) -> None:
        while self._buffer and self._ticket is not None:
            if self._body is None and not self._read_head(self._ticket):
                return
            body = self._body
            if body is None:
                continue  # an interim response
            rest = body.feed(self._buffer)
            body.pieces.clear()
            self._buffer = rest or b""
            if rest is None:
                return
            self._end(_verdict(self._status), close=self.closing, answered_bytes=body.size)
        if self._buffer:  # more than was asked for
            self.closing = True

    def _read_head(self, ticket: Ticket) -> bool:
        end = self._buffer.find(b"\r\n\r\n") + 4
        if end < 4:
            if len(self._buffer) > MAX_HEAD_BYTES:
                raise Http1SyntaxError(502, "head too long")
            return False
        status, length, close = self._heads.get(self._buffer[:end])
        self._buffer = self._buffer[end:]
        if status == 101:
            raise Http1SyntaxError(502, "switching of protocols was not asked for")
        if 100 <= status < 200:
            return True
        self._status = status
        self.closing = self.closing or close
        if ticket.outgoing.head.startswith(b"HEAD ") or status in (204, 304):
            length = 0
        if length is None:
            self._body = UntilCloseBody()
        else:
            self._body = ChunkedBody() if length < 0 else LengthBody(length)
        if length == 0 and not self._buffer:
            self._end(_verdict(status), close=self.closing)
        return True

    def _end(self, reason: str, *, close: bool, answered_bytes: int = 0) -> None:
        ticket, self._ticket = self._ticket, None
        self._body = None
        self._used = True
        self.closing = self.closing or close
        if not self.closing:
            self._on_free(self)
        if ticket is not None:
            ticket.settle(reason, answered_bytes)

    def _abandon(self) -> None:
        self._ticket = None
        self.closing = True
        self.emit(b"")


def _verdict(status: int) -> str:
    return "" if 200 <= status < 300 else f"upstream status {status}"
