"""gRPC streaming from the client's side: client, server and bidirectional streams of messages.

A stream is one request of the schedule: it is done with its trailers. Client: all messages go up at once,
each in DATA frames of its own, and one comes down. Server: one goes up. Bidirectional: in turn, the next
message goes up when the one before it is answered, so that the time of a stream is that of its round trips.
The peer's windows hold throughout: what they do not allow waits, as any body does.

A stream whose status is OK but which brought fewer messages than were asked for has failed (INTERNAL); one
with a message that is cut is malformed, as any gRPC answer.
"""

from __future__ import annotations

from collections.abc import Sequence

from meshwise.load.wire.http2_request import EncodedRequest
from meshwise.load.wire.http2_stream import ResponseStream
from meshwise.load.wire.seam import Completion
from meshwise.load.wire.varied import VariedGrpc
from meshwise.study.protocol import Streaming

_NEVER_FITS = 1 << 62


class MessageLog:
    """Where the messages of each stream are counted; the owner of the records puts their column there."""

    def __init__(self) -> None:
        self.column: memoryview | None = None

    def note(self, tag: int, messages: int) -> None:
        if self.column is not None:
            self.column[tag] = messages


class _GrpcStream(VariedGrpc):
    """What client, server and bidirectional streams share: how many messages, and where they are counted."""

    def __init__(
        self,
        calls: Sequence[EncodedRequest],
        order: Sequence[int],
        streams: int,
        messages: int,
        log: MessageLog,
    ) -> None:
        """`messages`: of each stream, all of one size; the body of a call is what goes up of them."""
        super().__init__(calls, order, streams)
        self._messages, self._log = messages, log


class GrpcUpstream(_GrpcStream):
    """Client streaming (WireProtocol): each call's body is `messages` messages. What went up is counted."""

    def start(self, tag: int) -> bytes:
        key = self._next_id.to_bytes(4, "big")
        data = super().start(tag)
        if data and key not in self._held_back:
            self._log.note(tag, self._messages)
        return data

    def _more_body(self, key: bytes) -> bytes:
        more = super()._more_body(key)
        body_bytes = self._body_bytes
        sent_bytes = self._held_back.get(key, body_bytes)
        self._log.note(self._open[key], sent_bytes * self._messages // body_bytes)
        return more


class GrpcDownstream(_GrpcStream):
    """Server streaming (WireProtocol): `messages` have to come, with 0 as many as come. Counted is what came
    down."""

    def receive(self, data: bytes, now_ns: int) -> Sequence[Completion]:
        done = super().receive(data, now_ns)
        self._shape = None  # the short cut does not look for messages
        return done

    def _on_messages(self, key: bytes, whole: int) -> None:
        self._log.note(self._open[key], whole)

    def _wrong_count(self, messages: int) -> str:
        return ""

    def _is_complete(self, stream: ResponseStream) -> bool:
        return self._messages == 0 or (stream.reader is not None and stream.reader.whole >= self._messages)


class GrpcDialogue(GrpcDownstream):
    """Bidirectional streaming in turn (WireProtocol). What is counted is what came down."""

    def __init__(
        self,
        calls: Sequence[EncodedRequest],
        order: Sequence[int],
        streams: int,
        messages: int,
        log: MessageLog,
    ) -> None:
        """`calls`: the body of each is `messages` messages of one size."""
        super().__init__(calls, order, streams, messages, log)
        self._answered: dict[bytes, int] = {}

    def _choose(self, tag: int) -> None:
        super()._choose(tag)
        self._body_bytes = _NEVER_FITS  # the body is always held back, and goes up piece by piece

    def _sendable_bytes(self, key: bytes) -> int:
        turn = min(self._answered.get(key, 0) + 1, self._messages)
        return len(self._request.body) * turn // self._messages

    def _on_messages(self, key: bytes, whole: int) -> None:
        super()._on_messages(key, whole)
        self._answered[key] = whole
        if key in self._held_back:
            more = self._more_body(key)
            if more:
                self._send(more)

    def _forget(self, key: bytes) -> int:
        self._answered.pop(key, None)
        return super()._forget(key)


def protocol_class(streaming: Streaming) -> type[GrpcUpstream] | type[GrpcDownstream]:
    """Of the kinds but `none`."""
    if streaming is Streaming.CLIENT:
        return GrpcUpstream
    return GrpcDialogue if streaming is Streaming.BIDI else GrpcDownstream
