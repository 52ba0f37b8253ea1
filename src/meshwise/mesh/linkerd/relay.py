"""Leads from a pod's loopback to the controllers' sockets: `python -I -S relay.py WAIT_S [PORT SOCKET]...`

A program of its own that imports nothing of meshwise and little of Python (about 9 MB and 15 ms), because
every pod has one. It passes bytes on and knows nothing about them. Two threads per connection, all blocked
while nothing happens; a proxy has three connections.

A port is listened on while its service is there, so that a proxy is refused by the kernel when it is not, as
by a Service without endpoints. Whether it is there is told by a connection of its own to `SOCKET.here`, which
ends with it. Before the service has been there for the first time connections are held instead, because a
proxy whose first Certify fails waits 10 s before the next.
"""

from __future__ import annotations

import contextlib
import socket
import sys
import threading
import time

_CHUNK_BYTES = 65536
_RETRY_S = 0.02
_HERE = ".here"


def _pump(source: socket.socket, sink: socket.socket) -> None:
    """Until either side ends; then end both, so that the other direction ends as well."""
    with contextlib.suppress(OSError):  # either side has gone; the next lines tell the other
        while data := source.recv(_CHUNK_BYTES):
            sink.sendall(data)
    for side in (source, sink):
        with contextlib.suppress(OSError):  # it is closed already
            side.shutdown(socket.SHUT_RDWR)


class _Service:
    """One service: its port here and its socket."""

    def __init__(self, port: int, path: str, patience_s: float) -> None:
        self._port, self._path, self._patience_s = port, path, patience_s
        self._there = threading.Event()

    def lead(self) -> None:
        """For ever."""
        listener: socket.socket | None = self._listen()
        while True:
            with self._presence() as presence:
                self._there.set()
                listener = listener or self._listen()
                with contextlib.suppress(OSError):
                    presence.recv(1)  # nothing is ever sent: it ends with the service
            self._there.clear()
            self._patience_s = 0.0
            with contextlib.suppress(OSError):
                listener.shutdown(socket.SHUT_RDWR)  # which wakes the thread that accepts
            listener.close()
            listener = None

    def _presence(self) -> socket.socket:
        presence = socket.socket(socket.AF_UNIX)
        while True:
            try:
                presence.connect(self._path + _HERE)
            except (FileNotFoundError, ConnectionRefusedError):
                time.sleep(_RETRY_S)
            else:
                return presence

    def _listen(self) -> socket.socket:
        """Accepts in a thread until the socket that is returned is shut down."""
        listener = socket.create_server(("127.0.0.1", self._port))

        def accept() -> None:
            with contextlib.suppress(OSError):  # shut down
                while True:
                    client, _ = listener.accept()
                    client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                    threading.Thread(target=self._serve, args=(client,), daemon=True).start()

        threading.Thread(target=accept, daemon=True).start()
        return listener

    def _serve(self, client: socket.socket) -> None:
        with client, socket.socket(socket.AF_UNIX) as controller:
            if not self._there.wait(self._patience_s):
                return
            try:
                controller.connect(self._path)
            except (FileNotFoundError, ConnectionRefusedError):  # it has gone this moment
                return
            back = threading.Thread(target=_pump, args=(controller, client), daemon=True)
            back.start()
            _pump(client, controller)
            back.join()


def main() -> None:
    patience_s, led = float(sys.argv[1]), sys.argv[2:]
    threads = [
        threading.Thread(target=_Service(int(port), path, patience_s).lead)
        for port, path in zip(led[::2], led[1::2], strict=True)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


if __name__ == "__main__":
    main()
