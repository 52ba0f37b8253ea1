"""However the network cuts the bytes, a codec of the node says the same."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

from hypothesis import given, settings
from hypothesis import strategies as st

from meshwise.load.wire import frames
from meshwise.load.wire.blocks import encode_block
from meshwise.service import http1_server, http2_server
from meshwise.service.http1_server import Http1Server
from meshwise.service.http2_server import Http2Server
from meshwise.service.outgoing import Done, Outgoing
from meshwise.service.plan import MAX_BYTES, MAX_FAN, MAX_HOPS, MAX_WORK_US, Plan, parse
from meshwise.service.spec import NodeSpec
from meshwise.study.model import Protocol
from meshwise.telemetry.labels import read_labels, write_labels

SPEC = NodeSpec("node-1")


def _no_calls(protocol: Protocol, outgoing: Sequence[Outgoing], done: Done) -> None:
    raise AssertionError("nothing is to be called")


def _pieces(data: bytes, cuts: list[int]) -> list[bytes]:
    bounds = [0, *sorted({cut % (len(data) + 1) for cut in cuts}), len(data)]
    return [data[start:stop] for start, stop in pairwise(bounds) if start < stop]


@st.composite
def http1_requests(draw: st.DrawFn) -> bytes:
    method = draw(st.sampled_from(["GET", "HEAD", "POST"]))
    path = draw(st.sampled_from(["/echo", "/healthz", "/nowhere", "/echo?x=1"]))
    fields = ["host: a", f"x-plan: {draw(st.sampled_from(['', 'bytes=3', 'bytes=x']))}"]
    if draw(st.booleans()):
        fields.append(f"x-request-id: {draw(st.uuids())}")
    body = b""
    if method == "POST":
        chunks = draw(st.lists(st.binary(min_size=1, max_size=20), max_size=3))
        if draw(st.booleans()):
            fields.append("transfer-encoding: chunked")
            body = b"".join(b"%x\r\n%s\r\n" % (len(chunk), chunk) for chunk in chunks) + b"0\r\n\r\n"
        else:
            body = b"".join(chunks)
            fields.append(f"content-length: {len(body)}")
    return "\r\n".join([f"{method} {path} HTTP/1.1", *fields, "", ""]).encode() + body


@given(st.lists(http1_requests(), min_size=1, max_size=4), st.lists(st.integers(0, 2**16), max_size=8))
def test_http1_answers_do_not_depend_on_the_cuts(requests: list[bytes], cuts: list[int]) -> None:
    heads = http1_server.RequestHeadCache(SPEC, 1.0)
    one_by_one, together = Http1Server(heads, _no_calls), Http1Server(heads, _no_calls)
    expected = b"".join(one_by_one.receive(request) for request in requests)
    got = b"".join(together.receive(piece) for piece in _pieces(b"".join(requests), cuts))
    assert got == expected
    assert got.count(b"HTTP/1.1 ") == len(requests)


@st.composite
def http2_streams(draw: st.DrawFn, number: int) -> bytes:
    stream_id = 2 * number + 1
    path = draw(st.sampled_from(["/echo", "/healthz", "/nowhere"]))
    fields = [(":method", "POST"), (":scheme", "http"), (":authority", "a"), (":path", path),
              ("x-plan", draw(st.sampled_from(["", "bytes=3", "bytes=x"])))]  # fmt: skip
    if draw(st.booleans()):
        fields.append(("x-request-id", str(draw(st.uuids()))))
    body = draw(st.binary(max_size=40))
    head = frames.headers_frames(
        stream_id, encode_block(fields), end_stream=not body, frame_bytes=draw(st.sampled_from([7, 16_384]))
    )
    data = frames.data_frames(stream_id, body, end_stream=True, frame_bytes=10) if body else b""
    between = draw(st.sampled_from([b"", frames.frame(0xFA, 0, 0, b"unknown"), frames.settings({99: 1})]))
    return head + (b"" if not body else between) + data


@given(
    st.integers(1, 4).flatmap(lambda count: st.tuples(*(http2_streams(number) for number in range(count)))),
    st.lists(st.integers(0, 2**16), max_size=8),
)
def test_http2_answers_do_not_depend_on_the_cuts(streams: tuple[bytes, ...], cuts: list[int]) -> None:
    sent = frames.PREFACE + frames.settings({}) + b"".join(streams)
    whole = Http2Server(http2_server.HeaderBlockCache(SPEC, 1.0, Protocol.HTTP2), _no_calls)
    cut = Http2Server(http2_server.HeaderBlockCache(SPEC, 1.0, Protocol.HTTP2), _no_calls)
    expected = whole.receive(sent)
    assert b"".join(cut.receive(piece) for piece in _pieces(sent, cuts)) == expected
    answered = [stream_id for kind, _, stream_id, _ in frames.split(expected)[0] if kind == frames.HEADERS]
    assert answered == [2 * number + 1 for number in range(len(streams))]
    assert not whole.closing


@settings(max_examples=200)
@given(st.binary(max_size=300), st.booleans(), st.sampled_from(list(Protocol)))
def test_noise_never_raises(noise: bytes, after_preface: bool, protocol: Protocol) -> None:
    codec: Http1Server | Http2Server
    if protocol is Protocol.HTTP1:
        codec = Http1Server(http1_server.RequestHeadCache(SPEC, 1.0), _no_calls)
    else:
        codec = Http2Server(http2_server.HeaderBlockCache(SPEC, 1.0, protocol), _no_calls)
        noise = (frames.PREFACE + frames.settings({}) if after_preface else b"") + noise
    codec.receive(noise)


@settings(max_examples=200)
@given(st.integers(0, 9), st.integers(0, 0x3F), st.integers(0, 5), st.binary(max_size=40))
def test_any_frame_is_taken_or_refused(kind: int, flags: int, stream_id: int, payload: bytes) -> None:
    codec = Http2Server(http2_server.HeaderBlockCache(SPEC, 1.0, Protocol.HTTP2), _no_calls)
    codec.receive(frames.PREFACE + frames.settings({}))
    codec.receive(frames.frame(kind, flags, stream_id, payload) * 2)


@given(
    st.builds(
        Plan,
        bytes=st.integers(0, MAX_BYTES),
        hops=st.integers(0, MAX_HOPS),
        fan=st.integers(0, MAX_FAN),
        work_us=st.integers(0, MAX_WORK_US),
    )
)
def test_plans_survive(plan: Plan) -> None:
    assert parse(str(plan)) == plan


@given(st.dictionaries(st.from_regex(r"[a-z_]+", fullmatch=True), st.text()))
def test_labels_survive(pairs: dict[str, str]) -> None:
    assert read_labels(write_labels(pairs)) == pairs
