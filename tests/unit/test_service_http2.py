"""The HTTP/2 and gRPC codec of a node that is called, against the h2 library; without a socket."""

from __future__ import annotations

from dataclasses import replace

import h2.config
import h2.connection
import h2.events
import h2.settings
import pytest
from tests.support.http2_talk import CALL, GET, POST, SPEC, Talk

from meshwise.service import grpc_framing
from meshwise.service.http2_blocks import PeerBlocks
from meshwise.service.http2_sending import STREAM_WINDOW_BYTES
from meshwise.service.http2_server import HeaderBlockCache
from meshwise.study.model import Protocol

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
    heads = HeaderBlockCache(SPEC, 1.0, Protocol.HTTP2)
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
    other_done("deadline", 0)
    done("", 0)
    assert talk.answer(good)[1] == b" !"
    headers, _, _ = talk.answer(bad)
    assert (headers[":status"], headers["x-reason"]) == ("502", "deadline")


def test_a_stream_that_was_reset_is_forgotten() -> None:
    talk = Talk()
    stream_id = talk.ask([*POST, ("x-plan", "hops=1")], b"")
    talk.client.reset_stream(stream_id)
    talk.flush()
    before = len(talk.events)
    talk.calls.started[0][2]("", 0)
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
    talk.calls.started[0][2]("", 0)
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
    done("connect: ECONNREFUSED", 0)
    headers, _, _ = talk.answer(stream_id)
    assert (headers["grpc-status"], headers["grpc-message"]) == ("14", "connect: ECONNREFUSED")


def test_the_grpc_port_speaks_plain_http_for_health_only() -> None:
    talk = Talk(Protocol.GRPC)
    assert talk.answer(talk.ask([*GET[:3], (":path", "/healthz")]))[0][":status"] == "200"
    assert talk.answer(talk.ask(GET))[0][":status"] == "415"


def test_an_answer_has_the_date_that_the_node_is_told() -> None:
    date = "Fri, 01 Jan 2027 00:00:00 GMT"
    heads = HeaderBlockCache(replace(SPEC, date=date), 1.0, Protocol.HTTP2)
    talk = Talk(heads=heads)
    headers, _, _ = talk.answer(talk.ask(GET))
    assert headers["date"] == date
    talk = Talk()
    headers, _, _ = talk.answer(talk.ask(GET))
    assert "date" not in headers
