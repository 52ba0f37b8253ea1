"""The codecs of a node that takes part in traces: each as its base, with spans. No socket.

    a request comes        a span of kind server, child of the context that it carries
    a call goes out        a span of kind client within it, whose context the call carries

A context differs from request to request, so its value is put aside before a head is looked up among those
that are known, and `SLOT` stands in its place; a call's own context goes where the slot is. A request without
a context, or with one that is not sampled, has no span, and the calls for it carry what it carried.

Of HTTP/1.1 requests that come pipelined in one piece only the last has a span: no sidecar sends any.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from functools import partial
from typing import TypeVar

from hpack.huffman_constants import REQUEST_CODES, REQUEST_CODES_LENGTH

from meshwise.load.traced import HEADER, SLOT
from meshwise.load.wire.blocks import encode_integer
from meshwise.service.grpc_streams import GrpcServer, StreamHeads
from meshwise.service.http1_server import Http1Server, PreparedHttp1Call, RequestHead, RequestHeadCache
from meshwise.service.http2_answers import EncodedAnswer
from meshwise.service.http2_blocks import PeerBlocks, begins_id_value, cut, cut_request_id, literal_names
from meshwise.service.http2_sending import ServerStream
from meshwise.service.http2_server import (
    HeaderBlockCache,
    Http2Server,
    PreparedHttp2Call,
    RequestHeaders,
)
from meshwise.service.outgoing import Outgoing, StartCalls
from meshwise.service.script import Play
from meshwise.service.spans import OpenSpan, SpanLog, read_context

MOST_OPEN = 4096
"""Spans of one connection; with more, those of streams that are gone are forgotten."""
_FIELD = f"\r\n{HEADER}: ".encode()
_SLOT = SLOT.encode()
_NAMES = literal_names(HEADER)
_SLOT_LITERAL = encode_integer(len(_SLOT), 7) + _SLOT

P = TypeVar("P")


def made_within(
    log: SpanLog, span: OpenSpan | None, value: bytes, make: Callable[[P], Outgoing], call: P
) -> Outgoing:
    """A call with its context: that of a span of its own within `span`; without one the `value` that came."""
    made = make(call)
    if span is None:
        return Outgoing(made.upstream, made.head.replace(_SLOT, value, 1), made.body)
    own = log.client(span, made.upstream.host.partition(".")[0])
    return Outgoing(made.upstream, made.head.replace(_SLOT, own.context, 1), made.body, own.end)


# --- HTTP/1.1 ------------------------------------------------------------------------------------------


class TracedRequestHeads(RequestHeadCache):
    """`seen`: the context of the head that was looked up last; None without one."""

    seen: bytes | None = None

    def get(self, raw: bytes) -> RequestHead:
        at = raw.find(_FIELD) + len(_FIELD)
        end = raw.find(b"\r", at)
        self.seen = None
        if at >= len(_FIELD) and end - at == len(_SLOT):
            self.seen = raw[at:end]
            raw = raw[:at] + _SLOT + raw[end:]
        return super().get(raw)


class TracedHttp1Server(Http1Server):
    """One connection."""

    __slots__ = ("_begun_ns", "_log", "_seen", "_span", "_traced", "_value")

    def __init__(
        self, heads: TracedRequestHeads, start: StartCalls, play: Play[PreparedHttp1Call], log: SpanLog
    ) -> None:
        super().__init__(heads, start, play)
        self._traced, self._log = heads, log
        self._begun_ns = 0
        self._seen: bytes | None = None
        """Of the request whose body is still to come."""
        self._span: OpenSpan | None = None
        """Of the request whose calls are under way."""
        self._value: bytes | None = None

    def receive(self, data: bytes) -> bytes:
        if self._seen is None:
            self._begun_ns = time.monotonic_ns()
        self._traced.seen = self._seen
        out = super().receive(data)
        seen, self._traced.seen = self._traced.seen, None
        if self._head is not None and not self._busy:
            self._seen = seen  # its body is not whole yet
            return out
        self._seen = None
        if seen is not None and (context := read_context(seen)):
            self._log.server(context, self._begun_ns).end()
        return out

    def lost(self) -> None:
        self._end(failed=True)
        super().lost()

    def _pass_on(self, head: RequestHead, body: bytes) -> None:
        self._value, self._traced.seen = self._traced.seen, None
        context = read_context(self._value) if self._value else None
        self._span = self._log.server(context, self._begun_ns) if context else None
        super()._pass_on(head, body)

    def _maker(
        self, make: Callable[[PreparedHttp1Call], Outgoing]
    ) -> Callable[[PreparedHttp1Call], Outgoing]:
        return make if self._value is None else partial(made_within, self._log, self._span, self._value, make)

    def _called(self, reason: str, answered_bytes: int) -> None:
        self._end(failed=bool(reason))
        super()._called(reason, answered_bytes)

    def _played(self, reason: str, answered_bytes: int) -> None:
        self._end(failed=bool(reason))
        super()._played(reason, answered_bytes)

    def _end(self, *, failed: bool) -> None:
        span, self._span = self._span, None
        if span is not None:
            span.end(failed)


# --- HTTP/2 and gRPC -----------------------------------------------------------------------------------

_LETTERS = "0123456789abcdef-"
_CODES = {
    format(REQUEST_CODES[ord(letter)], f"0{REQUEST_CODES_LENGTH[ord(letter)]}b"): letter
    for letter in _LETTERS
}
_CODE = re.compile("|".join(_CODES))


def literal_text(raw: bytes) -> bytes:
    """The text of a literal that may be a context; another than one of its letters ends it. Faster than a
    decoder of all letters: every request of a sidecar's carries one, Huffman coded."""
    if not raw[0] & 0x80:
        return raw[1:]
    bits = format(int.from_bytes(raw[1:], "big"), f"0{8 * (len(raw) - 1)}b")
    found: list[str] = []
    at = 0
    while (match := _CODE.match(bits, at)) and len(found) < len(_SLOT):
        found.append(_CODES[match[0]])
        at = match.end()
    return "".join(found).encode()


class _TracedBlocks(HeaderBlockCache):
    """`seen` as in `TracedRequestHeads`."""

    seen: bytes | None = None

    def get(self, blocks: PeerBlocks, block: bytes) -> RequestHeaders:
        self.seen = None
        without, raw, at = cut(block, _NAMES)
        if at < 0 or len(value := literal_text(raw)) != len(_SLOT):
            return super().get(blocks, block)
        slotted = without[:at] + _SLOT_LITERAL + without[at:]
        if cut_request_id(slotted)[0] not in self._known and not begins_id_value(block, at):
            return super().get(blocks, block)  # the letters stand in another field
        self.seen = value
        return super().get(blocks, slotted)


class TracedHeaderBlocks(_TracedBlocks):
    """Of the HTTP/2 port."""


class TracedStreamHeads(_TracedBlocks, StreamHeads):
    """Of the gRPC port."""


class _TracedStreams(Http2Server):
    __slots__ = ("_begun_ns", "_log", "_spans", "_traced")

    def __init__(
        self, heads: _TracedBlocks, start: StartCalls, play: Play[PreparedHttp2Call], log: SpanLog
    ) -> None:
        super().__init__(heads, start, play)
        self._traced, self._log = heads, log
        self._begun_ns = 0
        self._spans: dict[int, tuple[OpenSpan | None, bytes]] = {}
        """By stream: its span, if it has one, and the context that came."""

    def _on_block(self, stream_id: int, block: bytes, end_stream: bool) -> None:
        self._begun_ns = time.monotonic_ns()
        self._traced.seen = None
        super()._on_block(stream_id, block, end_stream)
        if stream_id in self._streams:
            self._note(stream_id)

    def _note(self, stream_id: int) -> None:
        """What the block that was read last says of this stream; nothing if that is known."""
        value, self._traced.seen = self._traced.seen, None
        if value is None:
            return
        if len(self._spans) >= MOST_OPEN:
            self._spans = {each: self._spans[each] for each in self._spans if each in self._streams}
        context = read_context(value)
        self._spans[stream_id] = (self._log.server(context, self._begun_ns) if context else None, value)

    def _on_end(self, stream_id: int, stream: ServerStream) -> None:
        self._note(stream_id)
        super()._on_end(stream_id, stream)

    def _maker(
        self, stream_id: int, make: Callable[[PreparedHttp2Call], Outgoing]
    ) -> Callable[[PreparedHttp2Call], Outgoing]:
        known = self._spans.get(stream_id)
        return make if known is None else partial(made_within, self._log, *known, make)

    def _called(self, stream_id: int, stream: ServerStream, reason: str, answered_bytes: int) -> None:
        self._end(stream_id, failed=bool(reason))
        super()._called(stream_id, stream, reason, answered_bytes)

    def _answer(self, stream_id: int, stream: ServerStream | None, answer: EncodedAnswer) -> None:
        self._note(stream_id)
        super()._answer(stream_id, stream, answer)
        self._end(stream_id)

    def _on_reset(self, stream_id: int, stream: ServerStream, code: int) -> None:
        self._end(stream_id, failed=True)
        super()._on_reset(stream_id, stream, code)

    def _drop_all(self, reason: str) -> None:
        for stream_id in list(self._spans):
            self._end(stream_id, failed=True)
        super()._drop_all(reason)

    def _end(self, stream_id: int, *, failed: bool = False) -> None:
        span, _ = self._spans.pop(stream_id, (None, b""))
        if span is not None:
            span.end(failed)


class TracedHttp2Server(_TracedStreams):
    """One connection."""

    __slots__ = ()


class TracedGrpcServer(_TracedStreams, GrpcServer):
    """One connection to the gRPC port."""

    __slots__ = ()

    def _finish(self, stream_id: int, stream: ServerStream) -> None:
        super()._finish(stream_id, stream)
        self._end(stream_id)

    def _refuse(self, stream_id: int, stream: ServerStream, status: int, reason: str) -> None:
        super()._refuse(stream_id, stream, status, reason)
        self._end(stream_id, failed=True)
