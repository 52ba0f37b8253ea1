"""Wire protocols against generated peers, cut anywhere: the answers are those that were sent."""

from __future__ import annotations

import contextlib

import h2.config
import h2.connection
import h2.events
import h2.settings
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.support.wire import Answer, answer_of, cut, feed

from meshwise.load.wire.http1 import Http1, KnownHeads
from meshwise.load.wire.http2 import Http2
from meshwise.load.wire.http2_request import encode_request
from meshwise.load.wire.seam import ErrorKind, WireError, WireProtocol

places = st.lists(st.integers(0, 1 << 20), max_size=12)
statuses = st.sampled_from([200, 201, 301, 404, 503])


@st.composite
def http1_answers(draw: st.DrawFn) -> tuple[bytes, int, int]:
    """(bytes, status, body bytes) of an answer that keeps the connection."""
    status = draw(statuses)
    interim = b"HTTP/1.1 100 Continue\r\n\r\n" * draw(st.integers(0, 2))
    head = b"HTTP/1.1 %d Text\r\nx-filler: %s\r\n" % (status, b"f" * draw(st.integers(0, 40)))
    if draw(st.booleans()):
        body = draw(st.binary(max_size=200))
        return interim + head + b"Content-Length: %d\r\n\r\n" % len(body) + body, status, len(body)
    chunks = draw(st.lists(st.binary(min_size=1, max_size=40), max_size=5))
    body = b"".join(b"%X\r\n%s\r\n" % (len(chunk), chunk) for chunk in chunks)
    trailer = draw(st.sampled_from([b"", b"x-sum: 1\r\n"]))
    head += b"Transfer-Encoding: chunked\r\n\r\n"
    return interim + head + body + b"0\r\n" + trailer + b"\r\n", status, sum(map(len, chunks))


def _error(status: int) -> ErrorKind:
    return ErrorKind.HTTP_STATUS if status >= 400 else ErrorKind.NONE


@given(st.lists(st.tuples(http1_answers(), places), min_size=1, max_size=6))
def test_http1_answers(answers: list[tuple[tuple[bytes, int, int], list[int]]]) -> None:
    protocol = Http1(b"r", KnownHeads())
    for tag, ((data, status, size), cuts) in enumerate(answers):
        protocol.start(tag)
        assert feed(protocol, cut(data, cuts)) == [Answer(tag, status, _error(status), size)]


class Peer:
    """The package `h2` as a server, in memory: reads what the protocol sends, answers as told."""

    def __init__(self, window: int, table_size: int) -> None:
        config = h2.config.H2Configuration(client_side=False, header_encoding=None)
        self.connection = h2.connection.H2Connection(config)
        self.connection.local_settings = h2.settings.Settings(
            client=False,
            initial_values={
                h2.settings.SettingCodes.INITIAL_WINDOW_SIZE: window,
                h2.settings.SettingCodes.MAX_CONCURRENT_STREAMS: 100,
                h2.settings.SettingCodes.MAX_FRAME_SIZE: 16384,
                h2.settings.SettingCodes.HEADER_TABLE_SIZE: table_size,
            },
        )
        self.connection.initiate_connection()
        self.bodies: dict[int, int] = {}
        self.ended: list[int] = []

    def exchange(self, protocol: WireProtocol, data: bytes, cuts: list[int]) -> list[Answer]:
        """Back and forth until neither has anything to say."""
        answers: list[Answer] = []
        while True:
            if data:
                self._take(data)
            back = self.connection.data_to_send()
            for piece in cut(back, cuts):
                answers += [answer_of(done) for done in protocol.receive(piece, 1)] if piece else []
            data = protocol.take_control()
            if not data and not back:
                return answers

    def _take(self, data: bytes) -> None:
        for event in self.connection.receive_data(data):
            if isinstance(event, h2.events.DataReceived):
                self.bodies[event.stream_id] = self.bodies.get(event.stream_id, 0) + len(event.data)
                assert event.flow_controlled_length is not None
                self.connection.acknowledge_received_data(event.flow_controlled_length, event.stream_id)
            elif isinstance(event, h2.events.StreamEnded):
                self.ended.append(event.stream_id)

    def answer(self, stream_id: int, status: int, parts: list[bytes], pad: int, trailers: bool) -> None:
        fields = [(b":status", b"%d" % status), (b"x-turn", b"%d" % (stream_id % 3))]
        connection = self.connection
        connection.send_headers(stream_id, fields, end_stream=not parts and not trailers)
        for index, part in enumerate(parts):
            last = index == len(parts) - 1 and not trailers
            connection.send_data(stream_id, part, end_stream=last, pad_length=pad or None)
        if trailers:
            connection.send_headers(stream_id, [(b"grpc-status", b"0"), (b"x", b"y")], end_stream=True)


http2_answers = st.tuples(
    statuses, st.lists(st.binary(max_size=60), max_size=4), st.integers(0, 9), st.booleans()
)


@settings(deadline=None)
@given(
    st.lists(http2_answers, min_size=1, max_size=6),
    st.integers(0, 3000),
    st.integers(1, 5000),
    st.sampled_from([0, 4096]),
    places,
    st.randoms(use_true_random=False),
)
def test_http2_with_h2(answers, body, window, table, cuts, random) -> None:  # type: ignore[no-untyped-def]
    protocol = Http2(encode_request("POST", "http", "/p", "a", [("x", "y")], b"b" * body), 100)
    peer = Peer(window, table)
    assert peer.exchange(protocol, protocol.opening(), cuts) == []
    assert protocol.ready
    assert peer.exchange(protocol, b"".join(protocol.start(tag) for tag in range(len(answers))), cuts) == []
    ids = [2 * tag + 1 for tag in range(len(answers))]
    assert sorted(peer.ended) == ids
    assert peer.bodies == (dict.fromkeys(ids, body) if body else {})
    order = list(ids)
    random.shuffle(order)
    for stream_id in order:
        peer.answer(stream_id, *answers[stream_id // 2])
    got = peer.exchange(protocol, b"", cuts)
    expected = []
    for stream_id in order:
        status, parts, _, _ = answers[stream_id // 2]
        expected.append(Answer(stream_id // 2, status, _error(status), sum(map(len, parts))))
    assert got == expected
    assert protocol.open_tags() == []


@settings(max_examples=200)
@given(st.data())
def test_bent_streams_are_refused_or_read(data: st.DataObject) -> None:
    """A right exchange with a few bytes changed."""
    protocol = Http2(encode_request("GET", "http", "/", "a", [], b""), 4)
    peer = Peer(65535, 4096)
    peer.exchange(protocol, protocol.opening(), [])
    peer.exchange(protocol, b"".join(protocol.start(tag) for tag in range(3)), [])
    for stream_id in (1, 3, 5):
        peer.answer(stream_id, 200, [b"abc"], 2, True)
    stream = bytearray(peer.connection.data_to_send())
    for _ in range(data.draw(st.integers(1, 4))):
        stream[data.draw(st.integers(0, len(stream) - 1))] = data.draw(st.integers(0, 255))
    with contextlib.suppress(WireError):
        tags = [answer.tag for answer in feed(protocol, cut(bytes(stream), data.draw(places)))]
        assert len(tags) == len(set(tags))
        assert set(tags) <= {0, 1, 2}
