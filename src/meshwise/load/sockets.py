"""The sockets of a pool's connections: which are open, what the poller watches, the TLS session to offer.

A socket that ends while events are at hand may still be meant by one of them, and its number would be given
to the next: `release` with `later` keeps it until `dispose`.
"""

from __future__ import annotations

import contextlib
import select
import socket
import ssl

from meshwise.load.connection import Connection
from meshwise.load.setups import SetupError
from meshwise.load.shared import Shared
from meshwise.load.spec import LoadSpec
from meshwise.load.wire.seam import ErrorKind

_IN, _OUT = select.EPOLLIN, select.EPOLLOUT


class Sockets:
    """Where the spec says `resume_tls`, new connections offer the session of an earlier one."""

    def __init__(self, shared: Shared, spec: LoadSpec) -> None:
        self.by_fd: dict[int, Connection] = {}
        self._of_all = shared.by_fd
        self._poller = shared.poller
        self._networks, self._network = shared.networks, spec.network
        self._resume_tls = spec.resume_tls
        self._session: ssl.SSLSession | None = None
        self._ended: list[socket.socket] = []

    def open(self, connection: Connection, address: str, number: int) -> None:
        """Begins to connect. Raises SetupError."""
        try:
            self._networks.enter(self._network)
        except OSError as error:
            raise SetupError(ErrorKind.CONNECT, str(error), error.errno) from error
        connection.open(address, number, self._session)
        self.by_fd[connection.fd] = self._of_all[connection.fd] = connection
        self._poller.register(connection.fd, _IN | _OUT)

    def watch(self, connection: Connection) -> None:
        """For what comes, and for room if something is still to be sent."""
        self._poller.modify(connection.fd, _IN | _OUT if connection.unsent else _IN)

    def release(self, connection: Connection, *, later: bool) -> None:
        """It is of no more use; its socket is closed, `later` by `dispose`."""
        if self.by_fd.pop(connection.fd, None) is None:
            connection.close()
            return
        del self._of_all[connection.fd]
        resumed = connection.setup is None or connection.setup.resumed
        if self._resume_tls and (self._session is None or not resumed):
            self._session = connection.session() or self._session
        self._poller.unregister(connection.fd)
        sock = connection.close()
        if sock is not None:
            self._ended.append(sock)
        if not later:
            self.dispose()

    def dispose(self) -> None:
        """Never while events are at hand."""
        for sock in self._ended:
            with contextlib.suppress(OSError):
                sock.close()
        self._ended.clear()

    def close(self) -> None:
        for connection in self.by_fd.values():
            connection.close()
            connection.sock.close()
            del self._of_all[connection.fd]
        self.by_fd.clear()
        self.dispose()
