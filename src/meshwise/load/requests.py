"""From a `LoadSpec` to bytes: the one request that a run repeats, and a protocol per connection."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from meshwise.load.script import encode_script
from meshwise.load.spec import LoadSpec
from meshwise.load.wire import grpc, http1, http2_request, tcp
from meshwise.load.wire.http2 import Http2
from meshwise.load.wire.seam import WireProtocol
from meshwise.study.model import Protocol


@dataclass(frozen=True)
class Encoded:
    """`protocol()` makes the protocol of one more connection; `size_bytes` is the request on the wire."""

    protocol: Callable[[], WireProtocol]
    size_bytes: int


def encode(spec: LoadSpec) -> Encoded:
    """Encodes the request once. Bodies are `x` repeated."""
    if spec.script is not None:
        return Encoded(*encode_script(spec, Path(spec.script)))
    body = b"x" * spec.body_bytes
    scheme = "https" if spec.tls else "http"
    if spec.protocol is Protocol.TCP:
        framed = tcp.encode_request(body, spec.response_bytes)
        return Encoded(lambda: tcp.Tcp(framed), len(framed))
    if spec.protocol is Protocol.HTTP1:
        raw = http1.encode_request(spec.method, spec.path, spec.authority, spec.headers, body)
        heads = http1.KnownHeads()
        is_head = spec.method == "HEAD"
        return Encoded(lambda: http1.Http1(raw, heads, is_head_method=is_head), len(raw))
    if spec.protocol is Protocol.HTTP2:
        request = http2_request.encode_request(
            spec.method, scheme, spec.path, spec.authority, spec.headers, body
        )
        return Encoded(lambda: Http2(request, spec.streams), _size(request))
    message = spec.grpc_message if spec.grpc_message is not None else grpc.payload_message(spec.body_bytes)
    call = grpc.encode_request(scheme, spec.path, spec.authority, spec.headers, message)
    return Encoded(lambda: grpc.Grpc(call, spec.streams), _size(call))


def _size(request: http2_request.Request) -> int:
    return len(bytes(4).join(request.pieces))
