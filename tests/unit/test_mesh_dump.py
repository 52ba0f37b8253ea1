"""What is kept of proxies after a failed trial: all of it that fits, and no secret."""

from __future__ import annotations

import socket
import threading

import pytest

from meshwise.mesh import dump
from meshwise.mesh.together import together
from meshwise.testbed.local.reach import LocalReach

TOKEN = "eyJhbGciOiJSUzI1NiJ9.eyJpc3MiOiJ4In0.c2lnbmF0dXJl"
KEY = "-----BEGIN PRIVATE KEY-----\\nMIIEvQIBADANBg\\n-----END PRIVATE KEY-----"


@pytest.mark.parametrize(
    ("text", "gone", "left"),
    [
        (f'"authorization": "Bearer {TOKEN}"', TOKEN, '"authorization": "'),
        (f"a {TOKEN} b", TOKEN, "a [redacted] b"),
        ('{"authorization":"bearer abc123"}', "abc123", "[redacted]"),
        (f'{{"inline_string":"{KEY}"}}', "MIIEvQIBADANBg", '{"inline_string":"[redacted]"}'),
        ("postgresql://bank:hunter2@10.0.0.1:5432/bank", "hunter2", "bank:[redacted]@10.0.0.1:5432/bank"),
        ("http://node-1:8080/echo", "nothing", "http://node-1:8080/echo"),
    ],
)
def test_secrets_are_blotted_out(text: str, gone: str, left: str) -> None:
    found = dump.readable(text)
    assert gone not in found
    assert left in found


def test_what_is_too_long_is_cut_and_says_so() -> None:
    found = dump.readable("x" * (dump.MOST_BYTES + 10))
    assert len(found) < dump.MOST_BYTES + 100
    assert "10 characters more" in found


def test_a_silent_proxy_is_a_file_that_says_so() -> None:
    listener = socket.create_server(("127.0.0.1", 0))

    def serve() -> None:
        connection, _ = listener.accept()
        with connection:
            connection.recv(65536)
            connection.sendall(b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nhello")

    thread = threading.Thread(target=serve)
    thread.start()

    def dial(pod: str, address: str, port: int) -> socket.socket:
        if pod == "gone":
            raise ConnectionRefusedError("nobody there")
        return socket.create_connection(listener.getsockname())

    with listener:
        with LocalReach(dial) as reach:
            found = dump.ask_all(reach, 1, ["here", "gone"], {"state.txt": "/x"})
        thread.join()
    assert found["here.state.txt"] == "hello"
    assert "nobody there" in found["gone.state.txt"]


def test_together_keeps_the_order_and_raises_the_first_error() -> None:
    assert together(lambda number: number * 2, range(40)) == [number * 2 for number in range(40)]

    def fail(number: int) -> int:
        if number in (3, 7):
            raise ValueError(str(number))
        return number

    with pytest.raises(ValueError, match="3"):
        together(fail, range(10))
