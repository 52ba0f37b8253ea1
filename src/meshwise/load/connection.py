"""One connection of the engine: set-up in steps that never block, then a socket and a `WireProtocol`.

    CONNECTING -> (HANDSHAKE) -> WAITING (for the peer's SETTINGS) -> LIVE -> DEAD

A connection is never revived: its slot gets a new object, so that anything which still points to the
old one finds it dead.
"""

from __future__ import annotations

import contextlib
import os
import socket
import ssl
from collections.abc import Callable
from dataclasses import dataclass

from meshwise.load.spec import LoadSpec
from meshwise.load.transport import TlsStream, tcp_socket
from meshwise.load.wire.seam import CONNECTION_SHIFT, ErrorKind, WireProtocol
from meshwise.study.model import Protocol

CONNECTING, HANDSHAKE, WAITING, LIVE, DEAD = range(5)


class SetupError(Exception):
    """The connection could not be made; `kind` is connect or tls."""

    def __init__(self, kind: ErrorKind, what: str) -> None:
        super().__init__(what)
        self.kind = kind


@dataclass(frozen=True)
class Setup:
    """How long one set-up took. `at_ns` is when it began, CLOCK_MONOTONIC."""

    slot: int
    at_ns: int
    connect_ns: int
    tls_ns: int | None
    alpn: str | None
    tls_version: str | None


class Connection:
    """See the head of the file. `recv`, `send`, `seal`, `start`, `receive` are for the hot loop only."""

    def __init__(
        self,
        slot: int,
        spec: LoadSpec,
        protocol: WireProtocol,
        context: ssl.SSLContext | None,
        clock: Callable[[], int],
        retry_ns: int,
    ) -> None:
        """Begins to connect. `retry_ns` is how long its successor waits if this comes to nothing."""
        self.slot = slot
        self.bits = slot << CONNECTION_SHIFT
        self.protocol = protocol
        self.start = protocol.start
        self.receive = protocol.receive
        self.state = CONNECTING
        self.unsent = b""
        self.retry_ns = retry_ns
        self.replaced = False
        self.setup: Setup | None = None
        self._spec = spec
        self._context = context
        self._clock = clock
        self.began_ns = clock()
        self._connected_ns = 0
        try:
            self.sock = tcp_socket(spec)
        except OSError as error:
            raise SetupError(ErrorKind.CONNECT, str(error)) from error
        self.fd = self.sock.fileno()
        self._tls: TlsStream | None = None
        self.seal: Callable[[bytes], bytes] | None = None
        self.recv: Callable[[int], bytes] = self.sock.recv
        self.send: Callable[[bytes], int] = self.sock.send

    def advance(self, readable: bool) -> bool:
        """A step of the set-up after an event; True when the TCP and TLS part is done. Raises SetupError."""
        if self.state == CONNECTING:
            number = self.sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
            if number:
                raise SetupError(ErrorKind.CONNECT, os.strerror(number))
            self._connected_ns = self._clock()
            if self._context is None:
                return self._established(None)
            self._tls = TlsStream(
                self.sock, self._context, self._spec.tls.server_name if self._spec.tls else ""
            )
            self.state = HANDSHAKE
            readable = False
        tls = self._tls
        assert tls is not None
        try:
            done = tls.handshake(readable)
        except (OSError, EOFError, ValueError) as error:
            raise SetupError(ErrorKind.TLS, str(error)) from error
        return self._established(tls) if done else False

    def _established(self, tls: TlsStream | None) -> bool:
        now = self._clock()
        alpn = tls.alpn() if tls else None
        if tls and self._spec.protocol in (Protocol.HTTP2, Protocol.GRPC) and alpn != "h2":
            raise SetupError(ErrorKind.TLS, "the server did not choose h2 by ALPN")
        connect_ns = self._connected_ns - self.began_ns
        tls_ns = now - self._connected_ns if tls else None
        version = tls.version() if tls else None
        self.setup = Setup(self.slot, self.began_ns, connect_ns, tls_ns, alpn, version)
        self.state = WAITING
        if tls:
            self.recv, self.seal = tls.recv, tls.seal
        return True

    def take_early(self) -> bytes:
        """What the server sent together with the end of its handshake."""
        if self._tls is None:
            return b""
        try:
            return self._tls.take_decrypted()
        except BlockingIOError:
            return b""

    def transmit(self, data: bytes) -> None:
        """Sends, or keeps in `unsent` what the socket does not take. Raises OSError."""
        if self.seal is not None:
            data = self.seal(data)
        if self.unsent:
            self.unsent += data
            return
        try:
            sent = self.send(data)
        except BlockingIOError:
            sent = 0
        self.unsent = data[sent:]

    def transmit_rest(self) -> None:
        """After the socket became writable. Raises OSError."""
        with contextlib.suppress(BlockingIOError):
            self.unsent = self.unsent[self.send(self.unsent) :]

    def close(self) -> None:
        self.state = DEAD
        self.protocol.limit = 0
        self.protocol.closing = True  # a stale token finds that it may not start anything
        self.sock.close()
