"""A `RawLine` over a socket; used by every `Reach` that has sockets. Bounded in time and bytes."""

from __future__ import annotations

import socket
import ssl
import time
from contextlib import suppress
from typing import Self

from meshwise.load.wire.frames import FramingError
from meshwise.mesh.exchange import Connect, client_context
from meshwise.mesh.probe import TlsAs
from meshwise.mesh.protection.talk import (
    MOST_BYTES,
    End,
    Heard,
    HeardAnswer,
    Http2Heard,
    Say,
    Wire,
    http1_answers,
)


class SocketLine:
    """See `meshwise.mesh.protection.talk.RawLine`."""

    def __init__(self, connection: socket.socket | None, refused: str = "") -> None:
        self._connection = connection
        self._refused = refused
        self._http2 = Http2Heard()
        self._ended: End | None = None if connection else End.REFUSED

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        if self._connection is not None:
            self._connection.close()

    def talk(self, say: Say) -> Heard:
        if self._connection is None or self._ended is not None:
            return Heard((), self._ended or End.REFUSED, detail=self._refused)
        with suppress(OSError):  # it may have answered before it closed
            self._send(self._connection, say)
        return self._hear(self._connection, say)

    def _send(self, connection: socket.socket, say: Say) -> None:
        connection.settimeout(say.most_s)
        for number, piece in enumerate(say.pieces):
            if number:
                time.sleep(say.pause_s)
            connection.sendall(piece)

    def _hear(self, connection: socket.socket, say: Say) -> Heard:
        received, answers, detail = b"", list[HeardAnswer](), ""
        end, deadline = End.OPEN, time.monotonic() + say.most_s
        while len(received) < MOST_BYTES and (left := deadline - time.monotonic()) > 0:
            connection.settimeout(left)
            try:
                data = connection.recv(65536)
            except TimeoutError:
                break
            except (ConnectionError, ssl.SSLError) as error:
                end, detail = End.RESET, str(error)
                break
            if not data:
                end = End.CLOSED
                break
            received += data
            match say.wire:
                case Wire.HTTP1:
                    answers = list(http1_answers(received))
                case Wire.HTTP2:
                    try:
                        more, said, reply = self._http2.feed(data)
                    except FramingError as error:
                        end, detail = End.CLOSED, f"not HTTP/2: {error}"
                        break
                    answers, detail = answers + more, said or detail
                    with suppress(OSError):
                        connection.sendall(reply)
                    if said.startswith("RST_STREAM"):
                        break
                case Wire.BYTES:
                    answers = [HeardAnswer(0, (), len(received))]
            if len(answers) >= say.answers:
                break
        if end is not End.OPEN:
            self._ended = end
        return Heard(tuple(answers), end, received, detail)


def open_line(connect: Connect, tls: TlsAs | None) -> SocketLine:
    """Connects, and does the TLS handshake if there is to be one. Nothing that the peer does raises."""
    try:
        connection = connect()
    except OSError as error:
        return SocketLine(None, f"connect: {error}")
    if tls is None:
        return SocketLine(connection)
    try:
        secure = client_context(tls).wrap_socket(connection, server_hostname=tls.server_name)
        if tls.preface:
            secure.sendall(tls.preface)
    except OSError as error:
        connection.close()
        reason = error.reason if isinstance(error, ssl.SSLError) else None
        return SocketLine(None, f"TLS: {reason or error}")
    return SocketLine(secure)
