"""One malformed answer of HTTP/2 or gRPC: it fails, alone; the connection and its neighbours go on."""

from __future__ import annotations

import pytest
from tests.support.wire import Answer, every_byte, feed
from tests.unit.test_load_http2 import GRPC_HEAD, INTERIM, MESSAGE, OK, SERVER_HELLO, data, headers, trailers

from meshwise.load.wire import frames, grpc
from meshwise.load.wire.blocks import encode_block
from meshwise.load.wire.http2 import Http2
from meshwise.load.wire.http2_request import encode_request
from meshwise.load.wire.http2_stream import MOST_INTERIM
from meshwise.load.wire.seam import ErrorKind, WireError

TEN = encode_block([(":status", "200"), ("content-length", "10")])
NEIGHBOUR = headers(3) + data(3, b"fine")


def of_status(status: str, *fields: tuple[str, str]) -> bytes:
    return encode_block([(":status", status), *fields])


def started(method: str = "GET", body: bytes = b"") -> Http2:
    protocol = Http2(encode_request(method, "http", "/", "a", [], body), 8)
    feed(protocol, [SERVER_HELLO])
    protocol.take_control()
    protocol.start(5)
    protocol.start(6)
    return protocol


def called() -> grpc.Grpc:
    protocol = grpc.Grpc(grpc.encode_request("http", "/p.S/M", "a", [], b"m"), 8)
    feed(protocol, [SERVER_HELLO])
    protocol.take_control()
    protocol.start(5)
    protocol.start(6)
    return protocol


ENDED: dict[str, tuple[bytes, int, int]] = {
    "body shorter than content-length": (headers(1, TEN) + data(1, b"ok"), 200, 2),
    "no body where one was announced": (headers(1, TEN, end=True), 200, 0),
    "only an empty DATA": (headers(1, TEN) + data(1, b""), 200, 0),
    "body longer, in the last frame": (headers(1, TEN) + data(1, b"x" * 11), 200, 11),
    "short, then trailers": (
        headers(1, TEN) + data(1, b"ok", end=False) + headers(1, encode_block([("x", "y")]), end=True),
        200,
        2,
    ),
    "body with 204": (headers(1, of_status("204")) + data(1, b"x"), 204, 1),
    "body with 304": (headers(1, of_status("304", ("content-length", "3"))) + data(1, b"abc"), 304, 3),
}  # fmt: skip
"""Streams that the server has ended: (frames, status, body bytes). There is nothing to reset."""

RESET: dict[str, tuple[bytes, int, int]] = {
    "body longer, and going on": (headers(1, TEN) + data(1, b"x" * 11, end=False), 200, 11),
    "DATA first": (data(1, b"x", end=False), 0, 0),
    "no status": (headers(1, encode_block([("x", "y")])), 0, 0),
    "a status that is no number": (headers(1, of_status("1e3")), 0, 0),
    "a status of four digits": (headers(1, of_status("0200")), 0, 0),
    "two statuses": (headers(1, encode_block([(":status", "200"), (":status", "200")])), 0, 0),
    "a pseudo field behind others": (headers(1, encode_block([("a", "b"), (":status", "200")])), 0, 0),
    "an unknown pseudo field": (headers(1, of_status("200", (":version", "2"))), 0, 0),
    "an upper-case name": (headers(1, OK + b"\0\1X\1y"), 0, 0),
    "a name with a space": (headers(1, OK + b"\0\3a b\1y"), 0, 0),
    "a name without a letter": (headers(1, OK + b"\0\0\1y"), 0, 0),
    "a value with a line end": (headers(1, OK + b"\0\1x\4a\r\nb"), 0, 0),
    "a field of the connection": (headers(1, of_status("200", ("connection", "close"))), 0, 0),
    "transfer-encoding": (headers(1, of_status("200", ("transfer-encoding", "chunked"))), 0, 0),
    "a content-length that is none": (headers(1, of_status("200", ("content-length", "-1"))), 0, 0),
    "two content-lengths": (
        headers(1, of_status("200", ("content-length", "1"), ("content-length", "2"))), 0, 0,
    ),
    "status 101": (headers(1, of_status("101")), 0, 0),
    "an interim response that ends the stream": (headers(1, INTERIM, end=True), 0, 0),
    "interim responses without end": (headers(1, INTERIM) * (MOST_INTERIM + 1), 0, 0),
    "trailers that do not end": (headers(1) + headers(1, encode_block([("x", "y")])), 200, 0),
    "a status in trailers": (headers(1) + headers(1, end=True), 200, 0),
    "PRIORITY of three bytes": (frames.frame(frames.PRIORITY, 0, 1, b"abc"), 0, 0),
    "WINDOW_UPDATE of 0": (frames.window_update(1, 0), 0, 0),
}  # fmt: skip
"""As ENDED, of streams that are open: they are reset."""


@pytest.mark.parametrize("name", [*ENDED, *RESET])
def test_a_malformed_answer_fails_alone(name: str) -> None:
    stream, status, size = {**ENDED, **RESET}[name]
    for pieces in ([stream], every_byte(stream)):
        protocol = started()
        assert feed(protocol, pieces) == [Answer(5, status, ErrorKind.PROTOCOL, size)]
        resets = [
            key for kind, _, key, _ in frames.split(protocol.take_control())[0] if kind == frames.RST_STREAM
        ]
        assert resets == ([1] if name in RESET else [])
        assert len(protocol.reasons) == 1
        assert not protocol.closing
        # Whatever else comes on that stream is ignored; the neighbour is answered, and a new request too.
        assert feed(protocol, [headers(1) + data(1, b"late"), NEIGHBOUR]) == [
            Answer(6, 200, ErrorKind.NONE, 4)
        ]
        assert protocol.start(7)
        assert feed(protocol, [headers(5) + data(5, b"more")]) == [Answer(7, 200, ErrorKind.NONE, 4)]


def test_every_answer_of_a_server_that_cuts_is_an_error() -> None:
    """Also where answers repeat each other, which is when the short cut would take them."""
    protocol = started()
    for turn in range(40):
        key = 2 * turn + 1
        cut = turn % 2
        stream = headers(key, TEN) + data(key, b"x" * (9 if cut else 10))
        expected = Answer(5 + turn, 200, ErrorKind.PROTOCOL if cut else ErrorKind.NONE, 9 if cut else 10)
        assert feed(protocol, [stream]) == [expected]
        protocol.start(7 + turn)


def test_what_has_no_body_may_say_how_long_it_would_be() -> None:
    """RFC 9113 section 8.1.1, RFC 9110 sections 9.3.2 and 15.4.5."""
    assert feed(started(), [headers(1, of_status("304", ("content-length", "9")), end=True)])[0].error == 0
    assert feed(started(), [headers(1, of_status("204")) + data(1, b"")])[0].error == 0
    assert feed(started("HEAD"), [headers(1, TEN, end=True)]) == [Answer(5, 200, ErrorKind.NONE, 0)]
    assert feed(started("HEAD"), [headers(1, TEN) + data(1, b"x" * 10)]) == [
        Answer(5, 200, ErrorKind.PROTOCOL, 10)
    ]


def test_padding_is_no_body() -> None:
    padded = frames.frame(frames.DATA, frames.PADDED | frames.END_STREAM, 1, b"\3" + b"x" * 10 + bytes(3))
    assert feed(started(), [headers(1, TEN) + padded]) == [Answer(5, 200, ErrorKind.NONE, 10)]


def test_http2_does_not_judge_grpc_fields() -> None:
    """A proxy may pass on whatever a server wrote there."""
    odd = encode_block([("grpc-status", "ten")])
    stream = headers(1) + data(1, b"ok", end=False) + headers(1, odd, end=True)
    assert feed(started(), [stream]) == [Answer(5, 200, ErrorKind.NONE, 2)]


def test_a_stream_that_we_reset_takes_its_body_along() -> None:
    protocol = Http2(encode_request("POST", "http", "/", "a", [], b"x" * 100_000), 8)
    feed(protocol, [SERVER_HELLO])
    protocol.take_control()
    protocol.start(5)
    too_much = frames.window_update(1, frames.MAX_WINDOW_BYTES) + frames.window_update(1, 1)
    assert feed(protocol, [too_much]) == [Answer(5, 0, ErrorKind.PROTOCOL, 0)]
    assert protocol.take_control() == frames.rst_stream(1, frames.FLOW_CONTROL_ERROR)
    feed(protocol, [frames.window_update(0, 100_000)])
    assert protocol.take_control() == b""


def test_a_window_that_settings_make_too_large_ends_the_connection() -> None:
    protocol = Http2(encode_request("POST", "http", "/", "a", [], b"x" * 100_000), 8)
    feed(protocol, [SERVER_HELLO])
    protocol.start(5)
    feed(protocol, [frames.window_update(1, 2**31 - 10)])
    with pytest.raises(WireError):
        feed(protocol, [frames.settings({frames.INITIAL_WINDOW_SIZE: 2**31 - 1})])
    assert protocol.farewell() == frames.goaway(0, frames.FLOW_CONTROL_ERROR)


def test_answers_before_a_connection_error_are_answers() -> None:
    """In one piece: the connection breaks behind them, and they are not lost with it."""
    protocol = started()
    assert feed(protocol, [headers(1, end=True) + frames.ping(b"short") + NEIGHBOUR]) == [
        Answer(5, 200, ErrorKind.NONE, 0)
    ]
    assert protocol.broken is not None
    assert protocol.broken.kind is ErrorKind.PROTOCOL
    assert (protocol.attention, protocol.closing, protocol.open_tags()) == (True, True, [6])


# --- gRPC ----------------------------------------------------------------------------------------

TRAILING = headers(1, trailers(0), end=True)
CALLS: dict[str, tuple[bytes, int, int]] = {
    "no status at all": (headers(1, GRPC_HEAD) + data(1, MESSAGE), 200, 7),
    "a status, but not in trailers": (headers(1, GRPC_HEAD + trailers(0)) + data(1, MESSAGE), 200, 7),
    "ok without a message": (headers(1, GRPC_HEAD) + TRAILING, 1000, 0),
    "trailers only, ok": (headers(1, GRPC_HEAD + trailers(0), end=True), 1000, 0),
    "a message cut behind its prefix": (
        headers(1, GRPC_HEAD) + data(1, b"\0\0\0\3\xe8", end=False) + TRAILING, 1000, 5,
    ),
    "a prefix that is cut": (headers(1, GRPC_HEAD) + data(1, b"\0\0", end=False) + TRAILING, 1000, 2),
    "two messages": (headers(1, GRPC_HEAD) + data(1, MESSAGE * 2, end=False) + TRAILING, 1000, 14),
    "two messages in frames of their own": (
        headers(1, GRPC_HEAD) + data(1, MESSAGE, end=False) * 2 + TRAILING, 1000, 14,
    ),
    "one message and a part": (
        headers(1, GRPC_HEAD) + data(1, MESSAGE + b"\0", end=False) + TRAILING, 1000, 8,
    ),
    "a prefix of another kind": (
        headers(1, GRPC_HEAD) + data(1, b"\7" + MESSAGE[1:], end=False) + TRAILING, 1000, 7,
    ),
    "compressed without an encoding": (
        headers(1, GRPC_HEAD) + data(1, b"\1" + MESSAGE[1:], end=False) + TRAILING, 1000, 7,
    ),
    "compressed with none": (
        headers(1, GRPC_HEAD + encode_block([("grpc-encoding", "identity")]))
        + data(1, b"\1" + MESSAGE[1:], end=False) + TRAILING, 1000, 7,
    ),
    "a status that is no number": (
        headers(1, GRPC_HEAD) + data(1, MESSAGE, end=False)
        + headers(1, encode_block([("grpc-status", "x")]), end=True), 200, 7,
    ),
    "body longer than content-length": (
        headers(1, GRPC_HEAD + encode_block([("content-length", "3")])) + data(1, MESSAGE, end=False), 200, 7,
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", CALLS)
def test_a_malformed_answer_of_grpc_fails_alone(name: str) -> None:
    stream, status, size = CALLS[name]
    for pieces in ([stream], every_byte(stream)):
        protocol = called()
        assert feed(protocol, pieces) == [Answer(5, status, ErrorKind.PROTOCOL, size)]
        good = headers(3, GRPC_HEAD) + data(3, MESSAGE, end=False) + headers(3, trailers(0), end=True)
        assert feed(protocol, [good]) == [Answer(6, 1000, ErrorKind.NONE, 7)]


def test_the_short_cut_looks_at_the_prefix_of_a_message() -> None:
    protocol = called()
    for turn in range(40):
        key, cut = 2 * turn + 1, turn % 3 == 2
        body = b"\0\0\0\3\xe8ok" if cut else MESSAGE
        stream = headers(key, GRPC_HEAD) + data(key, body, end=False) + headers(key, trailers(0), end=True)
        assert feed(protocol, [stream]) == [
            Answer(5 + turn, 1000, ErrorKind.PROTOCOL if cut else ErrorKind.NONE, 7)
        ]
        protocol.start(7 + turn)
    assert protocol._shape is not None


def test_a_compressed_message_that_names_its_encoding_is_whole() -> None:
    head = GRPC_HEAD + encode_block([("grpc-encoding", "gzip")])
    stream = headers(1, head) + data(1, b"\1" + MESSAGE[1:], end=False) + TRAILING
    assert feed(called(), [stream]) == [Answer(5, 1000, ErrorKind.NONE, 7)]


def test_an_error_of_grpc_needs_no_message() -> None:
    trailers_only = headers(1, GRPC_HEAD + trailers(7), end=True)
    assert feed(called(), [trailers_only]) == [Answer(5, 1007, ErrorKind.GRPC_STATUS, 0)]
