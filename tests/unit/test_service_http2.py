"""The HTTP/2 and gRPC codecs of a node, without a socket, against the h2 library and hand-made frames."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import h2.config
import h2.connection
import h2.events
import h2.settings
import pytest
from hpack import Encoder

from meshwise.load.wire import frames
from meshwise.load.wire.blocks import encode_block
from meshwise.service import grpc_framing
from meshwise.service.http2_blocks import PeerBlocks, begins_id_value, cut_request_id, id_field
from meshwise.service.http2_client import Http2Client
from meshwise.service.http2_connection import MAX_BLOCK_BYTES, STREAM_WINDOW_BYTES
from meshwise.service.http2_server import MAX_STREAMS, Heads, Http2Server
from meshwise.service.outgoing import Done, Outgoing
from meshwise.service.spec import NodeSpec, Upstream
from meshwise.service.ticket import Ticket
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

    def __init__(self, protocol: Protocol = Protocol.HTTP2, heads: Heads | None = None) -> None:
        self.calls = Calls()
        self.server = Http2Server(heads or Heads(SPEC, 1.0, protocol), self.calls)
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

    def ask(self, headers: list[tuple[str, str]], body: bytes | None = None, **kwargs: object) -> int:
        stream_id = self.client.get_next_available_stream_id()
        self.client.send_headers(stream_id, headers, end_stream=body is None, **kwargs)
        if body is not None:
            self.client.send_data(stream_id, body, end_stream=True)
        self.flush()
        return stream_id

    def answer(self, stream_id: int) -> tuple[dict[str, str], bytes, dict[str, str]]:
        """(headers, body, trailers) of a stream that has ended."""
        of = [event for event in self.events if getattr(event, "stream_id", None) == stream_id]
        assert any(isinstance(event, h2.events.StreamEnded) for event in of), of
        headers = next(dict(e.headers) for e in of if isinstance(e, h2.events.ResponseReceived))
        body = b"".join(event.data for event in of if isinstance(event, h2.events.DataReceived))
        trailers = [dict(event.headers) for event in of if isinstance(event, h2.events.TrailersReceived)]
        return headers, body, trailers[0] if trailers else {}

    def of_type(self, kind: type[h2.events.Event]) -> list[h2.events.Event]:
        return [event for event in self.events if isinstance(event, kind)]


# --- being called ----------------------------------------------------------------------------------


def test_many_streams_with_a_dynamic_table_and_without() -> None:
    talk = Talk()
    for turn in range(5):  # the first uses the table, as our settings have not arrived
        headers, body, _ = talk.answer(
            talk.ask([*GET, ("x-plan", f"bytes={turn}"), ("x-request-id", str(turn))])
        )
        assert headers[":status"] == "200"
        assert headers["content-length"] == str(turn) == str(len(body))


def test_meanings_are_shared_among_connections_but_for_the_request_id() -> None:
    heads = Heads(SPEC, 1.0, Protocol.HTTP2)
    for connection in range(3):
        talk = Talk(heads=heads)
        for turn in range(3):
            talk.ask([*GET, ("x-plan", "hops=1"), ("x-request-id", f"{connection}-{turn}")])
        ids = [
            dict(PeerBlocks().decode(calls[0].head)[0])[b"x-request-id"] for _, calls, _ in talk.calls.started
        ]
        assert ids == [b"%d-%d" % (connection, turn) for turn in range(3)]
    assert len(heads._known) == 1


def test_bodies_longer_than_every_window() -> None:
    talk = Talk()
    stream_id = talk.ask([*GET, ("x-plan", "bytes=300000")])
    beside = talk.ask([*GET, ("x-plan", "bytes=5")])  # the connection's window is used up: it waits too
    acknowledged = 0
    while not talk.server.idle:
        data = talk.of_type(h2.events.DataReceived)[acknowledged:]
        assert data, "the server does not go on"
        acknowledged += len(data)
        for event in data:
            talk.client.acknowledge_received_data(event.flow_controlled_length, event.stream_id)
        talk.flush()
    assert len(talk.answer(stream_id)[1]) == 300_000
    assert len(talk.answer(beside)[1]) == 5


def test_a_body_beyond_our_windows_is_refilled() -> None:
    talk = Talk()
    stream_id = talk.client.get_next_available_stream_id()
    talk.client.send_headers(stream_id, [*POST, ("x-plan", "bytes=1")])
    left = 3 * STREAM_WINDOW_BYTES
    while left:
        size = min(left, talk.client.local_flow_control_window(stream_id), 16_384)
        assert size, "the server did not refill its window"
        talk.client.send_data(stream_id, bytes(size))
        left -= size
        talk.flush()
    talk.client.end_stream(stream_id)
    talk.flush()
    assert talk.answer(stream_id)[1] == b" "


def test_padding_priority_and_trailers() -> None:
    talk = Talk()
    headers, _, _ = talk.answer(talk.ask(GET, None, priority_weight=5))
    assert headers[":status"] == "200"
    stream_id = talk.client.get_next_available_stream_id()
    talk.client.send_headers(stream_id, POST)
    talk.client.send_data(stream_id, b"abc", pad_length=20)
    talk.client.send_headers(stream_id, [("x-trailer", "1")], end_stream=True)
    talk.flush()
    assert talk.answer(stream_id)[0][":status"] == "200"


def test_a_long_header_block_comes_in_continuations() -> None:
    talk = Talk()
    headers, _, _ = talk.answer(talk.ask([*GET, ("x-long", "v\x7e" * 20_000)]))
    assert headers[":status"] == "200"


def test_ping_and_settings_are_acknowledged() -> None:
    talk = Talk()
    talk.client.ping(b"12345678")
    talk.client.update_settings({h2.settings.SettingCodes.INITIAL_WINDOW_SIZE: 10})
    talk.flush()
    assert talk.of_type(h2.events.PingAckReceived)
    assert talk.of_type(h2.events.SettingsAcknowledged)
    assert talk.client.remote_settings.header_table_size == 0


def test_a_refused_request_says_why() -> None:
    talk = Talk()
    headers, _, _ = talk.answer(talk.ask([*GET, ("x-plan", "bytes=x")]))
    assert headers[":status"] == "400"
    assert "whole number" in headers["x-reason"]
    assert talk.answer(talk.ask([*GET[:3], (":path", "/no")]))[0][":status"] == "404"


def test_head_has_a_length_and_no_body() -> None:
    talk = Talk()
    headers, body, _ = talk.answer(talk.ask([(":method", "HEAD"), *GET[1:], ("x-plan", "bytes=9")]))
    assert (headers["content-length"], body) == ("9", b"")


def test_calls_are_made_and_their_failure_told() -> None:
    talk = Talk()
    fields = [("x-plan", "hops=1;bytes=2"), ("authorization", "Bearer t"), ("x-envoy-attempt-count", "1")]
    good, bad = talk.ask([*POST, *fields], b"body"), talk.ask([*POST, *fields], b"body")
    [(protocol, [outgoing], done), (_, _, other_done)] = talk.calls.started
    assert (protocol, outgoing.body) == (Protocol.HTTP2, b"body")
    assert dict(PeerBlocks().decode(outgoing.head)[0]) == {
        b":method": b"POST", b":scheme": b"http", b":authority": b"node-2.test:8081", b":path": b"/echo",
        b"authorization": b"Bearer t", b"x-plan": b"bytes=2;hops=0;fan=0;work_us=0",
    }  # fmt: skip
    other_done("deadline")
    done("")
    assert talk.answer(good)[1] == b" !"
    headers, _, _ = talk.answer(bad)
    assert (headers[":status"], headers["x-reason"]) == ("502", "deadline")


def test_a_stream_that_was_reset_is_forgotten() -> None:
    talk = Talk()
    stream_id = talk.ask([*POST, ("x-plan", "hops=1")], b"")
    talk.client.reset_stream(stream_id)
    talk.flush()
    before = len(talk.events)
    talk.calls.started[0][2]("")
    assert len(talk.events) == before
    assert talk.server.idle


def test_shutting_down_ends_what_is_under_way_first() -> None:
    talk = Talk()
    stream_id = talk.ask([*POST, ("x-plan", "hops=1")], b"")
    talk.hear(talk.server.shut_down())
    assert talk.of_type(h2.events.ConnectionTerminated)
    assert talk.server.closing
    assert not talk.server.idle
    talk.server.emit = lambda data: talk.events.append(data)  # type: ignore[arg-type]
    talk.calls.started[0][2]("")
    assert talk.server.idle
    assert stream_id == 1


# --- gRPC ------------------------------------------------------------------------------------------


def test_a_unary_call() -> None:
    talk = Talk(Protocol.GRPC)
    stream_id = talk.ask([*CALL, ("x-plan", "bytes=200")], grpc_framing.frame_payload(b"hello"))
    headers, body, trailers = talk.answer(stream_id)
    assert headers == {":status": "200", "content-type": "application/grpc"}
    assert body[:5] == b"\0" + (len(body) - 5).to_bytes(4, "big")
    assert body[5:8] == b"\x0a\xc8\x01"  # field 1, length-delimited, 200
    assert len(body) == 5 + 3 + 200
    assert trailers == {"grpc-status": "0"}


@pytest.mark.parametrize(
    ("headers", "body", "status"),
    [
        ([*POST[:3], (":path", "/a.B/C"), *CALL[4:]], grpc_framing.frame_payload(b""), "12"),
        ([*CALL, ("x-plan", "bytes=x")], grpc_framing.frame_payload(b""), "3"),
        ([*CALL, ("x-plan", "hops=1;fan=0")], b"\x01\0\0\0\x01x", "12"),
        (CALL, b"", "13"),
        (CALL, b"\0\0\0\0\x09short", "13"),
        (CALL, grpc_framing.frame_payload(b"a") * 2, "13"),
    ],
)
def test_what_is_wrong_with_a_call_is_a_status(
    headers: list[tuple[str, str]], body: bytes, status: str
) -> None:
    talk = Talk(Protocol.GRPC)
    answer, _, _ = talk.answer(talk.ask(headers, body))
    assert (answer[":status"], answer["grpc-status"]) == ("200", status)
    assert answer["grpc-message"]


def test_grpc_failures_upstream_are_unavailable() -> None:
    talk = Talk(Protocol.GRPC)
    stream_id = talk.ask([*CALL, ("x-plan", "hops=1")], grpc_framing.frame_payload(b"m"))
    [(protocol, [outgoing], done)] = talk.calls.started
    assert protocol is Protocol.GRPC
    assert outgoing.body == grpc_framing.frame_payload(b"m")
    assert dict(PeerBlocks().decode(outgoing.head)[0])[b"te"] == b"trailers"
    done("connect: ECONNREFUSED")
    headers, _, _ = talk.answer(stream_id)
    assert (headers["grpc-status"], headers["grpc-message"]) == ("14", "connect: ECONNREFUSED")


def test_the_grpc_port_speaks_plain_http_for_health_only() -> None:
    talk = Talk(Protocol.GRPC)
    assert talk.answer(talk.ask([*GET[:3], (":path", "/healthz")]))[0][":status"] == "200"
    assert talk.answer(talk.ask(GET))[0][":status"] == "415"


# --- errors ----------------------------------------------------------------------------------------


def raw_server() -> Http2Server:
    server = Http2Server(Heads(SPEC, 1.0, Protocol.HTTP2), Calls())
    server.receive(frames.PREFACE + frames.settings({}))
    return server


_GET_BLOCK = encode_block(GET)


@pytest.mark.parametrize(
    ("data", "code"),
    [
        (frames.head(20_000, frames.DATA, 0, 1), frames.FRAME_SIZE_ERROR),
        (frames.headers_frames(2, _GET_BLOCK, end_stream=True), frames.PROTOCOL_ERROR),
        (frames.headers_frames(0, _GET_BLOCK, end_stream=True), frames.PROTOCOL_ERROR),
        (frames.headers_frames(1, b"\xff\xff\xff\xff\xff\xff", end_stream=True), frames.COMPRESSION_ERROR),
        (frames.frame(frames.DATA, 0, 1), frames.PROTOCOL_ERROR),
        (frames.frame(frames.HEADERS, 0, 1, _GET_BLOCK) + frames.ping(), frames.PROTOCOL_ERROR),
        (frames.frame(frames.CONTINUATION, 0, 1), frames.PROTOCOL_ERROR),
        (frames.frame(frames.PING, 0, 0, b"x"), frames.FRAME_SIZE_ERROR),
        (frames.frame(frames.PING, 0, 3, bytes(8)), frames.PROTOCOL_ERROR),
        (frames.frame(frames.SETTINGS, 0, 0, b"x"), frames.FRAME_SIZE_ERROR),
        (frames.frame(frames.SETTINGS, frames.ACK, 0, bytes(6)), frames.FRAME_SIZE_ERROR),
        (frames.settings({frames.INITIAL_WINDOW_SIZE: 2**31}), frames.FLOW_CONTROL_ERROR),
        (frames.window_update(0, 0), frames.PROTOCOL_ERROR),
        (frames.window_update(0, 2**31 - 1), frames.FLOW_CONTROL_ERROR),
        (frames.window_update(5, 1), frames.PROTOCOL_ERROR),
        (frames.rst_stream(7, 0), frames.PROTOCOL_ERROR),
        (frames.frame(frames.PUSH_PROMISE, 0, 1, bytes(8)), frames.PROTOCOL_ERROR),
        (frames.headers_frames(1, _GET_BLOCK, end_stream=True) * 2, frames.STREAM_CLOSED),
        (
            frames.frame(frames.HEADERS, 0, 1, b"\x00" * 10)
            + frames.frame(frames.CONTINUATION, 0, 1, bytes(16_000)) * (MAX_BLOCK_BYTES // 16_000 + 1),
            frames.ENHANCE_YOUR_CALM,
        ),
        (
            frames.headers_frames(1, encode_block(POST), end_stream=False)
            + frames.frame(frames.DATA, frames.PADDED, 1, b"\x09abc"),
            frames.PROTOCOL_ERROR,
        ),
    ],
)  # fmt: skip
def test_connection_errors_end_in_goaway(data: bytes, code: int) -> None:
    server = raw_server()
    out, _ = frames.split(server.receive(data))
    goaways = [payload for kind, _, _, payload in out if kind == frames.GOAWAY]
    assert [frames.parse_goaway(payload)[1] for payload in goaways] == [code]
    assert server.closing
    assert server.idle
    assert server.receive(frames.ping()) == b""


@pytest.mark.parametrize(
    "fields",
    [
        GET[1:],
        [*GET, ("X-Upper", "1")],
        [*GET, ("connection", "close")],
        [*GET, ("te", "gzip")],
        [*GET, (":path", "/")],
        [("a", "b"), *GET],
        [*GET, (":status", "200")],
        [*GET, ("a", "b\r\nc: d")],
    ],
)
def test_malformed_requests_end_their_stream_only(fields: list[tuple[str, str]]) -> None:
    server = raw_server()
    block = Encoder().encode(fields, huffman=False)
    out, _ = frames.split(server.receive(frames.headers_frames(1, block, end_stream=True)))
    assert [(kind, frames.parse_code(payload)) for kind, _, _, payload in out] == [
        (frames.RST_STREAM, frames.PROTOCOL_ERROR)
    ]
    assert not server.closing


def test_a_length_that_is_not_kept_ends_the_stream() -> None:
    server = raw_server()
    block = encode_block([*POST, ("content-length", "4")])
    sent = frames.headers_frames(1, block, end_stream=False) + frames.data_frames(1, b"abc", end_stream=True)
    out, _ = frames.split(server.receive(sent))
    assert [kind for kind, *_ in out] == [frames.RST_STREAM]


def test_something_else_than_http2_is_told_so() -> None:
    server = Http2Server(Heads(SPEC, 1.0, Protocol.HTTP2), Calls())
    server.take()
    out, _ = frames.split(server.receive(b"GET / HTTP/1.1\r\nhost: a\r\n\r\n"))
    assert [kind for kind, *_ in out] == [frames.GOAWAY]


def test_streams_beyond_the_limit_are_refused() -> None:
    server = raw_server()
    block = encode_block(POST)
    opened = b"".join(
        frames.headers_frames(1 + 2 * number, block, end_stream=False) for number in range(MAX_STREAMS + 1)
    )
    out, _ = frames.split(server.receive(opened))
    assert [(kind, frames.parse_code(payload)) for kind, _, _, payload in out] == [
        (frames.RST_STREAM, frames.REFUSED_STREAM)
    ]


# --- the request id in header blocks ---------------------------------------------------------------


@pytest.mark.parametrize("huffman", [True, False])
def test_the_id_is_cut_out_of_a_block(huffman: bool) -> None:
    encoder = Encoder()
    encoder.header_table_size = 0
    encoder.encode([])

    def block(request_id: str) -> bytes:
        return encoder.encode([*GET, ("x-request-id", request_id), ("x-after", "1")], huffman=huffman)

    one, other = block("1f-a"), block("000000000000")
    assert one != other
    assert cut_request_id(one)[0] == cut_request_id(other)[0]
    _, raw, at = cut_request_id(one)
    assert begins_id_value(one, at)
    assert PeerBlocks().decode(id_field(raw))[0] == ((b"x-request-id", b"1f-a"),)


def test_the_name_inside_a_value_is_not_taken_for_a_field() -> None:
    heads = Heads(SPEC, 1.0, Protocol.HTTP2)
    blocks = PeerBlocks()
    for value in ("bytes=1", "bytes=2"):
        trap = "\x0cx-request-id" + chr(len(value)) + value
        block = encode_block([*GET, ("a", trap), ("x-plan", value)])
        _, _, at = cut_request_id(block)
        assert at > 0
        assert not begins_id_value(block, at)
        heads.get(blocks, block)
    assert heads._known == {}


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

    def hear(self, data: bytes) -> None:
        self.events += self.server.receive_data(data)
        self.flush()

    def flush(self) -> None:
        while data := self.server.data_to_send():
            back = self.codec.receive(data)
            if back:
                self.events += self.server.receive_data(back)

    def call(self, body: bytes = b"") -> int:
        self.codec.send(Ticket(Outgoing(NEXT, encode_block(POST), body), self.results.append))
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
    ticket = Ticket(Outgoing(NEXT, encode_block(POST), b""), caller.results.append)
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
