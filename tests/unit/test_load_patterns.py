"""Connections, sizes and streams of the instrument: what is encoded, what is refused, what is typed."""

from __future__ import annotations

import dataclasses

import pytest
from tests.support.wire import answer_of
from tests.unit.test_load_report import SPEC

from meshwise.cli.load_patterns import parse_sizes, patterned
from meshwise.core.errors import MeshwiseError
from meshwise.load.instrument import check_spec
from meshwise.load.requests import encode
from meshwise.load.setups import Setup, SetupError, SetupLog
from meshwise.load.spec import LoadSpec, TlsSpec
from meshwise.load.wire import frames, tcp
from meshwise.load.wire.seam import ErrorKind
from meshwise.study.model import Protocol
from meshwise.study.protocol import Streaming

VARIED = "empirical(3B: 1, 70000B: 1)"


def changed(**changes: object) -> LoadSpec:
    return dataclasses.replace(SPEC, **changes)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "changes",
    [
        {"requests_per_connection": -1}, {"churn_per_s": -1.0}, {"churn_per_s": 1e6},
        {"requests_per_connection": 1, "churn_per_s": 1.0}, {"resume_tls": True},
        {"streaming": Streaming.BIDI}, {"messages": 2},
        {"protocol": Protocol.GRPC, "streaming": Streaming.BIDI, "messages": 0},
        {"protocol": Protocol.GRPC, "streaming": Streaming.SERVER, "messages": -1},
        {"protocol": Protocol.GRPC, "streaming": Streaming.CLIENT, "messages": 10, "body_bytes": 10 * 2**20},
        {"protocol": Protocol.GRPC, "grpc_message": b"x", "request_sizes": VARIED},
    ],
)  # fmt: skip
def test_what_contradicts_itself_is_refused(changes: dict[str, object]) -> None:
    with pytest.raises(MeshwiseError) as caught:
        check_spec(changed(**changes))
    assert caught.value.code == "MW303"


def test_what_can_be() -> None:
    check_spec(changed(requests_per_connection=1, tls=TlsSpec("a"), resume_tls=True))
    check_spec(changed(churn_per_s=10.0, request_sizes=VARIED, response_sizes=VARIED))
    check_spec(
        changed(protocol=Protocol.GRPC, method="POST", path="/a.B/C", streaming=Streaming.SERVER, messages=0)
    )


def test_a_spec_survives_its_file() -> None:
    spec = changed(
        protocol=Protocol.GRPC, streaming=Streaming.BIDI, messages=3, request_sizes=VARIED, churn_per_s=2.5
    )
    assert LoadSpec.from_json(spec.to_json()) == spec


def test_requests_of_drawn_sizes_are_whole_and_ask_for_drawn_answers() -> None:
    spec = changed(
        method="POST", request_sizes=VARIED, response_sizes="empirical(5B, 6B)",
        path="/{response_bytes}", headers=(("x-plan", "bytes={response_bytes}"),),
    )  # fmt: skip
    encoded = encode(spec)
    seen = set()
    for tag in range(64):
        raw = encoded.protocol().start(tag)
        head, _, body = raw.partition(b"\r\n\r\n")
        lines = head.split(b"\r\n")
        asked = lines[0].split()[1].strip(b"/")
        assert b"x-plan: bytes=" + asked in lines
        assert b"content-length: %d" % len(body) in lines
        seen.add((len(body), int(asked)))
    assert seen == {(3, 5), (3, 6), (70_000, 5), (70_000, 6)}
    assert encoded.size_bytes > 70_000


def test_a_large_drawn_body_waits_for_the_window_of_http2() -> None:
    protocol = encode(changed(protocol=Protocol.HTTP2, method="POST", request_sizes=VARIED)).protocol()
    protocol.receive(frames.settings({}), 1)
    protocol.take_control()
    sizes: dict[int, int] = {}
    for tag in range(8):
        whole, rest = frames.split(protocol.start(tag))
        assert not rest
        stream = whole[0][2]
        sizes[stream] = sum(len(data) for kind, _, _, data in whole if kind == frames.DATA)
        protocol.receive(frames.window_update(0, 70_000) + frames.window_update(stream, 70_000), 1)
        more, _ = frames.split(protocol.take_control())
        sizes[stream] += sum(len(data) for kind, _, _, data in more if kind == frames.DATA)
        protocol.cancel(tag)
        protocol.take_control()
    assert set(sizes.values()) == {3, 70_000}


def test_opaque_tcp_expects_the_answer_that_it_asked_for() -> None:
    varied = changed(protocol=Protocol.TCP, request_sizes=VARIED, response_sizes="empirical(1B, 9B)")
    protocol = encode(varied).protocol()
    for tag in range(32):
        raw = protocol.start(tag)
        assert protocol.start(99) == b"", "one request at a time"
        request_bytes, response_bytes = len(raw) - tcp.HEAD_BYTES, int.from_bytes(raw[4:8], "big")
        answer = tcp.answer_head(request_bytes, response_bytes) + bytes(response_bytes)
        [completion] = protocol.receive(answer, 1)
        assert (answer_of(completion).tag, answer_of(completion).body_bytes) == (tag, response_bytes)


def test_the_log_of_set_ups_survives_a_pipe() -> None:
    log = SetupLog()
    log.note(Setup(5, 70, "h2", "TLSv1.3", resumed=False), "127.0.0.1")
    log.note(Setup(6, 7, "h2", "TLSv1.3", resumed=True), "127.0.0.1")
    log.note(Setup(8, None, None, None, resumed=False), "127.0.0.1")
    log.note_failure(SetupError(ErrorKind.CONNECT, "none left", 99))
    log.note_failure(SetupError(ErrorKind.TLS, "not trusted"))
    assert (log.connect_ns.tolist(), log.full_tls_ns.tolist()) == ([5, 6, 8], [70])
    assert log.resumed_tls_ns.tolist() == [7]
    assert (log.failures, log.exhausted, log.tls) == ({"connect": 1, "tls": 1}, 1, "TLSv1.3 h2")
    assert SetupLog.from_values(log.to_values()) == log


# --- what is typed -----------------------------------------------------------------------------------


def typed(spec: LoadSpec = SPEC, **changes: object) -> LoadSpec:
    values: dict[str, object] = {
        "request": 0, "response": 0, "requests_per_connection": None, "churn": None, "resume_tls": False,
        "streaming": Streaming.NONE, "messages_per_stream": None,
    }  # fmt: skip
    return patterned(spec, **{**values, **changes})  # type: ignore[arg-type]


def test_sizes() -> None:
    assert parse_sizes("512") == 512
    assert parse_sizes("1KiB") == 1024
    assert str(parse_sizes("lognormal(1KiB;1.5)")) == "lognormal(1KiB, 1.5)"


def test_nothing_typed_changes_nothing() -> None:
    assert typed() == SPEC


def test_what_is_typed_is_what_is_run() -> None:
    spec = typed(requests_per_connection=3, resume_tls=True, request=parse_sizes(VARIED))
    assert (spec.requests_per_connection, spec.resume_tls) == (3, True)
    assert spec.request_sizes == "empirical(3B: 1, 70000B: 1)"
    assert typed(churn="90/m").churn_per_s == 1.5
    grpc = typed(changed(protocol=Protocol.GRPC), streaming=Streaming.SERVER, response=5)
    assert grpc.messages == 10
    assert ("x-plan", "bytes={response_bytes};messages=10") in grpc.headers


def test_the_size_of_the_answer_goes_where_it_is_said() -> None:
    assert typed(changed(path="/{response_bytes}"), response=5).headers == SPEC.headers
    assert typed(changed(protocol=Protocol.TCP), response=5).headers == SPEC.headers
    assert ("x-plan", "bytes={response_bytes}") in typed(response=5).headers


@pytest.mark.parametrize(
    ("spec", "changes"),
    [
        (SPEC, {"requests_per_connection": 0}),
        (SPEC, {"messages_per_stream": 5}),
        (changed(headers=(("X-Plan", "bytes=1"),)), {"response": 5}),
    ],
)
def test_what_contradicts_itself_is_refused_as_typed(spec: LoadSpec, changes: dict[str, object]) -> None:
    with pytest.raises(MeshwiseError) as caught:
        typed(spec, **changes)
    assert caught.value.code == "MW303"


@pytest.mark.parametrize(("rate", "refused"), [(0.5, True), (0.999, True), (1.0, False)])
def test_less_than_one_request_is_refused_as_in_a_study(rate: float, refused: bool) -> None:
    spec = changed(rate_rps=rate, duration_ns=10**9)
    if not refused:
        check_spec(spec)
        return
    with pytest.raises(MeshwiseError, match="shorter than the time between two requests") as caught:
        check_spec(spec)
    assert caught.value.code == "MW303"
