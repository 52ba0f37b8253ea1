"""HTTP/1.1: what each answer comes to, at any cut; and what is refused."""

from __future__ import annotations

import pytest
from tests.support.wire import Answer, answer_of, cut, every_byte, feed

from meshwise.load.wire.http1 import MAX_HEAD_BYTES, Http1, KnownHeads, encode_request
from meshwise.load.wire.seam import ErrorKind, WireError

ANSWERS = {
    "content-length": (b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello", 200, 5, True),
    "empty": (b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n", 200, 0, True),
    "no reason phrase": (b"HTTP/1.1 200\r\ncontent-length: 0\r\n\r\n", 200, 0, True),
    "repeated equal length": (
        b"HTTP/1.1 200 OK\r\ncontent-length: 2, 2\r\ncontent-length:2\r\n\r\nok",
        200,
        2,
        True,
    ),
    "no content": (b"HTTP/1.1 204 No Content\r\n\r\n", 204, 0, True),
    "not modified": (b"HTTP/1.1 304 Not Modified\r\ncontent-length: 99\r\n\r\n", 304, 0, True),
    "chunked": (
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n1A;x=y\r\n"
        + b"z" * 26
        + b"\r\n0\r\n\r\n",
        200,
        31,
        True,
    ),
    "chunked with trailers": (
        b"HTTP/1.1 200 OK\r\ntransfer-encoding: gzip, chunked\r\n\r\n3\r\nabc\r\n0\r\nx: y\r\nz: w\r\n\r\n",
        200,
        3,
        True,
    ),
    "interim": (
        b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nlink: </a>\r\n\r\n"
        b"HTTP/1.1 200 OK\r\ncontent-length: 1\r\n\r\nx",
        200,
        1,
        True,
    ),
    "close": (b"HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: 1\r\n\r\nx", 200, 1, False),
    "http/1.0": (b"HTTP/1.0 200 OK\r\ncontent-length: 1\r\n\r\nx", 200, 1, False),
    "http/1.0 kept": (
        b"HTTP/1.0 200 OK\r\nConnection: Keep-Alive\r\ncontent-length: 1\r\n\r\nx",
        200,
        1,
        True,
    ),
    "chunked beside a length": (
        b"HTTP/1.1 200 OK\r\ncontent-length: 7\r\ntransfer-encoding: chunked\r\n\r\n1\r\nx\r\n0\r\n\r\n",
        200,
        1,
        False,
    ),
}


@pytest.mark.parametrize("name", ANSWERS)
def test_an_answer_at_every_cut(name: str) -> None:
    data, status, size, keeps = ANSWERS[name]
    expected = [Answer(7, status, ErrorKind.NONE, size)]
    for pieces in [[data], every_byte(data), *(cut(data, [place]) for place in range(1, len(data)))]:
        protocol = Http1(b"request", KnownHeads())
        assert protocol.start(7) == b"request"
        assert protocol.start(8) == b""
        assert feed(protocol, pieces) == expected
        assert protocol.closing is not keeps
        assert protocol.open_tags() == []
        assert bool(protocol.start(9)) is keeps


def test_the_known_head_is_as_good_as_the_parsed_one() -> None:
    heads = KnownHeads()
    for tag in range(3):
        protocol = Http1(b"r", heads)
        protocol.start(tag)
        data = b"HTTP/1.1 503 Busy\r\ncontent-length: 4\r\n\r\nbody"
        assert feed(protocol, [data]) == [Answer(tag, 503, ErrorKind.HTTP_STATUS, 4)]
        protocol.start(tag)
        # The known head with a body that is not whole, then with the rest.
        assert feed(protocol, [data[:-2], data[-2:]]) == [Answer(tag, 503, ErrorKind.HTTP_STATUS, 4)]
    assert len(heads.by_bytes) == 1


def test_first_byte_is_that_of_the_first_piece() -> None:
    protocol = Http1(b"r", KnownHeads())
    protocol.start(1)
    assert protocol.receive(b"HTTP/1.1 200 OK\r\n", 5) == ()
    ((_, first_ns, _),) = protocol.receive(b"content-length: 0\r\n\r\n", 9)
    assert first_ns == 5


def test_head_method_has_no_body() -> None:
    protocol = Http1(b"r", KnownHeads(), is_head_method=True)
    protocol.start(1)
    assert feed(protocol, [b"HTTP/1.1 200 OK\r\ncontent-length: 500\r\n\r\n"]) == [
        Answer(1, 200, ErrorKind.NONE, 0)
    ]


def test_a_body_that_ends_with_the_connection() -> None:
    protocol = Http1(b"r", KnownHeads())
    protocol.start(3)
    assert feed(protocol, [b"HTTP/1.1 200 OK\r\n\r\nabc", b"def"]) == []
    assert [answer_of(done) for done in protocol.end_of_stream(9)] == [Answer(3, 200, ErrorKind.NONE, 6)]


def test_a_cut_answer_is_no_answer() -> None:
    protocol = Http1(b"r", KnownHeads())
    protocol.start(3)
    assert feed(protocol, [b"HTTP/1.1 200 OK\r\ncontent-length: 6\r\n\r\nabc"]) == []
    assert protocol.end_of_stream(9) == ()
    assert protocol.open_tags() == [3]


@pytest.mark.parametrize(
    "data",
    [
        b"\x00\x00\x12\x04\x00\x00\x00\x00\x00",
        b"HTTP/2 200\r\n\r\n",
        b"HTTP/1.1 20 OK\r\n\r\n",
        b"HTTP/1.1 101 Switching Protocols\r\nupgrade: x\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nno colon\r\n\r\n",
        b"HTTP/1.1 200 OK\r\ncontent-length: -1\r\n\r\n",
        b"HTTP/1.1 200 OK\r\ncontent-length: 9999999999999999999\r\n\r\n",
        b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\ncontent-length: 3\r\n\r\nok",
        b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nokextra",
        b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\nxyz\r\n",
        b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\nokXX0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\nextra",
        b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n" + b"1" * 5000,
        b"HTTP/1.1 200 OK\r\n" + b"x: y\r\n" * (MAX_HEAD_BYTES // 6 + 1),
    ],
)
def test_what_is_malformed_is_refused(data: bytes) -> None:
    protocol = Http1(b"r", KnownHeads())
    protocol.start(1)
    with pytest.raises(WireError) as caught:
        feed(protocol, [data])
    assert caught.value.kind is ErrorKind.PROTOCOL


def test_an_answer_that_nobody_asked_for_is_refused() -> None:
    protocol = Http1(b"r", KnownHeads())
    protocol.start(1)
    data = ANSWERS["content-length"][0]
    feed(protocol, [data])
    with pytest.raises(WireError):
        protocol.receive(data, 1)


def test_the_request() -> None:
    assert encode_request("POST", "/a?b", "h:1", [("X-Y", "z")], b"abc") == (
        b"POST /a?b HTTP/1.1\r\nhost: h:1\r\nuser-agent: meshwise\r\nX-Y: z\r\ncontent-length: 3\r\n\r\nabc"
    )
    assert encode_request("GET", "/", "h", [("Host", "other"), ("user-agent", "me")], b"") == (
        b"GET / HTTP/1.1\r\nHost: other\r\nuser-agent: me\r\n\r\n"
    )
