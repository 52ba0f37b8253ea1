"""The HTTP/2 side of a node that is called, for plain HTTP (prior knowledge) and for unary gRPC. No socket.

Rules of this file:
- A header block is parsed once per distinct bytes (`http2_blocks`); what was made of it (`RequestHeaders`)
  holds the whole answer, cut where a stream's number belongs: `number.join(parts)` is the answer of that
  stream.
- A request without a body is answered without a record of its stream; others have one until they end.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache, partial

from meshwise.load.wire import frames
from meshwise.load.wire.blocks import encode_block
from meshwise.load.wire.frames import FramingError
from meshwise.service import behaviour, grpc_framing, plan
from meshwise.service.arrivals import ArrivalLog
from meshwise.service.behaviour import PlannedAnswer, body_of
from meshwise.service.http2_answers import EncodedAnswer, answer_to, grpc_answer
from meshwise.service.http2_blocks import PeerBlocks, begins_id_value, cut_request_id, id_field
from meshwise.service.http2_connection import Http2Connection, first_frames
from meshwise.service.http2_sending import ServerStream
from meshwise.service.outgoing import Outgoing, StartCalls
from meshwise.service.script import Play, Script, no_scripts
from meshwise.service.spec import NodeSpec
from meshwise.service.work import work
from meshwise.study.model import Protocol

CACHED_HEADS = 1024
CACHED_BYTES = 64 << 20
"""Of answers ready to send; with more, what is known is forgotten."""
MAX_STREAMS = 1024
_FIRST = first_frames(b"", {frames.MAX_CONCURRENT_STREAMS: MAX_STREAMS})
_FORBIDDEN = {b"connection", b"keep-alive", b"proxy-connection", b"transfer-encoding", b"upgrade"}
_PSEUDO = {b":method", b":scheme", b":path", b":authority"}

_Fields = list[tuple[str, str]]


@dataclass(frozen=True, slots=True)
class PreparedHttp2Call:
    """A call and its header block, without the request id, which follows at the end."""

    call: behaviour.PlannedCall
    block: bytes


@dataclass(frozen=True, slots=True)
class RequestHeaders:
    """All that a request's header block means, and the answer to it."""

    answer: EncodedAnswer
    method: str
    is_call: bool
    """A gRPC call: its body must be one message, and its refusals are gRPC statuses."""
    content_length: int | None
    work_rounds: int = 0
    calls: tuple[PreparedHttp2Call, ...] = ()
    script: Script[PreparedHttp2Call] | None = None
    """Played instead of `calls`."""
    body_bytes: int = 0
    """Of an answer to a script, before what was answered to it is added."""
    passes_on: bool = False
    """The request is held until others have answered."""


class MalformedRequest(Exception):
    """A request that HTTP/2 calls malformed (RFC 9113 section 8.1.1): an error of its stream."""


class HeaderBlockCache:
    """The header blocks that were seen, shared by all connections to one port of a node."""

    def __init__(
        self, spec: NodeSpec, rounds_per_us: float, protocol: Protocol, arrived: ArrivalLog | None = None
    ) -> None:
        self.protocol = protocol
        self._arrived = arrived or ArrivalLog()
        self._spec = spec
        self.date = spec.date
        self._rounds_per_us = rounds_per_us
        self._known: dict[bytes, RequestHeaders] = {}
        self._known_bytes = 0

    def get(self, blocks: PeerBlocks, block: bytes) -> RequestHeaders:
        """Raises FramingError for a block that cannot be read, MalformedRequest for one that must not be."""
        key, _, at = cut_request_id(block)
        if blocks.table_empty:
            known = self._known.get(key)
            if known is not None:
                return known
        fields, shared = blocks.decode(block)
        head = self._make(fields)
        if shared and (at < 0 or begins_id_value(block, at)):
            if len(self._known) >= CACHED_HEADS or self._known_bytes > CACHED_BYTES:
                self._known.clear()
                self._known_bytes = 0
            self._known[key] = head
            self._known_bytes += len(head.answer.body)
        return head

    def _make(self, raw: Sequence[tuple[bytes, bytes]]) -> RequestHeaders:
        pseudo, fields = _validated(raw)
        method, path = pseudo[":method"], pseudo[":path"]
        by_name = dict(fields)
        self._arrived.note(str(self.protocol), method, path, pseudo.get(":authority", ""), fields)
        is_call = self.protocol is Protocol.GRPC and _is_grpc(by_name.get("content-type", ""))
        decision = behaviour.decide(path, by_name.get(plan.HEADER), self._spec, self._rounds_per_us)
        if self.protocol is Protocol.GRPC and not is_call and path != behaviour.HEALTH_PATH:
            decision = PlannedAnswer(415, reason="gRPC is spoken here")
        elif is_call and (path != behaviour.GRPC_PATH or method != "POST"):
            decision = PlannedAnswer(404, reason=f"the method here is {behaviour.GRPC_PATH}")
        length = by_name.get("content-length")
        if length is not None and not (length.isascii() and length.isdigit()):
            raise MalformedRequest("content-length is not a number")
        prepare = partial(self._prepare, pseudo=pseudo, fields=fields, is_call=is_call)
        return RequestHeaders(
            answer=answer_to(decision, is_call=is_call, head_only=method == "HEAD", date=self.date),
            method=method,
            is_call=is_call,
            content_length=None if length is None else int(length),
            work_rounds=decision.work_rounds,
            calls=tuple(prepare(call) for call in decision.calls),
            script=decision.script.prepared(prepare) if decision.script else None,
            body_bytes=decision.body_bytes,
            passes_on=bool(decision.calls) or decision.script is not None,
        )

    def _prepare(
        self, call: behaviour.PlannedCall, pseudo: dict[str, str], fields: _Fields, *, is_call: bool
    ) -> PreparedHttp2Call:
        protocol_fields = [("te", "trailers"), ("content-type", grpc_framing.CONTENT_TYPE)] if is_call else []
        block = encode_block(
            [
                (":method", pseudo[":method"]),
                (":scheme", "http"),
                (":authority", call.upstream.authority(self.protocol)),
                (":path", pseudo[":path"]),
                *protocol_fields,
                *behaviour.passed_on(fields),
                (plan.HEADER, call.plan),
            ]
        )
        return PreparedHttp2Call(call, block)


def _is_grpc(content_type: str) -> bool:
    return content_type == grpc_framing.CONTENT_TYPE or content_type.startswith(
        (grpc_framing.CONTENT_TYPE + "+", grpc_framing.CONTENT_TYPE + ";")
    )


def _validated(raw: Sequence[tuple[bytes, bytes]]) -> tuple[dict[str, str], _Fields]:
    """(pseudo-header fields, other fields), checked as RFC 9113 section 8.2 and 8.3 demand."""
    pseudo: dict[str, str] = {}
    fields: _Fields = []
    for name, value in raw:
        text = value.decode("latin-1")
        if name.startswith(b":"):
            if name not in _PSEUDO or fields or name.decode() in pseudo:
                raise MalformedRequest(f"pseudo-header field {name!r} is unknown, late or repeated")
            pseudo[name.decode()] = text
            continue
        if not name or name != name.lower() or name in _FORBIDDEN or (name == b"te" and value != b"trailers"):
            raise MalformedRequest(f"field {name!r} has no place in HTTP/2")
        if any(char in text for char in "\0\r\n") or text != text.strip(" \t"):
            raise MalformedRequest(f"value of field {name!r}")
        fields.append((name.decode("latin-1"), text))
    if not pseudo.get(":path") or not pseudo.get(":method") or ":scheme" not in pseudo:
        raise MalformedRequest("method, scheme and path are needed")
    return pseudo, fields


def _outgoing(prepared: PreparedHttp2Call, id_block: bytes, body: bytes, *, is_call: bool) -> Outgoing:
    """The call with its request id and its body: the one of the script, else the one that is passed on."""
    wanted = prepared.call.request_bytes
    if wanted is not None:
        body = _message(wanted) if is_call else body_of(wanted)
    return Outgoing(prepared.call.upstream, prepared.block + id_block, body)


@lru_cache(maxsize=64)
def _message(size_bytes: int) -> bytes:
    return grpc_framing.frame_payload(body_of(size_bytes))


class Http2Server(Http2Connection):
    """One connection."""

    __slots__ = ("_heads", "_is_grpc", "_last_stream", "_play", "_start")

    def __init__(
        self, heads: HeaderBlockCache, start: StartCalls, play: Play[PreparedHttp2Call] = no_scripts
    ) -> None:
        super().__init__(frames.PREFACE)
        self._heads = heads
        self._is_grpc = heads.protocol is Protocol.GRPC
        self._start = start
        self._play = play
        self._last_stream = 0
        self._out.append(_FIRST)

    def eof(self) -> bytes:
        """The peer sends no more; what is under way is still answered."""
        self.closing = True
        return b""

    def shut_down(self) -> bytes:
        """Take no new stream, finish what is under way, then close."""
        if not self._told_goaway:
            self._out.append(frames.goaway(self._last_stream, frames.NO_ERROR))
            self._told_goaway = True
        self.closing = True
        return self.take()

    def lost(self) -> None:
        self.closing = True
        self._drop_all("")

    def _on_block(self, stream_id: int, block: bytes, end_stream: bool) -> None:
        if stream_id <= self._last_stream:
            self._on_trailers(stream_id, block, end_stream)
            return
        if not stream_id & 1:
            raise FramingError(frames.PROTOCOL_ERROR, "a client's streams are odd")
        if self._told_goaway:
            self._blocks.decode(block)
            return
        self._last_stream = stream_id
        try:
            head = self._heads.get(self._blocks, block)
        except MalformedRequest:
            self._reset(stream_id, frames.PROTOCOL_ERROR)
            return
        if end_stream and not head.passes_on and not head.is_call and not head.content_length:
            if head.work_rounds:
                work(head.work_rounds)
            self._answer(stream_id, None, head.answer)
            return
        if len(self._streams) >= MAX_STREAMS:
            self._reset(stream_id, frames.REFUSED_STREAM)
            return
        stream = ServerStream(
            (head, cut_request_id(block)[1] if head.passes_on else b""), self._initial_window
        )
        self._streams[stream_id] = stream
        if end_stream:
            stream.remote_closed = True
            self._on_end(stream_id, stream)

    def _on_trailers(self, stream_id: int, block: bytes, end_stream: bool) -> None:
        self._blocks.decode(block)  # it may change the peer's table
        stream = self._streams.get(stream_id)
        if stream is None or stream.remote_closed:
            self._stray(stream_id, "HEADERS")
        elif not end_stream:
            self._reset(stream_id, frames.PROTOCOL_ERROR)
        else:
            stream.remote_closed = True
            self._on_end(stream_id, stream)

    def _wants_data(self, stream: ServerStream) -> bool:
        head: RequestHeaders = stream.context[0]
        if head.passes_on:
            return stream.received <= behaviour.MAX_BODY_BYTES
        return head.is_call and sum(map(len, stream.pieces)) < grpc_framing.PREFIX_BYTES

    def _on_end(self, stream_id: int, stream: ServerStream) -> None:
        head: RequestHeaders
        head, raw_id = stream.context
        if head.content_length is not None and head.content_length != stream.received:
            self._reset(stream_id, frames.PROTOCOL_ERROR)
            return
        answer = head.answer
        if head.is_call:
            first = stream.pieces[0] if stream.pieces else b""
            if len(first) < grpc_framing.PREFIX_BYTES:
                first = b"".join(stream.pieces)
            wrong = grpc_framing.complaint(first, stream.received)
            if wrong is not None:
                self._answer(stream_id, stream, grpc_answer(*wrong, 0, []))
                return
        if head.work_rounds:
            work(head.work_rounds)
        if not head.passes_on:
            self._answer(stream_id, stream, answer)
        elif stream.received > behaviour.MAX_BODY_BYTES:
            too_long = PlannedAnswer(
                413, reason=f"a body to pass on may have {behaviour.MAX_BODY_BYTES} bytes"
            )
            self._answer(stream_id, stream, answer_to(too_long, is_call=head.is_call))
        else:
            body = b"".join(stream.pieces)
            stream.pieces.clear()
            make = self._maker(
                stream_id, partial(_outgoing, id_block=id_field(raw_id), body=body, is_call=head.is_call)
            )
            done = partial(self._called, stream_id, stream)
            if head.script is None:
                self._start(self._heads.protocol, list(map(make, head.calls)), done)
            else:
                self._play(self._heads.protocol, head.script, make, done)

    def _maker(
        self, stream_id: int, make: Callable[[PreparedHttp2Call], Outgoing]
    ) -> Callable[[PreparedHttp2Call], Outgoing]:
        """How the calls of this stream's request are made."""
        return make

    def _called(self, stream_id: int, stream: ServerStream, reason: str, answered_bytes: int) -> None:
        """All calls of a stream, or its script, have ended; an empty reason: well."""
        if self._streams.get(stream_id) is not stream:
            return  # reset in the meantime, or the connection is gone
        head: RequestHeaders = stream.context[0]
        answer = head.answer
        if reason:
            failed = PlannedAnswer(502, reason=reason) if head.script is None else behaviour.failed(reason)
            answer = answer_to(failed, is_call=head.is_call, head_only=head.method == "HEAD")
        elif head.script is not None and head.script.aggregates:
            whole = PlannedAnswer(200, head.body_bytes + answered_bytes)
            head_only = head.method == "HEAD"
            answer = answer_to(whole, is_call=head.is_call, head_only=head_only, date=self._heads.date)
        self._answer(stream_id, stream, answer)
        self.flush()

    def _answer(self, stream_id: int, stream: ServerStream | None, answer: EncodedAnswer) -> None:
        size = len(answer.body)
        window = self._initial_window if stream is None else stream.window
        if size <= frames.DEFAULT_FRAME_BYTES and size <= window and size <= self._send_window:
            if size:
                self._send_window -= size
            self._out.append(stream_id.to_bytes(4, "big").join(answer.parts))
            if stream is not None:
                del self._streams[stream_id]
            return
        if stream is None:
            stream = self._streams[stream_id] = ServerStream(None, self._initial_window)
            stream.remote_closed = True
        self._out.append(frames.headers_frames(stream_id, answer.block, end_stream=False))
        tail = answer.trailers and frames.headers_frames(stream_id, answer.trailers, end_stream=True)
        self._send_body(stream_id, stream, answer.body, tail)

    def _on_sent(self, stream_id: int, stream: ServerStream) -> None:
        self._streams.pop(stream_id, None)

    def _on_reset(self, stream_id: int, stream: ServerStream, code: int) -> None:
        """The caller has cancelled the request; calls that were made for it end on their own."""

    def _on_goaway(self, last_stream_id: int, code: int) -> None:
        """The peer opens no more streams; it closes when it has its answers."""

    def _is_idle_stream(self, stream_id: int) -> bool:
        return stream_id > self._last_stream or not stream_id & 1

    def _highest_peer_stream(self) -> int:
        return self._last_stream
