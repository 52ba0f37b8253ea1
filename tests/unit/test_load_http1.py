"""HTTP/1.1: what each answer comes to, at any cut; and what is refused."""

from __future__ import annotations

import pytest
from tests.support.wire import Answer, answer_of, every_byte, feed

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
    cut = [answer_of(done) for done in protocol.end_of_stream(9)]
    assert cut == [Answer(3, 200, ErrorKind.PROTOCOL, 3)]
    assert (protocol.open_tags(), protocol.closing) == ([], True)


OK = b"HTTP/1.1 200 OK\r\n"
CHUNKED = OK + b"transfer-encoding: chunked\r\n\r\n"
TAKEN: dict[str, tuple[bytes, bool]] = {
    "2.2 lines that end with LF": (b"HTTP/1.1 200 OK\nContent-Length: 2\n\nok", True),
    "2.2 some of them": (b"HTTP/1.1 200 OK\r\nx: y\ncontent-length: 2\r\n\nok", True),
    "2.2 line ends behind the response": (OK + b"content-length: 2\r\n\r\nok\r\n\r\n", True),
    "2.5 of RFC 9110: a later minor version": (b"HTTP/1.2 200 OK\r\ncontent-length: 2\r\n\r\nok", True),
    "4 no reason phrase": (b"HTTP/1.1 200 \r\ncontent-length: 2\r\n\r\nok", True),
    "5 any bytes in a value": (OK + b"x: J\xfcrgen\t\x80\r\ncontent-length: 2\r\n\r\nok", True),
    "5.1 white space around a value": (OK + b"content-length: \t2 \r\n\r\nok", True),
    "5.1 white space before a colon": (OK + b"x-a \t: y\r\ncontent-length: 2\r\n\r\nok", True),
    "5.2 a folded line": (OK + b"x: a\r\n b\r\n\tc\r\ncontent-length: 2\r\n\r\nok", True),
    "5.2 a folded length": (OK + b"content-length:\r\n 2\r\n\r\nok", True),
    "5.6.1 of RFC 9110: empty elements": (
        OK + b"connection: ,\r\ntransfer-encoding: , Chunked ,\r\n\r\n2\r\nok\r\n0\r\n\r\n", True,
    ),
    "6.1 a transfer coding with HTTP/1.0": (
        b"HTTP/1.0 200 OK\r\nconnection: keep-alive\r\n" + CHUNKED[len(OK) :] + b"2\r\nok\r\n0\r\n\r\n",
        False,
    ),
    "6.3 a length beside chunks": (
        OK + b"content-length: 9\r\n" + CHUNKED[len(OK) :] + b"2\r\nok\r\n0\r\n\r\n", False,
    ),
    "6.3 equal lengths": (OK + b"content-length: 2\r\ncontent-length: 2, 2\r\n\r\nok", True),
    "7.1 leading zeros": (CHUNKED + b"0002\r\nok\r\n000\r\n\r\n", True),
    "7.1 white space behind a size": (CHUNKED + b"2  \r\nok\r\n0\t\r\n\r\n", True),
    "7.1.1 extensions": (CHUNKED + b'2;a="b;c" ; d\r\nok\r\n0;x\r\n\r\n', True),
    "7.1.2 trailers": (CHUNKED + b"2\r\nok\r\n0\r\nx: y\r\nz: a\r\n b\r\n\r\n", True),
    "15.2 of RFC 9110: interim responses": (
        b"HTTP/1.1 103 Early Hints\r\nlink: x\r\n\r\n" * 20 + OK + b"content-length: 2\r\n\r\nok", True,
    ),
    "a large head": (OK + b"x: " + b"a" * 80_000 + b"\r\ncontent-length: 2\r\n\r\nok", True),
}  # fmt: skip
"""By the section of RFC 9112: (response with a body of two bytes, whether the connection is kept)."""


@pytest.mark.parametrize("name", TAKEN)
def test_what_a_user_agent_takes(name: str) -> None:
    data, keeps = TAKEN[name]
    last = data.rstrip(b"\r\n") if "behind" in name and "size" not in name else data
    for pieces in ([data], [last, data[len(last) :]], [*every_byte(data[:2000]), data[2000:]]):
        protocol = Http1(b"request", KnownHeads())
        protocol.start(7)
        assert feed(protocol, pieces) == [Answer(7, 200, ErrorKind.NONE, 2)]
        assert protocol.closing is not keeps
        if keeps:
            protocol.start(8)
            assert feed(protocol, [data]) == [Answer(8, 200, ErrorKind.NONE, 2)]


BROKEN_HEADS: dict[str, bytes] = {
    "frames of HTTP/2": b"\x00\x00\x12\x04\x00\x00\x00\x00\x00",
    "an alert of TLS": b"\x15\x03\x01\x00\x02\x02\x46",
    "another protocol": b"SSH-2.0-OpenSSH_9.2\r\n",
    "HTTP/0.9": b"hello",
    "2 line ends before the first response": b"\r\n" + OK + b"content-length: 2\r\n\r\nok",
    "2.2 a bare CR": OK + b"x: a\rb\r\ncontent-length: 0\r\n\r\n",
    "2.2 white space before the first field": OK + b" x: y\r\ncontent-length: 0\r\n\r\n",
    "2.3 another major version": b"HTTP/2 200\r\n\r\n",
    "2.3 in lower case": b"http/1.1 200 OK\r\n\r\n",
    "4 a status of two digits": b"HTTP/1.1 20 OK\r\n\r\n",
    "4 a status below 100": b"HTTP/1.1 099 OK\r\n\r\n",
    "4 more than one space": b"HTTP/1.1  200 OK\r\n\r\n",
    "4 another": b"ICY 200 OK\r\n\r\n",
    "5 no colon": OK + b"no colon\r\n\r\n",
    "5 no name": OK + b": y\r\n\r\n",
    "5 a name that is no token": OK + b"x(y): z\r\n\r\n",
    "5 a NUL": OK + b"x: a\0b\r\n\r\n",
    "5.1 white space before the colon of framing": OK + b"content-length : 2\r\n\r\nok",
    "6.1 an unknown transfer coding": OK + b"transfer-encoding: identity\r\ncontent-length: 2\r\n\r\nok",
    "6.1 chunked twice": OK + b"transfer-encoding: chunked, chunked\r\n\r\n0\r\n\r\n",
    "6.3 a negative length": OK + b"content-length: -1\r\n\r\n",
    "6.3 a length with a sign": OK + b"content-length: +2\r\n\r\nok",
    "6.3 an empty length": OK + b"content-length:\r\n\r\n",
    "6.3 a length beyond all": OK + b"content-length: 9999999999999999999\r\n\r\n",
    "6.3 lengths that differ": OK + b"content-length: 2\r\ncontent-length: 3\r\n\r\nok",
    "7.8 an upgrade": b"HTTP/1.1 101 Switching Protocols\r\nupgrade: x\r\n\r\n",
    "a head without an end": OK + b"x: y\r\n" * (MAX_HEAD_BYTES // 6 + 1),
    "interim responses without end": b"HTTP/1.1 103 Early Hints\r\n\r\n" * (MAX_HEAD_BYTES // 26),
}


@pytest.mark.parametrize("name", BROKEN_HEADS)
def test_a_head_that_is_malformed_is_refused_at_once(name: str) -> None:
    """On a fresh connection that is the server's fault; on one that has answered before, the response's."""
    protocol = Http1(b"r", KnownHeads())
    protocol.start(1)
    with pytest.raises(WireError) as caught:
        feed(protocol, [BROKEN_HEADS[name]])
    assert caught.value.kind is ErrorKind.PROTOCOL
    if name.startswith("2 "):
        return  # line ends behind an earlier response are skipped
    protocol = Http1(b"r", KnownHeads())
    protocol.start(1)
    feed(protocol, [ANSWERS["empty"][0]])
    protocol.start(2)
    assert feed(protocol, [BROKEN_HEADS[name]]) == [Answer(2, 0, ErrorKind.PROTOCOL, 0)]
    assert (protocol.closing, len(protocol.reasons)) == (True, 1)


BROKEN_BODIES: dict[str, tuple[bytes, int]] = {
    "more than the length": (OK + b"content-length: 2\r\n\r\nokextra", 2),
    "a body with 204": (b"HTTP/1.1 204 No\r\ncontent-length: 2\r\n\r\nok", 0),
    "a body with 304": (b"HTTP/1.1 304 No\r\ncontent-length: 2\r\n\r\nok", 0),
    "no size": (CHUNKED + b"xyz\r\n", 0),
    "no size, and no line end": (CHUNKED + b"xyz", 0),
    "a signed size": (CHUNKED + b"-2\r\nok\r\n", 0),
    "a size in hexadecimal notation": (CHUNKED + b"0x2\r\nok\r\n", 0),
    "two sizes": (CHUNKED + b"2 2\r\nok\r\n", 0),
    "a size beyond all": (CHUNKED + b"1" * 17 + b"\r\n", 0),
    "a size line that ends with LF": (CHUNKED + b"2\nok\r\n0\r\n\r\n", 0),
    "a size line without an end": (CHUNKED + b"1;" + b"a" * 5000, 0),
    "a chunk longer than its size": (CHUNKED + b"2\r\nokXX0\r\n\r\n", 0),
    "more behind the last chunk": (CHUNKED + b"2\r\nok\r\n0\r\n\r\nextra", 2),
    "an LF behind the last chunk": (CHUNKED + b"2\r\nok\r\n0\r\n\n", 2),
    "trailers that are none": (CHUNKED + b"2\r\nok\r\n0\r\nno colon\r\n\r\n", 2),
    "trailers without an end": (CHUNKED + b"0\r\n" + b"x: y\r\n" * (MAX_HEAD_BYTES // 6 + 1), 0),
}


@pytest.mark.parametrize("name", BROKEN_BODIES)
def test_a_body_that_is_malformed_fails_its_request(name: str) -> None:
    data, size = BROKEN_BODIES[name]
    protocol = Http1(b"r", KnownHeads())
    protocol.start(1)
    status = int(data[9:12])
    assert feed(protocol, [data]) == [Answer(1, status, ErrorKind.PROTOCOL, size)]
    assert (protocol.closing, protocol.open_tags(), len(protocol.reasons)) == (True, [], 1)


CUTS = {
    "in the head": (OK + b"content-le", 0, 0),
    "in the body": (OK + b"content-length: 9\r\n\r\nok", 200, 2),
    "before the body": (OK + b"content-length: 9\r\n\r\n", 200, 0),
    "in a chunk": (CHUNKED + b"9\r\nok", 200, 2),
    "between chunks": (CHUNKED + b"2\r\nok\r\n", 200, 2),
    "before the end of the last chunk": (CHUNKED + b"2\r\nok\r\n0\r\n", 200, 2),
    "in the trailers": (CHUNKED + b"2\r\nok\r\n0\r\nx: y\r\n", 200, 2),
    "behind an interim response": (b"HTTP/1.1 100 Continue\r\n\r\n", 0, 0),
}


@pytest.mark.parametrize("name", CUTS)
def test_an_answer_that_the_connection_s_end_cuts_is_malformed(name: str) -> None:
    data, status, size = CUTS[name]
    for pieces in ([data], every_byte(data)):
        protocol = Http1(b"r", KnownHeads())
        protocol.start(1)
        assert feed(protocol, pieces) == []
        cut = [answer_of(done) for done in protocol.end_of_stream(9)]
        assert cut == [Answer(1, status, ErrorKind.PROTOCOL, size)]


def test_a_body_in_answer_to_head_is_malformed() -> None:
    protocol = Http1(b"r", KnownHeads(), is_head_method=True)
    protocol.start(1)
    assert feed(protocol, [ANSWERS["content-length"][0]]) == [Answer(1, 200, ErrorKind.PROTOCOL, 0)]


def test_a_coding_that_nobody_asked_for_lasts_until_the_end_if_the_server_says_so() -> None:
    """RFC 9112 section 6.3, case 4."""
    protocol = Http1(b"r", KnownHeads())
    protocol.start(1)
    assert feed(protocol, [OK + b"connection: close\r\ntransfer-encoding: gzip\r\n\r\nzip"]) == []
    assert [answer_of(done) for done in protocol.end_of_stream(9)] == [Answer(1, 200, ErrorKind.NONE, 3)]


def test_what_an_idle_connection_says_is_its_end() -> None:
    protocol = Http1(b"r", KnownHeads())
    protocol.start(1)
    feed(protocol, [ANSWERS["empty"][0], b"\r\n"])
    with pytest.raises(WireError) as caught:
        protocol.receive(b"HTTP/1.1 408 Request Time-out\r\n\r\n", 1)
    assert caught.value.kind is ErrorKind.RESET


@pytest.mark.parametrize(
    ("greeting", "protocol_name"),
    [(b"\0\0\x06\x04\0\0\0\0\0\0\3\0\0\0d", "HTTP/2"), (b"SSH-2.0-x\r\n", "SSH")],
)
@pytest.mark.parametrize("asked", [True, False])
def test_a_server_that_speaks_first_is_named(greeting: bytes, protocol_name: str, asked: bool) -> None:
    """Whether its greeting comes before the first request or after it."""
    protocol = Http1(b"r", KnownHeads())
    if asked:
        protocol.start(1)
    with pytest.raises(WireError, match=f"it speaks {protocol_name}$") as caught:
        protocol.receive(greeting, 1)
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
