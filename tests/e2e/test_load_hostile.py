"""Servers that misbehave: every request ends, in time, with a reason; nothing hangs, nothing escapes."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest
from tests.support import hostile
from tests.support.loads import MS, load_spec, run_here

from meshwise.load.engine import Engine
from meshwise.load.lane import Share
from meshwise.load.wire import frames
from meshwise.load.wire.blocks import encode_block
from meshwise.study.model import Protocol

SHORT = {"rate_rps": 100, "duration_ns": 100 * MS, "timeout_ns": 300 * MS}
BEHAVIOURS = [
    *((Protocol.HTTP1, behaviour.__name__, behaviour) for behaviour in hostile.HTTP1),
    *((Protocol.HTTP2, name, behaviour) for name, behaviour in hostile.HTTP2.items()),
    *(
        (Protocol.GRPC, name, hostile.HTTP2[name])
        for name in ("never_answers", "garbage", "rst", "bad_block")
    ),
]


@pytest.mark.parametrize(("protocol", "name", "behaviour"), BEHAVIOURS, ids=lambda value: str(value))
def test_every_request_ends_as_an_error_in_time(
    protocol: Protocol, name: str, behaviour: hostile.Behaviour, tmp_path: Path
) -> None:
    with hostile.hostile(behaviour) as port:
        ran = run_here(load_spec(port, protocol, path="/a.B/C", **SHORT), tmp_path)
    assert ran.table.num_rows == 10
    assert all(ran.errors()), f"{name}: {ran.errors()}"
    assert ran.table["done_ns"].null_count == 10
    assert ran.facts.wall_ns < 20 * 10**9  # it ends by itself: 0.4 s on a machine that does nothing else


def test_what_is_malformed_is_called_so(tmp_path: Path) -> None:
    for protocol, behaviour in ((Protocol.HTTP1, hostile.two_lengths), (Protocol.HTTP2, hostile.bad_block)):
        with hostile.hostile(behaviour) as port:
            ran = run_here(load_spec(port, protocol, **SHORT), tmp_path)
        assert "protocol" in ran.report.errors


def test_resets_time_outs_and_goaways_are_told_apart(tmp_path: Path) -> None:
    expected = {
        (Protocol.HTTP1, hostile.resets_after_request): "reset",
        (Protocol.HTTP1, hostile.never_answers): "timeout",
        (Protocol.HTTP2, hostile.never_answers): "connect",  # it never says its settings: not a connection
        (Protocol.HTTP2, hostile.HTTP2["goaway"]): "goaway",
        (Protocol.HTTP2, hostile.HTTP2["rst"]): "rst_stream",
    }
    for (protocol, behaviour), kind in expected.items():
        with hostile.hostile(behaviour) as port:
            ran = run_here(load_spec(port, protocol, connections=1, **SHORT), tmp_path)
        assert kind in ran.report.errors, (behaviour, ran.report.errors)


def test_a_drip_is_an_answer(tmp_path: Path) -> None:
    with hostile.hostile(hostile.drips) as port:
        ran = run_here(load_spec(port, **SHORT), tmp_path)
    assert ran.errors() == [""] * 10
    assert ran.table["bytes"].to_pylist() == [2] * 10


def test_a_connection_lost_after_each_answer_is_repaired(tmp_path: Path) -> None:
    with hostile.hostile(hostile.closes_after_each_answer) as port:
        ran = run_here(load_spec(port, connections=8, **SHORT), tmp_path)
    assert ran.errors().count("") >= 8
    assert ran.report.connections_made > 8


def test_goaway_after_some_answers_costs_only_the_request_behind_it(tmp_path: Path) -> None:
    with hostile.hostile(hostile.goaway_after(3)) as port:
        ran = run_here(load_spec(port, Protocol.HTTP2, connections=1, timeout_ns=500 * MS), tmp_path)
    counts = {kind: ran.errors().count(kind) for kind in ("", "goaway")}
    assert sum(counts.values()) == 100
    assert counts["goaway"] == pytest.approx(25, abs=2)


def test_a_body_that_may_never_be_sent_times_out(tmp_path: Path) -> None:
    with hostile.hostile(hostile.zero_window) as port:
        ran = run_here(load_spec(port, Protocol.HTTP2, body_bytes=1000, method="POST", **SHORT), tmp_path)
    assert set(ran.errors()) == {"timeout"}
    assert "the server's flow-control window had no room for the rest of the body" in ran.report.reasons


@pytest.mark.parametrize("requests_per_connection", [0, 1])
def test_a_server_that_never_allows_a_stream_is_said_to(requests_per_connection: int, tmp_path: Path) -> None:
    none = {frames.MAX_CONCURRENT_STREAMS: 0}
    with hostile.hostile(hostile.allows_later(none, none, after_s=0.0)) as port:
        changes = {**SHORT, "requests_per_connection": requests_per_connection}
        ran = run_here(load_spec(port, Protocol.HTTP2, **changes), tmp_path)
    assert set(ran.errors()) == {"timeout"}
    assert list(ran.report.reasons) == [
        "the server allows no stream: its SETTINGS_MAX_CONCURRENT_STREAMS is 0"
    ]


def test_a_peer_that_reads_nothing_does_not_make_us_hoard(tmp_path: Path) -> None:
    with hostile.hostile(hostile.never_reads) as port:
        spec = load_spec(port, body_bytes=4_000_000, method="POST", connections=1, **SHORT)
        ran = run_here(spec, tmp_path)
    assert set(ran.errors()) == {"timeout"}


MALFORMED = [
    *((Protocol.HTTP2, name, behaviour) for name, behaviour in hostile.MALFORMED.items()),
    *((Protocol.GRPC, name, behaviour) for name, behaviour in hostile.MALFORMED_GRPC.items()),
]


@pytest.mark.parametrize(("protocol", "name", "behaviour"), MALFORMED, ids=lambda value: str(value))
def test_malformed_answers_fail_one_by_one_on_connections_that_live(
    protocol: Protocol, name: str, behaviour: hostile.Behaviour, tmp_path: Path
) -> None:
    with hostile.hostile(behaviour) as port:
        ran = run_here(load_spec(port, protocol, path="/a.B/C", **SHORT), tmp_path)
    assert ran.errors() == ["protocol"] * 10
    assert (ran.report.connections_made, ran.report.setup_failures) == (4, {})
    assert list(ran.report.reasons.values()) == [10]


def test_neighbours_of_a_malformed_answer_are_answered(tmp_path: Path) -> None:
    """One connection, several streams; every third answer has no status."""

    def behaviour(sock: socket.socket) -> None:
        peer, asked = hostile.Http2Peer(sock), []
        while True:
            asked.append(peer.next_request())
            if len(asked) == 3:
                first, *others = asked
                sock.sendall(frames.headers_frames(first, encode_block([("x", "y")]), end_stream=False))
                for stream_id in others:
                    peer.answer(stream_id)
                asked.clear()

    with hostile.hostile(behaviour) as port:
        changes = {"connections": 1, "streams": 3, "rate_rps": 300, "duration_ns": 100 * MS}
        ran = run_here(load_spec(port, Protocol.HTTP2, **changes), tmp_path)
    assert sorted(ran.errors()) == [""] * 20 + ["protocol"] * 10
    assert ran.report.connections_made == 1


NO_HTTP2 = "the server does not speak HTTP/2 here, it answers in"
OTHERS = [
    (Protocol.HTTP2, hostile.answers_http1, "protocol", f"{NO_HTTP2} HTTP/1"),
    (Protocol.GRPC, hostile.answers_tls_alert, "protocol", f"{NO_HTTP2} TLS"),
    (Protocol.GRPC, hostile.closes_after_reading, "reset", "closed by the server before its HTTP/2 SETTINGS"),
]  # fmt: skip


@pytest.mark.parametrize(("protocol", "behaviour", "kind", "reason"), OTHERS)
def test_a_server_of_another_protocol_is_named_at_once(
    protocol: Protocol, behaviour: hostile.Behaviour, kind: str, reason: str
) -> None:
    with (
        hostile.hostile(behaviour) as port,
        Engine([Share(load_spec(port, protocol, connections=2), 2)]) as engine,
    ):
        [failure] = engine.connect(60_000 * MS)  # its end would be the test's own time-out
    assert failure is not None
    assert (failure.kind.label, str(failure)) == (kind, reason)


def test_requests_to_a_server_of_another_protocol_fail_when_they_fall_due(tmp_path: Path) -> None:
    """Not of a time-out, later."""
    with hostile.hostile(hostile.banner) as port:
        ran = run_here(load_spec(port, timeout_ns=20_000 * MS, connections=1), tmp_path)
    assert set(ran.errors()) == {"protocol"}


@pytest.mark.parametrize(
    ("protocol", "behaviour"),
    [(Protocol.HTTP1, hostile.refuses_bodies), (Protocol.HTTP2, hostile.http2_refuses_bodies)],
)
def test_an_answer_that_came_before_the_body_was_taken_counts(
    protocol: Protocol, behaviour: hostile.Behaviour, tmp_path: Path
) -> None:
    """Sending fails, and the answer is there: its status is the request's."""
    with hostile.hostile(behaviour) as port:
        changes = {"body_bytes": 10 * 2**20, "method": "POST", "connections": 2, "timeout_ns": 5000 * MS}
        ran = run_here(load_spec(port, protocol, rate_rps=20, duration_ns=500 * MS, **changes), tmp_path)
    assert ran.table["status"].to_pylist() == [413] * 10
    assert ran.errors() == ["http_status"] * 10
    assert ran.report.connections_made >= 10


LATER = {
    "no stream": ({frames.MAX_CONCURRENT_STREAMS: 0}, {frames.MAX_CONCURRENT_STREAMS: 10}),
    "no window": ({frames.INITIAL_WINDOW_SIZE: 0}, {frames.INITIAL_WINDOW_SIZE: 65535}),
}


@pytest.mark.parametrize("requests_per_connection", [0, 2])
@pytest.mark.parametrize("limit", LATER)
@pytest.mark.parametrize("protocol", [Protocol.HTTP2, Protocol.GRPC])
def test_what_a_server_allows_later_is_waited_for(
    protocol: Protocol, limit: str, requests_per_connection: int, tmp_path: Path
) -> None:
    with hostile.hostile(hostile.allows_later(*LATER[limit], after_s=0.15)) as port:
        changes = {"body_bytes": 100, "method": "POST", "connections": 4, "timeout_ns": 5000 * MS}
        changes |= {"requests_per_connection": requests_per_connection, "duration_ns": 100 * MS}
        ran = run_here(load_spec(port, protocol, path="/a.B/C", **changes), tmp_path)
    expected = "" if protocol is Protocol.HTTP2 else "protocol"  # that server says nothing of gRPC
    assert ran.errors() == [expected] * 20
    assert ran.table["status"].to_pylist() == [200] * 20


def test_a_request_whose_new_connection_says_goaway_has_failed(tmp_path: Path) -> None:
    with hostile.hostile(hostile.goaway_at_once) as port:
        ran = run_here(load_spec(port, Protocol.HTTP2, requests_per_connection=1, **SHORT), tmp_path)
    assert ran.errors() == ["goaway"] * 10
    assert "the server said GOAWAY: NO_ERROR" in ran.report.reasons
