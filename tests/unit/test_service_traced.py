"""The codecs of a node that takes part in traces, without a socket: whose child every span is."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from hpack import Encoder
from tests.support.http2_talk import CALL, POST, SPEC, Calls, Talk

from meshwise.load.traced import SLOT
from meshwise.load.wire.blocks import BlockDecoder, encode_block
from meshwise.service import spans
from meshwise.service.grpc_framing import frame_payload
from meshwise.service.http2_blocks import PeerBlocks, cut, literal_names
from meshwise.service.outgoing import Done, Outgoing
from meshwise.service.script import no_scripts
from meshwise.service.spans import CLIENT, LOST, RECORD, SERVER, SpanLog, read_context
from meshwise.service.traced import (
    TracedGrpcServer,
    TracedHeaderBlocks,
    TracedHttp1Server,
    TracedHttp2Server,
    TracedRequestHeads,
    TracedStreamHeads,
    literal_text,
)
from meshwise.study.model import Protocol

TRACE, PARENT = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
SAMPLED, IGNORED = f"00-{TRACE}-{PARENT}-01", f"00-{TRACE}-{PARENT}-00"


class Written:
    """A log of spans, and what it has written."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.log = SpanLog(path, "node-1", lambda call: None)

    def records(self) -> list[tuple[Any, ...]]:
        self.log.flush()
        return list(RECORD.iter_unpack(self.path.read_bytes()))


@pytest.fixture
def written(tmp_path: Path) -> Written:
    return Written(tmp_path / "spans")


def in_order(records: Sequence[tuple[Any, ...]]) -> tuple[tuple[Any, ...], tuple[Any, ...]]:
    """(the server's, the call's)"""
    by_kind = {record[4]: record for record in records}
    assert len(by_kind) == len(records) == 2
    return by_kind[SERVER], by_kind[CLIENT]


def check_nested(records: Sequence[tuple[Any, ...]], context: bytes) -> None:
    """`context`: what the call carries."""
    server, call = in_order(records)
    assert {server[0].hex(), call[0].hex()} == {TRACE}
    assert server[2].hex() == PARENT
    assert call[2] == server[1], "the call is within the request"
    carried = read_context(context)
    assert carried is not None
    assert (carried.trace_id.hex(), carried.parent_id) == (TRACE, call[1])
    assert server[6] <= call[6] <= call[7] <= server[7]
    assert call[3].rstrip(b"\0") == b"node-2"


@pytest.mark.parametrize(
    "text",
    [
        IGNORED, "", "x" * 55, SLOT, SAMPLED[:-1], SAMPLED.replace("-", "_"), f"00-{'0' * 32}-{PARENT}-01",
        f"00-{TRACE}-{'0' * 16}-01", f"00-{TRACE}-{PARENT}-zz", f"ff-{TRACE}-{PARENT}-01",
    ],
)  # fmt: skip
def test_what_is_no_sampled_context_is_none(text: str) -> None:
    assert read_context(text.encode()) is None


# --- HTTP/1.1 ----------------------------------------------------------------------------------------------


def http1(written: Written, calls: Calls) -> TracedHttp1Server:
    return TracedHttp1Server(TracedRequestHeads(SPEC, 1.0), calls, no_scripts, written.log)


def request(context: str | None, plan: str = "bytes=4", body: bytes = b"") -> bytes:
    fields = [f"traceparent: {context}"] if context else []
    lines = ["POST /echo HTTP/1.1", "host: a", f"x-plan: {plan}", f"content-length: {len(body)}", *fields]
    return "\r\n".join([*lines, "", ""]).encode() + body


def test_http1_a_request_has_a_span_under_its_caller(written: Written) -> None:
    codec = http1(written, Calls())
    assert codec.receive(request(SAMPLED)).startswith(b"HTTP/1.1 200")
    assert codec.receive(request(None)).startswith(b"HTTP/1.1 200")
    assert codec.receive(request(IGNORED)).startswith(b"HTTP/1.1 200")
    ((trace, _, parent, name, kind, failed, begun, ended),) = written.records()
    assert (trace.hex(), parent.hex(), kind, failed) == (TRACE, PARENT, SERVER, 0)
    assert name.rstrip(b"\0") == b"node-1"
    assert begun <= ended


def test_http1_a_body_that_comes_later_belongs_to_the_same_span(written: Written) -> None:
    codec = http1(written, Calls())
    whole = request(SAMPLED, body=b"hello")
    assert codec.receive(whole[:-2]) == b""
    assert codec.receive(whole[-2:]).startswith(b"HTTP/1.1 200")
    assert codec.receive(request(None)).startswith(b"HTTP/1.1 200")
    assert [record[2].hex() for record in written.records()] == [PARENT]


def test_http1_calls_go_out_within_it_and_other_contexts_as_they_came(written: Written) -> None:
    calls = Calls()
    codec = http1(written, calls)
    sent: list[bytes] = []
    codec.emit = sent.append
    for context in (SAMPLED, IGNORED, None):
        codec.receive(request(context, "hops=1;bytes=4", b"abc"))
        ((made,), done) = calls.started[-1][1:]
        if made.ended is not None:
            made.ended(False)
        done("", 4)
    heads = [started[1][0].head for started in calls.started]
    carried = [next((line for line in head.split(b"\r\n") if b"traceparent" in line), b"") for head in heads]
    check_nested(written.records(), carried[0].partition(b": ")[2])
    assert carried[1] == f"traceparent: {IGNORED}".encode()
    assert carried[2] == b""
    assert len(sent) == 3


# --- HTTP/2 and gRPC ---------------------------------------------------------------------------------------


def talk(written: Written, protocol: Protocol) -> Talk:
    grpc = protocol is Protocol.GRPC
    heads = (TracedStreamHeads if grpc else TracedHeaderBlocks)(SPEC, 1.0, protocol)
    kind = TracedGrpcServer if grpc else TracedHttp2Server
    made = partial(kind, play=no_scripts, log=written.log)
    return Talk(protocol, heads, made)  # type: ignore[arg-type]


def headers(protocol: Protocol, context: str | None, plan: str) -> list[tuple[str, str]]:
    fields = CALL if protocol is Protocol.GRPC else POST
    return [*fields, ("x-plan", plan), *([("traceparent", context)] if context else [])]


def body(protocol: Protocol) -> bytes:
    return frame_payload(b"abc") if protocol is Protocol.GRPC else b"abc"


@pytest.mark.parametrize("protocol", [Protocol.HTTP2, Protocol.GRPC])
def test_http2_a_request_has_a_span_under_its_caller(protocol: Protocol, written: Written) -> None:
    line = talk(written, protocol)
    for context in (SAMPLED, None, IGNORED, SAMPLED):
        stream = line.ask(headers(protocol, context, "bytes=4"), body(protocol))
        assert line.answer(stream)[0][":status"] == "200"
    records = written.records()
    assert [(record[0].hex(), record[2].hex(), record[4]) for record in records] == [
        (TRACE, PARENT, SERVER)
    ] * 2
    assert records[0][1] != records[1][1]


def test_http2_one_without_a_body_is_answered_at_once_and_has_a_span_too(written: Written) -> None:
    line = talk(written, Protocol.HTTP2)
    for _ in range(3):
        assert line.answer(line.ask(headers(Protocol.HTTP2, SAMPLED, "bytes=4")))[0][":status"] == "200"
    assert len(written.records()) == 3


@pytest.mark.parametrize("protocol", [Protocol.HTTP2, Protocol.GRPC])
def test_http2_calls_go_out_within_it(protocol: Protocol, written: Written) -> None:
    line = talk(written, protocol)
    line.ask(headers(protocol, SAMPLED, "hops=1;bytes=4"), body(protocol))
    ((_, (made,), done),) = line.calls.started
    finish(made, done)
    fields = dict(BlockDecoder().decode(made.head))
    check_nested(written.records(), fields[b"traceparent"])


def finish(made: Outgoing, done: Done) -> None:
    assert made.ended is not None
    made.ended(False)
    done("", 4)


def test_http2_a_reset_stream_ends_its_span_as_failed(written: Written) -> None:
    line = talk(written, Protocol.HTTP2)
    stream = line.client.get_next_available_stream_id()
    line.client.send_headers(stream, headers(Protocol.HTTP2, SAMPLED, "bytes=4"))
    line.flush()
    line.server.lost()
    ((*_, kind, failed, _, _),) = written.records()
    assert (kind, failed) == (SERVER, 1)


def test_letters_of_another_field_are_no_context(written: Written) -> None:
    """The name's bytes within a value: the block is read as it is."""
    heads = TracedHeaderBlocks(SPEC, 1.0, Protocol.HTTP2)
    trap = literal_names("traceparent")[1] + bytes([55]) + SAMPLED.encode()
    fields = [*POST, ("x-plan", "hops=1"), ("x-trap", trap)]
    head = heads.get(PeerBlocks(), encode_block(fields))
    assert heads.seen is None
    (call,) = head.calls
    assert dict(BlockDecoder().decode(call.block))[b"x-trap"] == trap


@pytest.mark.parametrize("place", [0, 1])
def test_a_value_is_found_huffman_coded_or_plain(place: int) -> None:
    block = Encoder().encode([("traceparent", SAMPLED)], huffman=bool(1 - place))
    _, raw, at = cut(block, literal_names("traceparent"))
    assert at > 0
    assert literal_text(raw) == SAMPLED.encode()


# --- the file ----------------------------------------------------------------------------------------------


def test_the_file_is_bounded_and_says_what_it_lost(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(spans, "MOST_BYTES", 10 * RECORD.size)
    written = Written(tmp_path / "spans")
    context = read_context(SAMPLED.encode())
    assert context is not None
    for _ in range(25):
        written.log.server(context, 1).end()
    records = written.records()
    assert sum(record[4] == SERVER for record in records) == 10
    assert sum(record[6] for record in records if record[4] == LOST) == 15
    written.path.write_bytes(b"")
    written.log.server(context, 1).end()
    assert [record[4] for record in written.records()] == [SERVER], "emptied, it has room again"
