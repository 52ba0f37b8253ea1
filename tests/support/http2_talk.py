"""An h2 client and the node's server codec, wired together without a socket."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import h2.config
import h2.connection
import h2.events
import h2.settings

from meshwise.service.http2_server import HeaderBlockCache, Http2Server
from meshwise.service.outgoing import Done, Outgoing
from meshwise.service.spec import NodeSpec, Upstream
from meshwise.study.model import Protocol

NEXT = Upstream("10.96.0.2", "node-2.test")
SPEC = NodeSpec("node-1", next=NEXT, leaves=(NEXT, NEXT))
GET = [(":method", "GET"), (":scheme", "http"), (":authority", "a"), (":path", "/echo")]
POST = [(":method", "POST"), *GET[1:]]
CALL = [
    *POST[:3], (":path", "/meshwise.Echo/Call"), ("te", "trailers"), ("content-type", "application/grpc"),
]  # fmt: skip


class Calls:
    def __init__(self) -> None:
        self.started: list[tuple[Protocol, Sequence[Outgoing], Done]] = []

    def __call__(self, protocol: Protocol, outgoing: Sequence[Outgoing], done: Done) -> None:
        self.started.append((protocol, outgoing, done))


class Talk:
    """An h2 client and our server codec, wired together."""

    def __init__(
        self,
        protocol: Protocol = Protocol.HTTP2,
        heads: HeaderBlockCache | None = None,
        server: type[Http2Server] = Http2Server,
    ) -> None:
        self.calls = Calls()
        self.server = server(heads or HeaderBlockCache(SPEC, 1.0, protocol), self.calls)
        self.server.emit = self.hear
        config = h2.config.H2Configuration(client_side=True, header_encoding="utf-8")
        self.client = h2.connection.H2Connection(config)
        self.client.initiate_connection()
        self.events: list[h2.events.Event] = []
        self.flush()

    def flush(self) -> None:
        while data := self.client.data_to_send():
            self.hear(self.server.receive(data))

    def hear(self, data: bytes) -> None:
        self.events += self.client.receive_data(data) if data else []

    def ask(self, headers: list[tuple[str, str]], body: bytes | None = None, **kwargs: Any) -> int:
        stream_id = self.client.get_next_available_stream_id()
        self.client.send_headers(stream_id, headers, end_stream=body is None, **kwargs)
        if body is not None:
            self.client.send_data(stream_id, body, end_stream=True)
        self.flush()
        return stream_id

    def answer(self, stream_id: int) -> tuple[dict[Any, Any], bytes, dict[Any, Any]]:
        """(headers, body, trailers) of a stream that has ended."""
        of = [event for event in self.events if getattr(event, "stream_id", None) == stream_id]
        assert any(isinstance(event, h2.events.StreamEnded) for event in of), of
        headers = next(dict(e.headers) for e in of if isinstance(e, h2.events.ResponseReceived))
        body = b"".join(event.data for event in of if isinstance(event, h2.events.DataReceived))
        trailers = [dict(event.headers) for event in of if isinstance(event, h2.events.TrailersReceived)]
        return headers, body, trailers[0] if trailers else {}

    def of_type(self, kind: type[h2.events.Event]) -> list[Any]:
        return [event for event in self.events if isinstance(event, kind)]
