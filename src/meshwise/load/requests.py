"""From a `LoadSpec` to bytes: the requests of a run, encoded once, and a protocol per connection.

A run that repeats one request uses the plain protocols; one whose sizes vary (`load.payloads`), or of which a
share has other headers, a pool of requests; one with gRPC streams those that count messages. Payloads are `x`
repeated.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from meshwise.load.payloads import RESPONSE_SLOT, draw_pool
from meshwise.load.script import encode_script
from meshwise.load.spec import LoadSpec
from meshwise.load.spread import Ordered
from meshwise.load.traced import filling, with_slot
from meshwise.load.wire import grpc, http1, http2_request, tcp
from meshwise.load.wire.grpc_stream import MessageLog, protocol_class
from meshwise.load.wire.http2 import Http2
from meshwise.load.wire.seam import WireProtocol
from meshwise.load.wire.varied import VariedGrpc, VariedHttp1, VariedHttp2, VariedTcp
from meshwise.study.model import Protocol
from meshwise.study.protocol import Streaming


@dataclass(frozen=True)
class Encoded:
    """`protocol()` makes the protocol of one more connection; `size_bytes` is the largest request."""

    protocol: Callable[[], WireProtocol]
    size_bytes: int
    messages: MessageLog = field(default_factory=MessageLog)


def encode(spec: LoadSpec) -> Encoded:
    """Encodes the requests. Raises MW303 for a script that is none."""
    if spec.script is not None:
        return Encoded(*encode_script(spec, Path(spec.script)))
    pool = draw_pool(spec.request_payload, spec.response_payload, spec.seed)
    specs = [_of_sizes(spec, *pair) for pair in pool.pairs]
    order: Sequence[int] = pool.order or b"\0"
    if spec.other is not None:
        order = Ordered(order, len(specs), spec.other)
        others = replace(spec, headers=spec.other_headers)
        specs += [_of_sizes(others, *pair) for pair in pool.pairs]
    if spec.tracing is not None:
        order = Ordered(order, len(specs), spec.tracing.spread)
        specs += [replace(each, headers=with_slot(each.headers)) for each in specs]
    if spec.protocol is Protocol.TCP:
        framed = [tcp.encode_request(b"x" * each.body_bytes, each.response_bytes) for each in specs]
        size_bytes = max(map(len, framed))
        if len(framed) > 1:
            return Encoded(lambda: VariedTcp(framed, order), size_bytes)
        return Encoded(lambda: tcp.Tcp(framed[0]), size_bytes)
    if spec.protocol is Protocol.HTTP1:
        return _http1(spec, [_http1_request(each) for each in specs], order)
    calls = [_http2_request(each) for each in specs]
    size_bytes = max(len(bytes(4).join(call.pieces)) for call in calls)
    if spec.streaming is not Streaming.NONE:
        log, make_stream = MessageLog(), filling(protocol_class(spec.streaming), spec.tracing)
        return Encoded(lambda: make_stream(calls, order, spec.streams, spec.messages, log), size_bytes, log)
    return Encoded(_multiplexed(spec, calls, order), size_bytes)


def _of_sizes(spec: LoadSpec, request_bytes: int, response_bytes: int) -> LoadSpec:
    """The spec of one entry of the pool, the size of its answer put where it is asked for."""
    size = str(response_bytes)
    return replace(
        spec,
        body_bytes=request_bytes,
        response_bytes=response_bytes,
        path=spec.path.replace(RESPONSE_SLOT, size),
        headers=tuple((name, value.replace(RESPONSE_SLOT, size)) for name, value in spec.headers),
    )


def _http1_request(spec: LoadSpec) -> bytes:
    body = b"x" * spec.body_bytes
    return http1.encode_request(spec.method, spec.path, spec.authority, spec.headers, body)


def _http1(spec: LoadSpec, requests: Sequence[bytes], order: Sequence[int]) -> Encoded:
    heads = http1.KnownHeads()
    is_head = spec.method == "HEAD"
    size_bytes = max(map(len, requests))
    if len(requests) > 1:
        varied = filling(VariedHttp1, spec.tracing)
        return Encoded(lambda: varied(requests, order, heads, is_head_method=is_head), size_bytes)
    raw = requests[0]
    return Encoded(lambda: http1.Http1(raw, heads, is_head_method=is_head), size_bytes)


def _http2_request(spec: LoadSpec) -> http2_request.EncodedRequest:
    scheme = "https" if spec.tls else "http"
    if spec.protocol is Protocol.HTTP2:
        body = b"x" * spec.body_bytes
        return http2_request.encode_request(
            spec.method, scheme, spec.path, spec.authority, spec.headers, body
        )
    message = spec.grpc_message if spec.grpc_message is not None else grpc.payload_message(spec.body_bytes)
    count = spec.messages if spec.streaming in (Streaming.CLIENT, Streaming.BIDI) else 1
    return grpc.encode_request(scheme, spec.path, spec.authority, spec.headers, message, messages=count)


def _multiplexed(
    spec: LoadSpec, calls: Sequence[http2_request.EncodedRequest], order: Sequence[int]
) -> Callable[[], WireProtocol]:
    if len(calls) > 1:
        varied = filling(VariedHttp2 if spec.protocol is Protocol.HTTP2 else VariedGrpc, spec.tracing)
        return lambda: varied(calls, order, spec.streams)
    plain = Http2 if spec.protocol is Protocol.HTTP2 else grpc.Grpc
    return lambda: plain(calls[0], spec.streams)
