"""What a node answers to broken HTTP/2, and the request id in header blocks; hand-made frames."""

from __future__ import annotations

import pytest
from hpack import Encoder
from tests.support.http2_talk import GET, POST, SPEC, Calls

from meshwise.load.wire import frames
from meshwise.load.wire.blocks import encode_block
from meshwise.service.http2_blocks import PeerBlocks, begins_id_value, cut_request_id, id_field
from meshwise.service.http2_connection import MAX_BLOCK_BYTES
from meshwise.service.http2_server import MAX_STREAMS, HeaderBlockCache, Http2Server
from meshwise.study.model import Protocol

# --- errors ----------------------------------------------------------------------------------------


def raw_server() -> Http2Server:
    server = Http2Server(HeaderBlockCache(SPEC, 1.0, Protocol.HTTP2), Calls())
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
    server = Http2Server(HeaderBlockCache(SPEC, 1.0, Protocol.HTTP2), Calls())
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
    heads = HeaderBlockCache(SPEC, 1.0, Protocol.HTTP2)
    blocks = PeerBlocks()
    for value in ("bytes=1", "bytes=2"):
        trap = "\x0cx-request-id" + chr(len(value)) + value
        block = encode_block([*GET, ("a", trap), ("x-plan", value)])
        _, _, at = cut_request_id(block)
        assert at > 0
        assert not begins_id_value(block, at)
        heads.get(blocks, block)
    assert heads._known == {}
