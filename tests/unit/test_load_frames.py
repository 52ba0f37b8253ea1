"""HTTP/2 frames and header blocks against the packages `hyperframe` and `hpack`."""

from __future__ import annotations

import pytest
from hpack import Decoder, Encoder
from hyperframe.frame import DataFrame, Frame, GoAwayFrame, HeadersFrame, SettingsFrame

from meshwise.load.wire import frames
from meshwise.load.wire.blocks import (
    BlockDecoder,
    decode_integer,
    encode_block,
    encode_integer,
    table_effects,
)

FIELDS = [
    (":method", "POST"),
    (":path", "/x"),
    (":scheme", "http"),
    (":authority", "a.b:80"),
    ("X-Long", "v" * 300),
]


def test_a_block_reads_back_and_leaves_the_table_alone() -> None:
    block = encode_block(FIELDS)
    assert [tuple(field) for field in Decoder().decode(block)] == [(n.lower(), v) for n, v in FIELDS]
    assert table_effects(block) == (False, None)


@pytest.mark.parametrize("value", [0, 14, 15, 127, 128, 1337, 2**20])
def test_integers_as_in_rfc_7541_section_5_1(value: int) -> None:
    assert decode_integer(encode_integer(value, 4) + b"x", 0, 4) == (value, len(encode_integer(value, 4)))


def test_built_frames_read_by_hyperframe() -> None:
    data = frames.settings({frames.HEADER_TABLE_SIZE: 0, frames.MAX_FRAME_SIZE: 16384})
    parsed, _ = Frame.parse_frame_header(memoryview(data[:9]))
    parsed.parse_body(memoryview(data[9:]))
    assert isinstance(parsed, SettingsFrame)
    assert parsed.settings == {1: 0, 5: 16384}
    data = frames.goaway(7, frames.NO_ERROR, b"bye")
    parsed, _ = Frame.parse_frame_header(memoryview(data[:9]))
    parsed.parse_body(memoryview(data[9:]))
    assert isinstance(parsed, GoAwayFrame)
    assert (parsed.last_stream_id, parsed.additional_data) == (7, b"bye")


def test_padding_and_priority_are_removed() -> None:
    data = DataFrame(3, b"body", pad_length=5, flags=["PADDED"])
    headers = HeadersFrame(3, b"block", pad_length=2, flags=["PADDED", "PRIORITY", "END_HEADERS"])
    parsed, rest = frames.split(data.serialize() + headers.serialize() + b"xyz")
    assert [frames.unpad(kind, flags, payload) for kind, flags, _, payload in parsed] == [b"body", b"block"]
    assert rest == b"xyz"


def test_a_long_block_is_continued() -> None:
    parsed, rest = frames.split(frames.headers_frames(5, b"a" * 40_000, end_stream=True))
    assert not rest
    assert [kind for kind, *_ in parsed] == [frames.HEADERS, frames.CONTINUATION, frames.CONTINUATION]
    assert [flags for _, flags, *_ in parsed] == [frames.END_STREAM, 0, frames.END_HEADERS]
    assert b"".join(payload for *_, payload in parsed) == b"a" * 40_000


def test_data_is_cut_at_the_frame_size() -> None:
    parsed, _ = frames.split(frames.data_frames(5, b"b" * 32_768, end_stream=True))
    assert [(flags, len(payload)) for _, flags, _, payload in parsed] == [(0, 16_384), (1, 16_384)]
    assert frames.split(frames.data_frames(5, b"", end_stream=True))[0] == [(frames.DATA, 1, 5, b"")]


@pytest.mark.parametrize(
    ("call", "code"),
    [
        (lambda: frames.split(frames.head(20_000, 0, 0, 1)), frames.FRAME_SIZE_ERROR),
        (lambda: frames.unpad(frames.DATA, frames.PADDED, b"\x05abc"), frames.PROTOCOL_ERROR),
        (lambda: frames.unpad(frames.DATA, frames.PADDED, b""), frames.FRAME_SIZE_ERROR),
        (lambda: list(frames.parse_settings(b"12345")), frames.FRAME_SIZE_ERROR),
        (lambda: list(frames.parse_settings(b"\x00\x04\xff\xff\xff\xff")), frames.FLOW_CONTROL_ERROR),
        (lambda: list(frames.parse_settings(b"\x00\x05\x00\x00\x00\x01")), frames.PROTOCOL_ERROR),
        (lambda: frames.parse_increment(b"123"), frames.FRAME_SIZE_ERROR),
        (lambda: frames.parse_goaway(b"123"), frames.FRAME_SIZE_ERROR),
    ],
)
def test_broken_framing_has_its_error_code(call, code) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(frames.FramingError) as caught:
        call()
    assert caught.value.code == code


def test_blocks_of_an_encoder_with_a_dynamic_table_stay_right() -> None:
    """The same bytes mean something else after an insertion; the cache must not be used then."""
    encoder, decoder = Encoder(), BlockDecoder()
    for round_ in range(50):
        fields = [(b":status", b"200"), (b"x-id", str(round_ // 7).encode()), (b"server", b"one")]
        assert decoder.decode(encoder.encode(fields)) == tuple(fields)


def test_answers_are_kept_once_the_table_is_off() -> None:
    encoder, decoder = Encoder(), BlockDecoder()
    encoder.header_table_size = 0
    fields = [(b":status", b"200"), (b"x-id", b"1")]
    for _ in range(3):
        assert decoder.decode(encoder.encode(fields)) == tuple(fields)
    assert decoder.generation == 1


@pytest.mark.parametrize("block", [b"\xff", b"\x40\x05ab", b"\xff\xff\xff\xff\xff\xff\xff", b"\xc5", b"\x80"])
def test_unreadable_blocks_are_compression_errors(block: bytes) -> None:
    with pytest.raises(frames.FramingError) as caught:
        BlockDecoder().decode(block)
    assert caught.value.code == frames.COMPRESSION_ERROR
