"""The HTTP/2 side of a node that calls, for plain HTTP and gRPC: many calls on one connection. No socket."""

from __future__ import annotations

from collections.abc import Callable

from meshwise.load.wire import frames
from meshwise.load.wire.frames import FramingError
from meshwise.service import grpc_framing
from meshwise.service.http2_connection import Http2Connection, first_frames
from meshwise.service.http2_sending import ServerStream
from meshwise.service.ticket import Ticket

_FIRST = first_frames(frames.PREFACE, {frames.ENABLE_PUSH: 0})
_ASSUMED_STREAMS = 100
"""Streams that we open before the peer has said how many it allows (RFC 9113 section 6.5.2 recommends it)."""


class _Response:
    __slots__ = ("reason", "ticket")

    def __init__(self, ticket: Ticket) -> None:
        self.ticket = ticket
        self.reason: str | None = None
        """None: no verdict yet."""


class Http2Client(Http2Connection):
    """One connection. `on_free` is called when a stream has ended; `on_lost` of a call that the peer has
    certainly not dealt with (refused, or beyond its GOAWAY)."""

    __slots__ = ("_is_grpc", "_next_stream", "_on_free", "_on_lost", "draining", "max_streams")

    def __init__(
        self, *, is_grpc: bool, on_free: Callable[[], None], on_lost: Callable[[Ticket], None]
    ) -> None:
        super().__init__(b"")
        self._is_grpc = is_grpc
        self._on_free = on_free
        self._on_lost = on_lost
        self._next_stream = 1
        self.max_streams = _ASSUMED_STREAMS
        self.draining = False
        """The peer takes no more streams."""
        self._out.append(_FIRST)

    @property
    def active(self) -> int:
        return len(self._streams)

    @property
    def usable(self) -> bool:
        return not (self.draining or self.closing) and len(self._streams) < self.max_streams

    def send(self, ticket: Ticket) -> None:
        """`usable` must hold."""
        stream_id = self._next_stream
        self._next_stream += 2
        if self._next_stream > frames.MAX_STREAM_ID - 2:
            self.draining = True
        stream = self._streams[stream_id] = ServerStream(_Response(ticket), self._initial_window)
        ticket.abandon = lambda: self._abandon(stream_id)
        outgoing = ticket.outgoing
        self._out.append(frames.headers_frames(stream_id, outgoing.head, end_stream=not outgoing.body))
        if outgoing.body:
            self._send_body(stream_id, stream, outgoing.body, b"")
        self.flush()

    def eof(self) -> bytes:
        self.lost()
        return b""

    def shut_down(self) -> bytes:
        self.closing = True
        return frames.goaway(0, frames.NO_ERROR)

    def fail(self, reason: str) -> None:
        """The connection never came about."""
        self.closing = True
        self._drop_all(reason)

    def lost(self) -> None:
        self.closing = True
        self._drop_all("connection lost")

    def _drop_all(self, reason: str) -> None:
        streams = list(self._streams.values())
        super()._drop_all(reason)
        for stream in streams:
            response: _Response = stream.context
            response.ticket.settle(reason)

    def _on_block(self, stream_id: int, block: bytes, end_stream: bool) -> None:
        fields, _ = self._blocks.decode(block)
        stream = self._streams.get(stream_id)
        if stream is None:
            self._stray(stream_id, "HEADERS")
            return
        response: _Response = stream.context
        by_name = dict(fields)
        status = by_name.get(b":status")
        if status is not None and status.startswith(b"1") and not end_stream:
            return  # interim
        if status is not None and not status.startswith(b"2"):
            response.reason = f"upstream status {status.decode('latin-1')}"
        elif not self._is_grpc and response.reason is None:
            response.reason = ""
        grpc_status = by_name.get(b"grpc-status")
        if self._is_grpc and grpc_status is not None and not response.reason:
            code = grpc_status.decode("latin-1")
            response.reason = "" if code == "0" else f"upstream grpc-status {code}"
        if end_stream:
            self._on_end(stream_id, stream)

    def _on_end(self, stream_id: int, stream: ServerStream) -> None:
        del self._streams[stream_id]
        if self._blocked.pop(stream_id, None) is not None:  # answered before it had read our body
            self._out.append(frames.rst_stream(stream_id, frames.NO_ERROR))
        response: _Response = stream.context
        response.ticket.settle(
            "no grpc-status" if response.reason is None else response.reason,
            grpc_framing.payload_bytes(stream.received) if self._is_grpc else stream.received,
        )
        self._freed()

    def _on_sent(self, stream_id: int, stream: ServerStream) -> None:
        """The answer is still to come."""

    def _wants_data(self, stream: ServerStream) -> bool:
        return False

    def _on_reset(self, stream_id: int, stream: ServerStream, code: int) -> None:
        response: _Response = stream.context
        if code == frames.REFUSED_STREAM:
            self._try_again(response.ticket)
        else:
            response.ticket.settle(f"stream reset with code {code}")
        self._freed()

    def _on_goaway(self, last_stream_id: int, code: int) -> None:
        self.draining = True
        beyond = [stream_id for stream_id in self._streams if stream_id > last_stream_id]
        for stream_id in beyond:
            response: _Response = self._streams.pop(stream_id).context
            self._blocked.pop(stream_id, None)
            self._try_again(response.ticket)
        self._freed()

    def _try_again(self, ticket: Ticket) -> None:
        if ticket.tries:
            ticket.settle("refused twice")
        elif not ticket.settled:
            ticket.tries += 1
            self._on_lost(ticket)

    def _freed(self) -> None:
        if self.draining and not self._streams:
            self.closing = True
        self._on_free()

    def _abandon(self, stream_id: int) -> None:
        if stream_id in self._streams:
            self._reset(stream_id, frames.CANCEL)
            self.flush()

    def _on_settings(self, key: int, value: int) -> None:
        if key == frames.MAX_CONCURRENT_STREAMS:
            self.max_streams = value
        elif key == frames.ENABLE_PUSH and value:
            raise FramingError(frames.PROTOCOL_ERROR, "a server cannot allow push")

    def _is_idle_stream(self, stream_id: int) -> bool:
        return stream_id >= self._next_stream or not stream_id & 1

    def _highest_peer_stream(self) -> int:
        return 0
