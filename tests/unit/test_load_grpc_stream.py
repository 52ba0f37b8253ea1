"""gRPC streams from the client's side, by hand-made frames: in turn, in windows, counted at every cut."""

from __future__ import annotations

import pytest
from tests.support.wire import Answer, every_byte, feed
from tests.unit.test_load_http2 import GRPC_HEAD, MESSAGE, SERVER_HELLO, data, headers, trailers

from meshwise.load.wire import frames, grpc
from meshwise.load.wire.grpc_messages import MessageReader
from meshwise.load.wire.grpc_stream import GrpcDialogue, GrpcDownstream, GrpcUpstream, MessageLog
from meshwise.load.wire.seam import ErrorKind

TAG = 3
ASKED = b"\0\0\0\0\6asking"


def opened(
    kind: type[GrpcUpstream] | type[GrpcDownstream], messages: int, hello: bytes = SERVER_HELLO
) -> tuple[GrpcUpstream | GrpcDownstream, list[tuple[int, bytes, bool]], list[int]]:
    """A protocol with one stream, what it sent of it (`_sent`), and the column of message counts."""
    count = messages if kind is not GrpcDownstream else 1
    call = grpc.encode_request("http", "/p.S/M", "a", [], b"asking", messages=count)
    log = MessageLog()
    column = bytearray(8 * 8)
    log.column = memoryview(column).cast("q")
    protocol = kind([call], b"\0", 8, messages, log)
    feed(protocol, [hello])
    protocol.take_control()
    return protocol, _sent(protocol.start(TAG)), log.column  # type: ignore[return-value]


def _sent(raw: bytes) -> list[tuple[int, bytes, bool]]:
    whole, rest = frames.split(raw)
    assert not rest
    return [(kind, payload, bool(flags & frames.END_STREAM)) for kind, flags, _, payload in whole]


def _data(raw: bytes) -> list[tuple[bytes, bool]]:
    return [(payload, end) for kind, payload, end in _sent(raw) if kind == frames.DATA]


DOWN = headers(1, GRPC_HEAD) + 3 * data(1, MESSAGE, end=False)
CUT_SHORT = headers(1, GRPC_HEAD) + data(1, MESSAGE[:-1], end=False)


def test_client_stream_messages_go_up_in_frames_of_their_own() -> None:
    protocol, sent, column = opened(GrpcUpstream, 3)
    assert [(kind, payload, end) for kind, payload, end in sent[1:]] == [
        (frames.DATA, ASKED, False), (frames.DATA, ASKED, False), (frames.DATA, ASKED, True),
    ]  # fmt: skip
    assert column[TAG] == 3
    answer = headers(1, GRPC_HEAD) + data(1, MESSAGE, end=False) + headers(1, trailers(0), end=True)
    assert feed(protocol, every_byte(answer)) == [Answer(TAG, 1000, ErrorKind.NONE, 7)]


def test_client_stream_waits_for_the_window_and_counts_what_went_up() -> None:
    hello = frames.settings({frames.INITIAL_WINDOW_SIZE: 25})
    protocol, sent, column = opened(GrpcUpstream, 3, hello)
    assert sent[1:] == [(frames.DATA, (3 * ASKED)[:25], False)]
    assert column[TAG] == 2
    feed(protocol, [frames.window_update(1, 100)])
    assert _data(protocol.take_control()) == [((3 * ASKED)[25:], True)]
    assert column[TAG] == 3


@pytest.mark.parametrize("cut", [lambda stream: [stream], every_byte])
def test_server_stream_messages_are_counted_at_every_cut(cut: object) -> None:
    protocol, sent, column = opened(GrpcDownstream, 3)
    assert [end for _, _, end in sent] == [False, True]
    pieces = cut(DOWN + headers(1, trailers(0), end=True))  # type: ignore[operator]
    assert feed(protocol, pieces) == [Answer(TAG, 1000, ErrorKind.NONE, 21)]
    assert column[TAG] == 3


def test_one_answer_after_another_is_counted_without_the_short_cut() -> None:
    protocol, _, column = opened(GrpcDownstream, 1)
    for number, stream_id in enumerate((1, 3, 5)):
        whole = headers(stream_id, GRPC_HEAD) + data(stream_id, MESSAGE, end=False)
        assert len(feed(protocol, [whole + headers(stream_id, trailers(0), end=True)])) == 1
        assert column[TAG + number] == 1
        protocol.start(TAG + number + 1)


@pytest.mark.parametrize(
    ("wanted", "stream", "status"),
    [
        (4, DOWN + headers(1, trailers(0), end=True), 1013),
        (3, DOWN + headers(1, trailers(7), end=True), 1007),
        (0, DOWN + headers(1, trailers(0), end=True), 1000),
        (0, headers(1, GRPC_HEAD) + headers(1, trailers(0), end=True), 1000),
    ],
)  # fmt: skip
def test_a_stream_that_lacks_messages_has_failed(wanted: int, stream: bytes, status: int) -> None:
    protocol, _, _ = opened(GrpcDownstream, wanted)
    [answer] = feed(protocol, [stream])
    assert answer.status == status
    assert answer.error == (ErrorKind.NONE if status == 1000 else ErrorKind.GRPC_STATUS)


def test_a_message_that_is_cut_is_malformed_in_a_stream_too() -> None:
    protocol, _, _ = opened(GrpcDownstream, 0)
    [answer] = feed(protocol, [CUT_SHORT + headers(1, trailers(0), end=True)])
    assert answer == Answer(TAG, 1000, ErrorKind.PROTOCOL, 6)


@pytest.mark.parametrize("cut", [lambda stream: [stream], every_byte])
def test_a_dialogue_goes_in_turn(cut: object) -> None:
    protocol, sent, column = opened(GrpcDialogue, 3)
    assert [(kind, payload, end) for kind, payload, end in sent[1:]] == [(frames.DATA, ASKED, False)]
    assert feed(protocol, cut(headers(1, GRPC_HEAD) + data(1, MESSAGE, end=False))) == []  # type: ignore[operator]
    assert protocol.attention
    assert _data(protocol.take_control()) == [(ASKED, False)]
    assert feed(protocol, cut(data(1, MESSAGE, end=False))) == []  # type: ignore[operator]
    assert _data(protocol.take_control()) == [(ASKED, True)]
    assert column[TAG] == 2
    end = data(1, MESSAGE, end=False) + headers(1, trailers(0), end=True)
    assert feed(protocol, cut(end)) == [Answer(TAG, 1000, ErrorKind.NONE, 21)]  # type: ignore[operator]
    assert column[TAG] == 3
    assert protocol.open_tags() == []


def test_a_dialogue_keeps_to_the_window() -> None:
    protocol, sent, _ = opened(GrpcDialogue, 2, frames.settings({frames.INITIAL_WINDOW_SIZE: 4}))
    assert sent[1:] == [(frames.DATA, ASKED[:4], False)]
    feed(protocol, [frames.window_update(1, 5)])
    assert _data(protocol.take_control()) == [(ASKED[4:9], False)]
    feed(protocol, [frames.window_update(1, 100)])
    assert _data(protocol.take_control()) == [(ASKED[9:], False)]  # and no more before the answer


def test_a_dialogue_that_the_server_ends_early_is_called_off() -> None:
    protocol, _, column = opened(GrpcDialogue, 3)
    stream = headers(1, GRPC_HEAD) + data(1, MESSAGE, end=False) + headers(1, trailers(0), end=True)
    [answer] = feed(protocol, [stream])
    assert (answer.status, answer.error) == (1013, ErrorKind.GRPC_STATUS)
    assert column[TAG] == 1
    assert frames.rst_stream(1, frames.CANCEL) in protocol.take_control()


def test_a_stream_reset_in_the_middle_has_what_came() -> None:
    protocol, _, column = opened(GrpcDialogue, 3)
    feed(protocol, [headers(1, GRPC_HEAD) + data(1, MESSAGE, end=False)])
    [answer] = feed(protocol, [frames.rst_stream(1, frames.INTERNAL_ERROR)])
    assert answer == Answer(TAG, 200, ErrorKind.RST_STREAM, 7)
    assert column[TAG] == 1


def test_an_answer_after_we_gave_up_is_ignored() -> None:
    protocol, _, column = opened(GrpcDialogue, 2)
    assert protocol.cancel(TAG)
    assert frames.rst_stream(1, frames.CANCEL) in protocol.take_control()
    assert feed(protocol, [DOWN + headers(1, trailers(0), end=True)]) == []
    assert column[TAG] == 0
    assert protocol.start(TAG + 1)


def test_padded_data_is_read_without_its_padding() -> None:
    protocol, _, column = opened(GrpcDownstream, 1)
    padded = frames.frame(frames.DATA, frames.PADDED, 1, b"\x04" + MESSAGE + b"XXXX")
    [answer] = feed(protocol, [headers(1, GRPC_HEAD) + padded + headers(1, trailers(0), end=True)])
    assert (answer.status, column[TAG]) == (1000, 1)


def test_a_reader_counts_at_every_cut() -> None:
    whole = b"\0\0\0\0\0" + b"\1\0\0\0\3abc" + b"\0\0\0\1\0" + bytes(256)
    reader = MessageReader()
    assert sum(reader.feed(byte) for byte in every_byte(whole)) == 3
    assert (reader.whole, reader.partial, reader.compressed) == (3, False, True)
    assert reader.feed(b"\0\0") == 0
    assert reader.partial
