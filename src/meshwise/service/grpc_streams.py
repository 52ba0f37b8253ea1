"""gRPC streams from the side that is called: client, server and bidirectional streams of messages. No socket.

    /meshwise.Echo/ClientStream   many messages come, one answers them
    /meshwise.Echo/ServerStream   one comes, `messages` of the plan answer it, each in frames of its own
    /meshwise.Echo/BidiStream     each message is answered by one as soon as it is whole

`x-plan` says the size of an answer's message (`bytes`), how many (`messages`), and how much work comes before
it (`work_us`; of a bidirectional stream before each). A stream goes to one node: a plan with further calls is
refused. Messages are counted and dropped as they come, so memory does not depend on how long a stream is; a
caller that takes no answers is cut off when `HELD_BYTES` of them wait.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from meshwise.load.wire import frames
from meshwise.load.wire.blocks import encode_block
from meshwise.load.wire.grpc_messages import MessageReader
from meshwise.service import behaviour, grpc_framing, plan
from meshwise.service.behaviour import body_of
from meshwise.service.http2_answers import grpc_answer
from meshwise.service.http2_sending import ServerStream
from meshwise.service.http2_server import HeaderBlockCache, Http2Server, RequestHeaders
from meshwise.service.work import rounds_for, work
from meshwise.study.protocol import Streaming

HELD_BYTES = 4 << 20
_KIND_OF = {path: kind for kind, path in behaviour.STREAM_PATHS.items()}
_FIRST_BLOCK = encode_block([(":status", "200"), ("content-type", grpc_framing.CONTENT_TYPE)])
_LAST_BLOCK = encode_block([("grpc-status", "0")])


@dataclass(frozen=True, slots=True)
class StreamHead(RequestHeaders):
    """What the header block of a streaming call means."""

    kind: Streaming = Streaming.NONE
    message: bytes = b""
    """Of the answer, framed."""
    messages: int = 1
    """Of a server stream."""


@dataclass(slots=True)
class StreamExchange:
    """One stream under way."""

    reader: MessageReader
    begun: bool = False
    """The answer's HEADERS are sent."""


class StreamHeads(HeaderBlockCache):
    """Also knows the streaming methods."""

    def _make(self, raw: Sequence[tuple[bytes, bytes]]) -> RequestHeaders:
        fields = dict(raw)
        kind = _KIND_OF.get(fields.get(b":path", b"").decode("latin-1").partition("?")[0])
        head = super()._make(raw)
        if kind is None or fields.get(b":method") != b"POST" or not head.is_call:
            return head
        status, reason, wanted = _wanted(fields.get(plan.HEADER.encode(), b"").decode("latin-1"))
        message = grpc_framing.frame_payload(body_of(wanted.bytes))
        return StreamHead(
            answer=grpc_answer(status, reason, wanted.bytes, []),
            method=head.method,
            is_call=True,
            content_length=head.content_length,
            work_rounds=rounds_for(wanted.work_us, self._rounds_per_us),
            kind=kind if status == grpc_framing.OK else Streaming.NONE,
            message=message,
            messages=wanted.messages,
        )


def _wanted(text: str) -> tuple[int, str, plan.Plan]:
    """(gRPC status, why, the plan)"""
    try:
        wanted = plan.parse(text)
    except plan.PlanError as error:
        return grpc_framing.INVALID_ARGUMENT, str(error), plan.Plan()
    if wanted.hops or wanted.fan or wanted.script:
        return grpc_framing.UNIMPLEMENTED, "a stream goes to one node", plan.Plan()
    if wanted.bytes * wanted.messages > plan.MAX_BYTES:
        return grpc_framing.INVALID_ARGUMENT, f"a stream sends {plan.MAX_BYTES} bytes at most", plan.Plan()
    return grpc_framing.OK, "", wanted


class GrpcServer(Http2Server):
    """One connection to the gRPC port: unary calls as its base has them, and streams."""

    __slots__ = ()

    def _wants_data(self, stream: ServerStream) -> bool:
        if type(stream.context[0]) is not StreamHead:
            return super()._wants_data(stream)
        stream.piecemeal = True
        return True

    def _on_piece(self, stream_id: int, stream: ServerStream) -> None:
        head, exchange = _exchange_of(stream)
        whole = sum(map(exchange.reader.feed, stream.pieces))
        stream.pieces.clear()
        if exchange.reader.compressed and head.kind is not Streaming.NONE:
            self._refuse(
                stream_id, stream, grpc_framing.UNIMPLEMENTED, "compressed messages are not understood"
            )
        elif head.kind is Streaming.BIDI and whole:
            self._begin(stream_id, exchange)
            for _ in range(whole if head.work_rounds else 0):
                work(head.work_rounds)
            stream.step_bytes = len(head.message)
            self._send_more(stream_id, stream, head.message * whole)
            if len(stream.sending) - stream.sent > HELD_BYTES + len(head.message):
                self._reset(stream_id, frames.ENHANCE_YOUR_CALM)

    def _on_end(self, stream_id: int, stream: ServerStream) -> None:
        if type(stream.context[0]) is not StreamHead:
            super()._on_end(stream_id, stream)
            return
        if self._streams.get(stream_id) is not stream:
            return  # refused by its last piece
        head, exchange = _exchange_of(stream)
        reader = exchange.reader
        if head.kind is Streaming.NONE:
            self._answer(stream_id, stream, head.answer)
        elif reader.partial:
            self._refuse(stream_id, stream, grpc_framing.INTERNAL, "the last message is not whole")
        elif head.kind is Streaming.SERVER and reader.whole != 1:
            self._refuse(stream_id, stream, grpc_framing.INTERNAL, "one message asks for a stream")
        elif head.kind is Streaming.BIDI:
            self._begin(stream_id, exchange)
            self._finish(stream_id, stream)
        else:
            if head.work_rounds:
                work(head.work_rounds)
            if head.kind is Streaming.CLIENT:
                self._answer(stream_id, stream, head.answer)
                return
            self._begin(stream_id, exchange)
            stream.step_bytes = len(head.message)
            stream.sending, stream.sent = head.message * head.messages, 0
            self._finish(stream_id, stream)

    def _begin(self, stream_id: int, exchange: StreamExchange) -> None:
        if not exchange.begun:
            exchange.begun = True
            self._out.append(frames.headers_frames(stream_id, _FIRST_BLOCK, end_stream=False))

    def _finish(self, stream_id: int, stream: ServerStream) -> None:
        """What is still to be sent, then the trailers."""
        stream.open_ended = False
        stream.tail = frames.headers_frames(stream_id, _LAST_BLOCK, end_stream=True)
        self._blocked[stream_id] = stream
        self._pump()

    def _refuse(self, stream_id: int, stream: ServerStream, status: int, reason: str) -> None:
        if not _exchange_of(stream)[1].begun:
            self._answer(stream_id, stream, grpc_answer(status, reason, 0, []))
            return
        trailers = [("grpc-status", str(status)), ("grpc-message", grpc_framing.message_text(reason))]
        self._blocked.pop(stream_id, None)
        self._out.append(frames.headers_frames(stream_id, encode_block(trailers), end_stream=True))
        self._streams.pop(stream_id, None)


def _exchange_of(stream: ServerStream) -> tuple[StreamHead, StreamExchange]:
    head, exchange = stream.context
    if not isinstance(exchange, StreamExchange):
        exchange = StreamExchange(MessageReader())
        stream.context = (head, exchange)
    return head, exchange
