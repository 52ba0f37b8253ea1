"""Requests that differ from each other, each encoded once before the run: request k is `requests[order[k]]`.

The order begins anew behind its end. Everything else is the protocol's own, so a run whose requests are all
alike pays nothing for these classes.
"""

from __future__ import annotations

from collections.abc import Sequence

from meshwise.load.wire import http1, tcp
from meshwise.load.wire.grpc import Grpc
from meshwise.load.wire.http2 import Http2
from meshwise.load.wire.http2_request import EncodedRequest


class VariedHttp1(http1.Http1):
    """HTTP/1.1 (WireProtocol)."""

    def __init__(
        self,
        requests: Sequence[bytes],
        order: Sequence[int],
        heads: http1.KnownHeads,
        *,
        is_head_method: bool = False,
    ) -> None:
        super().__init__(b"", heads, is_head_method=is_head_method)
        self._requests, self._order = requests, order

    def start(self, tag: int) -> bytes:
        order = self._order
        self._request = self._requests[order[tag % len(order)]]
        return super().start(tag)


class VariedTcp(tcp.Tcp):
    """The framed echo (WireProtocol)."""

    def __init__(self, requests: Sequence[bytes], order: Sequence[int]) -> None:
        super().__init__(requests[0])
        self._requests, self._order = requests, order

    def start(self, tag: int) -> bytes:
        if self._tag < 0:
            order = self._order
            self._ask(self._requests[order[tag % len(order)]])
        return super().start(tag)


class VariedHttp2(Http2):
    """HTTP/2 (WireProtocol)."""

    def __init__(self, requests: Sequence[EncodedRequest], order: Sequence[int], streams: int) -> None:
        super().__init__(requests[0], streams)
        self._requests, self._order = requests, order

    def start(self, tag: int) -> bytes:
        self._choose(tag)
        return super().start(tag)

    def _more_body(self, key: bytes) -> bytes:
        self._choose(self._open[key])
        return super()._more_body(key)

    def _choose(self, tag: int) -> None:
        order = self._order
        self._request = self._requests[order[tag % len(order)]]
        self._body_bytes = len(self._request.body)


class VariedGrpc(VariedHttp2, Grpc):
    """Unary gRPC (WireProtocol)."""
