"""The short cut of HTTP/2 parsing against the long way: whatever comes, the two agree."""

from __future__ import annotations

from unittest import mock

from hypothesis import example, given
from hypothesis import strategies as st
from tests.support.wire import Answer, answer_of

from meshwise.load.wire import frames, grpc, http2
from meshwise.load.wire.blocks import encode_block
from meshwise.load.wire.http2_request import encode_request
from meshwise.load.wire.seam import WireError

HEAD = encode_block([(":status", "200"), ("server", "x"), ("content-length", "5")])
BARE = encode_block([(":status", "200"), ("server", "x")])
MESSAGE = b"\0\0\0\0\0"
"""Of gRPC, with nothing in it."""
TRAILERS = encode_block([("grpc-status", "0")])
FORMS = {
    "head": lambda i, body: frames.headers_frames(i, BARE, end_stream=True),
    "body": lambda i, body: (
        frames.headers_frames(i, HEAD, end_stream=False) + frames.data_frames(i, body, end_stream=True)
    ),
    "trailers": lambda i, body: (
        frames.headers_frames(i, HEAD, end_stream=False)
        + frames.data_frames(i, body, end_stream=False)
        + frames.headers_frames(i, TRAILERS, end_stream=True)
    ),
}


def connection(kind: type[http2.Http2], *, learning: bool) -> http2.Http2:
    protocol = kind(encode_request("GET", "http", "/", "a", [], b""), 50)
    protocol.receive(frames.settings({}), 1)
    for tag in range(10):
        protocol.start(tag)
    if not learning:
        protocol._receive_alike = mock.Mock(side_effect=AssertionError)  # type: ignore[method-assign]
    return protocol


Outcome = tuple[list[Answer], str, list[int], bytes, bool]


def taken(protocol: http2.Http2, pieces: list[bytes]) -> Outcome:
    answers: list[Answer] = []
    failure = ""
    try:
        for piece in pieces:
            answers += [answer_of(done) for done in protocol.receive(piece, 7)]
            if protocol.broken is not None:
                raise protocol.broken
    except WireError as error:
        failure = str(error)
    return answers, failure, protocol.open_tags(), protocol.take_control(), protocol.closing


def agree(kind: type[http2.Http2], form: str, pieces: list[bytes]) -> None:
    """What follows an answer of this form is taken alike. A malformed answer (gRPC without trailers) gives no
    shape."""
    first, learned = FORMS[form](1, MESSAGE), kind is http2.Http2 or form == "trailers"
    quick, plain = connection(kind, learning=True), connection(kind, learning=False)
    assert taken(quick, [first]) == taken(plain, [first])
    assert (quick._shape is not None) is learned
    plain._shape = None
    with mock.patch.object(http2, "learn", return_value=None):
        expected = taken(plain, pieces)
    assert taken(quick, pieces) == expected


bodies = st.one_of(st.just(MESSAGE), st.binary(max_size=6))
kinds = st.sampled_from([http2.Http2, grpc.Grpc])
forms = st.sampled_from(sorted(FORMS))


@given(kinds, forms, st.lists(st.tuples(forms, st.sampled_from(range(1, 23)), bodies), max_size=6))
def test_answers_alike_and_unlike_on_streams_open_and_closed(
    kind: type[http2.Http2], form: str, answers: list[tuple[str, int, bytes]]
) -> None:
    data = b"".join(FORMS[name](stream_id, body) for name, stream_id, body in answers)
    agree(kind, form, [data])


@given(kinds, forms, st.integers(0, 10_000), st.integers(0, 255), st.integers(0, 10_000))
@example(http2.Http2, "body", 3, 1, 0)
def test_one_byte_changed_and_one_cut(
    kind: type[http2.Http2], form: str, place: int, value: int, cut: int
) -> None:
    stream = bytearray(b"".join(FORMS[form](stream_id, MESSAGE) for stream_id in (3, 5, 7)))
    stream[place % len(stream)] = value
    cut %= len(stream)
    agree(
        kind,
        form,
        [piece for piece in (bytes(stream[:cut]), bytes(stream[cut:])) if piece],
    )


def test_a_shape_is_forgotten_when_the_peer_s_table_changes() -> None:
    """0xBE is the newest entry of the dynamic table: the same bytes, another status."""
    protocol = connection(http2.Http2, learning=True)

    def insert(status: bytes) -> bytes:
        return b"\x48\x03" + status  # :status, literal with incremental indexing

    def answer(stream_id: int, block: bytes) -> bytes:
        return frames.headers_frames(stream_id, block, end_stream=True)

    def statuses(stream: bytes) -> list[int]:
        return [found.status for found in taken(protocol, [stream])[0]]

    newest = b"\xbe"
    assert statuses(answer(1, insert(b"404"))) == [404]
    protocol._until_learning = 0
    assert statuses(answer(3, newest)) == [404]
    assert protocol._shape is not None
    assert statuses(answer(5, insert(b"503")) + answer(7, newest)) == [503, 503]
    # Learned and outdated within one piece:
    protocol._shape, protocol._until_learning = None, 0
    assert statuses(answer(9, newest) + answer(11, insert(b"201"))) == [503, 201]
    assert statuses(answer(13, newest)) == [201]
