"""The framed echo over opaque TCP: answers at any cut, what is refused, and that both sides agree."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.support.wire import Answer, cut, feed

from meshwise.load.wire.seam import ErrorKind, WireError
from meshwise.load.wire.tcp import HEAD_BYTES, Tcp, answer_head, encode_request
from meshwise.service.tcp_server import ANSWERED_AT_ONCE_BYTES, MAX_PAYLOAD_BYTES, TcpServer, answer_of

places = st.lists(st.integers(0, 1 << 20), max_size=12)


def test_the_frames_are_as_documented() -> None:
    assert encode_request(b"abc", 5) == b"\0\0\0\3\0\0\0\5abc"
    assert answer_head(3, 5) == b"\0\0\0\5\0\0\0\3"


def test_the_first_byte_is_timed_and_not_the_last() -> None:
    protocol = Tcp(encode_request(b"", 10))
    protocol.start(1)
    data = answer_of(0, 10)
    assert protocol.receive(data[:3], 5) == ()
    ((tag, first_ns, _),) = protocol.receive(data[3:], 9)
    assert (tag, first_ns) == (1, 5)


WRONG: dict[str, bytes] = {
    "another length": answer_of(0, 11),
    "an answer to another request": answer_of(1, 10),
    "HTTP": b"HTTP/1.1 403 Forbidden\r\n\r\n",
    "a byte too many": answer_of(0, 10) + b"x",
    "a wrong byte in a short head": b"\0\0\1",
}


@pytest.mark.parametrize("name", WRONG)
@pytest.mark.parametrize("pieces", [lambda data: [data], lambda data: cut(data, [2, 9])])
def test_what_breaks_a_connection(name: str, pieces: Callable[[bytes], list[bytes]]) -> None:
    protocol = Tcp(encode_request(b"", 10))
    protocol.start(1)
    with pytest.raises(WireError) as caught:
        feed(protocol, pieces(WRONG[name]))
    assert caught.value.kind is ErrorKind.PROTOCOL


def test_bytes_without_a_request_break_it_too() -> None:
    with pytest.raises(WireError):
        Tcp(encode_request(b"", 0)).receive(answer_of(0, 0), 1)


# --- both sides -----------------------------------------------------------------------------------


@given(st.lists(st.tuples(st.integers(0, 300), st.integers(0, 300), places), min_size=1, max_size=6))
def test_client_and_server_understand_each_other(exchanges: list[tuple[int, int, list[int]]]) -> None:
    server = TcpServer()
    for tag, (request_bytes, response_bytes, cuts) in enumerate(exchanges):
        client = Tcp(encode_request(b"r" * request_bytes, response_bytes))
        out = b"".join(server.receive(piece) for piece in cut(client.start(tag), cuts))
        assert feed(client, cut(out, cuts)) == [Answer(tag, 0, ErrorKind.NONE, response_bytes)]
    assert server.idle
    assert server.waiting_bytes == 0


def test_a_pipeline_waits_while_enough_is_answered() -> None:
    server = TcpServer()
    size = ANSWERED_AT_ONCE_BYTES // 4
    out = server.receive(encode_request(b"ab", size) * 12)
    assert ANSWERED_AT_ONCE_BYTES < len(out) < 2 * ANSWERED_AT_ONCE_BYTES
    assert server.stalled
    while server.stalled:
        out += server.resume()
    assert out == answer_of(2, size) * 12


@pytest.mark.parametrize(
    "data",
    [
        b"GET /echo HTTP/1.1\r\n\r\n",
        bytes.fromhex("1603010200010001fc0303"),  # a TLS hello
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        (MAX_PAYLOAD_BYTES + 1).to_bytes(4, "big") + bytes(4),
        bytes(4) + (MAX_PAYLOAD_BYTES + 1).to_bytes(4, "big"),
    ],
)
def test_the_server_ends_what_is_not_its_protocol(data: bytes) -> None:
    server = TcpServer()
    assert server.receive(data) == b""
    assert server.closing
    assert server.receive(encode_request(b"", 1)) == b""


def test_the_server_drops_payload_as_it_comes() -> None:
    server = TcpServer()
    server.receive(MAX_PAYLOAD_BYTES.to_bytes(4, "big") + bytes(4))
    for _ in range(MAX_PAYLOAD_BYTES // (1 << 20) - 1):
        assert server.receive(bytes(1 << 20)) == b""
        assert server.waiting_bytes == 0
    assert server.receive(bytes(1 << 20)) == answer_of(MAX_PAYLOAD_BYTES, 0)


def test_the_end_of_a_server() -> None:
    server = TcpServer()
    server.receive(b"\0\0")
    server.eof()
    assert server.closing, "half a request is no reason to wait"
    other = TcpServer()
    assert other.shut_down() == b""
    assert other.closing


@given(st.lists(st.binary(max_size=HEAD_BYTES * 3), max_size=8))
def test_the_server_takes_any_noise(pieces: list[bytes]) -> None:
    server = TcpServer()
    for piece in pieces:
        server.receive(piece)
