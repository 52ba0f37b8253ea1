"""Questions to a proxy over a kept connection: what happens when that has gone."""

from __future__ import annotations

import socket
import struct
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from meshwise.core import messages
from meshwise.core.errors import MeshwiseError
from meshwise.mesh.istio.admin import EnvoyAdmin
from meshwise.testbed.local.reach import LocalReach

_RESET = struct.pack("ii", 1, 0)


@contextmanager
def proxy(answers: list[int]) -> Iterator[tuple[EnvoyAdmin, list[str]]]:
    """A proxy whose n-th connection answers `answers[n]` questions and resets at the next one."""
    asked: list[str] = []
    listener = socket.create_server(("127.0.0.1", 0))

    def serve() -> None:
        for count in answers:
            connection, _ = listener.accept()
            with connection:
                for number in range(count + 1):
                    question = connection.recv(4096)
                    if not question:
                        break
                    asked.append(question.split()[1].decode())
                    if number < count:
                        connection.sendall(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok")
                    else:
                        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)

    thread = threading.Thread(target=serve)
    thread.start()
    address = listener.getsockname()
    try:
        with LocalReach(lambda pod, host, port: socket.create_connection(address, timeout=2)) as reach:
            yield EnvoyAdmin("node-1", reach), asked
    finally:
        listener.close()
        thread.join(5)
        assert not thread.is_alive()


def test_a_kept_connection_that_has_gone_is_dialled_anew() -> None:
    with proxy([1, 1]) as (admin, asked):
        assert admin.get("/first") == b"ok"
        assert admin.get("/second") == b"ok"
    assert asked == ["/first", "/second", "/second"]


def test_it_is_dialled_anew_once_only() -> None:
    with proxy([1, 0]) as (admin, asked):
        admin.get("/first")
        with pytest.raises(MeshwiseError) as refused:
            admin.get("/second")
    assert refused.value.code == messages.ADMIN_SILENT.code
    assert asked == ["/first", "/second", "/second"]


def test_a_fresh_connection_that_fails_is_an_error_at_once() -> None:
    with proxy([0]) as (admin, asked), pytest.raises(MeshwiseError):
        admin.get("/first")
    assert asked == ["/first"]
