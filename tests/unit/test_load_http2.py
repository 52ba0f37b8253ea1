"""HTTP/2 and gRPC, by hand-made frames: each rule of the protocol, at every cut."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from hpack import Encoder
from tests.support.wire import Answer, feed

from meshwise.load.wire import frames, grpc
from meshwise.load.wire.blocks import encode_block
from meshwise.load.wire.http2 import MAX_HEADER_BYTES, Http2
from meshwise.load.wire.http2_request import encode_request
from meshwise.load.wire.seam import ErrorKind, WireError

OK = encode_block([(":status", "200"), ("server", "x")])
SERVER_HELLO = frames.settings({frames.MAX_CONCURRENT_STREAMS: 100})


def connection(streams: int = 8, body: bytes = b"", settings: bytes = SERVER_HELLO) -> Http2:
    protocol = Http2(encode_request("GET", "http", "/", "a", [], body), streams)
    assert protocol.start(0) == b""  # not before the peer's settings
    assert feed(protocol, [settings]) == []
    assert protocol.take_control().startswith(frames.SETTINGS_ACK)
    return protocol


def call() -> grpc.Grpc:
    protocol = grpc.Grpc(grpc.encode_request("http", "/p.S/M", "a", [], b"m"), 8)
    feed(protocol, [SERVER_HELLO])
    protocol.start(5)
    return protocol


def headers(stream_id: int, block: bytes = OK, *, end: bool = False) -> bytes:
    return frames.headers_frames(stream_id, block, end_stream=end)


def data(stream_id: int, body: bytes, *, end: bool = True) -> bytes:
    return frames.data_frames(stream_id, body, end_stream=end)


PADDED_DATA = frames.frame(frames.DATA, frames.PADDED | frames.END_STREAM, 1, b"\x03bodyXXX")
PADDED_HEAD = frames.frame(
    frames.HEADERS,
    frames.PADDED | frames.HAS_PRIORITY | frames.END_HEADERS,
    1,
    b"\x02\0\0\0\0\x10" + OK + b"XX",
)
CONTINUED = (
    frames.frame(frames.HEADERS, frames.END_STREAM, 1, OK[:1])
    + frames.frame(frames.CONTINUATION, 0, 1, b"")
    + frames.frame(frames.CONTINUATION, frames.END_HEADERS, 1, OK[1:])
)
INTERIM = encode_block([(":status", "103"), ("link", "</a>")])
TRAILER = encode_block([("x-sum", "1")])

SHAPES = {
    "head and body": (headers(1) + data(1, b"hello"), 5),
    "head only": (headers(1, end=True), 0),
    "body in parts": (headers(1) + data(1, b"a" * 9, end=False) + data(1, b"b" * 4), 13),
    "empty last frame": (headers(1) + data(1, b"ab", end=False) + data(1, b""), 2),
    "trailers": (headers(1) + data(1, b"abc", end=False) + headers(1, TRAILER, end=True), 3),
    "padded": (PADDED_HEAD + PADDED_DATA, 4),
    "continuation": (CONTINUED, 0),
    "interim": (headers(1, INTERIM) + headers(1, INTERIM) + headers(1) + data(1, b"x"), 1),
    "between other frames": (
        frames.frame(0xEE, 0xFF, 0x7FFFFFFF, b"unknown")
        + frames.ping()
        + headers(1)
        + frames.window_update(0, 5)
        + frames.window_update(1, 5)
        + frames.frame(frames.PRIORITY, 0, 3, b"\0\0\0\0\x10")
        + frames.settings({})
        + data(1, b"x"),
        1,
    ),
    "reserved bit set": (
        headers(1)[:5] + b"\x80\0\0\x01" + headers(1)[9:] + data(1, b"x"),
        1,
    ),
}


def test_interleaved_streams() -> None:
    protocol = connection()
    for tag in range(4):
        protocol.start(tag)
    ids = (1, 3, 5, 7)
    stream = b"".join(headers(i) for i in ids) + b"".join(data(i, b"x" * i) for i in reversed(ids))
    assert [(a.tag, a.body_bytes) for a in feed(protocol, [stream])] == [(3, 7), (2, 5), (1, 3), (0, 1)]


def test_ping_and_settings_are_acknowledged() -> None:
    protocol = connection()
    feed(protocol, [frames.ping(b"12345678") + frames.ping(b"87654321", ack=True) + frames.settings({})])
    assert protocol.attention
    assert protocol.take_control() == frames.ping(b"12345678", ack=True) + frames.SETTINGS_ACK


def test_a_request_is_what_the_rfc_says() -> None:
    protocol = connection(body=b"x" * 20_000)
    parsed, rest = frames.split(protocol.start(0))
    assert not rest
    assert [(kind, flags, stream) for kind, flags, stream, _ in parsed] == [
        (frames.HEADERS, frames.END_HEADERS, 1),
        (frames.DATA, 0, 1),
        (frames.DATA, frames.END_STREAM, 1),
    ]
    assert sum(len(payload) for kind, _, _, payload in parsed if kind == frames.DATA) == 20_000
    assert frames.split(protocol.start(1))[0][0][2] == 3


def test_a_body_waits_for_the_window_of_the_stream_and_of_the_connection() -> None:
    small = frames.settings({frames.INITIAL_WINDOW_SIZE: 10})
    protocol = connection(body=b"x" * 100, settings=small)
    assert _sent(protocol.start(0)) == (10, False)
    feed(protocol, [frames.window_update(0, 1000)])
    assert _sent(protocol.take_control()) == (0, False)
    feed(protocol, [frames.window_update(1, 50)])
    assert _sent(protocol.take_control()) == (50, False)
    feed(protocol, [frames.settings({frames.INITIAL_WINDOW_SIZE: 30})])
    assert _sent(protocol.take_control()) == (20, False)
    feed(protocol, [frames.window_update(1, 1000)])
    assert _sent(protocol.take_control()) == (20, True)

    protocol = connection(body=b"x" * 40_000)
    assert _sent(protocol.start(0)) == (40_000, True)
    assert _sent(protocol.start(1)) == (25_535, False)  # the connection's 65,535 are used up
    feed(protocol, [frames.window_update(0, 20_000)])
    assert _sent(protocol.take_control()) == (14_465, True)


def test_an_answer_before_the_whole_body_calls_the_body_off() -> None:
    protocol = connection(body=b"x" * 100, settings=frames.settings({frames.INITIAL_WINDOW_SIZE: 10}))
    protocol.start(4)
    assert feed(protocol, [headers(1, end=True)]) == [Answer(4, 200, ErrorKind.NONE, 0)]
    assert protocol.take_control() == frames.rst_stream(1, frames.CANCEL)
    feed(protocol, [frames.window_update(1, 1000)])
    assert protocol.take_control() == b""


def test_windows_are_given_back_before_they_run_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("meshwise.load.wire.http2._REPLENISH_BYTES", 1000)
    protocol = connection()
    protocol.start(0)
    feed(protocol, [headers(1) + data(1, b"x" * 1200, end=False)])
    assert protocol.take_control() == frames.window_update(0, 1200) + frames.window_update(1, 1200)
    padded = frames.frame(frames.DATA, frames.PADDED, 1, b"\xff" + bytes(900 + 255))
    feed(protocol, [padded])
    assert protocol.take_control() == frames.window_update(0, 1156) + frames.window_update(1, 1156)


def test_rst_stream_and_goaway_are_errors_of_their_requests() -> None:
    protocol = connection()
    for tag in range(3):
        protocol.start(tag)
    assert feed(protocol, [frames.rst_stream(3, frames.REFUSED_STREAM)]) == [
        Answer(1, 0, ErrorKind.RST_STREAM, 0)
    ]
    assert feed(protocol, [frames.goaway(1, frames.NO_ERROR)]) == [Answer(2, 0, ErrorKind.GOAWAY, 0)]
    assert protocol.closing
    assert protocol.reasons == [
        "the server reset the stream: REFUSED_STREAM",
        "the server said GOAWAY: NO_ERROR",
    ]
    assert protocol.start(9) == b""
    protocol.attention = False
    assert feed(protocol, [headers(1, end=True)]) == [Answer(0, 200, ErrorKind.NONE, 0)]
    assert protocol.attention  # nothing is open now; the engine may let go


def test_a_cancelled_request_is_reset_and_its_late_answer_ignored() -> None:
    protocol = connection()
    protocol.start(4)
    protocol.start(5)
    assert protocol.cancel(4)
    assert protocol.take_control() == frames.rst_stream(1, frames.CANCEL)
    late = headers(1) + data(1, b"late") + frames.rst_stream(1, 0)
    assert feed(protocol, [late + headers(3, end=True)]) == [Answer(5, 200, ErrorKind.NONE, 0)]


def test_a_peer_that_keeps_its_dynamic_table_is_still_read() -> None:
    """It ignores our SETTINGS_HEADER_TABLE_SIZE of 0: the same bytes come to mean different things."""
    protocol, encoder = connection(), Encoder()
    for turn in range(40):
        status = ("200", "404", "503")[turn // 5 % 3]
        block = encoder.encode([(":status", status), ("x-turn", str(turn // 4)), ("x-status", status)])
        protocol.start(turn)
        (answer,) = feed(protocol, [headers(2 * turn + 1, block, end=True)])
        assert answer.status == int(status)


@pytest.mark.parametrize(
    "stream",
    [
        frames.ping(),  # before SETTINGS (see the test)
        headers(2),
        headers(9),
        data(3, b"x"),
        data(0, b"x"),
        headers(1, b"\xff\xff\xff\xff\xff\xff"),
        frames.frame(frames.HEADERS, 0, 1, OK) + frames.ping(),
        frames.frame(frames.CONTINUATION, 0, 1, OK),
        frames.frame(frames.HEADERS, 0, 1, b"") + frames.frame(frames.CONTINUATION, 0, 1, bytes(16_384)) * 17,
        frames.frame(frames.PUSH_PROMISE, frames.END_HEADERS, 1, b"\0\0\0\2" + OK),
        frames.head(16_385, frames.DATA, 0, 1),
        frames.window_update(0, 0),
        frames.window_update(0, frames.MAX_WINDOW_BYTES),
        frames.frame(frames.PING, 0, 0, b"short"),
        frames.frame(frames.SETTINGS, frames.ACK, 0, bytes(6)),
        frames.frame(frames.GOAWAY, 0, 0, b"short"),
        frames.frame(frames.RST_STREAM, 0, 1, b"abc"),
        frames.frame(frames.PRIORITY, 0, 0, b"12345"),
        frames.frame(frames.PING, 0, 1, bytes(8)),
        frames.frame(frames.GOAWAY, 0, 1, bytes(8)),
        frames.frame(frames.SETTINGS, 0, 1),
        frames.settings({frames.ENABLE_PUSH: 1}),
        frames.frame(frames.DATA, frames.PADDED, 1, b"\x05abc"),
        b"HTTP/1.1 400 Bad Request\r\n\r\n",
    ],
)
def test_what_breaks_the_connection(stream: bytes) -> None:
    protocol = connection()
    if stream == frames.ping():
        protocol = Http2(encode_request("GET", "http", "/", "a", [], b""), 1)
    protocol.start(1)
    with pytest.raises(WireError) as caught:
        feed(protocol, [stream])
    assert caught.value.kind is ErrorKind.PROTOCOL


def test_header_blocks_have_a_bound() -> None:
    assert MAX_HEADER_BYTES <= 2**20


# --- gRPC ----------------------------------------------------------------------------------------

GRPC_HEAD = encode_block([(":status", "200"), ("content-type", "application/grpc")])
MESSAGE = b"\0\0\0\0\2ok"


def trailers(code: int) -> bytes:
    return encode_block([("grpc-status", str(code)), ("grpc-message", "m")])


GRPC: dict[str, tuple[Callable[[], bytes], Answer]] = {
    "ok": (
        lambda: headers(1, GRPC_HEAD) + data(1, MESSAGE, end=False) + headers(1, trailers(0), end=True),
        Answer(5, 1000, ErrorKind.NONE, 7),
    ),
    "error in trailers": (
        lambda: headers(1, GRPC_HEAD) + headers(1, trailers(5), end=True),
        Answer(5, 1005, ErrorKind.GRPC_STATUS, 0),
    ),
    "trailers only": (
        lambda: headers(1, encode_block([(":status", "200"), ("grpc-status", "7")]), end=True),
        Answer(5, 1007, ErrorKind.GRPC_STATUS, 0),
    ),
    "a proxy's refusal": (
        lambda: headers(1, encode_block([(":status", "503")]), end=True),
        Answer(5, 503, ErrorKind.HTTP_STATUS, 0),
    ),
}


def test_the_default_message_is_one_field_of_bytes() -> None:
    assert grpc.payload_message(0) == b""
    assert grpc.payload_message(3) == b"\x0a\x03xxx"
    assert grpc.payload_message(300)[:3] == b"\x0a\xac\x02"


def _sent(data: bytes) -> tuple[int, bool]:
    """(body bytes, whether the stream ended) in what was sent."""
    bodies = [(flags, payload) for kind, flags, _, payload in frames.split(data)[0] if kind == frames.DATA]
    ended = any(flags & frames.END_STREAM for flags, _ in bodies)
    return sum(len(payload) for _, payload in bodies), ended
