"""The HTTP/2 codec of a node that calls, against the h2 library; without a socket."""

from __future__ import annotations

from collections.abc import Callable

import h2.config
import h2.connection
import h2.events
import h2.settings
import pytest
from tests.support.http2_talk import NEXT, POST

from meshwise.load.wire import frames
from meshwise.load.wire.blocks import encode_block
from meshwise.service.http2_client import Http2Client
from meshwise.service.outgoing import Outgoing
from meshwise.service.ticket import Ticket

# --- calling ---------------------------------------------------------------------------------------


class Caller:
    """Our client codec and an h2 server."""

    def __init__(self, *, is_grpc: bool = False, settings: dict[int, int] | None = None) -> None:
        self.results: list[str] = []
        self.lost: list[Ticket] = []
        self.freed = 0
        self.codec = Http2Client(is_grpc=is_grpc, on_free=self._free, on_lost=self.lost.append)
        self.codec.emit = self.hear
        config = h2.config.H2Configuration(client_side=False, header_encoding="utf-8")
        self.server = h2.connection.H2Connection(config)
        self.server.initiate_connection()
        if settings:
            self.server.update_settings(settings)
        self.events: list[h2.events.Event] = []
        self.codec.flush()
        self.flush()

    def _free(self) -> None:
        self.freed += 1

    def told(self, reason: str, answered_bytes: int) -> None:
        self.results.append(reason)

    def hear(self, data: bytes) -> None:
        self.events += self.server.receive_data(data)
        self.flush()

    def flush(self) -> None:
        while data := self.server.data_to_send():
            back = self.codec.receive(data)
            if back:
                self.events += self.server.receive_data(back)

    def call(self, body: bytes = b"") -> int:
        self.codec.send(Ticket(Outgoing(NEXT, encode_block(POST), body), self.told))
        requests = [event for event in self.events if isinstance(event, h2.events.RequestReceived)]
        stream_id = requests[-1].stream_id
        assert stream_id is not None
        return stream_id


def answer_ok(caller: Caller, stream_id: int) -> None:
    caller.server.send_headers(stream_id, [(":status", "200")])
    caller.server.send_data(stream_id, b"abc", pad_length=3)
    caller.server.send_headers(stream_id, [("grpc-status", "0")], end_stream=True)


def answer_403(caller: Caller, stream_id: int) -> None:
    caller.server.send_headers(stream_id, [(":status", "403")], end_stream=True)


def answer_grpc_7(caller: Caller, stream_id: int) -> None:
    caller.server.send_headers(stream_id, [(":status", "200"), ("grpc-status", "7")], end_stream=True)


def answer_nothing(caller: Caller, stream_id: int) -> None:
    caller.server.send_headers(stream_id, [(":status", "200")], end_stream=True)


def reset_it(caller: Caller, stream_id: int) -> None:
    caller.server.reset_stream(stream_id, error_code=frames.INTERNAL_ERROR)


@pytest.mark.parametrize(
    ("answer", "http", "grpc"),
    [
        (answer_ok, "", ""),
        (answer_403, "upstream status 403", "upstream status 403"),
        (answer_grpc_7, "", "upstream grpc-status 7"),
        (answer_nothing, "", "no grpc-status"),
        (reset_it, "stream reset with code 2", "stream reset with code 2"),
    ],
)
def test_answers_of_every_kind(answer: Callable[[Caller, int], None], http: str, grpc: str) -> None:
    for is_grpc, expected in ((False, http), (True, grpc)):
        caller = Caller(is_grpc=is_grpc)
        for _ in range(3):
            answer(caller, caller.call())
            caller.flush()
        assert caller.results == [expected] * 3
        assert caller.codec.active == 0
        assert caller.codec.usable


def test_a_request_body_waits_for_the_windows() -> None:
    caller = Caller()
    stream_id = caller.call(bytes(200_000))
    got = 0
    while True:
        data = [event for event in caller.events if isinstance(event, h2.events.DataReceived)]
        caller.events = [event for event in caller.events if event not in data]
        if not data:
            break
        for event in data:
            got += len(event.data)
            if event.flow_controlled_length:
                caller.server.acknowledge_received_data(event.flow_controlled_length, stream_id)
        caller.flush()
    assert got == 200_000
    answer_ok(caller, stream_id)
    caller.flush()
    assert caller.results == [""]


def test_goaway_and_refusal_are_tried_again_elsewhere_once() -> None:
    caller = Caller()
    first = caller.call()
    second = caller.call()
    caller.hear(b"")
    caller.codec.receive(frames.rst_stream(second, frames.REFUSED_STREAM))
    assert len(caller.lost) == 1
    third = caller.call()
    caller.codec.receive(frames.goaway(first, frames.NO_ERROR))
    assert len(caller.lost) == 2
    assert third > first
    assert not caller.codec.usable
    answer_ok(caller, first)
    caller.flush()
    assert caller.results == [""]
    assert caller.codec.closing  # nothing is left to wait for
    caller.lost[0].tries = 1
    caller.codec._try_again(caller.lost[0])
    assert caller.results == ["", "refused twice"]


def test_the_peers_limit_of_streams_is_kept() -> None:
    caller = Caller(settings={h2.settings.SettingCodes.MAX_CONCURRENT_STREAMS: 2})
    caller.call()
    assert caller.codec.usable
    caller.call()
    assert not caller.codec.usable


def test_a_deadline_cancels_the_stream() -> None:
    caller = Caller()
    ticket = Ticket(Outgoing(NEXT, encode_block(POST), b""), caller.told)
    caller.codec.send(ticket)
    ticket.expire()
    assert caller.results == ["deadline"]
    resets = [event for event in caller.events if isinstance(event, h2.events.StreamReset)]
    assert [reset.error_code for reset in resets] == [frames.CANCEL]


def test_a_lost_connection_ends_every_call() -> None:
    caller = Caller()
    caller.call()
    caller.call()
    caller.codec.eof()
    assert caller.results == ["connection lost"] * 2
    assert caller.codec.closing
